"""Exported files give what the models give, and no file is kept that does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pointrend import runtime
from pointrend.cli import main
from pointrend.data.image_io import read_image
from pointrend.export import describe, export, verify
from pointrend.export.verify import difference_of_maps, difference_of_objects
from pointrend.predict import Predictor
from pointrend.samples import SAMPLES
from pointrend.zoo import load

PHOTOGRAPHS = [sample.image for sample in SAMPLES.values()]


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_a_semantic_file_gives_the_label_map_of_the_model(semantic, semantic_file, photograph) -> None:
    labels = runtime.load(semantic_file).predict(photograph)
    expected = Predictor(semantic, device="cpu")(photograph).numpy()
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert (labels == expected).mean() >= 0.9999


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_an_instance_file_gives_the_objects_of_the_model(instance, instance_file, photograph) -> None:
    found = runtime.load(instance_file).predict(photograph)
    expected = Predictor(instance, device="cpu")(photograph).numpy()
    assert found["labels"].tolist() == expected["labels"].tolist()
    assert np.abs(found["boxes"] - expected["boxes"]).max(initial=0) <= 1e-3
    assert np.abs(found["scores"] - expected["scores"]).max(initial=0) <= 1e-5
    both = (found["masks"] & expected["masks"]).sum()
    assert both >= 0.9999 * (found["masks"] | expected["masks"]).sum()


def test_photographs_hold_no_one_and_several_objects(instance_file) -> None:
    model = runtime.load(instance_file)
    assert {min(len(model.predict(path)["labels"]), 2) for path in PHOTOGRAPHS} == {0, 1, 2}


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (33, 7), (97, 250)])
def test_any_size_will_do(semantic, semantic_file, instance_file, size) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    labels = runtime.load(semantic_file).predict(image)
    expected = Predictor(semantic, device="cpu")(image).numpy()
    assert (labels == expected).mean() >= 0.999
    assert runtime.load(instance_file).predict(image)["masks"].shape[1:] == size


def test_a_file_says_what_it_is(semantic, semantic_file) -> None:
    model = runtime.load(semantic_file)
    assert model.class_names == semantic.config.class_names
    assert model.palette == semantic.config.palette
    assert model.preprocessing == semantic.config.preprocessing
    held = describe(semantic, None, False)
    assert {"task", "version", "licence", "size", "preprocessing"} <= held.keys() <= model.metadata.keys()
    assert json.loads(model.metadata["preprocessing"])["divisor"] == 32


def test_predict_and_eval_take_a_file(semantic, semantic_file, tmp_path: Path) -> None:
    for name, model in (("file", str(semantic_file)), ("model", "shapes-semantic")):
        out = str(tmp_path / name)
        assert main(["predict", str(PHOTOGRAPHS[0]), "--model", model, "--out", out, "--no-overlays"]) == 0
    written, expected = (read_image(next((tmp_path / name).rglob("*.png"))) for name in ("file", "model"))
    assert (written == expected).float().mean() >= 0.9999


def test_a_file_is_no_checkpoint(semantic_file, capsys) -> None:
    with pytest.raises(ValueError, match="optimize: expected a checkpoint"):
        load(semantic_file).optimize()
    assert main(["explain", str(PHOTOGRAPHS[0]), "--model", str(semantic_file)]) == 2
    assert "expected a checkpoint" in capsys.readouterr().err


def test_a_file_that_gives_something_else_is_not_kept(exporting, semantic, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(verify, "photograph", lambda size: torch.zeros(3, *size, dtype=torch.uint8))
    monkeypatch.setattr("pointrend.export.EXACT", verify.Tolerance(labels_equal=1.1))
    with pytest.raises(ValueError, match=r"at 96x128 pixels .* differ from the model's; no file was kept"):
        exporting(semantic, tmp_path / "model.onnx", size=(96, 128))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.pb", {}, "ends in .onnx, .xml, .pt2"),
        ("model.onnx", {"int8": ["photo.jpg"]}, r"int8: expected a name that ends in .xml"),
        ("model.pt2", {"half": True}, r"half: expected a name that ends in .onnx or .xml"),
        ("model.pt2", {"size": (0, 3)}, r"size: expected rows and columns, at least 1 each, got \(0, 3\)"),
        ("model.pt2", {"size": (32,)}, "size: expected rows and columns"),
        ("model.pt2", {"num_points": 10}, "points: expected a semantic model"),
    ],
)
def test_options_that_do_not_go_together_are_refused(instance, tmp_path, name, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        export(instance, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_half_the_file_gives_nearly_the_same(exporting, instance, instance_file, tmp_path) -> None:
    half = exporting(instance, tmp_path / "half.onnx", half=True)
    assert half.stat().st_size < 0.7 * instance_file.stat().st_size
    for photograph in PHOTOGRAPHS:
        found, expected = (runtime.load(path).predict(photograph) for path in (half, instance_file))
        assert found["labels"].tolist() == expected["labels"].tolist()
        assert np.abs(found["boxes"] - expected["boxes"]).max(initial=0) <= 0.5


def test_a_model_in_half_precision_is_refused(semantic, tmp_path) -> None:
    with pytest.raises(ValueError, match="expected a float32 model"):
        export(semantic.optimize("bfloat16"), tmp_path / "model.pt2")


def test_missing_packages_are_named_before_the_work(semantic, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pointrend.export.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'pointrend\[export\]'"
    ):
        export(semantic, tmp_path / "model.onnx")
    with pytest.raises(ImportError, match=r"openvino, nncf: pip install 'pointrend\[openvino\]'"):
        export(semantic, tmp_path / "model.xml", int8=["photo.jpg"])


def test_an_exported_file_is_not_exported_again(semantic_file, tmp_path) -> None:
    with pytest.raises(ValueError, match="name the checkpoint"):
        export(load(semantic_file), tmp_path / "model.pt2")


def test_a_network_that_cannot_be_followed_is_said_in_one_line() -> None:
    from pointrend.export.onnx_file import trace_any

    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(ValueError, match=r"export: the model cannot be traced by torch .*\)$"):
        trace_any(Branching(), (torch.ones(2),), None)


def test_what_a_file_does_otherwise_is_said(tmp_path, monkeypatch, capsys) -> None:
    def write(model, to, **options):
        to.write_bytes(b"")
        return to

    monkeypatch.setattr("pointrend.export.export", write)
    command = ["export", "photo-semantic", "--to", str(tmp_path / "model.onnx")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "TensorRT's TopK takes at most 3840 values" in said
    assert "the file interpolates labels" in said
    assert main([*command, "--points", "2048"]) == 0
    assert "TensorRT" not in capsys.readouterr().out


@pytest.mark.parametrize("size", ["512", "0x3", "ax4", "3x4x5"])
def test_a_size_is_two_numbers(size, capsys) -> None:
    assert main(["export", "shapes-semantic", "--size", size]) == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


def test_label_maps_differ_by_more_than_ties() -> None:
    labels = np.zeros((40, 50), np.uint8)
    other = labels.copy()
    other[0, 0] = 1
    assert difference_of_maps(labels, other) == ""
    other[0] = 1
    assert difference_of_maps(labels, other) == "2.50% of the file's answers differ from the model's"
    assert "gives (3, 3)" in difference_of_maps(labels, np.zeros((3, 3), np.uint8))


def test_objects_differ_by_more_than_rounding() -> None:
    objects = [
        np.array([[0, 0, 9, 9], [5, 5, 20, 30]], np.float32),
        np.array([1, 0]),
        np.array([0.9, 0.4], np.float32),
        np.zeros((2, 28, 28), np.float32),
    ]
    nothing = [part[:0] for part in objects]
    assert difference_of_objects(objects, [part[::-1] for part in objects]) == ""
    assert difference_of_objects(nothing, nothing) == ""
    for moved in (
        [objects[0] + 1, *objects[1:]],
        [objects[0], 1 - objects[1], *objects[2:]],
        [*objects[:2], objects[2] - 0.1, objects[3]],
        nothing,
    ):
        assert "is in one only" in difference_of_objects(objects, moved)
    assert "mask" in difference_of_objects(objects, [*objects[:3], objects[3] + 1])
