"""OpenVINO's own format, and its 8-bit integers by post-training quantization (NNCF)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from pointrend.export.verify import Check
from pointrend.io import atomic_write
from pointrend.preprocessing import Preprocessing, resize_array, resized_size
from pointrend.runtime.model import to_pixels
from pointrend.runtime.sessions import FORMAT

if TYPE_CHECKING:
    from openvino import Model, Node


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


def _quantize(model: Model, preprocessing: Preprocessing, images: Sequence[str | Path]) -> Model:
    """Convolutions and large layers in 8 bits; products at points, and what chooses them, stay in float."""
    import nncf

    nncf.set_log_level(logging.ERROR)  # it names every layer that stays in float

    def arrays(path: str | Path) -> dict[str, np.ndarray]:
        image = to_pixels(path)
        size = resized_size(image.shape[0], image.shape[1], preprocessing)
        planes = np.ascontiguousarray(resize_array(image, size, preprocessing.resize).transpose(2, 0, 1))
        given = {"image": planes}
        if any("size" in one.get_names() for one in model.inputs):
            given["size"] = np.array(image.shape[:2], dtype=np.int64)
        return given

    return nncf.quantize(
        model,
        nncf.Dataset(list(images), arrays),
        ignored_scope=nncf.IgnoredScope(names=_kept_in_float(model), validate=False),
        subset_size=len(images),
    )


def _kept_in_float(model: Model) -> list[str]:
    """Every operator that no convolution of the whole image depends on, but the largest layers on boxes.

    Boxes and the positions of points, with 256 values of each coordinate, would be off by pixels.
    """
    network: set[str] = set()
    waiting = [node for node in model.get_ops() if _sees_image(node)]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in network:
            network.add(node.get_friendly_name())
            waiting += [node.input_value(place).get_node() for place in range(node.get_input_size())]
    return [
        node.get_friendly_name()
        for node in model.get_ops()
        if not _large_layer(node)
        and (node.get_friendly_name() not in network or node.get_type_name() == "MatMul")
    ]


def _large_layer(node: Node) -> bool:
    """The first fully connected layer on a box's features: 12,544 inputs in R50-FPN, where later ones have 1,024."""
    if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    features = list(node.get_input_partial_shape(0))[-1]
    return bool(features.is_static and features.get_length() > 1024)


def _sees_image(node: Node) -> bool:
    """A convolution over two axes, of the only image rather than of any number of boxes."""
    if node.get_type_name() not in ("Convolution", "GroupConvolution"):
        return False
    shape = node.get_output_partial_shape(0)
    return len(shape) == 4 and shape[0] == 1
