"""`pointrend convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Convert:
    """Turn another project's checkpoint into one of ours, or one of ours into Detectron2's.

    Read are Detectron2's .pkl and .pth, MMSegmentation's and MMDetection's .pth, and our own; names of the zoo too.
    Nothing in a file is run, every tensor in it must have its place, and its project is told by the names of its
    tensors.
    """

    source: Positional[str]
    """The checkpoint to read, or a name of `pointrend zoo`."""
    to: Path | None = None
    """The .safetensors file to write."""
    to_detectron2: Path | None = None
    """The .pkl file to write, as Detectron2's own."""

    def run(self) -> int:
        """Convert."""
        from pointrend import save
        from pointrend.checkpoints.detectron2 import to_detectron2
        from pointrend.cli.loading import load_model

        targets = {".safetensors": self.to, ".pkl": self.to_detectron2}
        if not any(targets.values()):
            raise ValueError("say where to write: --to OUT.safetensors, or --to-detectron2 OUT.pkl, or both")
        for suffix, target in targets.items():
            if target is not None and target.suffix != suffix:
                raise ValueError(f"{target}: expected a file name that ends with {suffix}")
        model = load_model(self.source)
        names = model.config.class_names
        what = f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        if self.to is not None:
            save(model, self.to)
            print(f"{self.to}: {what}")
        if self.to_detectron2 is not None:
            self.to_detectron2.parent.mkdir(parents=True, exist_ok=True)
            to_detectron2(model, self.to_detectron2)
            print(f"{self.to_detectron2}: {what}, for Detectron2")
        return 0
