"""What every model of ours has: `from_pretrained` and `save_pretrained`, and `optimize` to predict faster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, TypeVar, cast

import torch
from torch import nn

from pointrend.models.optimize import optimized

M = TypeVar("M", bound="Pretrained")
P = ParamSpec("P")
R = TypeVar("R")

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


def in_own_precision(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """Run a method of a model in the precision that :meth:`Pretrained.optimize` was given."""

    @functools.wraps(method)
    def inside(self: M, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.precision is None:
            return method(self, *args, **kwargs)
        with torch.autocast(self.device.type, dtype=self.precision):
            return method(self, *args, **kwargs)

    return cast(Callable[Concatenate[M, P], R], inside)


class Pretrained(nn.Module):
    """A model of ours that can be fetched and kept."""

    kind: ClassVar[Literal["instance", "semantic"]]
    origin: dict[str, Any]
    """Where the weights come from (name, URL, licence, scores ..), as far as their file says; empty for new ones."""

    precision: torch.dtype | None
    """Autocast's dtype in predictions; None is that of the weights."""
    only_predicts: bool
    """:meth:`optimize` made it: its weights are not those that were trained."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = {}
        self.precision = None
        self.only_predicts = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    def optimize(
        self: M, precision: Literal["float32", "bfloat16"] = "float32", *, compile: bool = False
    ) -> M:
        """A model that predicts the same, faster; the original stays as it is and shares its memory.

        Batch norms become part of the convolutions, which work channels-last: the same masks up to rounding. What is
        returned cannot be trained or saved: keep the original for that.

        Args:
            precision: "bfloat16" computes products in half precision, which a CPU (AVX-512 BF16, AMX) or GPU must have
                to be faster by it; outlines move by a fraction of a per cent of a mask.
            compile: run backbone and pyramid through ``torch.compile``: some minutes at the first picture, and a C++
                compiler on a CPU, for many pictures afterwards.

        Raises:
            ValueError: another precision.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
        fast = optimized(self, compile=compile)
        fast.precision, fast.only_predicts = PRECISIONS[precision], True
        return fast

    def train(self: M, mode: bool = True) -> M:
        """As of every module; ValueError for a model that only predicts."""
        if mode and self.only_predicts:
            raise ValueError(
                "this model was made by optimize() and only predicts: train the one that it was made from"
            )
        return super().train(mode)

    @classmethod
    def from_pretrained(
        cls: type[M],
        name_or_path: str | Path,
        *,
        weights: str | Path | None = None,
        device: str = "cpu",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> M:
        """A trained model, ready to predict; everything as in `pointrend.load`, but of this class only.

        Args:
            name_or_path: a name of the zoo (`pointrend zoo` lists them), a checkpoint file, a folder that
                :meth:`save_pretrained` wrote, or "user/name" on the Hugging Face Hub.
            weights: the published file of a zoo's name, where it has been downloaded already.
            device: where the model is wanted.
            progress: called with the bytes downloaded and those of the whole file.

        Raises:
            ValueError: another kind of model; a file that is damaged or tries to run code.
            FileNotFoundError: no such file, folder or name.
            ConnectionError: it has to be downloaded, and cannot be; says what to fetch and where to put it.
        """
        from pointrend.zoo import ZOO, load

        entry = ZOO.get(str(name_or_path))
        if entry is not None and entry.kind != cls.kind:  # known before hundreds of megabytes are fetched
            raise ValueError(_other_kind(name_or_path, cls.kind, entry.kind))
        model = load(name_or_path, weights, device=device, progress=progress)
        if not isinstance(model, cls):
            raise ValueError(_other_kind(name_or_path, cls.kind, model.kind))
        return model

    def save_pretrained(self, folder: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write the folder that :meth:`from_pretrained` reads, ready to be uploaded to the Hugging Face Hub.

        It gets model.safetensors, complete with configuration and class names, and a README.md (model card)
        unless it has one.

        Args:
            folder: made if it is not there.
            extra: what is known about the weights, plain JSON values: data, scores, licence. :attr:`origin` if not
                given.

        Raises:
            ValueError: if a file of this name is in the way.
        """
        from pointrend.checkpoints.hub import save_folder

        save_folder(self, folder, extra=extra)


def _other_kind(name: str | Path, expected: str, found: str) -> str:
    return (
        f"{name}: expected a model for {expected} segmentation, this one is for {found} segmentation; use "
        f"{found.capitalize()}Segmenter.from_pretrained, or pointrend.load for either"
    )
