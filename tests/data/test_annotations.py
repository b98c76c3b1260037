from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as oracle

from pointrend.data.annotations import Bitmap, PlacedObjects, Shape
from pointrend.masks.polygons import Polygons
from pointrend.masks.rle import RunLengths, decompress
from pointrend.structures import InstanceMasks, InstanceTarget

# pycocotools 2.0.11 under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

HEIGHT, WIDTH = 37, 53


def placed(
    shapes: list[Shape], boxes: list[list[float]] | None = None, labels: list[int] | None = None
) -> PlacedObjects:
    count = len(shapes)
    return PlacedObjects(
        shapes=shapes,
        boxes=np.array([[0, 0, WIDTH, HEIGHT]] * count if boxes is None else boxes, dtype=np.float64).reshape(
            -1, 4
        ),
        labels=np.array(labels or [0] * count, dtype=np.int64),
        crowd=np.zeros(count, dtype=bool),
        source_size=(HEIGHT, WIDTH),
        image_size=(HEIGHT, WIDTH),
    )


def random_polygons(rng: np.random.Generator) -> Polygons:
    """One to three polygons that cross themselves and leave the image, on coordinates prone to ties."""
    rings = []
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0, (WIDTH, HEIGHT)), rng.uniform(2, 25)
        ring = centre + rng.uniform(-radius, radius, (rng.integers(3, 9), 2))
        rings.append(np.round(ring, int(rng.integers(0, 3))))
    return Polygons(tuple(rings))


def random_bits(rng: np.random.Generator) -> np.ndarray:
    bits = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    y, x = rng.integers(0, HEIGHT - 5), rng.integers(0, WIDTH - 5)
    blob = bits[y : y + 18, x : x + 23]
    blob[:] = rng.random(blob.shape) < 0.6
    return bits


def runs_of(bits: np.ndarray) -> RunLengths:
    return RunLengths(decompress(oracle.encode(np.asfortranarray(bits))["counts"]), bits.shape)


def moved(objects: PlacedObjects, steps: str) -> PlacedObjects:
    """r: resized, f: flipped, c: cropped."""
    for step in steps:
        height, width = objects.image_size
        if step == "r":
            objects = objects.resized(int(height * 1.4) + 1, int(width * 0.9) + 1)
        elif step == "f":
            objects = objects.flipped()
        else:
            objects = objects.cropped(3, 5, height - 7, width - 11)
    return objects


def dense_of(objects: PlacedObjects) -> np.ndarray:
    """(G, H, W); zeros where an object was dropped. Its label tells which one a mask belongs to."""
    target = objects.target()
    result = np.zeros((len(objects.shapes), *objects.image_size), dtype=bool)
    result[target.labels.numpy()] = target.masks.dense().numpy()
    return result


@pytest.mark.parametrize("steps", ["", "r", "f", "c", "rfc", "crfrc"])
def test_polygons_in_their_windows_equal_the_coco_api_in_the_whole_image(steps: str) -> None:
    rng = np.random.default_rng(len(steps))
    shapes = [random_polygons(rng) for _ in range(60)]
    objects = moved(placed(list(shapes), labels=list(range(60))), steps)
    masks = dense_of(objects)
    for shape, mask in zip(shapes, masks, strict=True):
        rings = [(ring * objects.scale + objects.shift).ravel().tolist() for ring in shape.rings]
        whole = oracle.decode(oracle.merge(oracle.frPyObjects(rings, *objects.image_size)))
        assert np.array_equal(mask, whole.astype(bool))


@pytest.mark.parametrize("steps", ["", "r", "f", "c", "rfc", "crfrc"])
def test_run_lengths_and_bitmaps_equal_the_whole_image_read_at_the_nearest_pixel(steps: str) -> None:
    rng = np.random.default_rng(len(steps))
    images = [random_bits(rng) for _ in range(20)]
    numbers = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)  # where each pixel ends up
    source = placed([Bitmap(np.ones((HEIGHT, WIDTH), np.uint8), 0, 0)])
    for step in steps:
        before = source.image_size
        source = moved(source, step)
        height, width = source.image_size
        if step == "r":
            y = ((np.arange(height) + 0.5) * before[0] / height).astype(int)
            x = ((np.arange(width) + 0.5) * before[1] / width).astype(int)
            numbers = numbers[np.ix_(y, x)]
        else:
            numbers = numbers[:, ::-1] if step == "f" else numbers[3 : 3 + height, 5 : 5 + width]
    labels = list(range(len(images)))
    from_runs = dense_of(moved(placed([runs_of(bits) for bits in images], labels=labels), steps))
    from_bits = dense_of(moved(placed([Bitmap(b[4:, 2:], 4, 2) for b in images], labels=labels), steps))
    for bits, runs_mask, bits_mask in zip(images, from_runs, from_bits, strict=True):
        expected = bits.ravel()[numbers].astype(bool)
        if steps.count("r") < 2:  # two nearest-pixel steps choose other pixels than one
            assert np.array_equal(runs_mask, expected)
        else:
            assert (runs_mask == expected).mean() > 0.8
        bits[:4] = bits[:, :2] = 0
        if steps.count("r") < 2:
            assert np.array_equal(bits_mask, bits.ravel()[numbers].astype(bool))


