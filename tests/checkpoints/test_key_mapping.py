"""Tables of names are read both ways, and nothing falls between them."""

from __future__ import annotations

import pytest
import torch

from pointrend.checkpoints.key_mapping import count, rename, reverse, translate

ROWS = [
    ("a.conv{c}.weight", "b.{c-1}.0.weight"),
    ("a.norm{c}.{rest}", "b.{c-1}.1.{rest}"),
    ("head.{i}.{j}.x", "head.{j}.{i+2}.x"),
]
T = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a.conv1.weight", "b.0.0.weight"),
        ("a.norm12.running_var", "b.11.1.running_var"),
        ("head.3.1.x", "head.1.5.x"),
    ],
)
def test_rows_are_read_both_ways(theirs, ours):
    assert translate(theirs, ROWS) == ours
    assert translate(ours, reverse(ROWS)) == theirs


def test_a_name_in_no_row_is_none():
    assert translate("a.conv1.bias", ROWS) is None
    assert translate("a-conv1.weight", ROWS) is None  # a dot is a dot
    assert translate("a.conv.weight", ROWS) is None


def test_old_names_are_brought_up_to_date_step_by_step():
    aliases = [("very_old.{rest}", "old.{rest}"), ("old.{rest}", "a.{rest}")]
    assert list(rename({"very_old.conv2.weight": T}, ROWS, aliases=aliases, source="x")) == ["b.1.0.weight"]


def test_known_and_unneeded_names_are_dropped():
    assert rename({"mean": T, "anchors.3": T}, ROWS, ignored=["mean", "anchors.{i}"], source="x") == {}


def test_unknown_names_are_all_listed_with_their_shapes():
    with pytest.raises(ValueError, match=r"file\.pkl") as error:
        rename({"p": T, "q": T, "a.conv1.weight": T}, ROWS, source="file.pkl")
    assert "unknown: p (2, 3)" in str(error.value)
    assert "unknown: q (2, 3)" in str(error.value)
    assert "a.conv1" not in str(error.value)


def test_the_same_tensor_under_two_names_is_refused():
    with pytest.raises(ValueError, match="twice"):
        rename(
            {"old.conv1.weight": T, "a.conv1.weight": T},
            ROWS,
            aliases=[("old.{rest}", "a.{rest}")],
            source="",
        )


def test_counting_blocks():
    assert count(["a.0.w", "a.1.w", "a.1.b", "b.2.w"], "a.{i}.w") == 2
