"""Cityscapes' polygon files and folders: drawn as the benchmark draws them, written and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pointrend.cli import main
from pointrend.data.cityscapes import Cityscapes
from pointrend.formats.cityscapes_polygons import (
    draw_polygons,
    polygons_of,
    read_polygons,
    write_frame,
    write_label_files,
)

NAME = "ulm_000000_000019"


def square(label: str, left: int, top: int, right: int, bottom: int, **more: Any) -> dict[str, Any]:
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {"label": label, "polygon": corners, **more}


def polygons(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"imgHeight": 6, "imgWidth": 9, "objects": list(objects)}


STREET = polygons(
    square("road", 0, 0, 8, 5),
    square("car", 0, 0, 3, 2),
    square("car", 2, 1, 5, 3),  # in front of the first one
    square("cargroup", 7, 0, 8, 1),
    square("license plate", 3, 2, 4, 2),
    square("person", 0, 5, 0, 5),  # a single pixel
    square("sky", 0, 0, 8, 5, deleted=1),
    square("polegroup", 6, 5, 7, 5),
)


def test_polygons_are_drawn_as_the_benchmark_draws_them() -> None:
    expected = np.full((6, 9), 7)
    expected[0:3, 0:4] = 26000
    expected[1:4, 2:6] = 26001
    expected[0:2, 7:9] = 26
    expected[5, 0], expected[5, 6:8] = 24000, 18
    assert draw_polygons(STREET).tolist() == expected.tolist()
    assert draw_polygons(polygons()).unique().tolist() == [0]


@pytest.mark.filterwarnings("ignore:Saving I mode:DeprecationWarning")  # theirs
def test_polygons_are_drawn_as_the_official_scripts_draw_them(tmp_path: Path) -> None:
    labels = pytest.importorskip("cityscapesscripts.preparation.json2labelImg")
    instances = pytest.importorskip("cityscapesscripts.preparation.json2instanceImg")
    (tmp_path / "a.json").write_text(json.dumps(STREET))
    labels.json2labelImg(str(tmp_path / "a.json"), str(tmp_path / "l.png"), "ids")
    instances.json2instanceImg(str(tmp_path / "a.json"), str(tmp_path / "i.png"), "ids")
    drawn = draw_polygons(STREET).numpy()
    assert np.array_equal(np.array(Image.open(tmp_path / "i.png")), drawn)
    assert np.array_equal(
        np.array(Image.open(tmp_path / "l.png")), np.where(drawn >= 1000, drawn // 1000, drawn)
    )


def classes(ids: Tensor) -> Tensor:
    return torch.where(ids >= 1000, ids // 1000, ids)


@pytest.mark.parametrize("seed", range(8))
def test_every_pixel_has_its_class_and_object_after_being_written_as_polygons(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = (1, 1) if not seed else random.integers(1, 20, 2)
    values = random.choice([0, 7, 11, 24, 24000, 26000, 26001], size)
    ids = torch.tensor(np.kron(values, np.ones((1 + seed % 3,) * 2, int)), dtype=torch.int32)
    content = json.loads(json.dumps(polygons_of(ids)))
    drawn = draw_polygons(content)
    assert torch.equal(classes(drawn), classes(ids))
    assert torch.equal(drawn >= 1000, ids >= 1000)  # groups stay groups
    pairs = torch.stack([drawn, ids], -1)[ids >= 1000].unique(dim=0)
    assert len(pairs) == len(pairs[:, 0].unique())  # what is drawn as one object was one


def street() -> Tensor:
    ids = torch.full((30, 40), 7, dtype=torch.int32)
    ids[5:20, 3:18], ids[8:25, 22:38], ids[10:13, 25:30], ids[:3] = 26001, 26000, 24000, 23
    return ids


def test_a_written_folder_is_the_data_set_that_was_written(tmp_path: Path) -> None:
    image = torch.randint(0, 255, (3, 30, 40), dtype=torch.uint8)
    write_frame(tmp_path, "val", NAME, image, street())
    data = Cityscapes(tmp_path, "val", "instance")
    assert data.image_ids == [NAME]
    assert torch.equal(data[0].image, image)
    assert torch.equal(data.instance_ids(0), street())
    assert data[0].target.labels.tolist() == [0, 2, 2]
    labels = Cityscapes(tmp_path, "val")[0].target.labels
    assert set(labels.unique().tolist()) == {0, 10, 11, 13}


def test_missing_label_files_are_drawn_from_polygons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frame(tmp_path, "val", NAME, torch.zeros(3, 30, 40, dtype=torch.uint8), street())
    before = {file.name: file.read_bytes() for file in tmp_path.rglob("*.png")}
    assert write_label_files(tmp_path, "val") == 0
    for file in tmp_path.rglob("*_gtFine_*.png"):
        file.unlink()
    assert main(["data", "draw-cityscapes", str(tmp_path)]) == 0
    assert "drew the label files of 1 images" in capsys.readouterr().out
    found = {file.name: file.read_bytes() for file in tmp_path.rglob("*.png")}
    assert before == found
    assert main(["data", "draw-cityscapes", str(tmp_path), "--split", "train"]) == 2
    assert "gtFine/train/CITY/*_gtFine_polygons.json, found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": 3}, "expected imgHeight, imgWidth and a list of objects"),
        ({"imgHeight": 0}, "imgHeight, imgWidth: expected 1 to"),
        ({"imgHeight": 10**9, "imgWidth": 10**9}, "imgHeight, imgWidth: expected 1 to"),
        ({"imgWidth": "9"}, "imgHeight, imgWidth: expected 1 to"),
        ({"objects": [None]}, "object 0: label: expected a class name"),
        ({"objects": [square("cow", 0, 0, 1, 1)]}, "object 0: label: 'cow' is no class"),
        ({"objects": [{"label": "car", "polygon": [[1, 2]]}]}, "object 0: polygon: expected corners"),
        ({"objects": [{"label": "car", "polygon": [[1, 2], [3]]}]}, "object 0: polygon: expected corners"),
        ({"objects": [square("car", 0, 0, 10**9, 1)]}, "object 0: polygon: expected corners"),
        ({"objects": [square("car", 0, 0, 1, 1), {"label": "car"}]}, "object 1: polygon: expected corners"),
    ],
)
def test_a_malformed_polygon_file_is_refused_by_object_and_field(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "polygons.json"
    file.write_text(json.dumps({**STREET, **change}))
    with pytest.raises(ValueError, match=rf"polygons\.json: {message}"):
        read_polygons(file)


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    with pytest.raises(ValueError, match="name: expected CITY_SEQUENCE_FRAME"):
        write_frame(tmp_path, "val", "../x_1_2", image, street())
    with pytest.raises(ValueError, match="expected a uint8 image"):
        write_frame(tmp_path, "val", NAME, image[:, 1:], street())
    with pytest.raises(ValueError, match=r"instance_ids: expected .* 0..33, or 1000 times these"):
        write_frame(tmp_path, "val", NAME, image, street() + 40000)
    assert not list(tmp_path.iterdir())
    (tmp_path / "torn.json").write_text('{"imgHeight": 3, "obj')
    with pytest.raises(ValueError, match=r"torn\.json: not a readable JSON file"):
        read_polygons(tmp_path / "torn.json")
