"""What stays in memory: the least recently used is dropped. The models that can be chosen, built when first chosen."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

from pointrend.models.instance import InstanceSegmenter
from pointrend.models.mask_heads.pointrend import PointRendMaskHead
from pointrend.models.semantic_model import SemanticModel
from pointrend.predict import Predictor
from pointrend.zoo import BUNDLED, ZOO, load

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Model = SemanticModel | InstanceSegmenter
LOG = logging.getLogger(__name__)


class LRUCache(Generic[K, V]):
    """Values by key, of which the least recently used are dropped; safe to use from several threads.

    Args:
        capacity: sum of the sizes of all values, at most.
        size: of a value; every value counts 1 if not given.

    Raises:
        ValueError: a capacity below 1.
    """

    def __init__(self, capacity: int, size: Callable[[V], int] = lambda value: 1) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.capacity, self.used = capacity, 0
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None where there is none (any more)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> list[K]:
        """Store the value; returns the keys dropped to make room. A value larger than the capacity is not stored."""
        with self._lock:
            self._drop(key)
            if self._size(value) > self.capacity:
                return []
            self._values[key] = value
            self.used += self._size(value)
            dropped = []
            while self.used > self.capacity:
                dropped.append(next(iter(self._values)))
                self._drop(dropped[-1])
            return dropped

    def drop(self, unwanted: Callable[[K], bool]) -> None:
        """Drop every value whose key `unwanted` returns True for."""
        with self._lock:
            for key in [key for key in self._values if unwanted(key)]:
                self._drop(key)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def _drop(self, key: K) -> None:
        if key in self._values:
            self.used -= self._size(self._values.pop(key))


class ModelCache:
    """Models by name; nothing else can be loaded.

    Args:
        paths: checkpoints, or names of the zoo; shown by their last part, first in the list.
        zoo: offer every published model, too. Its file is downloaded when it is first chosen.
        device: of the models.
        capacity: models in memory at once.
    """

    def __init__(
        self, paths: Sequence[str | Path] = (), *, zoo: bool = False, device: str = "cpu", capacity: int = 3
    ) -> None:
        self.device, self.loaded = device, LRUCache[str, Model](capacity)
        self._sources: dict[str, str | Path] = {}
        for path in paths:
            self._sources[self._free_name(path)] = path
        self._named = list(self._sources)[-capacity:]
        published = [entry.name for entry in ZOO.values() if entry.url] if zoo else []
        self._sources = {**self._sources, **{name: name for name in (*BUNDLED, *published)}}
        self._lock = threading.Lock()

    def preload(self) -> None:
        """Load the models of `paths`, so that a wrong path is known at once and not by the first visitor.

        Raises:
            ValueError, OSError: with the path and the reason, for whoever started the server.
        """
        for name in self._named:
            self.loaded.put(name, self._load(name))

    @property
    def names(self) -> list[str]:
        """What can be chosen, in the order shown."""
        return list(self._sources)

    def get(self, name: str) -> Model:
        """The model of this name, in evaluation mode, with a point head.

        Raises:
            ValueError: a name that is not offered; a file that is missing, cannot be downloaded or read; a model
                without PointRend. In words for the visitor, which name no file; the reason is logged.
        """
        if name not in self._sources:
            raise ValueError("This model is not offered here. Choose one from the list.")
        with self._lock:  # two visitors who choose a new model wait for one download
            model = self.loaded.get(name)
            if model is None:
                try:
                    model = self._load(name)
                except (ValueError, OSError) as error:
                    LOG.warning("model %s: %s", name, error)
                    downloaded = isinstance(error, ConnectionError)
                    reason = "it has to be downloaded, and that failed" if downloaded else "its file is unfit"
                    raise ValueError(
                        f"{name} cannot be used here: {reason}. Choose another model; the server's log has the details."
                    ) from error
                self.loaded.put(name, model)
            return model

    def _load(self, name: str) -> Model:
        model = cast(Model, load(self._sources[name]))
        check_has_points(model, name)
        Predictor(model, device=self.device)  # moves it there
        return model

    def _free_name(self, path: str | Path) -> str:
        """A short name for a checkpoint, without the folders of this computer."""
        if path in BUNDLED or path in ZOO:
            return str(path)
        full = Path(path)
        name = full.parent.name if full.name == "model.safetensors" and full.parent.name else full.name
        taken, number, free = {*self._sources, *BUNDLED, *ZOO}, 2, name
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        return free


def check_has_points(model: object, name: str) -> None:
    """Raise a ValueError for a model without PointRend, of which the page could show no subdivision."""
    semantic = isinstance(model, SemanticModel) and model.point_rend is not None
    instances = isinstance(model, InstanceSegmenter) and isinstance(model.mask_head, PointRendMaskHead)
    if not (semantic or instances):
        raise ValueError(
            f"{name}: this model has no PointRend head, so there is no subdivision to show; "
            "`pointrend predict` runs it"
        )
