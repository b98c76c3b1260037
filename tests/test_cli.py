"""The command line: help that explains, exit codes that mean something, and a round trip on generated scenes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointrend
from pointrend.checkpoints.native import build
from pointrend.cli import main
from pointrend.cli.predict import Predict
from pointrend.models.backbones import BackboneConfig
from pointrend.signals import stopping
from pointrend.training.options import PRESETS
from pointrend.training.presets import preset

COMMANDS = ("demo", "train", "eval", "predict", "explain", "convert", "zoo")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = pointrend.SemanticConfig(
        ("sky", "road"), backbone=BackboneConfig("resnet18"), fpn_channels=16, decoder_channels=16
    )
    pointrend.save(pointrend.SemanticSegmenter(config), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: pointrend {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [*COMMANDS, "finetune", "app", "data check", "data lvis-to-coco"])
def test_help_shows_no_python(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    for python in ("None", "(default: )", "''", "()"):
        assert python not in shown


def test_help_needs_no_torch() -> None:
    code = "import sys, pointrend.cli as c; c.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["predict"], ["train", "--steps", "many"], ["train", "--preset", "none"]],
)
def test_a_wrong_option_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "a.jpg", "--model", "no-such.safetensors"], "no-such.safetensors: no such file"),
        (["predict", "--model", "x"], "name at least one image"),
        (["train", "--data", "no-such-folder"], "no-such-folder: no such folder"),
        (["train", "--batch-size", "0"], "batch_size must be positive"),
    ],
)
def test_bad_input_is_2_with_one_message_and_no_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert "pointrend: " in shown
    assert message in shown
    assert "Traceback" not in shown


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTREND_DEBUG", "1")
    with pytest.raises(ValueError, match="name at least one image"):
        main(["predict", "--model", "x"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: Predict) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predict, "run", interrupt)
    assert main(["predict", "--model", "x"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pointrend {pointrend.__version__}\n"


def test_file_names_that_a_stream_cannot_encode_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predict, "run", lambda _: print("see \u2603 \udcff") or 0)
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True)
    monkeypatch.setattr(sys, "stdout", pipe)
    assert main(["predict", "--model", "x"]) == 0
    assert pipe.buffer.getvalue().split() == [b"see", b"\\u2603", b"\\udcff"]
    monkeypatch.setattr(sys, "stdout", None)  # what Python makes of one that was closed
    assert main(["predict", "--model", "x"]) == 0


def test_the_first_ctrl_c_asks_and_the_second_one_stops() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_predict_writes_and_says_where(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "photos" / "one.jpg")
    out = tmp_path / "out"
    arguments = [
        "predict",
        str(tmp_path / "photos"),
        "--model",
        str(checkpoint),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    assert "1 image predicted" in capsys.readouterr().out
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == [
        "labels/one.png",
        "overlays/one.png",
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_predict_and_eval_take_an_optimized_model(
    checkpoint: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "one.jpg")
    optimized = ["--model", str(checkpoint), "--optimize", precision, "--device", "cpu"]
    assert main(["predict", str(tmp_path / "one.jpg"), "--out", str(tmp_path / "out"), *optimized]) == 0
    assert (tmp_path / "out" / "labels" / "one.png").is_file()
    capsys.readouterr()
    assert main(["eval", str(checkpoint), "--optimize", "int8"]) == 2
    assert "int8" in capsys.readouterr().err


def test_predict_looks_through_windows(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "one.jpg")
    options = ["--model", str(checkpoint), "--device", "cpu", "--no-overlays"]
    for out, window in (
        ("whole", []),
        ("large", ["--window", "999", "999"]),
        ("small", ["--window", "16", "16"]),
    ):
        command = ["predict", str(tmp_path / "one.jpg"), "--out", str(tmp_path / out), *options, *window]
        assert main(command) == 0
    labels = {
        out: (tmp_path / out / "labels" / "one.png").read_bytes() for out in ("whole", "large", "small")
    }
    assert labels["whole"] == labels["large"]
    assert main([*command[:-2], "0", "16"]) == 2
    assert "window: expected at least one row and one column, got (0, 16)" in capsys.readouterr().err


def test_images_of_every_shape_and_mode_go_through_predict_and_cutout(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    sizes = {
        "dot": ("RGB", (1, 1)),
        "row": ("RGB", (4000, 1)),
        "grey": ("L", (50, 40)),
        "alpha": ("RGBA", (40, 50)),
    }
    for name, (mode, size) in sizes.items():
        Image.new(mode, size, 120).save(folder / f"{name}.png")
    assert main(["predict", str(folder), "--cutout", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    for name, (_, size) in sizes.items():
        for kind in ("labels", "overlays", "cutouts"):
            with Image.open(tmp_path / "out" / kind / f"{name}.png") as written:
                assert written.size == size or kind == "overlays"
                assert written.mode == "RGBA" or kind != "cutouts"


def test_full_resolution_takes_the_limit_away() -> None:
    from pointrend.cli.console import load_model

    model = load_model("photo-semantic", full_resolution=True)
    assert model.config.preprocessing.long_edge is None
    assert load_model("photo-semantic").config.preprocessing.long_edge == 1024


@pytest.mark.parametrize(
    "command",
    ["predict a.jpg", "eval m", "train", "finetune m --data d", "explain a.jpg --model m"],
)
def test_the_first_line_comes_before_torch_is_imported(command: str) -> None:
    code = """
