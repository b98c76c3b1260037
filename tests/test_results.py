from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointrend.results import InstanceResult, SemanticResult
from pointrend.structures import InstanceMasks
from tests.test_structures import some_masks


def test_detections_can_be_chosen() -> None:
    result = InstanceResult(
        torch.rand(4, 4),
        torch.arange(4),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        InstanceMasks.from_dense(some_masks()),
        ("a", "b", "c", "d"),
        torch.rand(4, 7, 7),
    )
    best = result[result.scores > 0.75]
    assert len(best) == 2
    assert best.labels.tolist() == [0, 1]
    assert best.uncertainty is not None
    assert len(best.uncertainty) == 2
    assert torch.equal(best.masks.dense(), some_masks()[:2])


def some_objects() -> InstanceResult:
    return InstanceResult(
        torch.tensor([[3.0, 2, 9, 5], [0, 0, 1, 1], [0, 0, 13, 9]]),
        torch.tensor([1, 0, 1]),
        torch.tensor([0.9, 0.8, 0.3]),
        InstanceMasks.from_dense(some_masks()[:3]),
        ("cat", "dog"),
    )


def test_one_detection_by_its_number() -> None:
    first, last = some_objects()[0], some_objects()[-1]
    assert (first.class_name, first.label, first.score) == ("dog", 1, pytest.approx(0.9))
    assert first.box.tolist() == [3, 2, 9, 5]
    assert torch.equal(first.mask, some_masks()[0])
    assert last.score == pytest.approx(0.3)
    assert some_objects()[np.int64(1)].class_name == "cat"
    with pytest.raises(IndexError):
        some_objects()[3]


def test_a_result_is_gone_through_detection_by_detection() -> None:
    assert [one.class_name for one in some_objects()] == ["dog", "cat", "dog"]
    assert list(some_objects()[:0]) == []


def test_fewer_detections_by_slice_class_score_numbers_and_flags() -> None:
    result = some_objects()
    chosen = {
        "slice": result[1:],
        "class": result["dog"],
        "score": result.above(0.8),
        "numbers": result[[2, 0]],
        "flags": result[result.scores < 0.5],
        "array": result[np.array([True, False, True])],
        "list of flags": result[[False, True, False]],
        "none": result[[]],
    }
    found = {name: [round(one.score, 1) for one in part] for name, part in chosen.items()}
    assert found == {
        "slice": [0.8, 0.3],
        "class": [0.9, 0.3],
        "score": [0.9, 0.8],
        "numbers": [0.3, 0.9],
        "flags": [0.3],
        "array": [0.9, 0.3],
        "list of flags": [0.8],
        "none": [],
    }
    assert torch.equal(chosen["numbers"].masks.dense(), some_masks()[[2, 0]])
    assert [one.class_name for one in result.of_classes(["cat"])] == ["cat"]


def test_a_wrong_index_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match=r"class 'dg': expected one of the model's 2 classes \(dog"):
        some_objects()["dg"]
    with pytest.raises(ValueError, match="expected a flag for each of 3"):
        some_objects()[[True, False]]
    with pytest.raises(ValueError, match="whole numbers or flags"):
        some_objects()[[0.5]]
    with pytest.raises(IndexError):
        some_objects()[[7]]


def test_numbers_of_every_library_and_slices_backwards() -> None:
    result = some_objects()
    for one in (1, np.int64(1), np.array(1), torch.tensor(1), -2):
        assert result[one].score == result[1].score  # type: ignore[index]
    assert [round(one.score, 2) for one in result[::-1]] == [0.3, 0.8, 0.9]
    with pytest.raises(IndexError, match="index 3: there are 3 detections"):
        result[3]
    for flag in (True, np.array(True), torch.tensor(True)):
        with pytest.raises(ValueError, match="expected a flag for each of 3"):
            result[flag]
    for fraction in (1.5, np.array(1.5), torch.tensor(1.5)):
        with pytest.raises(ValueError, match="expected a list of whole numbers"):
            result[fraction]


