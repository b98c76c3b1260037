"""Which models the page offers, by the names it shows; built when first chosen, the last few kept in memory."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pointrend.checkpoints.native import load
from pointrend.models.instance import InstanceSegmenter
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.semantic import SemanticSegmenter
from pointrend.zoo import ZOO
from pointrend.zoo import load as load_published

EMBEDDED: dict[str, Literal["semantic", "instance"]] = {
    "Shapes, every pixel (embedded)": "semantic",
    "Shapes, every object (embedded)": "instance",
}
"""Shown name of the models that come with the package -> their task."""

LOG = logging.getLogger(__name__)
Loader = Callable[[], Any]


class ModelCache:
    """Models by the names that visitors choose from; nothing else can be loaded.

    Args:
        paths: checkpoints, or names of the zoo; shown by their last part, first in the list.
        zoo: offer every published model, too. Its file is fetched when it is first chosen.
        device: where models are wanted.
        most: models in memory at once; the one not used for longest goes first.
        dropped: called with the name of a model that goes.
    """

    def __init__(
        self,
        paths: Sequence[str | Path] = (),
        *,
        zoo: bool = False,
        device: str = "cpu",
        most: int = 3,
        dropped: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.device, self.most, self.dropped = device, most, dropped
        self._loaders: dict[str, Loader] = {}
        for path in paths:
            self._loaders[self._free_name(path)] = lambda path=path: load(path)  # type: ignore[misc]
        self._given = list(self._loaders)
        for name, task in EMBEDDED.items():
            self._loaders[name] = lambda task=task: load_embedded(task)  # type: ignore[misc]
        if zoo:
            for entry in ZOO.values():
                if entry.url and entry.name not in self._loaders:
                    self._loaders[entry.name] = lambda name=entry.name: load_published(name)  # type: ignore[misc]
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Load what the command line named, so that a wrong path is known at once and not by the first visitor.

        Raises:
            ValueError, OSError: with the path and the reason, for whoever started the server.
        """
        for name in self._given[-self.most :]:
            self._loaded[name] = with_points(self._loaders[name](), name).to(self.device).eval()

    @property
    def names(self) -> list[str]:
        """What can be chosen, in the order shown."""
        return list(self._loaders)

    def get(self, name: str) -> SemanticSegmenter | InstanceSegmenter:
        """The model of this name, in evaluation mode, with a point head.

        Raises:
            ValueError: a name that is not offered; a file that is missing, cannot be fetched or read; a model without
                PointRend. In words for the visitor, which name no file; the reason is logged.
        """
        if name not in self._loaders:
            raise ValueError("This model is not offered here. Choose one from the list.")
        with self._lock:  # two visitors who choose a new model wait for one download
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            self._loaded.move_to_end(name)
            while len(self._loaded) > self.most:
                self.dropped(self._loaded.popitem(last=False)[0])
            return self._loaded[name]

    def _load(self, name: str) -> SemanticSegmenter | InstanceSegmenter:
        try:
            return with_points(self._loaders[name](), name).to(self.device).eval()
        except (ValueError, OSError) as error:
            LOG.warning("model %s: %s", name, error)
            fetched = isinstance(error, ConnectionError)
            reason = "it has to be downloaded, and that failed" if fetched else "its file is unfit"
            raise ValueError(
                f"{name} cannot be used here: {reason}. Choose another model; the server's log has the details."
            ) from error

    def _free_name(self, path: str | Path) -> str:
        """A short name for a checkpoint, without the folders of this computer."""
        full = Path(path)
        name = full.parent.name if full.name == "model.safetensors" and full.parent.name else full.name
        name = str(path) if str(path) in ZOO else name
        taken, number, free = {*self._loaders, *EMBEDDED}, 2, name
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        return free


def with_points(model: Any, name: str) -> SemanticSegmenter | InstanceSegmenter:
    """The model itself; ValueError for one without PointRend, of which the page could show no subdivision."""
    if isinstance(model, SemanticSegmenter) and model.point_rend is not None:
        return model
    if isinstance(model, InstanceSegmenter) and isinstance(model.mask_head, PointRendMaskHead):
        return model
    raise ValueError(
        f"{name}: this model has no PointRend head, so there is no subdivision to watch; `pointrend predict` runs it"
    )


Task = Literal["semantic", "instance"]


def load_embedded(task: Task) -> Any:
    """The embedded `SemanticSegmenter` or `InstanceSegmenter`, in evaluation mode on the CPU, float32."""
    with resources.as_file(resources.files("pointrend.app") / f"{task}.safetensors") as path:
        return load(path)
