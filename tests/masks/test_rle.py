"""Run lengths and outlines taken from windows are those of the full-image masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointrend.masks.polygons import outline
from pointrend.masks.rle import (
    RunLengths,
    checked_runs,
    decode_window,
    decompress,
    encode_windows,
    measure,
    run_lengths,
)
from pointrend.structures import InstanceMasks


def random_masks(height: int, width: int, count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(count, height, width, generator=generator) < torch.linspace(0, 1, count)[:, None, None]


def fill(rings: list[list[tuple[float, float]]], height: int, width: int) -> np.ndarray:
    """Rings filled by the even-odd rule, sampled at pixel centres."""
    inside = np.zeros((height, width), dtype=bool)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
            if x1 == x2:  # every vertical edge flips the pixels to its right
                inside[int(min(y1, y2)) : int(max(y1, y2)), int(x1) :] ^= True
    return inside


def shoelace(ring: list[tuple[float, float]]) -> float:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (40, 33)])
def test_run_lengths_are_those_of_pycocotools(size: tuple[int, int]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    masks = random_masks(*size)
    for mask, rle in zip(masks, encode_windows(InstanceMasks.from_dense(masks)), strict=True):
        expected = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert rle == {"size": list(size), "counts": expected["counts"].decode()}


def test_long_runs_survive_the_five_bit_digits() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = torch.zeros(1, 3000, 2000, dtype=torch.bool)
    mask[0, 10:2990, 5] = True
    mask[0, :, 1990:] = True
    (rle,) = encode_windows(InstanceMasks.from_dense(mask))
    expected = coco.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8)))
    assert rle["counts"] == expected["counts"].decode()


def test_a_run_over_the_bottom_goes_on_at_the_top_of_the_next_column() -> None:
    window = torch.ones(4, 2, dtype=torch.uint8)
    assert run_lengths(window, (1, 0), (4, 5)).tolist() == [4, 8, 8]


@pytest.mark.parametrize("at_once", [1, 20, 65])
def test_run_lengths_do_not_depend_on_how_many_columns_are_looked_at_together(monkeypatch, at_once) -> None:
    window = random_masks(20, 13, 1)[0]
    window[:, 5:8] = True  # runs that go on in the next column
    whole = run_lengths(window, (3, 0), (20, 30))
    monkeypatch.setattr("pointrend.masks.rle.COLUMN_PIXELS", at_once)
    assert run_lengths(window, (3, 0), (20, 30)).tolist() == whole.tolist()


def test_an_empty_mask_is_one_run_outside() -> None:
    masks = InstanceMasks([torch.zeros(0, 0)], torch.zeros(1, 2, dtype=torch.int64), (3, 4))
    assert run_lengths(masks.windows[0], (0, 0), (3, 4)).tolist() == [12]
    assert outline(masks.windows[0], (0, 0)) == []


def test_a_window_outside_of_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="stick out"):
        run_lengths(torch.ones(3, 3), (4, 0), (6, 6))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (23, 31)])
def test_outlines_filled_give_the_mask_back_and_areas_add_up(size: tuple[int, int]) -> None:
    for mask in random_masks(*size):
        rings = outline(mask, (0, 0))
        assert (fill(rings, *size) == mask.numpy()).all()
        assert sum(shoelace(ring) for ring in rings) == mask.sum()


def test_a_hole_is_a_ring_the_other_way_round() -> None:
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[2, 2] = False
    outer, hole = outline(mask, (10, 20))
    assert outer == [(10, 20), (15, 20), (15, 25), (10, 25)]  # clockwise on the screen
    assert hole == [(12, 22), (12, 23), (13, 23), (13, 22)]
    assert (shoelace(outer), shoelace(hole)) == (25, -1)


@pytest.mark.parametrize("mask", [[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
def test_pixels_that_touch_at_a_corner_are_two_rings(mask: list[list[int]]) -> None:
    rings = outline(torch.tensor(mask), (0, 0))
    assert [len(ring) for ring in rings] == [4, 4]
    assert [shoelace(ring) for ring in rings] == [1, 1]


STRANGE = ("", " ", "P", "PPPPPPPP0", "ppppppppppppp1", "o", "oooooooooo1", "5P", "\u00e9", "\x00", "1p")


@pytest.mark.parametrize("text", STRANGE)
def test_one_decoder_refuses_what_is_empty_cut_off_overlong_or_negative(text: str) -> None:
    for read in (
        decompress,
        lambda text: checked_runs(text, (2, 3)),
        lambda text: decode_window(text, (2, 3)),
    ):
        with pytest.raises(ValueError, match="run lengths"):
            read(text)
    assert [part.tolist() for part in measure([text, "5c2", text])] == [[-1, 88, -1], [-1, 83, -1]]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (90, 77)])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_compressed_runs_are_decoded_as_pycocotools_does(size: tuple[int, int], density: float) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = (np.random.default_rng(0).random(size) < density).astype(np.uint8)
    text = coco.encode(np.asfortranarray(mask))["counts"]
    runs = RunLengths(decompress(text), size)
    assert runs.to_coco()["counts"] == text.decode()
    assert runs.area == mask.sum()
    assert (runs.pixels((0, 0, *size)) == mask).all()


def test_plain_counts_may_be_whole_numbers_only() -> None:
    assert checked_runs([0, 4.0, 2], (2, 3)).tolist() == [0, 4, 2]
    for counts in ([], [1.5, 4.5], ["6"], [True] * 6, [[6]], [7, -1], [2**63, 6], [2**70], [5]):
        with pytest.raises(ValueError, match="run lengths"):
            checked_runs(counts, (2, 3))
