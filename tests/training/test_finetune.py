from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pointrend.checkpoints.native import load, save
from pointrend.cli import main
from pointrend.data.shapes import ShapeScenes
from pointrend.evaluation.evaluate_instances import evaluate_instances
from pointrend.models.backbones import BackboneConfig
from pointrend.models.box_head import BoxHeadConfig
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.mask_heads.base import MaskConfig
from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig, SemanticSegmenter
from pointrend.train import prepare_finetuning
from pointrend.training.finetune import change_classes, class_axes, finetune_recipe
from pointrend.training.options import TrainingOptions

OLD, NEW = ("road", "car", "sky"), ("tree", "sky", "road", "boat")


@pytest.fixture(scope="module")
def semantic() -> SemanticSegmenter:
    torch.manual_seed(0)
    rend = SemanticPointRendConfig(width=8)
    return SemanticSegmenter(
        SemanticConfig(
            OLD, (), BackboneConfig("resnet18"), fpn_channels=8, decoder_channels=8, point_rend=rend
        )
    )


@pytest.fixture(scope="module")
def instance() -> InstanceSegmenter:
    torch.manual_seed(0)
    return InstanceSegmenter(
        InstanceConfig(
            OLD,
            BackboneConfig("resnet18"),
            fpn_channels=8,
            boxes=BoxHeadConfig(width=16, samples=16),
            masks=MaskConfig(width=8, coarse_width=16),
        )
    )


def test_tensors_that_depend_on_the_classes_are_found(semantic, instance) -> None:
    assert class_axes(semantic.config) == {
        "decoder.predictor.weight": {0: 1},
        "decoder.predictor.bias": {0: 1},
        **{f"point_rend.head.layers.{n}.weight": {1: 1} for n in range(3)},
        "point_rend.head.predictor.weight": {0: 1, 1: 1},
        "point_rend.head.predictor.bias": {0: 1},
    }
    axes = class_axes(instance.config)
    assert axes["box_head.deltas.weight"] == {0: 4}
    assert axes["mask_head.coarse_head.prediction.weight"] == {0: 49}


def test_known_classes_keep_their_weights_in_their_new_place(semantic) -> None:
    model, report = change_classes(semantic, NEW, ((1, 2, 3),) * 4)
    assert model.config.class_names == NEW
    assert model.config.palette == ((1, 2, 3),) * 4
    assert (report.known, report.new, report.dropped) == (("sky", "road"), ("tree", "boat"), ("car",))
    assert torch.equal(model.decoder.predictor.weight[[1, 2]], semantic.decoder.predictor.weight[[2, 0]])
    assert not torch.equal(model.decoder.predictor.weight[0], semantic.decoder.predictor.weight[0])
    ours, theirs = model.point_rend.head.layers[0].weight, semantic.point_rend.head.layers[0].weight
    assert torch.equal(ours[:, :8], theirs[:, :8])
    assert torch.equal(ours[:, 8:][:, [1, 2]], theirs[:, 8:][:, [2, 0]])
    ours, theirs = model.point_rend.head.predictor.weight, semantic.point_rend.head.predictor.weight
    assert torch.equal(ours[[1, 2]][:, [0, 7, 9, 10]], theirs[[2, 0]][:, [0, 7, 10, 8]])
    assert torch.equal(model.backbone.stem[0].weight, semantic.backbone.stem[0].weight)


def test_the_licence_of_the_start_stays_with_the_model(semantic, tmp_path, capsys) -> None:
    assert change_classes(semantic, NEW)[0].origin == {}
    first, _ = change_classes(semantic, OLD)
    first.origin = {"name": "published", "licence": "CC BY-SA 3.0; non-commercial use only"}
    second, _ = change_classes(first, NEW)
    save(second, tmp_path / "second.safetensors")
    third, _ = change_classes(load(tmp_path / "second.safetensors"), NEW[:2])
    for model in (second, third):
        assert model.origin["licence"] == "CC BY-SA 3.0; non-commercial use only"
    assert third.origin["started_from"]["started_from"]["name"] == "published"
    third.save_pretrained(tmp_path / "third")
    assert main(["zoo", str(tmp_path / "third" / "model.safetensors")]) == 0
    for card in ((tmp_path / "third" / "README.md").read_text(), capsys.readouterr().out):
        assert "- licence: CC BY-SA 3.0; non-commercial use only" in card
        assert "    - name: published" in card


