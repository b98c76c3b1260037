"""The command that made the mask refiner runs to its scores; masks are made worse as it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.checkpoints.mask_refiner import load_refiner
from pointrend.structures import IGNORE_LABEL
from tools import train_mask_refiner as tool


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of each part of `ccp`."""
    random = np.random.default_rng(0)
    labels = np.zeros((80, 70), dtype=np.uint8)
    labels[10:70, 15:55] = 4
    for part in ("train", "val"):
        lines = []
        for folder in (part, f"{part}_labels"):
            (tmp_path / "ccp" / folder).mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (80, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "ccp" / part / f"{number}.png")
            Image.fromarray(labels).save(tmp_path / "ccp" / f"{part}_labels" / f"{number}.png")
            lines.append(f"{part}/{number}.png {part}_labels/{number}.png\n")
        (tmp_path / "ccp" / f"{part}.txt").write_text("".join(lines))
    return tmp_path


def test_the_command_trains_scores_and_writes_the_refiner(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "CROP", 64)
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--steps", "1", "--workers", "0", "--images", "1"]
    monkeypatch.setattr("sys.argv", ["train_mask_refiner", *arguments])
    tool.main()
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"ccp"}
    table = scores["ccp"]["IoU, boundary IoU at 3 px, at 10 px"]
    assert set(table) == {*tool.KINDS, "mean of all but true"}
    assert table["true"]["interpolated"] == [100.0, 100.0, 100.0]
    assert table["dilated"]["interpolated"][0] < 100
    pixels = torch.zeros(3, 20, 30, dtype=torch.uint8)
    assert load_refiner(out / "mask-refiner.safetensors").logits(pixels, torch.ones(20, 30)).shape == (20, 30)


@pytest.mark.parametrize("kind", sorted(tool.KINDS.keys() - {"true"}))
def test_each_kind_of_error_changes_a_mask_and_leaves_its_middle(kind: str) -> None:
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(120), torch.arange(100), indexing="ij")
    mask = ((y - 60) ** 2 + (x - 50) ** 2 < 40**2).float()
    worse = tool.KINDS[kind](mask)
    assert worse.shape == mask.shape
    assert not torch.equal(worse > 0.5, mask > 0.5) or kind.startswith("cells")
    assert not torch.equal(worse, mask)
    assert worse[60, 50] == 1
    assert worse[5, 95] == 0


def test_an_empty_mask_can_be_made_worse() -> None:
    for make_worse in tool.KINDS.values():
        assert make_worse(torch.zeros(20, 30)).sum() == 0
    for seed in range(20):
        torch.manual_seed(seed)
        assert tool.made_worse(torch.zeros(20, 30)).shape == (20, 30)


def test_a_chosen_object_is_a_label_or_some_of_them() -> None:
    labels = torch.zeros(60, 60, dtype=torch.int32)
    labels[:20], labels[20:40], labels[59] = 2, 3, IGNORE_LABEL
    for seed in range(20):
        torch.manual_seed(seed)
        mask = tool.chosen(labels)
        assert mask.any()
        assert not mask[40:].any()
