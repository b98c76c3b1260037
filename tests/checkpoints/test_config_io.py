"""Configurations come back from plain dictionaries exactly, and wrong ones are refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

from pointrend.checkpoints.config_io import MAX_INTEGER, from_dict, rename_fields
from pointrend.models.instance import InstanceConfig
from pointrend.models.semantic import SemanticConfig


@dataclass(frozen=True)
class Inner:
    count: int = 3
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    scale: float = 1.0
    flag: bool = False
    pair: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    table: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"scale: expected 0 or more, got {self.scale}")


@pytest.mark.parametrize(
    "config",
    [
        Outer("x"),
        Outer("x", 2.5, True, (3, 4), ("a", "b"), Inner(7, "b"), Inner(1), {"k": 5}),
        SemanticConfig(class_names=("a", "b"), palette=((1, 2, 3), (4, 5, 6)), point_rend=None),
        SemanticConfig(class_names=("a", "b")),
        InstanceConfig(class_names=("a",), mask_head="conv28"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_round_trip_through_json_is_exact(config):
    assert from_dict(type(config), json.loads(json.dumps(asdict(config)))) == config


def test_missing_fields_take_their_defaults():
    assert from_dict(Outer, {"name": "x", "inner": {}}) == Outer("x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Outer: fields name are missing"),
        ({"name": "x", "colour": 1, "taste": 2}, "Outer: unknown fields colour, taste; expected name, scale"),
        ({"name": "x", "inner": {"cuont": 1}}, "Outer.inner: unknown fields cuont"),
        ({"name": 3}, "Outer.name: expected str, got 3"),
        ({"name": "x", "flag": 1}, "Outer.flag: expected bool"),
        ({"name": "x", "inner": {"count": True}}, "Outer.inner.count: expected int"),
        ({"name": "x", "inner": {"count": 1.5}}, "Outer.inner.count: expected int"),
        ({"name": "x", "inner": {"count": 10 * MAX_INTEGER}}, "Outer.inner.count: expected a number below"),
        ({"name": "x", "inner": {"mode": "c"}}, "Outer.inner.mode: expected one of"),
        ({"name": "x", "inner": None}, "Outer.inner: expected a dictionary"),
        ({"name": "x", "pair": [1]}, "Outer.pair: expected 2 values, got 1"),
        ({"name": "x", "pair": "12"}, "Outer.pair: expected a list"),
        ({"name": "x", "names": ["a", 1]}, r"Outer.names\[1\]: expected str"),
        ({"name": "x", "table": {"k": "v"}}, r"Outer.table\['k'\]: expected int"),
        ({"name": "x", "maybe": 1}, "Outer.maybe: expected a dictionary"),
        ({"name": "x", "scale": -1}, "scale: expected 0 or more"),
        ([], "Outer: expected a dictionary of fields, got list"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, values)


def test_fields_are_renamed_by_their_path_and_nothing_else_changes():
    old = {"side": 1, "masks": {"side": 2, "inner": {"count": 3}}, "list": [{"side": 4}]}
    renamed = {"masks.side": "mask_size", "masks.inner.count": "num_points", "absent.x": "y"}
    expected = {"side": 1, "masks": {"mask_size": 2, "inner": {"num_points": 3}}, "list": [{"side": 4}]}
    assert rename_fields(old, renamed) == expected
    assert rename_fields({"masks": 5}, renamed) == {"masks": 5}  # a file may hold anything
    assert rename_fields(None, renamed) is None


def test_a_field_under_both_names_stays_to_be_refused():
    assert rename_fields({"a": 1, "b": 2}, {"a": "b"}) == {"a": 1, "b": 2}
