"""The models that come with the package load, are small, say how they were made, and show what PointRend gains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pointrend
from pointrend.app.instance_session import InstanceSession
from pointrend.app.semantic_session import SemanticSession
from pointrend.app.types import Settings
from pointrend.checkpoints.native import load, read
from pointrend.data.shapes import ShapeScenes
from pointrend.evaluation.evaluate_semantic import evaluate_semantic
from pointrend.results import InstanceResult
from pointrend.structures import InstanceMasks
from pointrend.zoo.bundled import BUNDLED
from tools import train_demo_models as tool
from tools.train_demo_models import SIZE, TRAINING_SEED, TRAININGS, Training, train_model

HELD_OUT = 90210  # seed of scenes that were not trained on


@pytest.mark.parametrize(
    ("task", "config"), [("semantic", "semantic_config"), ("instance", "instance_config")]
)
def test_the_file_is_small_and_says_where_it_comes_from(task: str, config: str) -> None:
    info, tensors = read(BUNDLED[f"shapes-{task}"].path)
    assert BUNDLED[f"shapes-{task}"].path.stat().st_size < 2 * 2**20
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    assert all(bool(torch.isfinite(t).all()) for t in tensors.values())
    assert info.config == getattr(tool, config)()
    assert info.extra["licence"] == "Apache-2.0"
    assert info.extra["command"] == f"python -m tools.train_demo_models {task} --out FILE"
    assert "no pretrained weights" in info.extra["data"]


def test_labels_are_better_with_points_on_scenes_never_trained_on() -> None:
    assert HELD_OUT != TRAINING_SEED
    scenes = ShapeScenes(12, seed=HELD_OUT, size=SIZE)
    coarse, refined = evaluate_semantic(
        pointrend.load("shapes-semantic"), scenes, {"coarse": {"refine": False}, "refined": {}}
    )
    assert coarse.numbers["mIoU"] > 0.6
    assert refined.numbers["mIoU"] > coarse.numbers["mIoU"] + 0.01
    assert refined.numbers["boundary IoU"] > coarse.numbers["boundary IoU"] + 0.05


def overlap(found: InstanceResult, truth: InstanceMasks) -> float:
    """Mean over the true objects of the best IoU that any found mask has with them."""
    if not len(found) or not len(truth):
        return 0.0
    masks, objects = found.masks.dense().flatten(1).float(), truth.dense().flatten(1).float()
    both = objects @ masks.T
    either = objects.sum(1)[:, None] + masks.sum(1) - both
    return float((both / either).amax(1).mean())


def test_objects_are_better_with_points_on_scenes_never_trained_on() -> None:
    scenes = ShapeScenes(12, "instance", seed=HELD_OUT, size=SIZE, min_area=100)
    model = pointrend.load("shapes-instance")
    coarse = refined = 0.0
    for sample in (scenes[number] for number in range(len(scenes))):
        session = InstanceSession(model, sample.image)
        rendering = session.render(Settings(session.resolutions.own, session.points.own, 0.3))
        assert isinstance(rendering.result, InstanceResult)
        assert isinstance(rendering.coarse, InstanceResult)
        refined += overlap(rendering.result, sample.target.masks) / len(scenes)
        coarse += overlap(rendering.coarse, sample.target.masks) / len(scenes)
    assert coarse > 0.3
    assert refined > coarse + 0.01


def test_a_bundled_model_predicts_images_of_any_size() -> None:
    session = SemanticSession(pointrend.load("shapes-semantic"), torch.zeros(3, 1, 1, dtype=torch.uint8))
    assert session.render(Settings(24, 32)).result.labels.shape == (1, 1)


def test_the_command_makes_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["train_demo_models", "semantic", "--steps", "1", "--out", str(tmp_path / "a.safetensors")],
    )
    monkeypatch.setitem(TRAININGS, "semantic", Training("semantic", 9, 2, 2, 1e-3))
    tool.main()
    model = load(tmp_path / "a.safetensors")
    assert model.origin["command"].endswith("semantic --steps 1 --out FILE")
    train_model(Training("instance", 1, 2, 2, 1e-3), tmp_path / "b.safetensors")
    assert load(tmp_path / "b.safetensors").config == tool.instance_config()