import sys
class NoTorch:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ImportError("torch is not there")
sys.meta_path.insert(0, NoTorch)
from pointrend.cli import main
main(sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[0].startswith(("pointrend: loading", "pointrend: reading"))


def test_without_a_model_the_bundled_one_is_used_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "one.jpg")
    assert (
        main(["predict", str(tmp_path / "one.jpg"), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    )
    assert "using the bundled" in capsys.readouterr().err
    assert (tmp_path / "out" / "labels" / "one.png").exists()


def test_predict_finds_some_classes_cuts_them_out_and_writes_formats(
    checkpoint: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "one.jpg")
    arguments = [
        "--model",
        str(checkpoint),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--classes",
        "road",
    ]
    wanted = ["--cutout", "--no-overlays", "--format", "labels", "coco-results"]
    assert main(["predict", str(tmp_path / "one.jpg"), *arguments, *wanted]) == 0
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "one.png"))
    assert set(np.unique(labels)) <= {1, 255}
    alpha = np.asarray(Image.open(tmp_path / "out" / "cutouts" / "one.png"))[..., 3]
    assert np.array_equal(alpha > 0, labels == 1)
    assert isinstance(json.loads((tmp_path / "out" / "predictions.json").read_text()), list)


def test_predict_finds_classes_and_names_them_by_different_options(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "one.jpg")
    common = ["predict", str(tmp_path / "one.jpg"), "--device", "cpu", "--format", "coco"]

    def found(model: Path, *options: str) -> list[str]:
        out = tmp_path / "-".join(("out", *options))
        assert main([*common, "--model", str(model), "--out", str(out), *options]) == 0
        return [one["name"] for one in json.loads((out / "predictions.json").read_text())["categories"]]

    names = list(pointrend.load(checkpoint).config.class_names)
    assert found(checkpoint) == found(checkpoint, "--classes", *reversed(names)) == names
    assert found(checkpoint, "--class-names", *reversed(names)) == names[::-1]
    assert (
        main([*common, "--model", str(checkpoint), "--classes", "a", "b", "--out", str(tmp_path / "no")]) == 2
    )
    assert "to give them other names, use --class-names" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    model = pointrend.load(checkpoint)
    model.config = replace(model.config, class_names=("class 0", "class 1"))
    pointrend.save(model, tmp_path / "unnamed.safetensors")
    capsys.readouterr()
    assert found(tmp_path / "unnamed.safetensors", "--classes", "a", "b") == ["a", "b"]
    assert "does not name" not in capsys.readouterr().err


def test_predict_refuses_a_score_for_label_maps(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "one.jpg")
    arguments = ["predict", str(tmp_path / "one.jpg"), "--model", str(checkpoint), "--min-score", "0.5"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "label maps have no scores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "a.jpg", "--readers", "16"], "readers: is for jobs"),
        (["predict", "a.jpg", "--part-size", "10"], "part_size: is for jobs"),
        (["predict", "a.jpg", "--attempts", "2"], "attempts: is for jobs"),
        (["predict", "a.jpg", "--format", "jsonl", "--workers", "2"], "workers: is for --engine ray"),
        (["predict", "a.jpg", "--format", "jsonl", "--address", "auto"], "address: is for --engine ray"),
        (["label", ".", "--min-score", "0.9"], "device and min_score: are of --model"),
        (["label", ".", "--model", "shapes-instance", "--classes", "cat"], "classes: come from"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_predict_with_an_unreadable_file_is_1_and_names_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "photos" / "one.jpg")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    common = ["--model", str(checkpoint), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", str(tmp_path / "photos"), *common]) == 1
    assert "bad.jpg: not a readable image" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "photos" / "bad.jpg"), *common]) == 2


def test_a_folder_without_images_is_2(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path / "empty"), "--model", str(checkpoint), "--device", "cpu"]) == 2
    assert "no images found" in capsys.readouterr().err


def test_eval_refuses_other_classes(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(checkpoint), "--device", "cpu"]) == 2
    assert "which the model lacks: its classes are sky, road" in capsys.readouterr().err


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("point_rend", [True, False])
def test_every_preset_is_a_valid_configuration(name: str, point_rend: bool) -> None:
    config = preset(name, pretrained=not point_rend)  # type: ignore[arg-type]
    network = (config if point_rend else config.without_points()).config(("a", "b"))
    assert network.backbone.norm == ("batch" if point_rend else "frozen")
    if name.startswith("instance"):
        assert network.mask_head == ("pointrend" if point_rend else "conv28")
    else:
        assert (network.point_rend is not None) == point_rend
    with torch.device("meta"):
        build(network)


def test_train_then_eval_then_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    small = [
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--crop",
        "64",
        "64",
        "--limit",
        "1",
        "--device",
        "cpu",
        "--out",
        str(run),
    ]
    assert main(["train", "--preset", "semantic-fpn-resnet18", *small]) == 0
    assert "PointRend" in capsys.readouterr().out  # the table
    assert {path.name for path in run.iterdir()} == {"log.jsonl", "model.safetensors", "scores.json"}

    model = ["--model", str(run / "model.safetensors"), "--device", "cpu"]
    scores = tmp_path / "scores.json"
    assert main(["eval", *model[1:], "--limit", "1", "--points", "64", "--json", str(scores)]) == 0
    assert [row["name"] for row in json.loads(scores.read_text())] == ["coarse", "N = 64"]

    source = photo(tmp_path / "one.png")
    assert main(["predict", str(source), *model, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "labels" / "one.png") as labels:
        assert labels.size == (50, 40)