def test_windows_are_tight_and_memory_does_not_grow_with_the_image() -> None:
    square = Polygons((np.array([[2.0, 3.0], [12.0, 3.0], [12.0, 9.0], [2.0, 9.0]]),))
    objects = placed([square], [[2, 3, 12, 9]])
    huge = objects.resized(HEIGHT, WIDTH).cropped(0, 0, HEIGHT, WIDTH)
    assert huge.target().masks.windows[0].shape == (6, 10)
    assert huge.target().masks.offsets.tolist() == [[2, 3]]


def test_boxes_are_the_annotated_ones_moved_and_cut_until_a_crop_makes_them_tight() -> None:
    square = Polygons((np.array([[2.0, 3.0], [12.0, 3.0], [12.0, 9.0], [2.0, 9.0]]),))
    objects = placed([square], [[1.5, 2.5, 12.5, 9.5]])
    assert objects.target().boxes.tolist() == [[1.5, 2.5, 12.5, 9.5]]
    assert objects.flipped().target().boxes.tolist() == [[WIDTH - 12.5, 2.5, WIDTH - 1.5, 9.5]]
    assert objects.resized(2 * HEIGHT, 3 * WIDTH).target().boxes.tolist() == [[4.5, 5.0, 37.5, 19.0]]
    assert objects.cropped(4, 0, 10, 8).target().boxes.tolist() == [[2, 0, 8, 5]]
    partly_outside = placed([square], [[-4, 3, 99, 9]])
    assert partly_outside.target().boxes.tolist() == [[0, 3, WIDTH, 9]]


def test_objects_of_which_nothing_is_left_are_dropped() -> None:
    square = Polygons((np.array([[2.0, 3.0], [12.0, 3.0], [12.0, 9.0], [2.0, 9.0]]),))
    needle = Polygons((np.array([[20.0, 20.0], [20.1, 20.0], [20.0, 20.1]]),))  # covers no pixel's part
    objects = placed([square, needle, square], [[2, 3, 12, 9], [20, 20, 21, 21], [5, 5, 5, 9]], [4, 5, 6])
    assert objects.target().labels.tolist() == [4]
    assert len(objects.cropped(20, 20, 5, 5).target()) == 0


def test_no_objects_give_an_empty_target() -> None:
    target = placed([]).resized(5, 6).flipped().cropped(0, 0, 2, 2).target()
    assert target.boxes.shape == (0, 4)
    assert target.masks.dense().shape == (0, 2, 2)
    empty = placed([runs_of(np.zeros((HEIGHT, WIDTH), np.uint8))])
    assert len(empty.target()) == 0


def test_an_existing_target_can_be_moved() -> None:
    dense = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    dense[0, 4:9, 7:30] = True
    target = InstanceTarget(
        torch.tensor([[7.0, 4, 30, 9]]),
        torch.tensor([3]),
        InstanceMasks.from_dense(dense),
        torch.tensor([True]),
    )
    back = PlacedObjects.of(target).flipped().flipped().target()
    assert torch.equal(back.masks.dense(), dense)
    assert torch.equal(back.boxes, target.boxes)
    assert back.labels.tolist() == [3]
    assert back.crowd.tolist() == [True]
    mirrored = PlacedObjects.of(target).flipped().target()
    assert torch.equal(mirrored.masks.dense(), dense.flip(-1))


def test_areas_are_those_of_the_shape() -> None:
    assert Polygons((np.array([[0.0, 0], [4, 0], [4, 3], [0, 3]]),)).area == 12
    assert Bitmap(np.array([[1, 0], [1, 1]], np.uint8), 5, 5).area == 3