def test_what_is_no_index_no_class_and_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="index: expected whole numbers, flags, a slice or a name, got None"):
        some_objects()[None]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"score: expected a number, got '0.5'"):
        some_objects().above("0.5")  # type: ignore[arg-type]
    labels = SemanticResult(torch.zeros(2, 2, dtype=torch.uint8), ("sky",))
    with pytest.raises(ValueError, match="class: expected a name or a number, got slice"):
        labels[0:1]  # type: ignore[index]


def test_results_are_short_in_print() -> None:
    assert repr(some_objects()) == "InstanceResult(3 objects in 13x9: dog 0.90, cat 0.80, dog 0.30)"
    assert repr(some_objects()[:0]) == "InstanceResult(0 objects in 13x9)"
    assert repr(some_objects()[0]) == "Detection(dog 0.90, box 3.0, 2.0, 9.0, 5.0)"
    labels = torch.zeros(2, 4, dtype=torch.uint8)
    labels[0, 0] = 1
    labels[1, :2] = 255
    result = SemanticResult(labels, ("sky", "road"))
    assert repr(result) == "SemanticResult(4x2: sky 62%, road 12%)"


def test_a_label_map_by_class() -> None:
    labels = torch.tensor([[0, 2], [255, 2]], dtype=torch.uint8)
    result = SemanticResult(labels, ("sky", "road", "car"))
    assert result["car"].tolist() == [[False, True], [False, True]]
    assert torch.equal(result[2], result["car"])
    assert list(result) == ["sky", "car"]
    assert "road" not in result
    assert result.of_classes(["car"]).labels.tolist() == [[255, 2], [255, 2]]
    with pytest.raises(ValueError, match="class 'cars': expected"):
        result["cars"]
    with pytest.raises(ValueError, match="expected a number from 0 to 2"):
        result[3]


def test_arrays_and_tables() -> None:
    result = some_objects()
    arrays = result.numpy()
    assert {name: array.shape for name, array in arrays.items()} == {
        "boxes": (3, 4),
        "labels": (3,),
        "scores": (3,),
        "masks": (3, 9, 13),
    }
    tensors = result.to_dict()
    assert (tensors["masks"].shape, tensors["masks"].dtype) == ((3, 1, 9, 13), torch.uint8)
    assert result[:0].to_dict()["masks"].shape == (0, 1, 9, 13)
    pandas = pytest.importorskip("pandas")
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table["class"].tolist() == ["dog", "cat", "dog"]
    assert table["area"].tolist() == [18, 1, 117]
    assert list(result[:0].to_pandas().columns) == list(table.columns)
    found = SemanticResult(torch.tensor([[0, 2], [255, 2]], dtype=torch.uint8), ("sky", "road", "car"))
    assert found.to_pandas()[["class", "area"]].values.tolist() == [["sky", 1], ["car", 2]]


@pytest.mark.parametrize("with_image", [False, True])
def test_notebooks_show_the_overlay(with_image: bool) -> None:
    image = torch.full((3, 9, 13), 7, dtype=torch.uint8) if with_image else None
    for result in (
        replace(some_objects(), image=image),
        SemanticResult(torch.zeros(9, 13, dtype=torch.uint8), ("<sky>",), image=image),
    ):
        with Image.open(io.BytesIO(result._repr_png_())) as shown:
            assert shown.width == 13
        page = result._repr_html_()
        assert 'src="data:image/png;base64,' in page
        assert "<sky>" not in page


def test_a_result_is_drawn_on_a_file_an_image_or_its_own(tmp_path: Path) -> None:
    Image.new("RGB", (13, 9)).save(tmp_path / "a.png")
    own = replace(some_objects(), image=torch.zeros(3, 9, 13, dtype=torch.uint8))
    for figure in (
        some_objects().plot(tmp_path / "a.png"),
        some_objects().plot(Image.new("L", (13, 9))),
        some_objects().plot(np.zeros((9, 13, 3), np.uint8)),
        own.plot(),
    ):
        assert figure.axes
    with pytest.raises(ValueError, match="does not hold its image"):
        some_objects().plot()
    with pytest.raises(ValueError, match="expected the result's size"):
        some_objects().plot(Image.new("L", (3, 3)))
