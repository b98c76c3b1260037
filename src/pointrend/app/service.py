"""What visitors can ask for, in plain functions: hand in an image, see it at some settings, take a result away.

A visitor holds tickets (unguessable texts) for their image and their last result. What belongs to a ticket is kept
within a fixed amount of memory, the least recently used given up first: the network's features of an image, so that a
slider repeats the subdivision only, and results, so that they can be downloaded.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pointrend.app.exports import DOWNLOADS, Finished, finish
from pointrend.app.instance_session import PreparedObjects
from pointrend.app.lru_cache import Kept
from pointrend.app.model_cache import ModelCache
from pointrend.app.semantic_session import PreparedLabels
from pointrend.app.types import Prepared, Range, Settings, tensor_bytes
from pointrend.app.uploads import EXAMPLES, Limits, example, read_upload, shown_name
from pointrend.app.views import view
from pointrend.models.semantic import SemanticSegmenter

EXAMPLE = "example:"


class BusyError(Exception):
    """Too many ask for the same at once; says so in words for the visitor."""


@dataclass(frozen=True)
class Upload:
    """A visitor's image."""

    image: Tensor
    """uint8 (3, H, W)."""
    name: str


@dataclass(frozen=True)
class Controls:
    """How the sliders have to be for a model and an image."""

    sides: Range
    counts: Range
    objects: bool
    """Instances: the grid is one of each box, and there are scores."""


class Desk:
    """Images, renderings and downloads for any number of visitors, in bounded memory.

    Args:
        shelf: the models that can be chosen.
        limits: of uploads.
        megabytes: for features; a quarter of it each for images and for results.
        readers: files decoded at the same time; the next visitor is asked to try again.
    """

    def __init__(self, shelf: ModelCache, limits: Limits, *, megabytes: int = 512, readers: int = 4) -> None:
        self.shelf, self.limits = shelf, limits
        room = megabytes * 2**20
        self.uploads = Kept[Upload](lambda upload: tensor_bytes([upload.image]), most_bytes=room // 4)
        self.features = Kept[Prepared](lambda prepared: prepared.nbytes, most_bytes=room)
        self.results = Kept[Finished](lambda finished: finished.nbytes, most_bytes=room // 4)
        self._readers = threading.BoundedSemaphore(readers)
        shelf.dropped = self._forget_model

    def accept(self, content: bytes, name: str) -> str:
        """Take in a file; returns the image's ticket.

        Raises:
            ValueError: too large, or no image; in words for the visitor.
            BusyError: too many files at once.
        """
        with self._turn():
            image = read_upload(content, name, self.limits)
        ticket = secrets.token_urlsafe(16)
        self.uploads.put(ticket, Upload(image, shown_name(name)))
        return ticket

    def image(self, ticket: str) -> Upload:
        """The image of a ticket, or of "example:" and an example's name.

        Raises:
            ValueError: there is none (any more).
        """
        if ticket.startswith(EXAMPLE):
            name = ticket.removeprefix(EXAMPLE)
            return Upload(example(name), f"{name}.png")
        upload = self.uploads.get(ticket)
        if upload is None:
            raise ValueError(
                "This image is no longer kept here, to make room for others. Please drop it again."
            )
        return upload

    def controls(self, model_name: str, ticket: str) -> Controls:
        """How the sliders have to be.

        Raises:
            ValueError: an unknown model or image; not enough memory.
        """
        prepared = self._prepared(model_name, ticket)
        return Controls(prepared.sides, prepared.counts, isinstance(prepared, PreparedObjects))

    def show(self, model_name: str, ticket: str, settings: Settings) -> dict[str, Any]:
        """What `panels.view` says, plus "result", the ticket for downloads, and "name", the image's.

        Raises:
            ValueError: an unknown model or image; not enough memory.
        """
        upload = self.image(ticket)
        rendering = self._prepared(model_name, ticket).render(settings)
        result = secrets.token_urlsafe(16)
        self.results.put(result, finish(rendering, upload.name))
        return {**view(rendering), "result": result, "name": upload.name, "downloads": list(DOWNLOADS)}

    def download(self, result: str, file_name: str) -> tuple[bytes, str, str] | None:
        """Content, media type and name of a file; None where there is no such result (any more) or no such file."""
        finished = self.results.get(result)
        if finished is None or file_name not in DOWNLOADS:
            return None
        make, media_type = DOWNLOADS[file_name]
        stem = finished.image_name.rpartition(".")[0] or finished.image_name
        return make(finished), media_type, f"{stem}-{file_name}"

    def _prepared(self, model_name: str, ticket: str) -> Prepared:
        key = (model_name, ticket)
        prepared = self.features.get(key)
        if prepared is None:
            image, model = self.image(ticket).image, self.shelf.get(model_name)
            prepared = (
                PreparedLabels(model, image)
                if isinstance(model, SemanticSegmenter)
                else PreparedObjects(model, image)
            )
            self.features.put(key, prepared)
        return prepared

    def _forget_model(self, name: str) -> None:
        self.features.forget(lambda key: isinstance(key, tuple) and key[0] == name)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._readers.acquire(blocking=False):
            raise BusyError("Busy: several images are being read just now. Try again in a few seconds.")
        try:
            yield
        finally:
            self._readers.release()


def examples() -> list[str]:
    """Tickets of the examples."""
    return [EXAMPLE + name for name in EXAMPLES]
