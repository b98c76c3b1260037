"""What visitors can ask for, in plain functions: add an image, see it at some settings, download the result.

A visitor holds the ids (unguessable) of their image and their last result. What an id stands for is kept within a
fixed amount of memory, the least recently used dropped first: images, results, and the network's features of an
image, so that moving a slider repeats the subdivision only.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict

from pointrend.app.exports import DOWNLOADS, Exportable, exportable
from pointrend.app.instance_session import InstanceSession
from pointrend.app.limits import Limits
from pointrend.app.model_cache import LRUCache, ModelCache
from pointrend.app.semantic_session import SemanticSession
from pointrend.app.types import Session, Settings
from pointrend.app.uploads import EXAMPLES, NamedImage, example, read_upload, shrink
from pointrend.app.views import data_uri, view
from pointrend.models.semantic_model import SemanticModel
from pointrend.visualize import as_image

EXAMPLE = "example:"
"""What the ids of examples begin with."""


class Service:
    """Images, renderings and downloads for any number of visitors, in bounded memory.

    Args:
        models: that can be chosen.
        limits: of uploads.
        megabytes: for features; a quarter of it each for images and for results.
    """

    def __init__(self, models: ModelCache, limits: Limits, *, megabytes: int = 512) -> None:
        self.models, self.limits = models, limits
        capacity = megabytes * 2**20
        self.images = LRUCache[str, NamedImage](capacity // 4, lambda image: image.nbytes)
        self.sessions = LRUCache[tuple[str, str], Session](capacity, lambda session: session.nbytes)
        self.results = LRUCache[str, Exportable](capacity // 4, lambda result: result.nbytes)

    def options(self) -> dict[str, object]:
        """What can be chosen: "models" by name, "examples" as small images, and the limit of a file, "max_bytes"."""
        examples = [
            {
                "image": EXAMPLE + name,
                "name": name,
                "source": data_uri(as_image(shrink(example(name).pixels, 144))),
            }
            for name in EXAMPLES
        ]
        return {"models": self.models.names, "examples": examples, "max_bytes": self.limits.bytes}

    def add_image(self, content: bytes, name: str) -> str:
        """Take in a file; returns the image's id.

        Raises:
            ValueError: too large, or no image; in words for the visitor.
        """
        image, image_id = read_upload(content, name, self.limits), secrets.token_urlsafe(16)
        self.images.put(image_id, image)
        return image_id

    def image(self, image_id: str) -> NamedImage:
        """The image of an id, or of "example:" and an example's name.

        Raises:
            ValueError: there is none (any more).
        """
        if image_id.startswith(EXAMPLE):
            return example(image_id.removeprefix(EXAMPLE))
        image = self.images.get(image_id)
        if image is None:
            raise ValueError(
                "This image is no longer stored here, to make room for others. Please drop it again."
            )
        return image

    def render(self, model_name: str, image_id: str, settings: Settings) -> dict[str, object]:
        """What `views.view` returns, plus "controls" (ranges of the sliders), "result" (the id for downloads) and
        "downloads" (their file names).

        Raises:
            ValueError: an unknown model or image.
        """
        image, session = self.image(image_id), self._session(model_name, image_id)
        rendering = session.render(settings)
        result_id = secrets.token_urlsafe(16)
        self.results.put(result_id, exportable(rendering, image.name))
        controls = {
            "resolution": asdict(session.resolutions),
            "points": asdict(session.points),
            "instances": isinstance(session, InstanceSession),
        }
        return {**view(rendering), "controls": controls, "result": result_id, "downloads": list(DOWNLOADS)}

    def download(self, result_id: str, file_name: str) -> tuple[bytes, str, str] | None:
        """Content, media type and name of a file; None where there is no such result (any more) or no such file."""
        result = self.results.get(result_id)
        if result is None or file_name not in DOWNLOADS:
            return None
        write, media_type = DOWNLOADS[file_name]
        stem = result.image_name.rpartition(".")[0] or result.image_name
        return write(result), media_type, f"{stem}-{file_name}"

    def _session(self, model_name: str, image_id: str) -> Session:
        session: Session | None = self.sessions.get((model_name, image_id))
        if session is None:
            pixels, model = self.image(image_id).pixels, self.models.get(model_name)
            session = (
                SemanticSession(model, pixels)
                if isinstance(model, SemanticModel)
                else InstanceSession(model, pixels)
            )
            self.sessions.drop(
                lambda key: key[0] not in self.models.loaded
            )  # a session holds on to its model
            self.sessions.put((model_name, image_id), session)
        return session
