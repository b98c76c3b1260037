"""Updates that have nothing to learn from: every object was dropped, or every pixel is ignored."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from pointrend.structures import IGNORE_LABEL, InstanceTarget, SemanticTarget


class TargetWatch:
    """Counts the updates without a target, and warns of the first one and in the end."""

    def __init__(self) -> None:
        self.missing = 0
        """Updates without a target so far."""

    def look(self, targets: Sequence[Any], step: int) -> None:
        """Note whether the targets of an update (from 0) hold something to learn."""
        if any(has_target(target) for target in targets):
            return
        self.missing += 1
        if self.missing == 1:
            what = "an object" if isinstance(targets[0], InstanceTarget) else "a labelled pixel"
            warnings.warn(
                f"update {step + 1}: none of its images has {what} to learn from, so losses of 0 say nothing; "
                "`pointrend data check` looks for what is wrong",
                stacklevel=2,
            )

    def finish(self, updates: int) -> None:
        """Say how many of the updates had no target, where there were more than one."""
        if self.missing > 1:
            warnings.warn(
                f"{self.missing} of {updates} updates had no target: their losses of 0 say nothing",
                stacklevel=2,
            )


def has_target(target: Any) -> bool:
    """Whether there is an object that is no crowd, or a labelled pixel."""
    if isinstance(target, InstanceTarget):
        return bool((~target.crowd).any())
    if isinstance(target, SemanticTarget):
        return bool((target.labels != IGNORE_LABEL).any())
    return True
