"""What the page is sent says what was computed, and is text and images only."""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from pointrend.app.instance_session import InstanceSession
from pointrend.app.types import Rendering, Settings
from pointrend.app.views import (
    NOTHING,
    draw_panels,
    hover_map,
    legend,
    numbers,
    summary,
    view,
)
from pointrend.models.instance import InstanceSegmenter
from pointrend.results import InstanceResult, SemanticResult


def plane(hover: dict[str, Any], name: str) -> np.ndarray[Any, Any]:
    content = np.frombuffer(zlib.decompress(base64.b64decode(hover[name])), dtype=np.uint8)
    return content.reshape(hover["height"], hover["width"])


def test_hovering_a_pixel_tells_its_class_and_probability(labels: Rendering) -> None:
    hover = hover_map(labels)
    assert isinstance(labels.result, SemanticResult)
    assert labels.probability is not None
    index, probability = plane(hover, "index"), plane(hover, "probability")
    for y, x in [(0, 0), (44, 80), (89, 156)]:
        shown = hover["regions"][index[y, x]]["name"]
        assert shown == labels.result.class_names[int(labels.result.labels[y, x])]
        assert probability[y, x] / 255 == pytest.approx(float(labels.probability[y, x]), abs=0.5 / 255)


def test_hovering_an_object_tells_the_best_one_there(objects: Rendering) -> None:
    hover = hover_map(objects)
    result = objects.result
    assert isinstance(result, InstanceResult)
    assert hover["probability"] is None
    index, dense = plane(hover, "index"), result.masks.dense().numpy()
    assert ((index == NOTHING) == ~dense.any(0)).all()
    y, x = np.argwhere(dense.sum(0) > 1)[
        0
    ]  # objects overlap there: they are sorted, the first one is the best
    best = int(dense[:, y, x].argmax())
    assert index[y, x] == best
    assert hover["regions"][best]["score"] == pytest.approx(float(result.scores[best]), abs=1e-4)


@pytest.mark.parametrize("kind", ["labels", "objects"])
def test_everything_for_the_page_is_json_and_the_panels_have_the_images_size(
    kind: str, request: pytest.FixtureRequest
) -> None:
    rendering = request.getfixturevalue(kind)
    content = json.loads(json.dumps(view(rendering), allow_nan=False))
    assert [panel["name"] for panel in content["panels"]] == [
        "PointRend",
        "Coarse",
        "Points",
        "Uncertainty",
    ]
    for panel in content["panels"]:
        head, _, data = panel["source"].partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (157, 90)


def test_numbers_say_share_and_sizes(labels: Rendering) -> None:
    shown = {item["label"]: item for item in numbers(labels)}
    assert shown["Cells computed"]["value"] == f"{labels.share:.1%}"
    rows, columns = labels.grid
    assert shown["Output"]["value"] == f"{columns} × {rows}"
    assert f"{labels.computed:,} points for {rows * columns:,} cells" == shown["Cells computed"]["note"]


def test_the_legend_counts_objects_and_the_summary_can_be_read_aloud(objects: Rendering) -> None:
    result = objects.result
    counts = [int(item["name"].split(" ")[0]) for item in legend(result)]
    assert sum(counts) == len(result)  # type: ignore[arg-type]
    assert summary(result).startswith("Found: ")


def test_nothing_found_is_said(instances: InstanceSegmenter, image: Tensor) -> None:
    rendering = InstanceSession(instances, image).render(Settings(28, 98, 1.1))
    content = view(rendering)
    assert content["legend"] == []
    assert content["summary"].startswith("Nothing was found")
    assert draw_panels(rendering)["Points"].max() <= 0.35 * 255 + 1
