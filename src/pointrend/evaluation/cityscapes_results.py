"""Instances as Cityscapes' evaluation server takes them: a text file for each image, a PNG for each object.

    FOLDER/ulm_000000_000019_pred.txt      lines "masks/ulm_000000_000019_000.png 26 0.93": mask, label id, score
    FOLDER/masks/ulm_000000_000019_000.png 8 bits, 255 inside

For semantic results, use `SavedLabels` with the label ids as `file_ids`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from faster_coco_eval.core import mask as rle

from pointrend.evaluation.loop import InstanceStore
from pointrend.evaluation.prediction_store import Records, file_name_of, read_numbers
from pointrend.io import write_png, write_text
from pointrend.masks.rle import CocoDetection, encode_windows
from pointrend.metadata.cityscapes import INSTANCE_LABELS
from pointrend.structures import InstanceMasks, Sample

__all__ = ["CityscapesResults"]

LABEL_IDS = frozenset(label.id for label in INSTANCE_LABELS)
MOST_OBJECTS = 10_000  # lines of one text file


class CityscapesResults(InstanceStore):
    """A folder of results; a store of detections whose `category_id` is Cityscapes' label id.

    An image's text file is written last, so it stands for a complete image. Boxes are not kept: they are those of
    the masks when read back.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def load(self, sample: Sample) -> Records | None:
        """The image's detections, or None.

        Raises:
            ValueError: naming file and line, for anything the server would not take, masks outside of the folder,
                or of another size than the image.
        """
        file = self._list_file(sample)
        if not file.exists():
            return None
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: cannot be read ({error})") from error
        if len(lines) > MOST_OBJECTS:
            raise ValueError(f"{file}: expected at most {MOST_OBJECTS} objects, got {len(lines)}")
        size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        return [
            self._object(line, size, f"{file}, line {number}", sample.image_id)
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]

    def save(self, sample: Sample, prediction: Records) -> None:
        """Write the image's masks and then its text file."""
        name = file_name_of(sample.image_id)
        (self.folder / "masks").mkdir(parents=True, exist_ok=True)
        lines = []
        for number, record in enumerate(prediction):
            if record["category_id"] not in LABEL_IDS:
                raise ValueError(
                    f"category_id: expected one of {sorted(LABEL_IDS)}, got {record['category_id']}"
                )
            mask = f"masks/{name}_{number:03d}.png"
            write_png(rle.decode(record["segmentation"]) * np.uint8(255), self.folder / mask)
            lines.append(f"{mask} {record['category_id']} {record['score']!r}\n")
        write_text(self._list_file(sample), "".join(lines))

    def _list_file(self, sample: Sample) -> Path:
        return self.folder / f"{file_name_of(sample.image_id)}_pred.txt"

    def _object(self, line: str, size: tuple[int, int], where: str, image_id: int | str) -> CocoDetection:
        words = line.split()
        if len(words) != 3:
            raise ValueError(f"{where}: expected a mask's file, a label id and a score, got {line[:80]!r}")
        try:
            label, score = int(words[1]), float(words[2])
        except ValueError:
            raise ValueError(f"{where}: expected a label id and a score, got {words[1:]}") from None
        if label not in LABEL_IDS:
            raise ValueError(f"{where}: label id: expected one of {sorted(LABEL_IDS)}, got {label}")
        if not math.isfinite(score):
            raise ValueError(f"{where}: score: expected a finite number, got {words[2][:20]}")
        mask = (self.folder / words[0]).resolve()
        if not mask.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{where}: {words[0]} lies outside of {self.folder}")
        inside = read_numbers(mask, size, f"{where}: {mask.name}", ("1", "L", "P", "I", "I;16")) != 0
        masks = InstanceMasks.from_dense(torch.from_numpy(inside)[None])
        found = next(encode_windows(masks))
        return {"image_id": image_id, "category_id": label, "score": score, "segmentation": found}
