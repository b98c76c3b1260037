"""Trainings from the command line: published ones, fine-tuning, and going on after a stop."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import pointrend
from pointrend import train as job
from pointrend.checkpoints.imagenet import torchvision_name
from pointrend.cli import main
from pointrend.cli.train import Train, _summarize
from pointrend.core.selection import PointSampling
from pointrend.data.transforms import RandomCrop, ResizeShortEdge
from pointrend.evaluation.evaluate_semantic import score_names
from pointrend.models.backbones import BackboneConfig
from pointrend.models.feature_maps import build_backbone
from pointrend.signals import Terminated
from pointrend.training.presets import preset
from pointrend.training.published import RECIPES
from pointrend.training.recipe import Recipe

NAME = "pointrend_semantic_R_101_FPN_1x_cityscapes"


def tiny(name: str):
    """The published training with a network and crops of a fraction of a second."""
    entry = RECIPES[name]
    network = replace(
        entry.network,
        backbone=BackboneConfig("resnet18"),
        fpn_channels=8,
        decoder_channels=8,
        preprocessing=replace(entry.network.preprocessing, short_edge=None, long_edge=None),
    )
    return replace(entry, network=network, augmentation=(RandomCrop(48, 48),), pretrained="")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointrend.training.paper.find_recipe", tiny)


def test_a_published_training_runs_by_its_name_and_goes_on_after_its_end(small, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        "train",
        NAME,
        "--data",
        "shapes",
        "--batch-size",
        "2",
        "--limit",
        "1",
        "--device",
        "cpu",
        "--out",
        str(run),
    ]
    assert main([*command, "--steps", "2", "--checkpoint-every", "1"]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    recipe = lines[0]["recipe"]
    assert (recipe["steps"], recipe["batch_size"], recipe["optimizer"]) == (2, 2, "sgd")
    assert recipe["learning_rate"] == pytest.approx(0.01 * 2 / 32)
    assert {path.name for path in run.glob("*.*")} >= {"model.safetensors", "scores.json", "state-0000002.pt"}
    assert pointrend.load(run / "model.safetensors").config.class_names[0] == "background"

    assert main([*command, "--steps", "2", "--checkpoint-every", "1", "--resume"]) == 0
    assert '"resumed": 2' in (run / "log.jsonl").read_text()


def test_what_is_not_given_is_as_published() -> None:
    entry = RECIPES["pointrend_rcnn_R_50_FPN_1x_coco"]
    assert Train().apply_to(entry.recipe) == entry.recipe
    smaller = Train(batch_size=4, evaluate_every=5, metric="mask AP", seed=7).apply_to(entry.recipe)
    changes = {"learning_rate": 0.005, "evaluate_every": 5, "metric": "mask AP", "seed": 7}
    assert smaller == replace(entry.recipe, batch_size=4, **changes)
    assert Train(batch_size=4, lr=0.02).apply_to(entry.recipe).learning_rate == 0.02
    adam = preset("instance-resnet18").recipe
    assert Train(batch_size=4).apply_to(adam).learning_rate == adam.learning_rate


def test_points_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = Train(train_points=100, oversample=10, importance=1.0, points=196, subdivision_steps=4)
    for entry in (RECIPES["pointrend_rcnn_R_50_FPN_1x_coco"], preset("instance-resnet18")):
        assert Train().apply_to_network(entry) == entry
        masks = chosen.apply_to_network(entry).network.masks
        assert masks.sampling == PointSampling(100, 10, 1.0)
        assert (masks.num_points, masks.start_size, masks.mask_size) == (196, 14, 224)
    assert main(["train", "--points", "10", "--no-pointrend"]) == 2
    assert "without a point head" in capsys.readouterr().err


def test_the_strategy_and_the_head_of_the_points_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    entry = RECIPES["pointrend_rcnn_R_50_FPN_1x_coco"]
    changed = Train(sampling="regular-grid", head_depth=1, head_width=64, point_head="residual")
    masks = changed.apply_to_network(entry).network.masks
    assert masks.sampling == PointSampling.regular(196)
    assert (masks.depth, masks.point_width, masks.width, masks.residual) == (1, 64, 256, True)
    small = preset("semantic-fpn-resnet18")
    rend = Train(sampling="heavily-biased", point_head="paper", head_width=16).apply_to_network(small).network
    assert (rend.point_rend.residual, rend.point_rend.width) == (False, 16)
    assert rend.point_rend.sampling == PointSampling.heavily_biased(2048)
    for wrong, message in (
        (["--sampling", "uniform", "--oversample", "2"], "own k and beta"),
        (["--sampling", "regular-grid", "--train-points", "10"], "square number"),
        (["implicit_pointrend_R_50_FPN_1x_coco", "--head-width", "8"], "expected PointRend's mask head"),
        (["--no-pointrend", "--head-depth", "2"], "without a point head"),
    ):
        assert main(["train", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_published_training_without_points_is_the_papers_baseline() -> None:
    plain = Train(pointrend=False)
    assert plain.apply_to_network(RECIPES["pointrend_rcnn_R_50_FPN_1x_coco"]).network.mask_head == "conv28"
    assert plain.apply_to_network(RECIPES[NAME]).network.point_rend is None


def test_crop_and_size_of_a_published_training_can_be_chosen() -> None:
    entry = RECIPES["pointrend_rcnn_R_50_FPN_1x_coco"].with_size(400)
    assert entry.augmentation[0] == ResizeShortEdge((320, 336, 352, 368, 384, 400), 666)
    assert (entry.network.preprocessing.short_edge, entry.network.preprocessing.long_edge) == (400, 666)
    cropped = RECIPES[NAME].with_crop(64, 96).augmentation
    assert next(step for step in cropped if isinstance(step, RandomCrop)) == RandomCrop(64, 96, 0.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["instance-resnet18", "--crop", "64", "64"], "crop: semantic models"),
        (["semantic-fpn-resnet18", "--size", "64"], "size: instance models"),
        ([NAME, "--preset", "instance-resnet18"], "preset: "),
        (["--no-evaluate", "--metric", "mIoU"], "metric: this training is not evaluated"),
        (["--no-evaluate", "--limit", "3"], "limit: this training is not evaluated"),
        (["--device", "gpu"], "device: expected cpu, cuda"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_recipe_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "pointrend_rcnn_R_51", "--data", "shapes"]) == 2
    assert NAME in capsys.readouterr().err


def test_a_preset_may_be_given_by_its_name_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "1", "--batch-size", "2", "--crop", "64", "64", "--no-evaluate", "--device", "cpu"]
    assert main(["train", "semantic-fpn-resnet18", *small, "--out", str(tmp_path)]) == 0
    assert pointrend.load(tmp_path / "model.safetensors").config.backbone.name == "resnet18"


def test_finetuning_keeps_known_classes_scores_and_saves_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = pointrend.SemanticConfig(
        ("star", "cat"), backbone=BackboneConfig("resnet18"), fpn_channels=16, decoder_channels=16
    )
    start = tmp_path / "start.safetensors"
    pointrend.save(pointrend.SemanticSegmenter(config), start, extra={"licence": "CC BY-SA 3.0"})
    run = tmp_path / "run"
    options = ["--steps", "2", "--batch-size", "2", "--crop", "48", "48", "--limit", "1", "--patience", "0"]
    assert (
        main(["finetune", str(start), "--data", "shapes", *options, "--device", "cpu", "--out", str(run)])
        == 0
    )
    shown = capsys.readouterr()
    assert "classes kept by name: star" in shown.err
    assert "classes dropped: cat" in shown.err
    assert "the best by mIoU" in shown.out
    model = pointrend.load(run / "best.safetensors")
    assert "star" in model.config.class_names
    assert model.origin["licence"] == "CC BY-SA 3.0"
    assert (model.origin["data"], model.origin["from"]) == ("shapes", "start.safetensors")
    assert len(json.loads((run / "scores.json").read_text())) >= 1


@pytest.mark.parametrize("name", ["semantic-fpn-resnet18", "instance-resnet18"])
def test_an_unknown_metric_is_refused_before_the_first_update_with_those_there_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", name, "--device", "cpu", "--out", str(tmp_path / "run"), "--metric"]
    assert main([*command, "boundary"]) == 2
    shown = capsys.readouterr().err
    expected = "mIoU@1px, mIoU@3px" if "semantic" in name else "mask AP50, mask AP75"
    assert expected in shown
    assert "got 'boundary'" in shown
    assert not (tmp_path / "run").exists()
    assert main([*command, "mIoU", "--no-evaluate"]) == 2
    assert "not evaluated" in capsys.readouterr().err


def test_the_best_model_by_boundary_ap_is_kept_of_a_training_that_is_scored_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        "--steps",
        "2",
        "--batch-size",
        "1",
        "--size",
        "64",
        "--limit",
        "1",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    wanted = ["--evaluate-every", "1", "--metric", "boundary AP", "--lr", "0.000001"]
    assert main(["train", "instance-resnet18", *small, *wanted]) == 0
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scored = [entry for entry in entries if "boundary AP" in entry]
    assert [entry["step"] for entry in scored] == [1, 2]
    assert set(score_names("instance")) == set(scored[0]) - {"step"}


def test_how_a_training_ended_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(steps=9, evaluate_every=1, metric="mIoU", patience=2)
    run = SimpleNamespace(
        recipe=recipe,
        options=Train(out=tmp_path),
        broken=0,
        stopped=False,
        validation=SimpleNamespace(rows=[]),
    )
    for done, expected in {
        9: "",
        5: "ended after 5 of 9 updates: 2 evaluations without a better mIoU\n",
    }.items():
        run.done = done
        _summarize(run)
        assert capsys.readouterr().err == expected
    run.stopped, run.broken = True, 1
    _summarize(run)
    told = capsys.readouterr().err
    assert "--resume goes on" in told
    assert "1 images could not be read" in told
    assert "without a better" not in told


def test_after_sigterm_it_is_told_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated(*_: object, **__: object) -> None:
        raise Terminated

    monkeypatch.setattr(job, "train", terminated)
    command = ["train", "semantic-fpn-resnet18", "--no-evaluate", "--device", "cpu", "--out", str(tmp_path)]
    assert main(command) == 143
    assert f"checkpoint in {tmp_path}; the same command with --resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize("resume", [False, True])
def test_a_training_says_whose_backbone_it_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    filled: list[str] = []
    monkeypatch.setattr(job, "fill_backbone", lambda _, name, **__: filled.append(name))
    (tmp_path / "state-0000001.pt").touch()
    model = SimpleNamespace(backbone=None, origin={})
    job._fill(model, RECIPES[NAME].pretrained, Train(out=tmp_path, resume=resume), None)
    assert model.origin["backbone_started_from"]["licence"].startswith("CC BY-SA 3.0")
    assert filled == ([] if resume else ["MSRA/R-101"])  # the checkpoint has them
    unknown = SimpleNamespace(backbone=None, origin={})
    job._fill(unknown, "none", Train(), None)
    assert unknown.origin == {}


def test_weights_from_a_file_are_recorded_with_their_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build_backbone(BackboneConfig("resnet18", norm="batch"))
    file = tmp_path / "mine.pth"
    torch.save({torchvision_name(source.config, name): t for name, t in source.state_dict().items()}, file)
    small = ["--steps", "1", "--batch-size", "1", "--crop", "32", "32", "--no-evaluate", "--device", "cpu"]
    out = tmp_path / "run"
    assert main(["train", "semantic-fpn-resnet18", *small, "--weights", str(file), "--out", str(out)]) == 0
    start = pointrend.load(out / "model.safetensors").origin["backbone_started_from"]
    assert start["name"] == "mine.pth"
    assert start["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert start["licence"].startswith("not stated")


@pytest.mark.parametrize("name", ["semantic-fpn-resnet18", "instance-resnet18"])
def test_images_of_predictions_and_chosen_points_are_drawn_now_and_then(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--crop", "64", "64"] if "semantic" in name else ["--size", "64"]
    small = ["--steps", "1", "--batch-size", "1", *size, "--no-evaluate", "--device", "cpu"]
    engine = ["--ema", "0.5", "--channels-last"]
    assert main(["train", name, *small, *engine, "--vis-every", "1", "--out", str(tmp_path)]) == 0
    recipe = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["recipe"]
    assert (recipe["average"], recipe["channels_last"], recipe["compile"]) == (0.5, True, None)
    with Image.open(tmp_path / "images" / "predictions-0000001.png") as sheet:
        assert sheet.width == 3 * 520 + 8  # labels, prediction, points
        assert len(set(sheet.convert("L").tobytes())) > 50
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("step 1 of 1"))
    assert re.fullmatch(
        r"step 1 of 1, loss [\d.]+, lr [\d.e-]+, data [\d.]+ s \+ compute [\d.]+ s, [\d.]+ GiB \(.+\), 0:00 left",
        line,
    )


def test_an_elastic_torchrun_goes_on_where_it_lost_a_process(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    command = [
        "train",
        NAME,
        "--data",
        "shapes",
        "--batch-size",
        "2",
        "--no-evaluate",
        "--device",
        "cpu",
        "--out",
        str(run),
    ]
    command += ["--steps", "1", "--checkpoint-every", "1"]
    assert main(command) == 0
    assert main(command) == 2  # without --resume it would mix two trainings
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(command) == 0
    assert '"resumed": 1' in (run / "log.jsonl").read_text()
