"""Predictions on disk: written while an evaluation runs, read back when it is resumed or scored again.

OUT/run.json, *.jsonl   what was run, and the detections of each image while the run goes on: see `RunFolder`
OUT/predictions.json    instances: all detections as a COCO results file, when it is complete
OUT/labels/NAME.png     semantic: the label map of each image
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pointrend.formats.coco_results import Records
from pointrend.io import read_json, write_png, write_text
from pointrend.run_folder import RunFolder
from pointrend.structures import Sample

__all__ = ["SavedDetections", "SavedLabels", "file_name_of", "read_numbers"]


class SavedDetections:
    """The detections of each image of one run; a `loop.InstanceStore`.

    Args:
        run: the folder of this run (and of this row, where several are compared).

    Raises:
        ValueError: naming file and line, if what is there is not of this form.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.results = run, run.folder / "predictions.json"
        self._known: dict[int | str, Records] = {}
        self._complete = self.results.exists()
        if self._complete:
            self._read_results()

    def load(self, sample: Sample) -> Records | None:
        """The image's detections; none at all once the run is complete and the file does not mention it."""
        if self._complete:
            return self._known.pop(sample.image_id, [])
        found: Records | None = self.run.get(sample.image_id)
        return found

    def save(self, sample: Sample, prediction: Records) -> None:
        """Note the image's detections; they are on their way to the disk when this returns."""
        self.run.add(sample.image_id, prediction)

    def finish(self, records: Iterable[Records]) -> None:
        """Write the COCO results file from all images' detections; for the first process, after all have ended
        their pass.
        """
        if not self._complete:
            together = [record for image in records for record in image]
            write_text(self.results, json.dumps(together, allow_nan=False))
            self._complete = True
        self.run.forget()

    def _read_results(self) -> None:
        content = read_json(self.results)
        if not isinstance(content, list):
            raise ValueError(f"{self.results}: expected a list of detections, got {type(content).__name__}")
        for number, record in enumerate(content):
            own = record.get("image_id") if isinstance(record, dict) else None
            if not isinstance(own, int | str):
                raise ValueError(f"{self.results}: record {number}: expected an object with an image_id")
            self._known.setdefault(own, []).append(record)


class SavedLabels:
    """A folder with the label map of each image as an 8-bit PNG, NAME.png for the image's id; a `loop.Store`.

    Those that are there may lie in subfolders, as `pointrend predict` arranges them.

    Args:
        folder: of the label maps.
        file_ids: the number that each class 0..K-1 has in the files; itself if not given.
        palette: colours (RGB, 0..255) of the classes, for viewers; the numbers stay what they are.
        known: ids of the data set's images, to notice label maps that belong to none of them.

    Raises:
        ValueError: for a file that belongs to no image.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        file_ids: Sequence[int] | None = None,
        palette: Sequence[Sequence[int]] = (),
        known: Iterable[int | str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.file_ids = tuple(file_ids) if file_ids is not None else None
        # All 256 colours: with fewer, Pillow writes fewer bits per pixel, in which large file ids have no room.
        self.palette = np.zeros((256, 3), dtype=np.uint8)
        if len(palette):
            self.palette[list(file_ids or range(len(palette)))[: len(palette)]] = palette
        self._seen: set[str] = set()
        names = None if known is None else {file_name_of(one) + ".png" for one in known}
        self._there: dict[str, Path] = {}  # by the name without folders
        for file in sorted(self.folder.rglob("*.png")):
            if names is not None and file.name not in names:
                raise ValueError(f"{file}: belongs to no image of the data set")
            if file.name in self._there:
                raise ValueError(f"{file}: there is another label map of this name, {self._there[file.name]}")
            self._there[file.name] = file

    def load(self, sample: Sample) -> Tensor | None:
        """(H, W) uint8 labels 0..K-1, or None. To be asked once for each image.

        Raises:
            ValueError: naming the file, if it is no label map of the image's size, or another image's.
        """
        file = self._file(sample)
        file = self._there.get(file.name, file)
        if file.name in self._seen:
            raise ValueError(f"{file}: two images of the data set are called {sample.image_id!r}")
        self._seen.add(file.name)
        if not file.exists():
            return None
        size = (sample.image.shape[-2], sample.image.shape[-1])
        labels = read_numbers(file, size, str(file), ("L", "P"))
        return torch.from_numpy(self._to_labels(labels, file))

    def save(self, sample: Sample, prediction: Tensor) -> None:
        """Write the image's label map; ValueError for more classes than 8 bits can hold."""
        labels = prediction.detach().cpu().numpy()
        if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
            raise ValueError(f"expected labels 0..255 to save as 8 bits, got {labels.min()}..{labels.max()}")
        if self.file_ids is not None:
            labels = np.array(self.file_ids, dtype=np.uint8)[labels.astype(np.int64)]
        image = Image.fromarray(labels.astype(np.uint8))
        if self.palette.any():
            image.putpalette(self.palette.ravel().tolist())
        write_png(image, self._file(sample))

    def _file(self, sample: Sample) -> Path:
        return self.folder / f"{file_name_of(sample.image_id)}.png"

    def _to_labels(self, numbers: np.ndarray, file: Path) -> np.ndarray:
        if self.file_ids is None:
            return numbers
        table = np.full(256, -1, dtype=np.int16)
        table[list(self.file_ids)] = np.arange(len(self.file_ids))
        labels = table[numbers]
        if (labels < 0).any():
            raise ValueError(
                f"{file}: expected class numbers {sorted(self.file_ids)}, got {int(numbers[labels < 0][0])}"
            )
        return labels.astype(np.uint8)


def file_name_of(image_id: int | str) -> str:
    """An image's id as a file name without suffix: "/" and the like as %2F."""
    return quote(str(image_id), safe=" ()[]{}+,=@#&!$'~^;")


def read_numbers(file: Path, size: tuple[int, int], where: str, modes: Sequence[str]) -> np.ndarray:
    """The numbers (H, W) in a PNG file.

    Args:
        size: (H, W) that the file must have; looked at before anything is decoded.
        where: the file's place, for messages.
        modes: of Pillow's that it may have.

    Raises:
        ValueError: no readable PNG file, or one of another size or mode.
    """
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if (image.height, image.width) != size:
                raise ValueError(
                    f"expected the image's height and width {size}, got {(image.height, image.width)}"
                )
            if image.mode not in modes:
                raise ValueError(f"expected one number per pixel (mode {', '.join(modes)}), got {image.mode}")
            return np.array(image)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{where}: {error}") from error
