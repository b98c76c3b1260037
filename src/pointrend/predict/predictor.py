"""Run a model over images: in any form from Python, or from disk and network onto the disk.

    predictor = Predictor(pointrend.load("model.safetensors"))
    result = predictor("photo.jpg")                            # also an array, a Pillow image, a tensor, bytes, a URL
    report = predictor.save(["photos/", "more/*.jpg"], "predictions")
    report.failures   # files that could not be read, and why

One bad file never ends a run. Every output appears under its name only when it is complete. Reading, the network and
writing overlap; memory does not grow with the number of images; a run that was stopped or killed goes on where it
was; and processes started by torchrun share the images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from numbers import Real
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from pointrend.data.decode import IMAGE_SUFFIXES
from pointrend.data.image_io import ChannelOrder, image_size, local_path, read_image, to_image
from pointrend.data.remote import ObjectFile, is_url, read_object
from pointrend.distributed import join_processes, local_device
from pointrend.predict.cutouts import check_foreground
from pointrend.predict.inputs import Source, choose_ids, find_images, output_names
from pointrend.predict.prefetch import BackgroundWorker, prefetch
from pointrend.predict.results import Failure, Prediction, Report
from pointrend.predict.resume import RunRecord, fingerprint
from pointrend.predict.writers import Output, Writer, track
from pointrend.results import InstanceResult, Model, Result
from pointrend.run_folder import RunFolder
from pointrend.structures import class_number

# A network's features are held at once: 33 million pixels and a ResNet-50 are 10 GB and more.
MAX_PIXELS = 2**25
WAITING = 2
"""Images beyond a batch that are read before they are wanted, and predictions that wait to be written."""


Image = Tensor | np.ndarray | PILImage.Image | bytes | str | Path
"""What `to_image` takes."""
T = TypeVar("T")


class Predictor:
    """A model in evaluation mode on a device, with images read and batched for it.

    Args:
        model: an `InstanceSegmenter` or a `SemanticSegmenter`; it is moved to `device` and put into eval
            mode.
        device: a torch device; the GPU if there is one, else the CPU, if not given.
        batch_size: images predicted at once. Only neighbours of the same size share a batch, so that no
            prediction depends on the images beside it.
        max_pixels: larger files are not read at all (the failure says so).
        min_score: detections below it are left out of results and files; none are if not given.
        classes: names of the classes to find; of a label map all others become 255, "ignored". All if empty.
        channel_order: of arrays and tensors; "bgr" for what cv2 reads.

    Raises:
        ValueError: a device that cannot be used, a class that the model does not have, numbers that make no sense.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: torch.device | str | None = None,
        batch_size: int = 1,
        max_pixels: int = MAX_PIXELS,
        min_score: float | None = None,
        classes: Sequence[str] = (),
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        if not callable(getattr(model, "predict", None)) or isinstance(model, type):
            found = str(model).partition("\n")[0]  # of a network, its name
            raise ValueError(
                f"model: expected a model with predict(), got {found}; pointrend.load(NAME or PATH) gives one"
            )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size!r}")
        if max_pixels < 1:
            raise ValueError(f"max_pixels: expected 1 or more, got {max_pixels}")
        if min_score is not None and not (isinstance(min_score, Real) and 0 <= min_score <= 1):
            raise ValueError(f"min_score: expected a score from 0 to 1, got {min_score}")
        if min_score is not None and getattr(model, "task", None) == "semantic":
            raise ValueError("min_score: expected an instance model; label maps have no scores: leave it out")
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order: expected 'rgb' or 'bgr', got {channel_order!r}")
        if isinstance(classes, str):
            raise ValueError(f"classes: expected a list of names, got the text {classes!r}")
        for name in classes:
            class_number(model.config.class_names, name)
        chosen = device if device is not None else local_device()
        try:
            self.device = torch.device(chosen)
            if hasattr(model, "to"):
                model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device: {chosen} cannot be used here ({reason}); try 'cpu'") from error
        self.model, self.batch_size, self.max_pixels = model, batch_size, max_pixels
        self.min_score, self.classes, self.channel_order = min_score, tuple(classes), channel_order

    @overload
    def __call__(self, images: Image) -> Result: ...  # type: ignore[overload-overlap]  # str is a sequence

    @overload
    def __call__(self, images: Sequence[Image]) -> list[Result]: ...

    def __call__(self, images: Image | Sequence[Image]) -> Result | list[Result]:
        """The result of one image, or a list of results for a list (or tuple) of images.

        Args:
            images: a path, a URL, the bytes of an image file, a Pillow image, an array (H, W, 3) or (H, W), a tensor
                (3, H, W), uint8 (see `to_image`); or several of these.

        Raises:
            ValueError: an image is none of these forms, cannot be read or cannot be predicted.
            ConnectionError: a URL cannot be fetched.
        """
        if not isinstance(images, list | tuple):
            image = self.to_tensor(images)  # type: ignore[arg-type]  # a sequence is a list or a tuple
            return self._finish(self._predict([image])[0], image)
        results: list[Result] = []
        numbered = ((number, self.to_tensor(image, number)) for number, image in enumerate(images))
        for batch in self.batches(numbered):
            found = self._predict([image for _, image in batch])
            results += [self._finish(one, image) for one, (_, image) in zip(found, batch, strict=True)]
        return results

    def stream(self, sources: Iterable[Source]) -> Iterator[Prediction | Failure]:
        """Predictions in the order of the files and addresses; a `Failure` in its place for each without one."""
        read = prefetch(self.read, sources, depth=self.batch_size + WAITING)
        waiting: list[tuple[int, Source, Tensor]] = []
        for number, (source, image) in enumerate(read):
            try:
                pixels = image.result()
            except (ValueError, ConnectionError) as error:
                yield from self.predict_batch(waiting)
                waiting = []
                yield Failure(source, str(error).removeprefix(f"{source}: "))
                continue
            full = len(waiting) == self.batch_size
            if waiting and (full or waiting[0][2].shape != pixels.shape):
                yield from self.predict_batch(waiting)
                waiting = []
            waiting.append((number, source, pixels))
        yield from self.predict_batch(waiting)

    def save(
        self,
        sources: Sequence[str | os.PathLike[str]],
        out: str | Path,
        output: Output | None = None,
        *,
        like: str | Path | None = None,
        fresh: bool = False,
        progress: bool = False,
    ) -> Report:
        """Predict every image of `sources` and write into the folder `out`::

            overlays/NAME.png    the prediction drawn on the image
            labels/NAME.png      semantic models: the label map, class numbers with a palette
            predictions.json     instance models: one COCO file (images, categories, annotations with scores)

        and what else `output` asks for. NAME keeps the folders below the images' common parent, so equal names in
        different folders stay apart. A run that did not come to its end is continued, with the same model and settings;
        until the end, OUT/.unfinished has its state.

        Under torchrun every process calls this with the same arguments; all get the same report.

        Args:
            sources: files, folders (searched with their subfolders; what an earlier run has written there is left
                out), glob patterns and URLs.
            output: formats, overlays, cutouts.
            like: COCO annotations whose ids images and classes get, by their names.
            fresh: start over where a run did not come to its end.
            progress: show a progress bar on the terminal (stderr).

        Raises:
            ValueError: no image at all was found, the folder has an unfinished run with another model or settings,
                `like` does not fit, or something cannot be written.
        """
        folder, output = Path(out), output or Output()
        paths, failures = find_images(sources)
        if not paths and not failures:
            shown = ", ".join(map(str, sources)) or "nothing"
            raise ValueError(
                f"no images found in {shown}; expected files, folders or patterns of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        ids = choose_ids(
            paths, self.model, like=Path(like) if like is not None else None, classes=self.classes
        )
        if output.cutouts != "none" and getattr(self.model, "task", "") == "semantic" and not self.classes:
            check_foreground(self.model.config.class_names)
        if self.min_score is not None:
            output = replace(output, min_drawn_score=self.min_score)
        writer = Writer(folder, output_names(paths), self.model.config.class_names, ids=ids, output=output)
        settings = {
            "model": fingerprint(self.model),
            **asdict(output),
            "min_score": self.min_score,
            "classes": self.classes,
            "like": None if like is None else str(like),
        }
        shard = join_processes()
        with RunFolder(folder / ".unfinished", settings, shard=shard, fresh=fresh) as run:
            if shard.first:
                writer.start()
            record = RunRecord(run, paths, writer)
            self._save(record.undone()[shard.index :: shard.count], record, progress)
            run.refresh()
            if shard.first:
                writer.compose(record.found)
            missing = {number: record.reason(number) for number in record.undone()}
            run.remove()
        failures += [Failure(paths[number], reason) for number, reason in missing.items()]
        return Report(tuple(p for n, p in enumerate(paths) if n not in missing), tuple(failures), folder)

    def _save(self, numbers: Sequence[int], record: RunRecord, progress: bool) -> None:
        """Predict and write the images with these numbers."""

        def write(item: tuple[int, Prediction | Failure]) -> None:
            record.add(*item)

        predictions = self.stream(record.paths[number] for number in numbers)
        with BackgroundWorker(WAITING) as worker:
            for item in track(zip(numbers, predictions, strict=True), len(numbers), progress):
                worker(write, item)

    def read(self, source: Source | bytes) -> Tensor:
        """An image from its file, its address or the file's content, (3, H, W) uint8 RGB.

        Raises:
            ValueError: it cannot be read, or has more than `max_pixels` (which is seen before it is decoded).
            ConnectionError: the address cannot be fetched.
        """
        file: ObjectFile | Path
        if isinstance(source, bytes):
            file = ObjectFile("image", source)
            source = "image"
        elif is_url(source):
            file = ObjectFile(str(source), read_object(str(source)))
        else:
            file = local_path(source)
        if isinstance(file, Path) and file.is_dir():
            return to_image(file)  # says that it is a folder
        height, width = image_size(file)
        if height * width > self.max_pixels:
            raise ValueError(
                f"{source}: {width}x{height} pixels are more than the limit of {self.max_pixels:,}; scale the "
                "image down, cut it into tiles, or raise max_pixels if the memory suffices"
            )
        if isinstance(file, ObjectFile):
            file.seek(0)
        return read_image(file)

    def to_tensor(self, image: Image, number: int | None = None) -> Tensor:
        """An image in any form; what is wrong with one of several says which it is."""
        try:
            if isinstance(image, str | os.PathLike):
                return self.read(image if is_url(image) else local_path(image))
            if isinstance(image, bytes):
                return self.read(image)
            return to_image(image, channel_order=self.channel_order)
        except ValueError as error:
            if number is None or isinstance(image, str | os.PathLike):
                raise
            raise ValueError(f"images[{number}]: {error}") from error

    def batches(self, images: Iterable[tuple[T, Tensor]]) -> Iterator[list[tuple[T, Tensor]]]:
        """Neighbours of one size, at most `batch_size` of them."""
        batch: list[tuple[T, Tensor]] = []
        for item in images:
            if batch and (len(batch) == self.batch_size or batch[0][1].shape != item[1].shape):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _finish(self, result: Result, image: Tensor) -> Result:
        """What was asked for of a result, with its image."""
        if self.classes:
            result = result.of_classes(self.classes)
        if self.min_score is not None and isinstance(result, InstanceResult):
            result = result.above(self.min_score)
        return replace(result, image=image)

    def predict_batch(self, images: Sequence[tuple[int, Source, Tensor]]) -> Iterator[Prediction | Failure]:
        """Those of several images of one size, together if that works and else one by one.

        Args:
            images: number, file and (3, H, W) uint8 of each.
        """
        try:
            results = self._predict([image for _, _, image in images])
        except ValueError as error:
            if len(images) == 1:
                yield Failure(images[0][1], str(error))
                return
            for item in images:
                yield from self.predict_batch([item])
            return
        for (number, path, image), result in zip(images, results, strict=True):
            yield Prediction(path, image, self._finish(result, image), number)

    def _predict(self, images: list[Tensor]) -> Sequence[Result]:
        try:
            return self.model.predict(images) if images else []
        except (RuntimeError, MemoryError) as error:
            text = str(error)
            if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
                sizes = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in images)
                raise ValueError(
                    f"not enough memory for {sizes} pixels at once; scale down or lower the batch size"
                ) from error
            raise
