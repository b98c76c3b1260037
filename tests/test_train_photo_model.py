"""The command that made the bundled model for photographs runs to its scores; its pieces do what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from pointrend.checkpoints.imagenet import torchvision_name
from pointrend.checkpoints.native import load
from pointrend.data.label_io import read_labels
from pointrend.models.inputs import batch_images
from pointrend.models.semantic import SemanticSegmenter
from pointrend.structures import Sample, SemanticTarget
from tools import train_photo_model as tool

SIZE = (64, 48)


def image(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, *SIZE), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def write(array: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.permute(1, 2, 0).numpy() if array.ndim == 3 else array.numpy()).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random images of each set, and a teacher with random weights, in the files that the command reads."""
    folder = tmp_path_factory.mktemp("data")
    person = torch.zeros(SIZE, dtype=torch.uint8)
    person[10:60, 20:34] = 7
    for split in ("train", "val"):
        lines = []
        for number in range(2):
            write(image(number), folder / f"ccp/{split}/{number}.png")
            write(person, folder / f"ccp/{split}_labels/{number}.png")
            write(image(number), folder / f"coco_mini/{split}/{number}.png")
            lines.append(f"{split}/{number}.png {split}_labels/{number}.png\n")
        (folder / f"ccp/{split}.txt").write_text("".join(lines))
        (folder / f"coco_mini/instances_{split}.json").write_text(json.dumps(coco_file()))
    (folder / "weights").mkdir()
    save_file(teacher_tensors(), folder / tool.TEACHER)
    return folder


def coco_file() -> dict[str, object]:
    """A dog in front of a larger person in image 0, and nothing in image 1."""
    boxes = {"person": (5, 5, 40, 60), "dog": (10, 30, 30, 50)}
    names = list(tool.VOC_OF_COCO)
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(2)],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {
                "id": number,
                "image_id": 0,
                "category_id": names.index(name) + 1,
                "bbox": [x, y, right - x, bottom - y],
                "area": (right - x) * (bottom - y),
                "iscrowd": 0,
                "segmentation": [[x, y, right, y, right, bottom, x, bottom]],
            }
            for number, (name, (x, y, right, bottom)) in enumerate(boxes.items(), start=1)
        ],
    }


def teacher_tensors() -> dict[str, Tensor]:
    """Random tensors with the teacher's names and shapes."""
    torch.manual_seed(0)
    model = SemanticSegmenter(replace(tool.config(), point_rend=None))
    shapes = {
        torchvision_name(model.config.backbone, name): conv.weight.shape
        for name, conv, _ in tool.convolutions_and_norms(model.backbone)
    }
    shapes |= {
        "head.aspp": torch.Size((256, 320, 1, 1)),
        "head.image_pooling": torch.Size((256, 320, 1, 1)),
        "head.projection": torch.Size((256, 512, 1, 1)),
        "head.logits": torch.Size((21, 256, 1, 1)),
    }
    tensors = {}
    for name, shape in shapes.items():
        scale = shape[1:].numel() ** -0.5
        tensors[f"{name}.weight"] = torch.randn(shape).mul_(scale).half()
        tensors[f"{name}.bias"] = torch.randn(shape[0]).mul_(0.1).half()
    return tensors


