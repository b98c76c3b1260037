"""Four photographs with label maps that come with the package: for `pointrend demo`, the browser page and the examples.

`LICENSES.md` beside them says whose they are and under which terms. The label maps have the 21 classes of PASCAL VOC,
255 ignored, and were drawn from COCO's polygons: right about what is where, coarse by a few pixels at outlines.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class SamplePhotograph(NamedTuple):
    """Two files."""

    image: Path
    labels: Path


SAMPLES: dict[str, SamplePhotograph] = {
    name: SamplePhotograph(Path(__file__).parent / f"{name}.jpg", Path(__file__).parent / f"{name}.png")
    for name in ("riders", "snowboarder", "motorcyclist", "cyclist")
}
"""Name -> photograph and label map."""
