"""What the page shows of a rendering: four images, what lies under the pointer, and a few numbers.

Everything returned is JSON: images as data URIs, so that the server keeps no files and serves none.
"""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend.app.types import Rendering
from pointrend.results import InstanceResult, Result, SemanticResult
from pointrend.structures import class_name
from pointrend.visualize import as_image, draw, draw_uncertainty
from pointrend.visualize.colors import RGBImage, css_color
from pointrend.visualize.overlays import class_legend, present_classes
from pointrend.visualize.points import draw_dots

NOTHING = 255
"""In the hover map: no object here."""


def view(rendering: Rendering) -> dict[str, object]:
    """Everything the page needs: "panels", "hover", "legend", "numbers", "summary"."""
    return {
        "panels": [
            {"name": name, "source": data_uri(image)} for name, image in draw_panels(rendering).items()
        ],
        "hover": hover_map(rendering),
        "legend": legend(rendering.result),
        "numbers": numbers(rendering),
        "summary": summary(rendering.result),
    }


def draw_panels(rendering: Rendering) -> dict[str, RGBImage]:
    """Title -> image (H, W, 3): the mask first."""
    dots = [
        (step.points.numpy(), np.clip(0.32 * step.cells.numpy(), 0.5, 6.0).round(1))
        for step in rendering.steps
    ]
    return {
        "PointRend": draw(rendering.image, rendering.result),
        "Coarse": draw(rendering.image, rendering.coarse, captions=False),
        "Points": draw_dots(as_image(rendering.image), dots),
        "Uncertainty": draw_uncertainty(rendering.image, rendering.uncertainty),
    }


def hover_map(rendering: Rendering) -> dict[str, object]:
    """What to say at each pixel.

    "regions" has the name and (instances) the score of each region; "index" the region of every pixel, row by row, one
    byte each, 255 for none; "probability" (semantic) a byte for the probability, 255 for 1. Both deflated, in base64.
    """
    result = rendering.result
    height, width = rendering.image.shape[1:]
    probability = None
    if isinstance(result, SemanticResult):
        present = present_classes(result)[:NOTHING]
        table = np.full(max(present, default=0) + 1, NOTHING, dtype=np.uint8)
        table[present] = np.arange(len(present))
        labels = result.labels.numpy()
        index = np.where(labels < len(table), table[np.minimum(labels, len(table) - 1)], NOTHING)
        regions: list[dict[str, object]] = [
            {"name": class_name(result.class_names, label)} for label in present
        ]
        assert rendering.probability is not None
        probability = packed(np.rint(rendering.probability.numpy() * 255))
    else:
        index = object_index(result, nothing=NOTHING, most=NOTHING)
        regions = [
            {"name": class_name(result.class_names, label), "score": round(score, 4)}
            for label, score in zip(result.labels.tolist()[:NOTHING], result.scores.tolist(), strict=False)
        ]
    return {
        "width": width,
        "height": height,
        "regions": regions,
        "index": packed(index),
        "probability": probability,
    }


def object_index(result: InstanceResult, *, nothing: int, most: int) -> npt.NDArray[np.int64]:
    """(H, W): the number of the best of the first `most` objects whose mask covers the pixel, or `nothing`."""
    index = np.full(result.masks.image_size, nothing, dtype=np.int64)
    for number in reversed(range(min(len(result), most))):
        window = result.masks.windows[number].numpy() != 0
        x, y = result.masks.offsets[number].tolist()
        index[y : y + window.shape[0], x : x + window.shape[1]][window] = number
    return index


def legend(result: Result) -> list[dict[str, str]]:
    """Name and colour ("#rrggbb") of each class found; for instances with their number."""
    names, colors = class_legend(result)
    if isinstance(result, InstanceResult):
        counts = [int((result.labels == label).sum()) for label in present_classes(result)]
        names = [f"{count} × {name}" for count, name in zip(counts, names, strict=True)]
    return [{"name": n, "color": css_color(color)} for n, color in zip(names, colors, strict=True)]


def numbers(rendering: Rendering) -> list[dict[str, str]]:
    """Label and value of what changes with the sliders."""
    rows, columns = rendering.grid
    each = "" if isinstance(rendering.result, SemanticResult) else " for each object"
    cells = f"{rendering.computed:,} points for {rows * columns:,} cells{each}"
    return [
        {"label": "Cells computed", "value": f"{rendering.share:.1%}", "note": cells},
        {
            "label": "Output",
            "value": f"{columns} × {rows}",
            "note": f"cells, {len(rendering.steps)} steps",
        },
        {"label": "Subdivision", "value": milliseconds(rendering.seconds), "note": "at each slide"},
        {"label": "Network", "value": milliseconds(rendering.feature_seconds), "note": "once an image"},
    ]


def summary(result: Result) -> str:
    """One sentence for those who cannot see the image."""
    found = ", ".join(str(item["name"]) for item in legend(result))
    return f"Found: {found}." if found else "Nothing was found. A lower minimum score may show more."


def milliseconds(seconds: float) -> str:
    """A duration to be read at a glance."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def packed(values: np.ndarray) -> str:
    """Numbers 0..255 as bytes, deflated (zlib), in base64."""
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 1)).decode("ascii")


def data_uri(image: RGBImage, quality: int = 88) -> str:
    """An image (H, W, 3) as JPEG in a data URI, its colours at full resolution."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image, quality)).decode("ascii")


def jpeg(image: RGBImage, quality: int = 88) -> bytes:
    """An image (H, W, 3) as a JPEG file, its colours at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
