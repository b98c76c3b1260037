"""A moving average of the weights: less noise than the last update's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """``decay * average + (1 - decay) * weights`` after each update, of parameters and floating-point buffers.

    With a decay of 0 there is none: `shown` shows the weights themselves, at no cost.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.values: dict[str, Tensor] = (
            {name: value.detach().clone() for name, value in self._floats()} if decay else {}
        )

    def _floats(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, v) for name, v in self.model.state_dict().items() if v.is_floating_point())

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        if self.values:
            weights = dict(self._floats())
            names = list(self.values)
            torch._foreach_lerp_([self.values[n] for n in names], [weights[n] for n in names], 1 - self.decay)

    @contextmanager
    def shown(self) -> Iterator[nn.Module]:
        """The model with the averaged weights in place of its own, which come back afterwards."""
        if not self.values:
            yield self.model
            return
        own = {name: value.detach().clone() for name, value in self._floats()}
        self._put(self.values)
        try:
            yield self.model
        finally:
            self._put(own)

    def keep(self) -> None:
        """Leave the averaged weights in the model for good."""
        self._put(self.values)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self._floats():
            if name in values:
                value.copy_(values[name])

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from the averages of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])
