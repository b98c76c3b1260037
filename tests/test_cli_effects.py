"""Every option of predict, eval, explain and data check changes what comes out, or is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pointrend
from pointrend.cli.data import Check
from pointrend.cli.evaluate import Evaluate
from pointrend.cli.explain import Explain
from pointrend.cli.predict import Predict
from pointrend.data.shapes import ShapeScenes
from pointrend.io import write_png, write_text

pytestmark = pytest.mark.slow  # some fifty predictions

NAMES = ("background", "ellipse", "polygon", "star", "ring", "bar")

# How fast, where, or what happens after an error: nothing of it is to be seen in what comes out. That each is read is
# held by test_cli_options.
UNSEEN = {
    Predict: {
        "batch_size",
        "readers",
        "attempts",
        "part_size",
        "engine",
        "address",
        "workers",
        "fresh",
        "optimize",
    },
    Evaluate: {"fresh", "optimize"},
    Explain: set(),
    Check: set(),
}
CHANGES: dict[type, dict[str, Any]] = {
    Predict: {
        "sources": ("b.png",),
        "model": "shapes-instance",
        "out": "elsewhere",
        "format": ("geojson",),
        "list": "list.txt",
        "shard": "1/2",
        "overlays": False,
        "cutout": True,
        "cutout_objects": True,
        "classes": ("ring",),
        "class_names": tuple("abcdef"),
        "min_score": 0.9,
        "like": Path("no-such-file.json"),
        "device": "no-such-device",
        "output_stride": 8,
        "full_resolution": True,
        "window": (64, 64),
        "max_pixels": 10,
    },
    Evaluate: {
        "models": ("shapes-instance",),
        "class_names": tuple("abcdef"),
        "data": "shapes:instance",
        "split": "train",
        "categories": ("cat",),
        "limit": 2,
        "metrics": ("miou",),
        "predictions": Path("no-such-file.json"),
        "lvis": Path("no-such-file.json"),
        "points": (16,),
        "mask_sizes": (28,),
        "flip": True,
        "scales": (0.5, 1.0),
        "output_stride": 8,
        "out": Path("elsewhere"),
        "json": Path("scores.json"),
        "curves": Path("curves.png"),
        "device": "no-such-device",
    },
    Explain: {
        "image": Path("b.png"),
        "model": "shapes-instance",
        "instance": 1,
        "at": (40, 40),
        "baseline": "photo-semantic",
        "out": Path("elsewhere"),
        "points": 16,
        "min_score": 1.0,
        "device": "no-such-device",
    },
    Check: {
        "folder": "shapes",
        "split": "train",
        "categories": ("cat",),
        "limit": 1,
        "sheet": Path("sheet.png"),
        "show": 0,
        "fix": Path("fixed"),
    },
}
BASES: dict[type, dict[str, Any]] = {
    Predict: {"sources": ("a.png",), "model": "shapes-semantic", "device": "cpu"},
    Evaluate: {"models": ("shapes-semantic",), "limit": 1, "device": "cpu"},
    Explain: {"image": Path("a.png"), "model": "shapes-semantic", "device": "cpu"},
    Check: {"folder": "set", "split": "val"},
}
# What an option needs beside it to be seen.
BESIDE: dict[tuple[type, str], dict[str, Any]] = {
    (Predict, "min_score"): {"model": "shapes-instance"},
    (Explain, "instance"): {"model": "shapes-instance"},
    (Explain, "min_score"): {"model": "shapes-instance"},
}


def outcome(make: Callable[[], Any], where: Path, capsys: pytest.CaptureFixture[str]) -> object:
    """Exit code, what was printed, and every file; or the refusal."""
    before = {path for path in where.rglob("*") if path.is_file()}
    try:
        code = make().run()
    except (ValueError, FileNotFoundError) as error:
        return f"refused: {error}"
    new = sorted(path for path in where.rglob("*") if path.is_file() and path not in before)
    files = {
        path.relative_to(where).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in new
    }
    for path in new:
        path.unlink()
    return code, re.sub(r"\d+\.\d+ ?s\b", "", capsys.readouterr().out), files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.png", "b.png")):
        image = ShapeScenes(2, "instance", first=1_000_000)[number].image[:, :128, :128]
        write_png(image.permute(1, 2, 0).numpy(), tmp_path / name)
        for split, labels in (("val", number), ("train", 1)):
            write_png(image.permute(1, 2, 0).numpy(), tmp_path / "set" / "images" / split / name)
            own = ShapeScenes(2, first=1_000_000)[labels].target.labels[:128, :128].numpy()
            write_png(own // 5 * 255 if number else own, tmp_path / "set" / "labels" / split / name)
    write_text(tmp_path / "list.txt", "b.png\n")
    return tmp_path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", BASES, ids=lambda command: command.__name__)
def test_every_option_changes_what_comes_out_or_is_refused(
    command: type, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {field.name for field in dataclasses.fields(command)}
    assert CHANGES[command].keys() | UNSEEN[command] == names
    plain: dict[str, object] = {}
    ignored = []
    for name, value in CHANGES[command].items():
        options = {**BASES[command], **BESIDE.get((command, name), {})}
        if (own := repr(options)) not in plain:
            plain[own] = outcome(partial(command, **options), folder, capsys)
            assert not str(plain[own]).startswith("refused"), plain[own]
        changed = outcome(partial(command, **{**options, name: value}), folder, capsys)
        if changed == plain[own]:
            ignored.append(name)
    assert not ignored
    assert pointrend.load("shapes-semantic").config.class_names == NAMES
