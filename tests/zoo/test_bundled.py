"""The bundled models are the files that they should be, and load by name without a network."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors import safe_open

import pointrend
from pointrend.cli import main
from pointrend.zoo.bundled import BUNDLED, REFINER, Bundled


@pytest.mark.parametrize("bundled", BUNDLED.values(), ids=lambda bundled: bundled.name)
def test_the_file_is_the_one_listed_and_loads_by_name(
    bundled: Bundled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    assert hashlib.sha256(bundled.path.read_bytes()).hexdigest() == bundled.sha256
    model = pointrend.load(bundled.name)
    assert model.task == bundled.task
    assert not model.training
    assert {"licence", "data", "command"} <= model.origin.keys()


def test_the_refiner_is_the_file_listed_and_says_where_it_comes_from() -> None:
    assert hashlib.sha256(REFINER.path.read_bytes()).hexdigest() == REFINER.sha256
    with safe_open(REFINER.path, framework="pt") as file:
        origin = json.loads(file.metadata()["extra"])
    assert {"licence", "data", "command"} <= origin.keys()


def test_all_of_them_together_are_small() -> None:
    assert sum(path.stat().st_size for path in REFINER.path.parent.iterdir()) < 10 * 2**20


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (37, 53)])
def test_the_photo_model_labels_images_of_any_size(size: tuple[int, int]) -> None:
    model = pointrend.load("photo-semantic")
    result = model.predict([torch.full((3, *size), 200, dtype=torch.uint8)])[0]
    assert result.labels.shape == size
    assert result.class_names[15] == "person"


def test_the_photo_model_is_below_six_megabytes() -> None:
    assert BUNDLED["photo-semantic"].path.stat().st_size < 6_000_000


def test_the_command_lists_them_first_and_shows_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    listed = capsys.readouterr().out
    assert listed.index("shapes-semantic") < listed.index("pointrend_rcnn")
    assert main(["zoo", "shapes-semantic"]) == 0
    assert "no pretrained weights" in capsys.readouterr().out


@pytest.mark.parametrize("bundled", [*BUNDLED.values(), REFINER], ids=lambda bundled: bundled.name)
def test_a_card_says_where_a_bundled_model_comes_from_and_where_it_fails(
    bundled: Bundled, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", bundled.name]) == 0
    card = capsys.readouterr().out
    for part in (
        f"# {bundled.name}",
        "- licence: Apache-2.0",
        "- data: ",
        "- command: python -m tools.",
        bundled.limits,
    ):
        assert part in card
