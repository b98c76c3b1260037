"""`pointrend zoo` and `pointrend convert`: what they show, what they write, and what they say when they cannot."""

from __future__ import annotations

import pickle
import shlex
from pathlib import Path

import pytest
import torch
import tyro

import pointrend
from pointrend.checkpoints.detectron2 import from_detectron2, to_detectron2
from pointrend.cli import main
from pointrend.cli.console import downloading
from pointrend.cli.evaluate import Evaluate
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.mask_heads.coarse import MaskConfig
from pointrend.training.paper import TRAININGS
from pointrend.zoo import PRETRAINED, ZOO
from pointrend.zoo.card import card, commands

NAME = "pointrend_rcnn_R_50_FPN_3x_coco"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTREND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POINTREND_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path):
    preprocessing = ZOO["pointrend_semantic_R_101_FPN_1x_cityscapes"].config().preprocessing
    config = pointrend.SemanticConfig(
        ("class 0", "class 1"),
        backbone=BackboneConfig("resnet18"),
        preprocessing=preprocessing,
        fpn_channels=8,
        decoder_channels=32,
    )
    torch.manual_seed(0)
    pointrend.save(
        pointrend.SemanticSegmenter(config), tmp_path / "model.safetensors", extra={"data": "mine"}
    )
    return tmp_path / "model.safetensors"


def test_the_table_has_every_model_and_backbone_on_a_line(capsys):
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in [*ZOO, *PRETRAINED]:
        assert sum(line.startswith(f" {name} ") for line in lines) == 1, name
    line = next(line for line in lines if NAME in line)
    for part in ("instance", "R-50", "COCO", "mask AP 38.3, mask AP* 41.6", "229.95 MB", "CC BY-SA 3.0"):
        assert part in line


def test_a_name_shows_everything_about_it(capsys):
    assert main(["zoo", NAME]) == 0
    shown = capsys.readouterr().out
    for part in (
        "Mask R-CNN with FPN, resnet50",
        "mask AP 38.3, mask AP* 41.6 (Detectron2, projects/PointRend/README.md)",
        ZOO[NAME].url,
        "229.95 MB",
        "CC BY-SA 3.0",
        "60,161,792",
        "270,000 updates of 16 images",
        "from MSRA/R-50",
        f"pointrend eval {NAME} --data COCO --metrics mask",
    ):
        assert part in shown