def test_the_command_trains_scores_and_writes_the_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "CROP", 64)
    monkeypatch.setattr(tool, "WHOLE", (64, 48))
    arguments = [
        "--data",
        str(data),
        "--out",
        str(tmp_path),
        "--steps",
        "1",
        "--front-steps",
        "1",
        "--workers",
        "0",
    ]
    monkeypatch.setattr("sys.argv", ["train_photo_model", *arguments])
    tool.main()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == set(tool.VARIANTS)
    assert {"ccp person IoU", "ccp person boundary IoU@10px", "coco mIoU", "coco mIoU@1px"} <= set(
        scores["bilinear"]
    )
    model = load(tmp_path / "photo-semantic.safetensors")
    assert model.config == tool.config()
    assert model.origin["scores"] == scores
    assert "--steps 1 --front-steps 1 --seed 0" in model.origin["command"]
    assert len(model.predict([image(5)])) == 1
    capsys.readouterr()
    made = ["--ignore-others", "--score", str(tmp_path / "photo-semantic.safetensors")]
    monkeypatch.setattr("sys.argv", ["train_photo_model", *arguments, *made])
    tool.main()
    assert set(json.loads(capsys.readouterr().out)) == set(scores)
    trial = ["--trial", "1", "--without-points", "--front-steps", "0"]
    monkeypatch.setattr("sys.argv", ["train_photo_model", *arguments, *trial])
    tool.main()
    assert set(json.loads(capsys.readouterr().out)) == {"bilinear"}
    monkeypatch.setattr("sys.argv", ["train_photo_model", *arguments, "--without-points"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "--without-points: expected no --front-steps" in capsys.readouterr().err
    start = [
        "--data",
        str(data),
        "--out",
        str(tmp_path),
        "--start",
        str(tmp_path / "photo-semantic.safetensors"),
    ]
    monkeypatch.setattr("sys.argv", ["train_photo_model", *start])
    with pytest.raises(SystemExit):
        tool.main()
    assert "--start: expected --front-steps" in capsys.readouterr().err


def test_before_training_the_model_says_what_the_teacher_says(data: Path) -> None:
    teacher = tool.build_teacher(data / tool.TEACHER)
    batch = batch_images([image(3)], teacher.config.preprocessing)
    with torch.no_grad():
        expected = teacher.coarse(teacher.features(batch.tensor))
        model = tool.build_student(teacher, [image(0), image(1)], seed=0).eval()
        torch.testing.assert_close(model.coarse(model.features(batch.tensor)), expected, rtol=1e-3, atol=1e-4)
        coarse, refined = (model.predict([image(3)], refine=refine)[0].labels for refine in (False, True))
    assert torch.equal(coarse, refined)


def test_every_layer_learns(data: Path) -> None:
    model = tool.build_student(tool.build_teacher(data / tool.TEACHER), [image(0)], seed=0).train()
    assert model.point_rend is not None
    torch.nn.init.normal_(
        model.point_rend.head.predictor.weight
    )  # it starts at zero and lets no gradient through
    labels = torch.randint(0, 21, SIZE, dtype=torch.uint8)
    losses = model.loss([image(0), image(1)], [SemanticTarget(labels)] * 2)
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_four_plain_convolutions_are_a_dilated_one() -> None:
    conv = torch.nn.Conv2d(3, 3, 3, padding=2, dilation=2, groups=3, bias=False)
    for size in ((8, 6), (7, 6)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(tool.dilated_by_two(conv, x), conv(x))


def test_polygons_become_labels_with_an_ignored_outline(data: Path, tmp_path: Path) -> None:
    coco = tool.CocoInstances(
        data / "coco_mini/train", data / "coco_mini/instances_train.json", categories=list(tool.VOC_OF_COCO)
    )
    pairs = tool.draw_coco_labels(coco, tmp_path, band=(1, 3))
    labels = read_labels(pairs[0][1])
    dog = tool.CLASS_NAMES.index("dog")
    assert labels[40, 20] == dog  # the smaller object lies in front
    assert labels[20, 20] == tool.PERSON
    assert labels[2, 44] == 0
    assert labels[30, 20] == 255
    assert labels[5, 20] == 255
    assert labels[6, 20] == tool.PERSON  # of a thin thing enough is left
    assert labels[2, 20] == 255
    assert labels[1, 20] == 0
    assert (read_labels(pairs[1][1]) == 0).all()


def test_the_teacher_names_what_is_far_from_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = 200, 300
    person = np.zeros((height, width), dtype=np.uint8)
    person[20:180, 20:60] = 1
    write(torch.from_numpy(person), tmp_path / "0.png")
    write(torch.zeros(3, height, width, dtype=torch.uint8), tmp_path / "image.png")
    car, sure = tool.CLASS_NAMES.index("car"), torch.zeros(21, height, width)
    sure[0] = 1
    for label, rows, columns in (
        (car, slice(20, 60), slice(200, 240)),
        (tool.PERSON, slice(20, 60), slice(120, 160)),
        (tool.PERSON, slice(170, 180), slice(100, 140)),
    ):
        sure[:, rows, columns] = 0
        sure[label, rows, columns] = 0.9
    monkeypatch.setattr(tool, "teach", lambda teacher, image: sure)
    pairs = [(tmp_path / "image.png", tmp_path / "0.png")]
    labels = read_labels(tool.draw_people_and_teacher(None, pairs, tmp_path / "out")[0][1])  # type: ignore[arg-type]
    assert labels[40, 40] == tool.PERSON
    assert labels[40, 220] == car
    assert labels[40, 140] == tool.OTHERS
    assert labels[175, 120] == 0  # a shadow beside the feet
    assert labels[100, 70] == 0


def test_people_without_a_label_can_be_ignored_in_scores(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = torch.zeros(21, *SIZE)
    sure[0] = 1
    sure[:, :20, :2] = 0
    sure[tool.PERSON, :20, :2] = 0.9  # 18 pixels beside the person
    monkeypatch.setattr(tool, "teach", lambda teacher, image: sure)
    teacher = tool.build_teacher(data / tool.TEACHER)
    pairs = tool.ignore_others(teacher, tool.read_pairs(data / "ccp/val.txt"), tmp_path)
    labels = read_labels(pairs[0][1])
    assert (labels[:20, :2] == 255).all()
    assert (labels[10:60, 20:34] == tool.PERSON).all()
    assert labels[20:, :20].max() == 0


def test_the_coarse_logits_learn_from_the_teacher_where_no_label_says_otherwise(data: Path) -> None:
    model = tool.build_student(tool.build_teacher(data / tool.TEACHER), [image(0)], seed=0).train()
    labels = torch.full(SIZE, 255, dtype=torch.uint8)
    plain = model.loss([image(0), image(1)], [SemanticTarget(labels)] * 2)["coarse"]
    taught = model.loss([image(0), image(1)], [SemanticTarget(labels), tool.TaughtTarget(labels)])["coarse"]
    assert plain == 0
    assert taught > 0


def test_other_people_are_background_to_the_coarse_logits_and_nothing_to_the_points(data: Path) -> None:
    model = tool.build_student(tool.build_teacher(data / tool.TEACHER), [image(0)], seed=0).train()

    def losses(label: int) -> list[float]:
        labels = torch.zeros(SIZE, dtype=torch.uint8)
        labels[:32] = label
        torch.manual_seed(0)  # dropout
        found = model.loss(
            [image(0)] * 2, [SemanticTarget(labels)] * 2, generator=torch.Generator().manual_seed(0)
        )
        return [found[name].item() for name in ("coarse", "points")]

    assert losses(tool.OTHERS) == losses(255)
    model.others_are_background = True
    assert losses(tool.OTHERS) == [losses(0)[0], losses(255)[1]]


def test_somebody_is_pasted_behind_the_person_in_front(data: Path) -> None:
    pairs = [(data / "ccp/train/1.png", data / "person.png")]
    write(torch.where(read_labels(data / "ccp/train_labels/1.png") > 0, tool.PERSON, 0).byte(), pairs[0][1])
    front = torch.zeros(SIZE, dtype=torch.uint8)
    front[20:60, 20:30] = tool.PERSON
    sample = Sample(image(0), SemanticTarget(front), image_id="0", path="")
    paste = tool.PasteSomebody(pairs, probability=1.0)
    torch.manual_seed(0)
    changed = pasted = 0
    for _ in range(20):
        after = paste(sample)
        labels = after.target.labels
        differs = (after.image != sample.image).any(0)
        assert torch.equal(labels == tool.PERSON, front == tool.PERSON)
        assert not differs[front == tool.PERSON].any()
        assert set(labels.unique().tolist()) <= {0, tool.PERSON, tool.OTHERS}
        assert differs[labels == tool.OTHERS].float().sum() >= 0.9 * (labels == tool.OTHERS).sum()
        assert not (labels == tool.OTHERS)[tool.grown(front == tool.PERSON, 16)].any()
        changed += int(differs.any())
        pasted += int((labels == tool.OTHERS).any())
    assert changed > 10
    assert pasted > 3
    assert tool.PasteSomebody(pairs, probability=0.0)(sample) is sample


def test_blending_keeps_pyramid_and_points_and_mixes_the_rest(data: Path) -> None:
    model = tool.build_student(tool.build_teacher(data / tool.TEACHER), [image(0)], seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    tool.blend(model, before, 0.75)
    for name, parameter in model.named_parameters():
        moved = 1.0 if name.startswith(("fpn.", "point_rend.")) else 0.75
        torch.testing.assert_close(parameter.detach(), before[name] + moved, rtol=1e-4, atol=1e-4)
