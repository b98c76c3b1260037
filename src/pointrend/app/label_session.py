"""Labelling of points, in plain functions: which object and points come next, and what was answered.

The file (`label_file`) is written anew, atomically, with every finished object; the answers of one that is not finished
are kept in a small file beside it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pointrend.app.label_file import Progress, Record, check_labels, read_label_file, read_unfinished
from pointrend.app.uploads import shrink
from pointrend.app.views import jpeg
from pointrend.data.coco import read_annotated
from pointrend.data.sample_points import SEED, place_points
from pointrend.formats.coco_json import inspect_coco
from pointrend.formats.file_names import FileFinder
from pointrend.formats.records import MAX_POINTS, CocoFile, Id, checked
from pointrend.io import write_text
from pointrend.visualize import as_image

LEFT_OUT = ("segmentation", "point_coords", "point_labels")
LONG_EDGE = 1600
"""Pixels of an image on the page at most; points are placed in the image's own pixels all the same."""


class LabelSession:
    """The work on one file. Methods may be called from several threads.

    Args:
        images: folder of the images.
        out: the file to write; where it is there already, the work goes on from it.
        boxes: content of a COCO file whose objects are to be labelled, masks or not; crowds are left out. To a file
            that is there already, objects with new ids are added; it may be empty then.
        draw: ask for boxes on each image. points: P of each object. seed: of the points. Of a new file.

    Raises:
        ValueError: a malformed file, or one with another number of points.
    """

    def __init__(
        self,
        images: Path,
        out: Path,
        boxes: Mapping[str, Any],
        *,
        draw: bool = False,
        points: int = 10,
        seed: int = SEED,
    ) -> None:
        if not 1 <= points <= MAX_POINTS:
            raise ValueError(f"points: expected 1 to {MAX_POINTS} of each object, got {points}")
        self.images, self.out = images, out
        self.find_image = FileFinder(images)
        self.lock = threading.RLock()
        self.actions: list[str] = []  # since the start, to be undone
        self.content: Record = {**boxes, "annotations": []}
        self.progress = Progress(points, seed, draw, [], [], [])
        self.written: tuple[int, int] | None = None
        if out.exists():
            self.content, self.progress = read_label_file(out)
            self.written = self._version()
        if self.progress.points != points:
            raise ValueError(f"{out}: has {self.progress.points} points of each object; say --points so")
        if self.progress.seed != seed:
            raise ValueError(f"{out}: its points are of seed {self.progress.seed}; say --seed so")
        self.beside = out.with_name(f"{out.name}.unfinished")
        self.unfinished = read_unfinished(self.beside, points)
        self._add(boxes.get("annotations", []))
        left = [*self.progress.pending, *self.progress.skipped]
        found = inspect_coco(
            {**self.content, "annotations": left}, masks=False, file_names=True, name=str(out)
        )
        self.file: CocoFile = checked(found)
        self.image_ids = list(self.file.images)
        order = {number: place for place, number in enumerate(self.image_ids)}
        self.progress.pending.sort(key=lambda record: order[record["image_id"]])

    def _add(self, records: Iterable[Record]) -> None:
        known = {record["id"] for record in self._all()}
        for record in records:
            if record.get("iscrowd") or record["id"] in known:
                continue
            self.progress.pending.append({key: value for key, value in record.items() if key not in LEFT_OUT})

    def _all(self) -> list[Record]:
        return [*self.content["annotations"], *self.progress.pending, *self.progress.skipped]

    def task(self) -> Record:
        """What to ask next.

        "object": id of the annotation, "image" (its place in the list), its "size" (width, height) and "name", "box"
        (x, y, width, height), "category", "points" (P pixel indices), the "labels" of those that were answered before
        a reload or an undo, and the "took" seconds of that; or "object": None and an "image" to draw boxes on, or none
        where all is done. Besides "finished" and "total" objects, the median of the "seconds" that an
        object took, and all "categories".
        """
        with self.lock:
            progress, finished = self.progress, self.content["annotations"]
            times = [record["point_seconds"] for record in finished if "point_seconds" in record]
            numbers = {
                "finished": len(finished),
                "total": len(finished) + len(progress.pending),
                "seconds": round(median(times), 1) if times else None,
                "categories": [category.name for category in self.file.categories.values()],
            }
            undrawn = self._to_draw_on()
            if progress.pending:
                record = progress.pending[0]
                if undrawn is None or self._place(record["image_id"]) <= undrawn:
                    return numbers | self._question(record)
            return (
                numbers
                | {"object": None, "image": undrawn}
                | (self._image(undrawn) if undrawn is not None else {})
            )

    def _to_draw_on(self) -> int | None:
        if not self.progress.draw:
            return None
        closed = set(self.progress.done_drawing)
        return next((place for place, number in enumerate(self.image_ids) if number not in closed), None)

    def _place(self, image_id: Id) -> int:
        return self.image_ids.index(image_id)

    def _image(self, place: int) -> Record:
        record = self.file.images[self.image_ids[place]]
        return {"size": [record.width, record.height], "name": record.file_name}

    def _question(self, record: Record) -> Record:
        place = self._place(record["image_id"])
        question = {
            "object": record["id"],
            "image": place,
            "box": record["bbox"],
            "category": self.file.categories[record["category_id"]].name,
            "points": self.points_of(record).tolist(),
            "labels": [],
            "took": 0,
        } | self._image(place)
        if all(self.unfinished.get(key) == question[key] for key in ("object", "points")):
            question |= self.unfinished
        return question

    def points_of(self, record: Record) -> np.ndarray:
        """(P, 2) pixel indices, the same whenever this object is asked for."""
        image = self.file.images[record["image_id"]]
        own = [self.progress.seed, *str(record["id"]).encode()]
        uniform = np.random.default_rng(own).random((self.progress.points, 2))
        return place_points(np.array(record["bbox"], dtype=np.float64), image.size, uniform)

    def answer(self, number: object, labels: Sequence[int], seconds: float) -> None:
        """Take the labels (P of 0 and 1) of the object that was asked for, and the time they took.

        Raises:
            ValueError: another object is due, such as after an answer from another tab; or not P labels of 0 and 1.
        """
        with self._changing():
            record = self._due(number)
            check_labels(labels, [self.progress.points])
            points = {
                "point_coords": self.points_of(record).tolist(),
                "point_labels": [int(label) for label in labels],
            }
            self.progress.pending.pop(0)
            self.content["annotations"].append(record | points | {"point_seconds": round(seconds, 2)})
        self._done("answer")

    def _done(self, action: str) -> None:
        """With the object that was asked for: nothing of it is to be kept."""
        self.actions.append(action)
        self.unfinished = {}
        with suppress(OSError):  # what is left there belongs to no object that is asked for
            self.beside.unlink()

    def keep(self, number: object, labels: Sequence[int], seconds: float) -> None:
        """Keep the first labels of the object that is asked for, and the time so far: the page goes on from there.

        Raises:
            ValueError: another object is due; or as many labels as points, or others than 0 and 1.
        """
        with self.lock:
            points = self.points_of(self._due(number)).tolist()
            check_labels(labels, range(self.progress.points))
            self.unfinished = {
                "object": number,
                "points": points,
                "labels": [*labels],
                "took": round(seconds, 2),
            }
            write_text(self.beside, json.dumps(self.unfinished))

    def skip(self, number: object) -> None:
        """There is no such object: leave it out of the file."""
        with self._changing():
            self._due(number)
            self.progress.skipped.append(self.progress.pending.pop(0))
        self._done("skip")

    def undo(self) -> None:
        """Ask for the last object again, for its last point where it was answered."""
        with self.lock:
            last, finished = self.actions[-1:], self.content["annotations"]
            if not last and not finished:
                return
            with self._changing():
                record = (self.progress.skipped if last == ["skip"] else finished).pop()
                bare = {key: value for key, value in record.items() if not key.startswith("point_")}
                self.progress.pending.insert(0, bare)
            del self.actions[-1:]
            if len(record.get("point_labels", [])) == self.progress.points:
                self.keep(record["id"], record["point_labels"][:-1], record.get("point_seconds", 0))

    def add_box(self, place: int, box: Sequence[float], category: str) -> None:
        """A box (x, y, width, height) that was drawn on an image; it is asked for next.

        Raises:
            ValueError: no such image or category, or no box inside of the image.
        """
        with self._changing():
            names = {one.name: one.id for one in self.file.categories.values()}
            if not 0 <= place < len(self.image_ids) or category not in names or len(box) != 4:
                raise ValueError("No such image or category. Reload the page.")
            image = self.file.images[self.image_ids[place]]
            x1, y1 = (
                min(max(0.0, value), side) for value, side in zip(box[:2], image.size[::-1], strict=True)
            )
            x2, y2 = min(box[0] + box[2], image.width), min(box[1] + box[3], image.height)
            if not (x2 - x1 >= 1 and y2 - y1 >= 1):
                raise ValueError("The box has no pixel of the image inside. Draw it again.")
            number = 1 + max((one["id"] for one in self._all() if isinstance(one["id"], int)), default=0)
            bbox = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
            record = {"id": number, "image_id": image.id, "category_id": names[category], "bbox": bbox}
            self.progress.pending.insert(0, record | {"area": bbox[2] * bbox[3], "iscrowd": 0})

    def finish_image(self, place: int) -> None:
        """No further box will be drawn on this image."""
        with self._changing():
            if not 0 <= place < len(self.image_ids):
                raise ValueError("No such image. Reload the page.")
            if self.image_ids[place] not in self.progress.done_drawing:
                self.progress.done_drawing.append(self.image_ids[place])

    def image(self, place: int) -> bytes | None:
        """The image at this place as JPEG, at most 1600 pixels long; None where there is none."""
        if not 0 <= place < len(self.image_ids):
            return None
        record = self.file.images[self.image_ids[place]]
        pixels = read_annotated(self.find_image(record.file_name), record)
        return jpeg(as_image(shrink(pixels, LONG_EDGE)))

    def _due(self, number: object) -> Record:
        if not self.progress.pending or self.progress.pending[0]["id"] != number:
            raise ValueError("This object was answered already, perhaps in another tab. Reload the page.")
        return self.progress.pending[0]

    def _version(self) -> tuple[int, int] | None:
        """Of the file: it changes with every writing."""
        if not self.out.exists():
            return None
        found = self.out.stat()
        return found.st_mtime_ns, found.st_size

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What the block changes is written; where that fails, nothing has changed."""
        with self.lock:
            before = replace(
                self.progress,
                pending=[*self.progress.pending],
                skipped=[*self.progress.skipped],
                done_drawing=[*self.progress.done_drawing],
            )
            finished = [*self.content["annotations"]]
            try:
                yield
                self._write()
            except Exception:
                self.progress, self.content["annotations"] = before, finished
                raise

    def _write(self) -> None:
        if self._version() != self.written:
            raise ValueError(f"{self.out} was changed by another program; end this one and start it again.")
        text = json.dumps({**self.content, "labelling": vars(self.progress)})
        write_text(self.out, text, durable=True)
        self.written = self._version()