def test_the_recipes_are_listed_row_by_row(capsys):
    assert main(["zoo", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in TRAININGS:
        assert any(line.startswith(f" {name} ") for line in lines), name
    assert any("heavily biased, Cityscapes" in line for line in lines)
    assert any("output stride 8 at inference" in line and "--output-stride 8" in line for line in lines)
    assert main(["zoo", NAME, "--recipes"]) == 2


def test_what_publishers_say_of_a_model_is_shown(capsys):
    assert main(["zoo", "pointrend_r101_4xb2-80k_cityscapes-512x1024"]) == 0
    shown = capsys.readouterr().out
    for part in ("20200715_214824.log.json", "4 V100, 4.2 GB", "7.0 images a second", "crop 512 x 1024"):
        assert part in shown
    assert main(["zoo", NAME]) == 0
    shown = capsys.readouterr().out
    for part in ("Model id: 164955410", "164955410/metrics.json", "momentum 0.9", "210,000, 250,000"):
        assert part in shown


def test_cite_prints_both_papers(capsys):
    assert main(["cite"]) == 0
    shown = capsys.readouterr().out
    assert "kirillov2020pointrend" in shown
    assert "2104.06404" in shown
    for entry, page in zip(shown.strip().split("\n\n"), ("README.md", "docs/point-labels.md"), strict=True):
        assert entry in (Path(__file__).parents[1] / page).read_text(encoding="utf-8")


def test_a_backbones_name_shows_its_card(capsys):
    assert main(["zoo", "openmmlab/resnet50_v1c"]) == 0
    shown = capsys.readouterr().out
    assert "resnet50_v1c-2cccc1ad.pth" in shown
    assert "three 3x3 convolutions" in shown


def test_a_misspelt_name_is_2_and_says_which_are_near(capsys):
    assert main(["zoo", NAME + "o"]) == 2
    assert f"not in the zoo; it has {NAME}" in capsys.readouterr().err


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_the_command_of_each_published_score_is_one_that_eval_takes(entry):
    found = commands(entry)
    assert list(found) == ([name for name, _ in entry.scores] if entry.url else [])
    for command in found.values():
        program, verb, *rest = shlex.split(command)
        assert (program, verb) == ("pointrend", "eval")
        assert tyro.cli(Evaluate, args=rest).models == (entry.name,)
        assert command in card(entry)


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_each_card_names_the_licence_and_who_measured_what(entry):
    text = card(entry)
    assert entry.licence in text
    assert ("Not measured with this package yet" in text) == bool(entry.scores)


def test_convert_writes_ours(checkpoint, tmp_path, capsys):
    assert main(["convert", str(checkpoint), "--to", str(tmp_path / "out.safetensors")]) == 0
    assert "2 classes (class 0, class 1)" in capsys.readouterr().out
    assert pointrend.load(tmp_path / "out.safetensors").origin == {"data": "mine"}


def test_an_own_model_is_never_given_the_names_of_a_benchmark(tmp_path, capsys):
    """Eight classes are not Cityscapes' eight."""
    config = pointrend.InstanceConfig(
        tuple(f"part {i}" for i in range(8)),
        backbone=BackboneConfig("resnet18"),
        fpn_channels=8,
        boxes=BoxHeadConfig(width=8),
        masks=MaskConfig(width=8, coarse_width=8),
    )
    to_detectron2(pointrend.InstanceSegmenter(config), tmp_path / "own.pkl")
    convert = ["convert", str(tmp_path / "own.pkl"), "--to", str(tmp_path / "own.safetensors")]
    assert main(convert) == 0
    shown = capsys.readouterr()
    assert "class 0, class 1" in shown.out
    assert "the file does not name its 8 classes" in shown.err
    assert main([*convert, "--classes", *config.class_names]) == 0
    shown = capsys.readouterr()
    assert "does not name" not in shown.err
    assert pointrend.load(tmp_path / "own.safetensors").config.class_names == config.class_names
    assert main([*convert, "--classes", "a", "b"]) == 2
    assert "the model has 8 classes" in capsys.readouterr().err


def test_convert_writes_detectron2s_and_reads_it_again(checkpoint, tmp_path):
    out = tmp_path / "new" / "out.pkl"
    assert main(["convert", str(checkpoint), "--to-detectron2", str(out)]) == 0
    with out.open("rb") as file:  # ours, so it may be unpickled
        content = pickle.load(file)
    assert set(content) == {"model", "__author__"}
    assert "sem_seg_head.point_head.predictor.weight" in content["model"]
    ours, again = pointrend.load(checkpoint), from_detectron2(out)
    assert all(torch.equal(again.state_dict()[name], t) for name, t in ours.state_dict().items())
    assert main(["convert", str(out), "--to", str(tmp_path / "back.safetensors")]) == 0
    assert pointrend.load(tmp_path / "back.safetensors").origin == {"converted_from": "out.pkl"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.pkl"], "say where to write"),
        (["x.pkl", "--to", "x.pth"], "ends with .safetensors"),
        (["x.pkl", "--to-detectron2", "x.pth"], "ends with .pkl"),
        (["no-such.pkl", "--to", "x.safetensors"], "no-such.pkl: no such file"),
    ],
)
def test_what_convert_cannot_do_is_2_with_the_reason(arguments, message, capsys):
    assert main(["convert", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_offline_is_2_with_what_to_fetch_and_where_to_put_it(cache, tmp_path, capsys):
    assert main(["convert", NAME, "--to", str(tmp_path / "x.safetensors")]) == 2
    shown = capsys.readouterr().err
    assert ZOO[NAME].url in shown
    assert str(cache / "model_final_edd263.pkl") in shown
    assert not (tmp_path / "x.safetensors").exists()


def test_a_download_shows_a_bar_and_nothing_shows_without_one(capsys):
    with downloading("some model"):
        pass
    assert capsys.readouterr().err == ""
    with downloading("some model") as progress:
        progress(500_000, 1_000_000)
        progress(1_000_000, 1_000_000)
    shown = capsys.readouterr()
    assert "fetching some model" in shown.err
    assert "1.0/1.0 MB" in shown.err
    assert shown.out == ""
