"""The runtime does without torch, and says what is wrong with a file or an image."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend import runtime
from pointrend.models.paste_masks import paste_inside
from pointrend.runtime.model import paste, to_pixels


def test_the_runtime_imports_no_torch() -> None:
    script = "import pointrend.runtime, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    "box",
    [
        (10.3, 4.2, 50.9, 33.3),
        (-20.0, -7.5, 30.2, 90.0),
        (0.0, 0.0, 64.0, 48.0),
        (31.7, 20.1, 31.9, 20.2),
        (60.0, 40.0, 300.0, 200.0),
        (70.0, 60.0, 90.0, 80.0),
    ],
)
@pytest.mark.parametrize("side", [1, 7, 28, 57])
def test_masks_are_pasted_as_by_the_models(box, side) -> None:
    mask = torch.rand(side, side)
    expected, offset = paste_inside(mask, torch.tensor(box), (48, 64), 0.5)
    window, found = paste(mask.numpy(), np.array(box, np.float32), (48, 64))
    assert found == offset
    assert window.shape == tuple(expected.shape)
    assert (window == expected.numpy()).mean() >= 0.999 if window.size else True


def test_images_come_in_several_forms(tmp_path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    for form in (pixels, Image.fromarray(pixels), tmp_path / "one.png", str(tmp_path / "one.png")):
        assert np.array_equal(to_pixels(form), pixels)
    for wrong in (pixels[..., 0], pixels.astype(float), pixels[:0], 3, None):
        with pytest.raises(ValueError, match="image: expected"):
            to_pixels(wrong)
    with pytest.raises(ValueError, match="no such file"):
        to_pixels(tmp_path / "none.png")


def test_other_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"ends in .onnx or .xml"):
        runtime.load(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match="pointrend export MODEL"):
        runtime.load(tmp_path / "model.onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"\0" * 99)
    with pytest.raises(ValueError, match="not a readable ONNX file"):
        runtime.load(tmp_path / "model.onnx")


def test_an_onnx_file_of_another_program_is_refused(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [result])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="not written by `pointrend export`"):
        runtime.load(tmp_path / "model.onnx")
