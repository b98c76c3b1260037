"""`pointrend demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Demo:
    """See what PointRend gains: train a small model on generated scenes, measure it, and draw it. Needs no download.

    Takes about three minutes on the CPU of a laptop.
    """

    minutes: float = 3.0
    """Time for training, at most; a slow machine does fewer steps."""
    out: Path = Path("runs/demo")
    """Folder for the model, the pictures and the scores."""
    seed: int = 0
    """Of the scenes and of the training."""

    def run(self) -> int:
        """Run the demo."""
        from pointrend.demo import DemoSettings, run

        run(DemoSettings(minutes=self.minutes, out=self.out, seed=self.seed))
        return 0
