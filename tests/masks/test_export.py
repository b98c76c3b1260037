"""What other programs are given holds the same masks, and comes back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pointrend.formats.labelme import from_labelme
from pointrend.masks.export import as_objects, label_map
from pointrend.masks.polygons import area, fill, keyholed, mask_polygons, simplify
from pointrend.masks.rle import compress, decode_window, decompress
from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks
from tests.masks.readers import read_geojson


def masks(height: int = 40, width: int = 53) -> torch.Tensor:
    """A disc, a ring with an island in its hole, noise, one pixel, pixels that touch at corners, all, nothing."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    radius = torch.hypot(x - width / 2.3, y - height / 2.1)
    noise = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < 0.5
    pixel = (x == width // 2) & (y == height // 3)
    return torch.stack(
        [
            radius < min(height, width) / 3,
            ((radius > 6) & (radius < 15)) | (radius < 2.5),
            noise,
            pixel,
            (x + y) % 2 == 0,
            torch.ones(height, width, dtype=torch.bool),
            torch.zeros(height, width, dtype=torch.bool),
        ]
    )


def objects(dense: torch.Tensor) -> InstanceResult:
    count = len(dense)
    boxes = torch.arange(4 * count).reshape(count, 4).float() + torch.tensor([0.25, 0, 9, 9])
    return InstanceResult(
        boxes,
        torch.arange(count) % 3,
        1 - torch.arange(count) / 20,
        InstanceMasks.from_dense(dense),
        ("a", "b", "c"),
    )


def labels() -> SemanticResult:
    found = torch.zeros(40, 53, dtype=torch.uint8)
    found[masks()[0]] = 2
    found[masks()[2] & masks()[0]] = 1
    found[:3] = 255
    return SemanticResult(found, ("sky", "tree", "road"))


def through_json(document: dict) -> dict:
    return json.loads(json.dumps(document, allow_nan=False))


SIZES = [(1, 1), (1, 9), (9, 1), (7, 5), (40, 53)]


@pytest.mark.parametrize("size", SIZES)
def test_geojson_gives_everything_back(size: tuple[int, int]) -> None:
    result = objects(masks(*size))
    written = through_json(result.to_geojson())
    back = read_geojson(written)
    assert torch.equal(back.masks.dense(), result.masks.dense())
    boxes = torch.tensor([feature["bbox"] for feature in written["features"]])
    assert torch.equal(boxes.reshape(-1, 4), result.boxes)
    assert torch.equal(back.labels, result.labels)
    assert torch.equal(back.scores, result.scores)
    assert back.class_names == result.class_names
    assert back.masks.image_size == size


@pytest.mark.parametrize("size", SIZES)
def test_labelme_gives_the_masks_back(size: tuple[int, int]) -> None:
    dense = masks(*size)
    result = objects(dense[dense.flatten(1).any(1)])  # it has no shape for an object without pixels
    back = from_labelme(through_json(result.to_labelme()), class_names=("a", "b", "c"))
    assert torch.equal(back.masks.dense(), result.masks.dense())
    assert torch.equal(back.labels, result.labels)
    torch.testing.assert_close(back.scores, result.scores)


@pytest.mark.parametrize("size", SIZES)
def test_run_lengths_give_the_masks_back(size: tuple[int, int]) -> None:
    result = objects(masks(*size))
    for record, mask in zip(through_json({"masks": result.to_rle()})["masks"], result.masks, strict=True):
        assert record["size"] == list(size)
        window, (x, y) = decode_window(record["counts"], size)
        assert torch.equal(InstanceMasks([window], torch.tensor([[x, y]]), size).full(0), mask)


def test_plain_counts_are_read_too() -> None:
    window, offset = decode_window([1, 2, 3], (2, 3))
    assert offset == (0, 0)
    assert window.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("counts", [[6], [0, 1], [5, 1, 200], [70, 3, 2**28, 900, 1, 1]])
def test_compressed_counts_are_the_same_numbers_again(counts: list[int]) -> None:
    assert decompress(compress(np.array(counts, dtype=np.int64))).tolist() == counts


@pytest.mark.parametrize(
    "counts",
    ["", "xyz", "\x10", "o", "o" * 40, [7], [3, 2], [7, -1], [2**70], [2**62, 2**62, 2**62, 2**62, 6]],
)
def test_counts_that_do_not_fill_the_image_are_refused(counts: str | list[int]) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        decode_window(counts, (2, 3))


@pytest.mark.parametrize("written", [SemanticResult.to_geojson, SemanticResult.to_labelme])
def test_a_label_map_comes_back_from_its_polygons(written: Callable[[SemanticResult], dict]) -> None:
    result = labels()
    document = through_json(written(result))
    geojson = written is SemanticResult.to_geojson
    back = read_geojson(document) if geojson else from_labelme(document, result.class_names)
    assert torch.equal(label_map(back), label_map(result))


def test_a_label_map_has_one_object_for_each_class_but_ignored() -> None:
    found = as_objects(labels())
    assert found.labels.tolist() == [0, 1, 2]
    assert int(found.masks.areas().sum()) == 37 * 53
    areas = [int(decode_window(one["counts"], (40, 53))[0].sum()) for one in labels().to_rle()]
    assert areas == found.masks.areas().tolist()


def test_the_surest_object_owns_a_pixel() -> None:
    both = torch.ones(2, 4, 5, dtype=torch.bool)
    both[0, :, 3:] = False
    assert label_map(objects(both))[0].tolist() == [0, 0, 0, 1, 1]
    assert label_map(objects(both), min_score=0.97, nothing=9)[0].tolist() == [0, 0, 0, 9, 9]


def outline_distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) distance of each pixel's centre to the nearest edge between inside and outside."""
    padded = np.pad(mask, 1)
    edges = []
    for axis in (0, 1):
        rows, columns = np.nonzero(np.diff(padded, axis=axis))
        # Edges in pixels of the image: the one below (row, column), or right of it.
        top, left = (rows, columns - 1) if axis == 0 else (rows - 1, columns)
        high, wide = (0, 1) if axis == 0 else (1, 0)
        edges += [(x, y, x + wide, y + high) for x, y in zip(left, top, strict=True)]
    box = np.array(edges, dtype=float)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    aside = np.maximum(np.maximum(box[:, 0] - x[..., None], x[..., None] - box[:, 2]), 0)
    above = np.maximum(np.maximum(box[:, 1] - y[..., None], y[..., None] - box[:, 3]), 0)
    return np.hypot(aside, above).min(-1)


