"""The models that come with the package: no download, no network.

Every command and `pointrend.load` know them by name. How each was made, from what and under which terms is in its file
(`model.origin`, `pointrend zoo NAME`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Bundled:
    """A file of weights in this package."""

    name: str
    task: Literal["semantic", "instance", "refine"]
    summary: str
    """One line for lists."""
    limits: str
    """What it is not for, and where it fails."""
    sha256: str
    """Of the file."""

    @property
    def path(self) -> Path:
        """The file."""
        return Path(__file__).parent / "weights" / f"{self.name}.safetensors"


SCENES_ALONE = "Knows nothing of photographs: for tests, examples and the browser page."

BUNDLED: dict[str, Bundled] = {
    entry.name: entry
    for entry in (
        Bundled(
            "photo-semantic",
            "semantic",
            "photographs: the 21 classes of PASCAL VOC, people best (DeepLabV3-MobileNetV2, 6 MB)",
            "Its outlines were learnt from street photographs of people in fashionable clothes: expect less of "
            "crowds, small people and rooms. Cows, potted plants, boats and chairs are mostly missed. "
            "Points sharpen what the coarse prediction found and find nothing else. Nothing about a person should "
            "be decided with it. "
            "Whether weights inherit terms of the images that they were trained on is not settled: where that matters, "
            "train on your own.",
            "3fbab22dd4ac1e3b3dff0648dd2e4588515528dac5b70c421fe44b9b125b9ed7",
        ),
        Bundled(
            "shapes-semantic",
            "semantic",
            "generated scenes: 5 shapes and background (SemanticFPN, 1 MB)",
            SCENES_ALONE,
            "7a3aac494e4b6777ee20fee0d8bc435350ce1fa2485b82b21e6227b53ea635d4",
        ),
        Bundled(
            "shapes-instance",
            "instance",
            "generated scenes: 5 shapes as objects (Mask R-CNN, 2 MB)",
            SCENES_ALONE,
            "7626bfb1515095ae3b32842d72cfdabda1530534f08bf957cec3246eb8c76461",
        ),
    )
}
"""Every bundled model by name, in the order of lists."""


REFINER = Bundled(
    "mask-refiner",
    "refine",
    "`pointrend refine`: moves the outlines of a mask to those of the image (0.6 MB)",
    "Corrects masks and finds none: a missing part or a wrong object it does not see. Masks that are blurred to "
    "cells of 8 pixels, and small things in street scenes, are better merely enlarged. It was trained on outlines of "
    "people, and for its data the same holds as for photo-semantic's.",
    "3fadbde8b007c2aa21c25942574140834c2971746c9bc3c0eb89745e49c8ce6e",
)
"""What `pointrend.refine_mask` uses; `load` does not take it, since it is no segmenter."""
