"""Finds stored outputs of the originals below the folder that POINTREND_REFERENCE names, however they are arranged.

A set of outputs is a JSON file that lists configurations (Detectron2's `meta.json` with "configs",
MMSegmentation's `goldens.json`), with arrays, shapes, images and make_checkpoint.py beside it, in folders
around it, or, what does not depend on the seed, in the default reference. There may be many sets: other seeds,
other models.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.helpers import REFERENCE

DEFAULT = Path(__file__).parents[2] / "../shared/reference"
ROOT = REFERENCE


@dataclass(frozen=True)
class Golden:
    """One configuration of one set."""

    name: str
    listing: Path
    """The JSON file that lists it."""
    content: dict[str, Any]
    """What the JSON says of it."""
    shared: dict[str, Any]
    """What the JSON says of all."""

    @property
    def id(self) -> str:
        """The name, and the folder where several sets have one of that name."""
        folder = self.listing.parent
        return f"{self.name}@{folder.relative_to(ROOT)}" if folder != ROOT else self.name

    def arrays(self) -> Path:
        """Its stored arrays."""
        return self.file(f"{self.name}.npz")

    def shapes(self) -> dict[str, list[int]]:
        """Shape of each tensor of the model by name."""
        names = [f"{self.name}.json", f"shapes_{self.name}.json"]
        if "file" in self.content:  # the original's configuration, by which its shapes may be called
            names.append(f"{Path(self.content['file']).stem}.json")
        return json.loads(self._find(*names, default=True).read_text())

    def settings(self, case: str) -> dict[str, Any]:
        """What the originals' configuration was overridden with, for this case."""
        return {**self.content.get("overrides", {}), **self.content["cases"][case]}

    def write_pickle(self, path: Path) -> None:
        """The stand-in weights as a file of Detectron2's zoo, after a comparison with the recorded checksums."""
        make, shapes = self.maker(), self.shapes()
        seed = self.content.get("seed", self.shared.get("seed"))
        std = self.content.get("pixel_std_for_make_checkpoint", make.PIXEL_STD.get(self.name, 1.0))
        for key, (crc, total) in self.content.get("checksums", {}).items():
            found_crc, found_total = make.checksum(key, shapes[key], seed, std)
            if found_crc != crc or abs(found_total - total) > 1e-6 * max(1, abs(total)):
                raise AssertionError(f"{self.id}: this numpy makes other weights of {key} than recorded")
        with path.open("wb") as file:
            pickle.dump(make.checkpoint(shapes, seed, std), file, protocol=4)

    def maker(self) -> ModuleType:
        """The make_checkpoint.py that belongs to it."""
        # Both projects' are called so; only one of them makes a state dict.
        mark = "def make_state_dict" if self.listing.name == "goldens.json" else "def checkpoint"
        return load_module(self._find("make_checkpoint.py", default=True, containing=mark))

    def file(self, name: str) -> Path:
        """The file of this name nearest to the listing."""
        return self._find(name)

    def _find(self, *names: str, default: bool = False, containing: str = "") -> Path:
        found = nearest(self.listing, *names, default=default, containing=containing)
        if found is None:  # a set that is not whole shall not pass for one that is not there
            raise FileNotFoundError(
                f"{self.listing} lists {self.name}, but {ROOT} has no {' or '.join(names)}"
            )
        return found


def detectron2() -> list[Golden]:
    """Every configuration that a `meta.json` lists under "configs"."""
    return [
        Golden(name, path, content, meta)
        for path, meta in _listings("meta.json")
        for name, content in _dictionaries(meta.get("configs"))
    ]


def mmsegmentation() -> list[Golden]:
    """Every model of a `goldens.json`: its entries that have a seed."""
    return [
        Golden(name, path, content, goldens)
        for path, goldens in _listings("goldens.json")
        for name, content in _dictionaries(goldens)
        if "seed" in content
    ]


def units() -> list[Path]:
    """Files of Detectron2's functions with their inputs."""
    return sorted(ROOT.rglob("units.npz"))


def nearest(start: Path, *names: str, default: bool = False, containing: str = "") -> Path | None:
    """The file of one of these names with the fewest folders between it and `start`.

    default: where there is none, take the default reference's. containing: only files with this text.
    """
    for root in (ROOT, DEFAULT) if default else (ROOT,):
        found = [path for name in names for path in sorted(root.rglob(name))]
        if containing:
            found = [path for path in found if containing in path.read_text()]
        if found:
            return min(found, key=lambda path: _steps(start.parent, path.parent))
    return None


@cache
def load_module(path: Path) -> ModuleType:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(f"make_checkpoint_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _listings(name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(ROOT.rglob(name)):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            yield path, content


def _dictionaries(content: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(content, dict):
        return []
    return [(name, value) for name, value in content.items() if isinstance(value, dict)]


def _steps(one: Path, other: Path) -> int:
    """Folders to go through from one folder to another."""
    own, its = one.resolve().parts, other.resolve().parts
    common = next((i for i, pair in enumerate(zip(own, its, strict=False)) if pair[0] != pair[1]), None)
    common = min(len(own), len(its)) if common is None else common
    return len(own) + len(its) - 2 * common
