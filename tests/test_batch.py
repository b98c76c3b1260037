"""A model as a function on table columns."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from pointrend.batch import Segmenter
from pointrend.data.shapes import Scene
from pointrend.masks.rle import decode_window
from pointrend.predict import Predictor
from pointrend.zoo import load


def images(count: int = 3) -> list[np.ndarray]:
    return [Scene(number, seed=3, height=48, width=48 + 16 * (number % 2)).image for number in range(count)]


def test_rows_are_what_a_predictor_finds() -> None:
    given = images()
    columns = Segmenter("shapes-instance", min_score=0.5)({"image": given, "name": np.array(["a", "b", "c"])})
    assert columns["name"].tolist() == ["a", "b", "c"]
    assert "image" not in columns, "pixels do not travel on"
    assert columns["error"].tolist() == ["", "", ""]
    for number, result in enumerate(Predictor(load("shapes-instance"), device="cpu", min_score=0.5)(given)):
        assert columns["scores"][number] == result.scores.tolist()
        assert columns["labels"][number] == result.labels.tolist()
        assert (columns["height"][number], columns["width"][number]) == given[number].shape[:2]
        for counts, mask in zip(columns["masks"][number], result.masks, strict=True):
            inside, _ = decode_window(counts, given[number].shape[:2])
            assert int(inside.sum()) == int(mask.sum())


def test_what_cannot_be_read_is_a_row_with_its_reason(tmp_path: Path) -> None:
    columns = Segmenter("shapes-semantic", max_pixels=100)({"bytes": [b"none", b""], "id": [1, 2]})
    assert all("not a readable image" in error for error in columns["error"])
    assert columns["masks"].tolist() == [[], []]
    assert columns["height"].tolist() == [0, 0]
    columns = Segmenter("shapes-semantic")({"path": [str(tmp_path / "none.png")]})
    assert "no such file" in columns["error"][0]
    assert columns["path"] == [str(tmp_path / "none.png")]


def test_a_batch_may_be_empty_and_must_have_images() -> None:
    assert len(Segmenter("shapes-semantic")({"image": []})["masks"]) == 0
    with pytest.raises(
        ValueError, match="expected image or bytes or path or url among the columns, got a, b"
    ):
        Segmenter("shapes-semantic")({"a": [], "b": []})
    with pytest.raises(ValueError, match="expected photo among"):
        Segmenter("shapes-semantic", column="photo")({"image": []})


def test_it_travels_without_its_weights_and_its_columns_into_arrow() -> None:
    arrow = pytest.importorskip("pyarrow")
    segmenter = Segmenter("shapes-instance")
    segmenter({"image": images(1)})
    assert len(pickle.dumps(segmenter)) < 1000
    table = arrow.table(pickle.loads(pickle.dumps(segmenter))({"image": images(2)}))
    assert table.schema.field("boxes").type == arrow.list_(arrow.list_(arrow.float64()))
    assert table.schema.field("masks").type == arrow.list_(arrow.string())
