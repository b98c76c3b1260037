"""Names for classes that a checkpoint does not name."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pointrend.checkpoints.class_names import name_classes, read_names
from pointrend.models.semantic import SemanticConfig
from pointrend.structures import are_numbered


def test_names_come_as_they_are_or_from_a_file(tmp_path):
    assert read_names(["cat", "dog"]) == ("cat", "dog")
    coco = tmp_path / "instances.json"
    coco.write_text(json.dumps({"categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]}))
    assert read_names([str(coco)]) == ("cat", "dog")  # by id, as Detectron2 numbers them
    lines = tmp_path / "names.txt"
    lines.write_bytes(b"\xef\xbb\xbfcat\r\n\r\n dog\r\n")
    assert read_names([str(lines)]) == ("cat", "dog")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"categories": [{"name": "cat"}]}', '{"categories": []}', "{"]
)
def test_a_file_without_names_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json|classes: expected names"):
        read_names([str(tmp_path / "x.json")])


@pytest.mark.parametrize("names", [["cat", "cat"], ["cat", ""], ["no-such.json"]])
def test_odd_names_are_refused(names):
    with pytest.raises(ValueError, match=r"expected names, each once|no such file"):
        read_names(names)


def test_a_model_is_named_when_the_number_fits():
    model = SimpleNamespace(config=SemanticConfig(("class 0", "class 1")))
    assert are_numbered(model.config.class_names)
    name_classes(model, ["cat", "dog"])
    assert model.config.class_names == ("cat", "dog")
    assert not are_numbered(model.config.class_names)
    with pytest.raises(ValueError, match=r"has 2 classes .* got 1 names"):
        name_classes(model, ["cat"])