@pytest.mark.parametrize("tolerance", [0.4, 0.75, 2.0, 5.0])
def test_simplified_outlines_change_no_pixel_farther_than_the_tolerance(tolerance: float) -> None:
    for mask in masks()[:4]:
        result = objects(mask[None])
        for back in (
            read_geojson(through_json(result.to_geojson(tolerance=tolerance))),
            from_labelme(through_json(result.to_labelme(tolerance=tolerance))),
        ):
            changed = back.masks.full(0) != mask
            distance = outline_distance(mask.numpy())
            assert not changed.any() or distance[changed.numpy()].max() <= tolerance + 1e-9


def test_simplified_outlines_are_shorter_and_nothing_vanishes() -> None:
    dense = masks()
    exact, simple = (objects(dense).to_geojson(tolerance=t)["features"] for t in (0.0, 1.0))
    assert len(json.dumps(simple[0])) < len(json.dumps(exact[0])) / 2
    assert simple[3]["geometry"]["coordinates"] == exact[3]["geometry"]["coordinates"]  # the single pixel
    assert simple[6]["geometry"] == {"type": "MultiPolygon", "coordinates": []}


def test_the_ring_has_its_hole_and_its_island() -> None:
    (feature,) = objects(masks()[1:2]).to_geojson()["features"]
    parts = feature["geometry"]["coordinates"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert sorted(len(rings) for rings in parts) == [1, 2]
    for rings in parts:
        assert all(ring[0] == ring[-1] for ring in rings)
        turns = [area(np.array(ring[:-1])) > 0 for ring in rings]
        assert turns == [True] + [False] * (len(rings) - 1)


def test_many_holes_find_the_part_round_them() -> None:
    mask = torch.ones(60, 60, dtype=torch.bool)
    mask[1::2, 1::2] = False
    (polygon,) = mask_polygons(mask, (3, 4))
    assert len(polygon) == 1 + 29 * 29  # those at the border are no holes
    window, offset = fill([polygon], (80, 80))
    assert offset == (3, 4)
    assert torch.equal(window, mask)


def test_rings_may_turn_either_way() -> None:
    polygon = max(mask_polygons(masks()[1], (0, 0)), key=len)
    again = [ring[::-1] for ring in polygon]
    assert torch.equal(fill([polygon], (40, 53))[0], fill([again], (40, 53))[0])


def test_a_polygon_with_a_hole_is_one_ring_of_the_same_area() -> None:
    polygon = max(mask_polygons(masks()[1], (0, 0)), key=len)
    assert area(keyholed(polygon)) == pytest.approx(sum(area(ring) for ring in polygon))


def test_a_straight_side_loses_its_middle_points() -> None:
    ring = np.array([[0, 0], [3, 0], [6, 0], [6, 6], [3, 6.3], [0, 6]], dtype=float)
    assert simplify(ring, 0.0).tolist() == ring.tolist()
    assert simplify(ring, 0.1).tolist() == [[0, 0], [6, 0], [6, 6], [3, 6.3], [0, 6]]
    assert simplify(ring, 0.5).tolist() == [[0, 0], [6, 0], [6, 6], [0, 6]]


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_negative_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="0 or more pixels"):
        objects(masks()).to_geojson(tolerance=tolerance)


def test_no_object_is_an_empty_collection() -> None:
    nothing = objects(torch.zeros(0, 4, 5, dtype=torch.bool))
    assert nothing.to_geojson()["features"] == []
    assert len(from_labelme(through_json(nothing.to_labelme()))) == 0
    assert nothing.to_rle() == []


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([{"label": "a", "points": [[0, 0], [1, 1]], "shape_type": "star"}], "expected polygon, rectangle"),
        ([{"label": "a", "points": [[0, 0], [1, 1]]}], "three or more"),
        ([{"label": "a", "points": [[0, 0], [1, float("nan")], [2, 2]]}], "three or more"),
        ([{"points": []}], "label"),
    ],
)
def test_broken_labelme_is_refused(shapes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_labelme({"imageHeight": 4, "imageWidth": 4, "shapes": shapes})


@pytest.mark.filterwarnings(
    "ignore:OpenCV:UserWarning"
)  # supervision says at its import that it does without
def test_supervision_gets_the_same_masks() -> None:
    supervision = pytest.importorskip("supervision")
    result = objects(masks())
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert len(detections) == len(result)
    assert detections.data["class_name"].tolist() == ["a", "b", "c", "a", "b", "c", "a"]
    assert np.array_equal(detections.mask, result.masks.dense().numpy())
    assert np.array_equal(detections.xyxy, result.boxes.numpy())
    assert np.array_equal(detections.class_id, result.labels.numpy())
    assert np.array_equal(detections.confidence, result.scores.numpy())


def test_without_supervision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'pointrend\[supervision\]'"):
        objects(masks()).to_supervision()
