"""The fuzz run of docs/reliability.md in small: every format, a few mutations each."""

from __future__ import annotations

import pytest

from tools.fuzz import run


def test_every_mutation_ends_in_a_right_answer_or_one_clear_line(capfd: pytest.CaptureFixture[str]) -> None:
    findings = run(40, seed=1, keep=None)
    assert findings == 0, capfd.readouterr().out
