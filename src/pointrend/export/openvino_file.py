"""OpenVINO's own format, and its 8-bit integers by post-training quantization (NNCF)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pointrend.export.verify import Check
from pointrend.io import atomic_write
from pointrend.preprocessing import Preprocessing, resize_array, resized_size
from pointrend.runtime.model import to_pixels
from pointrend.runtime.sessions import FORMAT


def write_openvino(
    onnx: Path,
    to: Path,
    metadata: Mapping[str, Any],
    *,
    calibrate_by: Sequence[str | Path] = (),
    half: bool = False,
    check: Check,
) -> None:
    """An ONNX file as `to` (.xml) and .bin beside it, weights as float16 if `half`; checked unless it is in 8 bits.

    Raises:
        ValueError: its answers differ from the model's.
    """
    import openvino

    model = openvino.convert_model(onnx)
    if calibrate_by:
        model = _quantize(model, Preprocessing(**metadata["preprocessing"]), calibrate_by)
    for name, value in metadata.items():
        model.set_rt_info(value if isinstance(value, str) else json.dumps(value), [FORMAT, name])
    with TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, xml, compress_to_fp16=half)
        if not calibrate_by:
            check.file(xml, ".xml")
        for part, target in ((xml.with_suffix(".bin"), to.with_suffix(".bin")), (xml, to)):
            with atomic_write(target) as unfinished:
                unfinished.write_bytes(part.read_bytes())


def _quantize(model: Any, preprocessing: Preprocessing, images: Sequence[str | Path]) -> Any:
    """Convolutions of the network in 8 bits; products at points, and what chooses them, stay as they are."""
    import nncf

    def arrays(path: str | Path) -> dict[str, Any]:
        image = to_pixels(path)
        size = resized_size(image.shape[0], image.shape[1], preprocessing)
        planes = np.ascontiguousarray(resize_array(image, size, preprocessing.resize).transpose(2, 0, 1))
        given: dict[str, Any] = {"image": planes}
        if any("size" in one.get_names() for one in model.inputs):
            given["size"] = np.array(image.shape[:2], dtype=np.int64)
        return given

    points = [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() in ("Convolution", "MatMul") and _sees_points(node)
    ]
    return nncf.quantize(
        model,
        nncf.Dataset(list(images), arrays),
        ignored_scope=nncf.IgnoredScope(names=points, validate=False),
        subset_size=len(images),
    )


def _sees_points(node: Any) -> bool:
    """A convolution over a list of points (one axis), or a product of matrices: heads on boxes and points."""
    return node.get_type_name() == "MatMul" or len(node.get_output_partial_shape(0)) == 3
