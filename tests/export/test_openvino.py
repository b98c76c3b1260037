"""OpenVINO's files give what the models give; in 8 bits nearly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointrend import runtime
from pointrend.export import describe
from pointrend.export.graphs import build_graph
from pointrend.export.verify import CHECKED_SIZES, Check
from pointrend.samples import SAMPLES

PHOTOGRAPHS = [sample.image for sample in SAMPLES.values()]
openvino = pytest.importorskip(
    "openvino", reason="openvino is not installed: pip install 'pointrend[openvino]'"
)


def write(model, onnx, to, **options):
    from pointrend.export.openvino_file import write_openvino

    check = Check(build_graph(model, logits=False, num_points=None), CHECKED_SIZES)
    write_openvino(onnx, to, describe(model, None, False), check=check, **options)
    return runtime.load(to)


def test_a_semantic_file(semantic, semantic_file, tmp_path) -> None:
    model = write(semantic, semantic_file, tmp_path / "model.xml")
    expected = runtime.load(semantic_file)
    assert model.metadata == expected.metadata
    for photograph in PHOTOGRAPHS:
        assert (model.predict(photograph) == expected.predict(photograph)).mean() >= 0.9999


def test_an_instance_file(instance, instance_file, tmp_path) -> None:
    model, expected = write(instance, instance_file, tmp_path / "model.xml"), runtime.load(instance_file)
    for photograph in PHOTOGRAPHS:
        found, wanted = model.predict(photograph), expected.predict(photograph)
        assert found["labels"].tolist() == wanted["labels"].tolist()
        assert np.abs(found["boxes"] - wanted["boxes"]).max(initial=0) <= 1e-3
        assert (found["masks"] == wanted["masks"]).mean() >= 0.9999 if len(found["masks"]) else True


def test_a_damaged_file_is_refused(tmp_path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(ValueError, match="not a readable OpenVINO model"):
        runtime.load(tmp_path / "model.xml")


def read_in_8_bits(path: Path) -> list[Any]:
    """The operators of a file that take values of 8 bits."""
    operators = openvino.Core().read_model(path).get_ops()
    return [
        node
        for node in operators
        if any(
            node.input_value(place).get_node().get_type_name() == "FakeQuantize"
            for place in range(node.get_input_size())
        )
    ]


def is_list_of_points(node: Any) -> bool:
    shape = node.get_output_partial_shape(0)
    return len(shape) > 1 and shape[len(shape) - 1] == 2


@pytest.mark.slow
def test_eight_bits_of_an_instance_model(instance, instance_file, tmp_path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'pointrend[openvino]'")
    model = write(instance, instance_file, tmp_path / "model.xml", calibrate_by=PHOTOGRAPHS)
    in_8_bits = read_in_8_bits(tmp_path / "model.xml")
    assert "Convolution" in {node.get_type_name() for node in in_8_bits}
    of_boxes = [node for node in in_8_bits if node.get_output_partial_shape(0)[0].is_dynamic]
    # The first layers on the pooled features alone: neither coordinates, nor positions of points, nor point heads.
    assert {node.get_type_name() for node in of_boxes} == {"MatMul"}
    assert all(list(node.get_input_partial_shape(0))[-1].get_length() > 1024 for node in of_boxes)
    for photograph in PHOTOGRAPHS:
        found, expected = model.predict(photograph), runtime.load(instance_file).predict(photograph)
        if len(expected["labels"]):
            assert expected["labels"][0] in found["labels"]


@pytest.mark.slow
def test_eight_bits(semantic, semantic_file, tmp_path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'pointrend[openvino]'")
    write(semantic, semantic_file, tmp_path / "float.xml")
    model = write(semantic, semantic_file, tmp_path / "model.xml", calibrate_by=PHOTOGRAPHS)
    assert (tmp_path / "model.bin").stat().st_size < 0.5 * (tmp_path / "float.bin").stat().st_size
    positions = [node for node in read_in_8_bits(tmp_path / "model.xml") if is_list_of_points(node)]
    assert not positions
    same = [(model.predict(p) == runtime.load(semantic_file).predict(p)).mean() for p in PHOTOGRAPHS]
    assert np.mean(same) >= 0.9
