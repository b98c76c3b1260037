"""`pointrend convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Convert:
    """Turn an official checkpoint (Detectron2 .pkl / .pth, MMSegmentation .pth) into one of ours.

    The file is read without running anything in it, every tensor in it must have its place, and its project is told by
    the names of its tensors.
    """

    source: Positional[Path]
    """The checkpoint to read."""
    target: Positional[Path]
    """The .safetensors file to write."""

    def run(self) -> int:
        """Convert."""
        from pointrend import load, save

        if self.target.suffix != ".safetensors":
            raise ValueError(f"{self.target}: expected a file name that ends with .safetensors")
        if not self.source.is_file():
            raise ValueError(f"{self.source}: no such checkpoint file")
        model = load(self.source)
        save(model, self.target, extra={"converted_from": self.source.name})
        names = model.config.class_names
        print(
            f"{self.target}: {len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        )
        return 0
