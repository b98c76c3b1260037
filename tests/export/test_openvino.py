"""OpenVINO's files give what the models give; in 8 bits nearly."""

from __future__ import annotations

import numpy as np
import pytest

from pointrend import runtime
from pointrend.export import describe
from pointrend.export.graphs import build_graph
from pointrend.export.verify import CHECKED_SIZES, Check
from pointrend.samples import SAMPLES

PHOTOGRAPHS = [sample.image for sample in SAMPLES.values()]
pytest.importorskip("openvino", reason="openvino is not installed: pip install 'pointrend[openvino]'")


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


@pytest.mark.slow
def test_eight_bits(semantic, semantic_file, tmp_path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'pointrend[openvino]'")
    write(semantic, semantic_file, tmp_path / "float.xml")
    model = write(semantic, semantic_file, tmp_path / "model.xml", calibrate_by=PHOTOGRAPHS)
    assert (tmp_path / "model.bin").stat().st_size < 0.5 * (tmp_path / "float.bin").stat().st_size
    same = [(model.predict(p) == runtime.load(semantic_file).predict(p)).mean() for p in PHOTOGRAPHS]
    assert np.mean(same) >= 0.9