def test_boxes_keep_background_and_four_numbers_a_class(instance) -> None:
    model, report = change_classes(instance, NEW)
    ours, theirs = model.box_head, instance.box_head
    assert torch.equal(ours.classes.bias[[1, 2, 4]], theirs.classes.bias[[2, 0, 3]])
    assert torch.equal(ours.classes.weight[4], theirs.classes.weight[3])
    assert torch.equal(ours.deltas.weight[4:12], theirs.deltas.weight[[8, 9, 10, 11, 0, 1, 2, 3]])
    coarse = model.mask_head.coarse_head.prediction.weight
    assert torch.equal(coarse[49:98], instance.mask_head.coarse_head.prediction.weight[98:])
    assert not report.reinitialised
    text = str(report)
    assert "classes kept by name: sky, road" in text
    assert "box_head.classes.weight: (4, 16) -> (5, 16)" in text


def test_the_same_classes_in_the_same_order_change_nothing(semantic) -> None:
    model, report = change_classes(semantic, OLD)
    assert not report.new
    assert all(torch.equal(v, model.state_dict()[name]) for name, v in semantic.state_dict().items())


def test_entirely_new_classes_keep_what_belongs_to_none(instance) -> None:
    model, report = change_classes(instance, ("boat",))
    assert report.known == ()
    assert torch.equal(model.rpn.conv.weight, instance.rpn.conv.weight)
    assert torch.equal(model.box_head.classes.weight[1], instance.box_head.classes.weight[3])


def test_a_head_without_a_known_layout_is_reinitialised_and_named(instance) -> None:
    masks = replace(instance.config.masks, num_points=16, mask_size=8)
    implicit = InstanceSegmenter(replace(instance.config, mask_head="implicit", masks=masks))
    _, report = change_classes(implicit, NEW)
    assert any("mask_head" in line for line in report.reinitialised)
    assert not any("box_head" in line for line in report.reinitialised)


def test_a_model_with_new_classes_trains(instance) -> None:
    model, _ = change_classes(instance, ("disc", "square", "triangle", "star", "ring", "plus"))
    sample = ShapeScenes(1, "instance", size=(48, 64), objects=(2, 3))[0]
    target = replace(sample.target, labels=sample.target.labels.clamp(max=5))
    losses = model.loss([sample.image], [target])
    assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_impossible_classes_are_refused(semantic, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="each once"):
        change_classes(semantic, names)


def test_defaults_follow_the_size_of_the_data() -> None:
    few, some, many = (finetune_recipe(n, "semantic") for n in (3, 300, 100_000))
    assert (few.steps, some.steps, many.steps) == (300, 2250, 20_000)
    assert (some.metric, some.patience, some.evaluate_every) == ("mIoU", 5, 112)
    assert finetune_recipe(300, "instance").batch_size == 4
    with pytest.raises(ValueError, match="at least one"):
        finetune_recipe(0, "semantic")


def test_an_exported_file_is_no_start() -> None:
    exported = SimpleNamespace(task="semantic", config=SimpleNamespace(class_names=OLD))
    with pytest.raises(ValueError, match=r"model.onnx: expected a checkpoint"):
        prepare_finetuning(exported, "model.onnx", TrainingOptions(data="shapes"))  # type: ignore[arg-type]


def test_a_semantic_model_has_no_objects_to_score(semantic) -> None:
    with pytest.raises(ValueError, match="expected an instance model, got one that gives SemanticResult"):
        evaluate_instances(semantic, ShapeScenes(1, size=(32, 32)))
