"""What a run over files has done so far: one that was stopped or killed goes on where it was."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from pointrend.predict.inputs import Source
from pointrend.predict.results import Failure, Prediction
from pointrend.predict.writers import Writer
from pointrend.results import Model
from pointrend.run_folder import RunFolder


class RunRecord:
    """The images of a run over files, each with its files and what was found, or with the reason why not.

    Images are known by their numbers, in the order in which they are composed.
    """

    def __init__(self, run: RunFolder, paths: Sequence[Source], writer: Writer) -> None:
        self.run, self.paths, self.writer = run, paths, writer

    def add(self, number: int, outcome: Prediction | Failure) -> None:
        """Write an image's files and note it; a failure is only noted, and tried again by a later run."""
        value: dict[str, object]
        if isinstance(outcome, Prediction):
            try:
                files, found = self.writer.write(replace(outcome, number=number))
                value = {"files": files, "found": found}
            except ValueError as error:
                value = {"failure": str(error)}
        else:
            value = {"failure": outcome.reason}
        self.run.add(self._key(number), value)

    def undone(self) -> list[int]:
        """The images without a prediction, or whose files are gone."""
        return [number for number in range(len(self.paths)) if not self._done(number)]

    def found(self) -> Iterator[tuple[int, Any]]:
        """Number of each image with a prediction, ascending, and what `Writer.write` said of it."""
        for number in range(len(self.paths)):
            if self._done(number):
                yield number, self.run.get(self._key(number))["found"]

    def reason(self, number: int) -> str:
        """Why an image has no prediction."""
        noted = self.run.get(self._key(number)) or {}
        return str(noted.get("failure", "its files vanished"))

    def _key(self, number: int) -> str:
        return f"{self.writer.names[number]}: {self.paths[number]}"

    def _done(self, number: int) -> bool:
        noted = self.run.get(self._key(number)) or {}
        return "files" in noted and all((self.writer.out / file).is_file() for file in noted["files"])


def fingerprint(model: Model) -> str:
    """A few digits that tell models apart: of its settings and, for a network, of all its weights.

    Of a stand-in for a model (`models.tta`), its options and the model.
    """
    options, inner = (getattr(model, name, None) for name in ("options", "model"))
    if options is not None and inner is not None:
        return f"{type(model).__name__} {options} {fingerprint(inner)}"
    settings = (getattr(model, "config", None), getattr(model, "precision", None))
    digest = zlib.crc32(repr(settings).encode())
    if isinstance(model, torch.nn.Module):
        for name, tensor in model.state_dict().items():
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest = zlib.crc32(content.data, zlib.crc32(name.encode(), digest))
    return f"{type(model).__name__} {digest:08x}"
