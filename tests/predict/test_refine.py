"""Masks in every form are refined over their image; what is no mask is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

import pointrend
from pointrend.cli import main
from pointrend.masks.rle import decode_window
from pointrend.predict.refine import read_mask, refine_mask, write_mask

SIZE = (96, 128)


@pytest.fixture(scope="module")
def disc() -> tuple[Image.Image, np.ndarray]:
    """A bright disc on dark ground, and its mask."""
    image = Image.new("RGB", SIZE[::-1], (30, 60, 40))
    ImageDraw.Draw(image).ellipse((30, 20, 90, 80), fill=(220, 200, 160))
    return image, np.array(image)[..., 0] > 100


def iou(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    return float((a & b).sum() / (a | b).sum())


def test_a_shifted_mask_comes_back_to_its_object(disc: tuple[Image.Image, np.ndarray]) -> None:
    image, truth = disc
    shifted = np.roll(truth, 4, axis=1)
    refined = pointrend.refine_mask(image, shifted)
    assert refined.dtype == torch.bool
    assert refined.shape == SIZE
    assert iou(refined, truth) > iou(shifted, truth) + 0.05


def test_a_right_mask_is_left_alone(disc: tuple[Image.Image, np.ndarray]) -> None:
    image, truth = disc
    assert iou(refine_mask(image, truth), truth) > 0.98


def test_a_low_resolution_mask_becomes_sharp_as_probabilities_and_as_logits(
    disc: tuple[Image.Image, np.ndarray],
) -> None:
    image, truth = disc
    small = truth.reshape(12, 8, 16, 8).mean((1, 3)).astype(np.float32)
    blocky = np.kron(small > 0.5, np.ones((8, 8), dtype=bool))
    refined = refine_mask(image, small)
    assert iou(refined, truth) > iou(blocky, truth)
    logits = np.log(small.clip(1e-4, 1 - 1e-4) / (1 - small.clip(1e-4, 1 - 1e-4)))
    assert iou(refine_mask(image, logits), refined) > 0.99


def test_forms_of_the_same_mask_give_the_same(disc: tuple[Image.Image, np.ndarray]) -> None:
    image, truth = disc
    expected = refine_mask(image, truth)
    counts = []
    value, run = False, 0
    for pixel in truth.T.flatten():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    run_lengths = {"size": list(SIZE), "counts": [*counts, run]}
    for form in (
        truth.astype(np.uint8),
        truth.astype(np.uint8) * 255,
        truth.astype(np.uint16),
        torch.from_numpy(truth)[None],
        torch.from_numpy(truth).to(torch.uint16),
        run_lengths,
    ):
        assert torch.equal(refine_mask(image, form), expected)


def test_a_label_map_keeps_its_labels_and_what_is_ignored(disc: tuple[Image.Image, np.ndarray]) -> None:
    image, truth = disc
    labels = np.where(truth, 7, 3).astype(np.int32)
    labels[:5] = 255
    refined = refine_mask(image, labels)
    assert set(refined.unique().tolist()) == {3, 7, 255}
    assert (refined[:5] == 255).all()
    assert iou(refined[5:] == 7, truth[5:]) > 0.95


@pytest.mark.parametrize("size", [(1, 1), (1, 400)])
def test_images_of_one_row_and_empty_masks(size: tuple[int, int]) -> None:
    grey = np.full(size, 90, dtype=np.uint8)
    assert not refine_mask(grey, np.zeros(size, dtype=bool)).any()
    assert refine_mask(grey, np.ones(size, dtype=bool)).shape == size


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((96, 96)), "proportions"),
        (np.zeros((2, 96, 128)), "refine one at a time"),
        (np.full(SIZE, np.nan), "NaN"),
        (np.zeros((0, 4)), "h, w >= 1"),
        (np.zeros(SIZE, dtype=complex), "booleans, integers or floats"),
        (np.full(SIZE, 255.0), "floats from 255 to 255"),
        (np.full(SIZE, "a"), "booleans, integers or floats"),
        (np.arange(96 * 128).reshape(SIZE), "more than 64"),
        ({"size": [96, 128]}, "run lengths"),
        ({"size": [10**6, 10**6], "counts": "x"}, "pixels"),
        ({"size": [96, 128], "counts": [3]}, "add up to 12288"),
        ("mask.png", "got str"),
    ],
)
def test_what_is_no_mask_is_refused(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refine_mask(np.zeros((*SIZE, 3), dtype=np.uint8), mask)


def test_the_command_reads_and_writes_files(
    disc: tuple[Image.Image, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, truth = disc
    image.save(tmp_path / "a.png")
    rough = np.roll(truth, 3, axis=0)
    Image.fromarray(rough.astype(np.uint8) * 255).save(tmp_path / "m.png")
    np.save(tmp_path / "m.npy", rough)
    assert main(["refine", str(tmp_path / "a.png"), str(tmp_path / "m.png")]) == 0
    expected = np.array(Image.open(tmp_path / "m-refined.png")) == 255
    assert iou(expected, truth) > iou(rough, truth)
    out = tmp_path / "folder" / "m.json"
    assert main(["refine", str(tmp_path / "a.png"), str(tmp_path / "m.npy"), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    window, _ = decode_window(found["counts"], tuple(found["size"]))
    assert int(window.sum()) == expected.sum()
    assert main(["refine", str(tmp_path / "a.png"), str(out), "--out", str(tmp_path / "x.npy")]) == 0
    capsys.readouterr()
    for wrong in (
        ["a.png", "none.png"],
        ["a.png", "m.png", "--out", str(tmp_path / "x.jpg")],
        ["m.npy", "m.png"],
    ):
        files = [str(tmp_path / name) if i < 2 else name for i, name in enumerate(wrong)]
        assert main(["refine", *files]) == 2
        assert capsys.readouterr().err.count("\n") <= 2


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "a.json").write_text("[1]")
    for name in ("a.npy", "objects.npy", "a.json", "absent.npy"):
        with pytest.raises(ValueError, match=name):
            read_mask(tmp_path / name)


def test_label_maps_are_written_as_they_are(tmp_path: Path) -> None:
    labels = torch.tensor([[0, 300], [7, 255]], dtype=torch.int32)
    write_mask(labels, tmp_path / "m.png")
    assert np.array(Image.open(tmp_path / "m.png")).tolist() == labels.tolist()
    with pytest.raises(ValueError, match="ending in"):
        write_mask(labels, tmp_path / "m.json")
    with pytest.raises(ValueError, match=r"write \.npy"):
        write_mask(labels * 1000, tmp_path / "m.png")


@pytest.mark.parametrize("shape", [(*SIZE, 1), (1, 1, *SIZE)])
def test_a_mask_may_have_axes_of_one(disc: tuple[Image.Image, np.ndarray], shape: tuple[int, ...]) -> None:
    image, truth = disc
    assert torch.equal(refine_mask(image, truth.reshape(shape)), refine_mask(image, truth))


def test_pillow_images_and_arrays_that_cannot_be_written_are_masks(
    disc: tuple[Image.Image, np.ndarray],
) -> None:
    image, truth = disc
    expected = refine_mask(image, truth)
    mask = Image.fromarray(truth)
    assert torch.equal(refine_mask(image, mask), expected)
    assert torch.equal(refine_mask(image, np.asarray(mask)), expected)


def test_probabilities_a_little_outside_of_0_to_1_are_no_logits(disc: tuple[Image.Image, np.ndarray]) -> None:
    image, truth = disc
    refined = refine_mask(image, truth * 1.1 - 0.05)
    assert iou(refined, truth) > 0.98


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "red", "NPY"])
def test_a_mask_in_colours_is_read_where_they_are_grey_or_one_beside_black(
    disc: tuple[Image.Image, np.ndarray], tmp_path: Path, mode: str
) -> None:
    _, truth = disc
    if mode == "NPY":
        np.save(tmp_path / "m.npy", truth)
        (tmp_path / "m.npy").rename(tmp_path / "m.NPY")
        assert np.array_equal(np.asarray(read_mask(tmp_path / "m.NPY")), truth)
        return
    mask = Image.fromarray(truth.astype(np.uint8) * 255)
    mask = (
        Image.merge("RGB", [mask, *[Image.new("L", mask.size)] * 2]) if mode == "red" else mask.convert(mode)
    )
    mask.save(tmp_path / "m.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "m.png")) > 0, truth)


def test_more_colours_than_that_are_refused(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 1))
    for x, color in enumerate([(0, 0, 0), (255, 0, 0), (0, 255, 0)]):
        image.putpixel((x, 0), color)
    image.save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="Convert its colours"):
        read_mask(tmp_path / "m.png")


def test_the_command_takes_soft_masks_and_says_what_it_took(
    disc: tuple[Image.Image, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, truth = disc
    image.save(tmp_path / "a.png")
    mask = Image.fromarray(truth.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(2))
    out = tmp_path / "out.png"
    for suffix in ("png", "jpg"):
        mask.save(tmp_path / f"soft.{suffix}")
        given = ["refine", str(tmp_path / "a.png"), str(tmp_path / f"soft.{suffix}"), "--out", str(out)]
        assert main(given) == 2
        assert main([*given, "--soft"]) == 0
        assert "refined the mask" in capsys.readouterr().out
        assert iou(np.array(Image.open(out)) == 255, truth) > 0.95
    Image.fromarray(np.where(truth, 7, 3).astype(np.uint8)).save(tmp_path / "labels.png")
    assert main(["refine", str(tmp_path / "a.png"), str(tmp_path / "labels.png"), "--out", str(out)]) == 0
    assert "refined 2 labels" in capsys.readouterr().out


def test_labels_below_0_are_named_where_they_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="from -1 to 3"):
        write_mask(torch.tensor([[-1, 3]], dtype=torch.int32), tmp_path / "m.png")
