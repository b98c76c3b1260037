"""The stored outputs were computed with several threads, and so are ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _threads_as_recorded() -> Iterator[None]:
    """At least two. With one, torch computes 1x1 convolutions by another routine, and sums are rounded otherwise:
    6e-6 in the features, 1.2e-4 px in boxes, and one pixel of one mask (docs/zoo.md).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)
