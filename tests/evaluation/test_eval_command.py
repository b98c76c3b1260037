"""`pointrend eval`: what it compares, keeps, resumes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pointrend
from pointrend.cli import main
from pointrend.metadata.cityscapes import INSTANCE_LABELS, TRAIN_LABELS
from tests.evaluation.tiny import SIZE, instance_model, photo, semantic_model


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Two images with label maps."""
    root = tmp_path / "streets"
    for number in range(2):
        photo(root / "images" / "val" / f"{number}.png", number)
        labels = np.zeros(SIZE, np.uint8)
        labels[20:, number:] = 1
        (root / "labels" / "val").mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / "labels" / "val" / f"{number}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["sky", "road"]}))
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three images of a cat or an oven; LVIS annotated the first two, and knows no ovens."""
    root = tmp_path / "coco"
    images = [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in (1, 2, 3)]
    box = {"segmentation": [[5, 5, 45, 5, 45, 35, 5, 35]], "bbox": [5, 5, 40, 30], "area": 1200, "iscrowd": 0}
    objects = [{**box, "id": n, "image_id": n, "category_id": 79 if n == 2 else 17} for n in (1, 2, 3)]
    categories = [{"id": 17, "name": "cat"}, {"id": 79, "name": "oven"}]
    for image in images:
        photo(root / "val" / image["file_name"], image["id"])
    (root / "instances_val.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": categories})
    )
    lists = {"neg_category_ids": [5], "not_exhaustive_category_ids": []}
    (root / "lvis.json").write_text(
        json.dumps(
            {
                "images": [{**image, **lists} for image in images[:2]],
                "annotations": [{**objects[0], "category_id": 5}],
                "categories": [{"id": 5, "name": "cat", "synset": "cat.n.01", "frequency": "f"}],
            }
        )
    )
    return root


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    root = tmp_path / "city"
    name = "ulm_000000_000019"
    photo(root / "leftImg8bit" / "val" / "ulm" / f"{name}_leftImg8bit.png")
    ids = np.full(SIZE, 7, np.uint16)
    ids[5:35, 5:40] = 26001
    stem = root / "gtFine" / "val" / "ulm"
    stem.mkdir(parents=True)
    Image.fromarray(ids).save(stem / f"{name}_gtFine_instanceIds.png")
    labels = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    Image.fromarray(labels).save(stem / f"{name}_gtFine_labelIds.png")
    return root


def scores(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / "scores.json").read_text())
    return rows


def evaluate(*arguments: object) -> int:
    return main(["eval", *map(str, arguments), "--device", "cpu"])


def test_several_models_are_compared_and_everything_is_kept(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [semantic_model(tmp_path / f"{n}.safetensors", seed=n) for n in range(2)]
    out, curves = tmp_path / "out", tmp_path / "plots" / "curves.png"
    assert evaluate(*models, "--data", streets, "--out", out, "--curves", curves) == 0
    assert "mIoU" in capsys.readouterr().out
    rows = scores(out)
    assert [row["name"] for row in rows] == [
        f"{model}, {row}" for model in "01" for row in ("coarse, interpolated", "PointRend")
    ]
    assert rows[0]["numbers"] != rows[2]["numbers"]
    assert len((out / "scores.md").read_text().splitlines()) == 6
    assert len(list(out.glob("*/labels/*.png"))) == 8
    assert len(list(out.glob("*/per_class.csv"))) == 4
    assert curves.stat().st_size > 0
    labels = out / "1, PointRend" / "labels"
    again = tmp_path / "again"
    assert evaluate("--data", streets, "--predictions", labels, "--out", again) == 0
    numbers = scores(again)[0]["numbers"]
    assert numbers == {key: rows[3]["numbers"][key] for key in numbers}


def test_label_maps_that_count_from_one_score_as_those_that_count_from_zero(
    streets: Path, tmp_path: Path
) -> None:
    model = semantic_model(tmp_path / "m.safetensors")
    assert evaluate(model, "--data", streets, "--out", tmp_path / "plain") == 0
    for file in (streets / "labels" / "val").glob("*.png"):  # as ADE20K's: 0 is no class
        labels = np.array(Image.open(file)) + 1
        Image.fromarray(labels.astype(np.uint8)).save(file)
    (streets / "classes.json").write_text(json.dumps({"classes": ["sky", "road"], "reduce_zero_label": True}))
    assert evaluate(model, "--data", streets, "--out", tmp_path / "one") == 0
    assert scores(tmp_path / "one")[1]["numbers"] == scores(tmp_path / "plain")[1]["numbers"]
    labels = tmp_path / "one" / "PointRend" / "labels"  # of what is predicted, 0 is the first class
    assert evaluate("--data", streets, "--predictions", labels, "--out", tmp_path / "file") == 0
    assert scores(tmp_path / "file")[0]["numbers"] == scores(tmp_path / "one")[1]["numbers"]


def test_the_same_command_resumes_and_another_one_is_refused(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = semantic_model(tmp_path / "m.safetensors"), tmp_path / "out"
    assert evaluate(model, "--data", streets, "--out", out) == 0
    before = scores(out)

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr(pointrend.SemanticSegmenter, "predict", nothing)
    assert evaluate(model, "--data", streets, "--out", out, "--metrics", "miou") == 0
    assert scores(out)[1]["numbers"]["mIoU"] == before[1]["numbers"]["mIoU"]
    semantic_model(tmp_path / "m.safetensors", seed=5)
    assert evaluate(model, "--data", streets, "--out", out) == 2
    assert "holds predictions of another run (sha256" in capsys.readouterr().err


def test_a_folder_of_other_images_is_refused(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = instance_model(tmp_path / "m.safetensors"), tmp_path / "out"
    choice = [model, "--data", coco, "--metrics", "mask", "--out", out, "--limit"]
    assert evaluate(*choice, 2) == 0
    assert evaluate(*choice, 2) == 0
    assert evaluate(*choice, 3) == 2
    assert "holds predictions of another run (" in capsys.readouterr().err


def test_a_model_without_points_has_one_row_beside_those_with_several(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {head: tmp_path / head / "model.safetensors" for head in ("conv28", "pointrend")}
    for head, file in files.items():
        file.parent.mkdir()
        instance_model(file, head=head)
    out, curves = tmp_path / "out", tmp_path / "curves.png"
    choice = ["--mask-sizes", 14, 28, "--metrics", "mask", "boundary", "--out", out, "--curves", curves]
    assert evaluate(*files.values(), "--data", coco, *choice) == 0
    assert capsys.readouterr().err.count("span") == 0  # the scorer's remark on the sizes of the curves
    rows = scores(out)
    assert [row["name"] for row in rows] == [
        "conv28",
        *(f"pointrend, {one}" for one in ("coarse", "14 x 14", "28 x 28")),
    ]
    assert {"mask AP by size", "boundary AP by size"} <= rows[0]["curves"].keys()
    assert curves.stat().st_size > 0
    assert evaluate(files["conv28"], files["conv28"], "--data", coco, *choice[:3]) == 2
    assert "expected a model with a point head" in capsys.readouterr().err


def test_models_that_cannot_be_compared_are_refused_before_anything_is_scored(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [instance_model(tmp_path / "i.safetensors"), semantic_model(tmp_path / "s.safetensors")]
    assert evaluate(*models, "--data", coco, "--out", tmp_path / "out") == 2
    assert "expected all of one task" in capsys.readouterr().err
    assert evaluate(models[1], "--data", f"{coco}:instance", "--out", tmp_path / "out") == 2
    assert "for instance segmentation, the models are for semantic segmentation" in capsys.readouterr().err
    models[1] = instance_model(tmp_path / "o.safetensors", ("cat", "dog"))
    assert evaluate(*models, "--data", coco, "--out", tmp_path / "out") == 2
    assert (
        "the data set has 'oven', which the model lacks: its classes are cat, dog" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_masks_are_compared_by_resolution_and_points_and_scored_again_from_their_file(
    coco: Path, tmp_path: Path
) -> None:
    model, out = instance_model(tmp_path / "m.safetensors"), tmp_path / "out"
    choice = ["--mask-sizes", 14, 28, "--points", 16, "--metrics", "mask", "boundary"]
    assert evaluate(model, "--data", coco, "--out", out, *choice) == 0
    rows = scores(out)
    assert [row["name"] for row in rows] == ["coarse", "14 x 14, N = 16", "28 x 28, N = 16"]
    assert not any(name.startswith("box") for name in rows[0]["numbers"])
    file, again = out / "28 x 28, N = 16" / "predictions.json", tmp_path / "again"
    assert evaluate("--data", coco, "--predictions", file, "--metrics", "mask", "--out", again) == 0
    assert scores(again)[0]["numbers"]["mask AP"] == rows[2]["numbers"]["mask AP"]
    assert scores(again)[0]["images"] == 3


def test_ap_star_scores_the_images_and_categories_that_lvis_has(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = instance_model(tmp_path / "m.safetensors"), tmp_path / "out"
    made = tmp_path / "cocofied.json"
    assert main(["data", "lvis-to-coco", str(coco / "lvis.json"), str(made)]) == 0
    assert "1 categories, 2 images, 1 annotations" in capsys.readouterr().out
    assert evaluate(model, "--data", coco, "--lvis", coco / "lvis.json", "--out", out) == 0
    [row] = scores(out)
    assert (row["images"], row["class_names"]) == (2, ["cat"])
    assert "mask AR@300" in row["numbers"]
    # Predictions of all of COCO's images may be scored by either form of the annotations.
    assert evaluate(model, "--data", coco, "--out", tmp_path / "all") == 0
    file = next((tmp_path / "all").glob("*/predictions.json"))
    for number, lvis in enumerate((coco / "lvis.json", made)):
        again = tmp_path / f"again{number}"
        assert evaluate("--data", coco, "--predictions", file, "--lvis", lvis, "--out", again) == 0
        assert scores(again)[0]["numbers"] == row["numbers"]


def test_cocofying_is_idempotent_byte_by_byte(coco: Path, tmp_path: Path) -> None:
    for source, target in (("lvis.json", "a.json"), ("a.json", "b.json"), ("lvis.json", "c.json")):
        assert main(["data", "lvis-to-coco", str(coco / source), str(coco / target)]) == 0
    assert (coco / "a.json").read_bytes() == (coco / "b.json").read_bytes() == (coco / "c.json").read_bytes()


def test_cityscapes_is_scored_its_own_way_and_kept_in_its_servers_form(
    cityscapes: Path, tmp_path: Path
) -> None:
    things = tuple(label.name for label in INSTANCE_LABELS)
    model, out = instance_model(tmp_path / "i.safetensors", things), tmp_path / "instances"
    assert evaluate(model, "--data", cityscapes, "--out", out) == 0
    [row] = scores(out)
    assert {"Cityscapes AP", "mask AP", "boundary AP"} <= row["numbers"].keys()
    results = out / "pointrend" / "results"
    assert len((results / "ulm_000000_000019_pred.txt").read_text().splitlines()) == 4
    again = tmp_path / "again"
    choice = ["--data", f"{cityscapes}:instance", "--metrics", "cityscapes"]
    assert evaluate(*choice, "--predictions", results, "--out", again) == 0
    assert scores(again)[0]["numbers"]["Cityscapes AP"] == row["numbers"]["Cityscapes AP"]

    classes = tuple(label.name for label in TRAIN_LABELS)
    model, out = semantic_model(tmp_path / "s.safetensors", classes), tmp_path / "labels"
    assert evaluate(model, "--data", cityscapes, "--out", out) == 0
    assert "category mIoU" in scores(out)[1]["numbers"]
    with Image.open(out / "PointRend" / "labels" / "ulm_000000_000019.png") as image:
        assert set(np.unique(np.array(image)).tolist()) <= {label.id for label in TRAIN_LABELS}


def test_models_can_look_several_times(streets: Path, coco: Path, tmp_path: Path) -> None:
    model = semantic_model(tmp_path / "s.safetensors")
    plain, several = tmp_path / "plain", tmp_path / "several"
    assert evaluate(model, "--data", streets, "--out", plain) == 0
    assert evaluate(model, "--data", streets, "--out", several, "--flip", "--scales", 0.5, 1.5) == 0
    assert scores(plain)[1]["numbers"] != scores(several)[1]["numbers"]
    model = instance_model(tmp_path / "i.safetensors")
    assert evaluate(model, "--data", coco, "--flip", "--metrics", "mask") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one or more models"),
        (["{semantic}", "--predictions", "x"], "give one or more models"),
        (["--predictions", "nowhere"], "nowhere: no such file or folder"),
        (["{semantic}", "--metrics", "mask"], "for semantic segmentation, got mask"),
        (["{semantic}", "--mask-sizes", "28"], "mask_sizes: label maps have"),
        (["{semantic}", "--lvis", "x.json"], "lvis: expected COCO's images"),
        (["{semantic}", "--limit", "0"], "limit: expected at least one image"),
        (
            ["{instance}", "--data", "{coco}", "--metrics", "cityscapes"],
            "cityscapes is for data in Cityscapes'",
        ),
        (["{instance}", "--data", "{coco}", "--flip", "--mask-sizes", "28"], "flip: instances are averaged"),
        (["{conv}", "--data", "{coco}", "--mask-sizes", "28"], "expected a model with a point head"),
        (["--data", "{coco}", "--predictions", "{coco}"], "expected a COCO results file"),
    ],
)
def test_what_does_not_fit_together_is_said(
    arguments: list[str],
    message: str,
    streets: Path,
    coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    makers = {
        "{semantic}": lambda: semantic_model(tmp_path / "s.safetensors"),
        "{instance}": lambda: instance_model(tmp_path / "i.safetensors"),
        "{conv}": lambda: instance_model(tmp_path / "c.safetensors", head="conv28"),
        "{coco}": lambda: str(coco),
    }
    given = [makers[one]() if one in makers else one for one in arguments]
    assert evaluate(*given, *([] if "--data" in given else ["--data", streets])) == 2
    assert message in capsys.readouterr().err
