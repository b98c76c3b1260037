"""docs/zoo.md says of every model what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pointrend.zoo import PRETRAINED, ZOO
from pointrend.zoo.card import commands, scores

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for line in PAGE.splitlines()
    if len(cells := line.strip("|").split("|")) == 7 and "`" in cells[0]
}


def test_the_table_has_exactly_the_zoo():
    assert list(ROWS) == list(ZOO)


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_a_row_has_the_entrys_numbers(entry):
    backbone, published, parameters, file, cost, licence = ROWS[entry.name]
    assert backbone == entry.backbone
    assert published == scores(entry)
    assert parameters == f"{entry.parameters / 1e6:.2f}"
    assert file == (f"{entry.mebibytes}" if entry.mebibytes else file)
    assert float(cost) > 0
    assert licence.startswith(entry.licence[:8])
    assert ("NC" in licence) == ("non-commercial" in entry.licence)


@pytest.mark.parametrize("entry", ZOO.values(), ids=lambda entry: entry.name)
def test_every_published_score_has_its_command(entry):
    for name, command in commands(entry).items():
        assert re.search(rf"^    {re.escape(command)}    # {re.escape(name)} ", PAGE, re.MULTILINE), command


def test_backbones_of_other_projects_than_torchvision_are_named():
    assert all(name in PAGE for name in PRETRAINED if not name.startswith("torchvision"))
