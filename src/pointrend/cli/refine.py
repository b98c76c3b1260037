"""`pointrend refine`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pointrend.cli.console import announce


@dataclass(frozen=True)
class Refine:
    """Sharpen a mask from anywhere: move its outlines to those of the image.

    For masks of any kind of object from a labeller or another network that are shifted by some pixels, too small, too
    large, or have holes; docs/results.md says where it helps and where not. A label map is refined label by label. The
    mask covers the whole image.
    """

    image: Positional[Annotated[Path, arg(metavar="IMAGE")]]
    """The image."""
    mask: Positional[Annotated[Path, arg(metavar="MASK")]]
    """A label image (PNG; 0 is outside), an array (.npy: booleans, labels, probabilities or logits), or COCO's run
    lengths (.json)."""
    out: Path | None = None
    """File to write: .png, .npy, or .json (run lengths); MASK-refined.png beside the mask when not given."""

    def run(self) -> int:
        """Refine and write."""
        out = self.out or self.mask.with_name(f"{self.mask.stem}-refined.png")
        if out.suffix not in (".png", ".npy", ".json"):
            raise ValueError(f"out: expected a name ending in .png, .npy or .json, got {out}")
        announce("loading the mask refiner")
        from pointrend.predict.refine import read_mask, refine_mask, write_mask

        write_mask(refine_mask(self.image, read_mask(self.mask)), out)
        print(f"refined, see {out}")
        return 0
