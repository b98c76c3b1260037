"""Run a model over images on disk: find them, predict, write overlays, label maps and COCO JSON.

    predictor = Predictor(pointrend.load("model.safetensors"))
    report = predictor.save(["photos/", "more/*.jpg"], "predictions")
    report.failures   # files that could not be read, and why

One bad file never ends the run. Every output appears under its name only when it is complete. Reading, the network and
writing overlap; memory does not grow with the number of images; a run that was stopped or killed goes on where it
was; and processes started by torchrun share the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from pointrend.data.image_io import IMAGE_SUFFIXES, image_size, read_image
from pointrend.distributed import join_processes, local_device
from pointrend.predict.inputs import find_images, output_names
from pointrend.predict.prefetch import BackgroundWorker, prefetch
from pointrend.predict.results import Failure, Prediction, Report
from pointrend.predict.resume import Outcomes, fingerprint
from pointrend.predict.writers import Writer, track
from pointrend.run_folder import RunFolder
from pointrend.structures import Result

# A network's features are held at once: 33 million pixels and a ResNet-50 are 10 GB and more.
MAX_PIXELS = 2**25
WAITING = 2
"""Images beyond a batch that are read before they are wanted, and predictions that wait to be written."""


Image = Tensor | str | Path


class Model(Protocol):
    """What a predictor needs: `InstanceSegmenter` and `SemanticSegmenter` both have it."""

    config: Any

    def predict(self, images: Sequence[Tensor]) -> Sequence[Result]:
        """Images, uint8 (3, H, W) RGB of any sizes, to one result each."""


class Predictor:
    """A model in evaluation mode on a device, with images read and batched for it.

    Args:
        model: an `InstanceSegmenter` or a `SemanticSegmenter`; it is moved to `device` and put into eval
            mode.
        device: a torch device; the GPU if there is one, else the CPU, if not given.
        batch_size: images predicted at once. Only neighbours of the same size share a batch, so that no
            prediction depends on the images beside it.
        max_pixels: larger images are not read at all (the failure says so).
    """

    def __init__(
        self,
        model: Model,
        *,
        device: torch.device | str | None = None,
        batch_size: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        chosen = device if device is not None else local_device()
        try:
            self.device = torch.device(chosen)
            if hasattr(model, "to"):
                model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device: {chosen} cannot be used here ({reason}); try 'cpu'") from error
        self.model, self.batch_size, self.max_pixels = model, batch_size, max_pixels

    @overload
    def __call__(self, images: Image) -> Result: ...  # type: ignore[overload-overlap]  # str is a sequence

    @overload
    def __call__(self, images: Sequence[Image]) -> list[Result]: ...

    def __call__(self, images: Image | Sequence[Image]) -> Result | list[Result]:
        """The result of one image, given as tensor (3, H, W) uint8 RGB or as path; or a list of results for several.

        Raises:
            ValueError: an image cannot be read or predicted.
        """
        if isinstance(images, Tensor | str | Path):
            img = images if isinstance(images, Tensor) else self.read(Path(images))
            return self._predict([img])[0]
        return [self(image) for image in images]

    def stream(self, paths: Iterable[Path]) -> Iterator[Prediction | Failure]:
        """Predictions in the order of the paths; a `Failure` in its place for each file without one."""
        waiting: list[tuple[int, Path, Tensor]] = []
        read = prefetch(self.read, paths, depth=self.batch_size + WAITING)
        for number, (path, img) in enumerate(read):
            try:
                image = img.result()
            except ValueError as error:
                yield from self._flush(waiting)
                yield Failure(path, _without_prefix(str(error), path))
                continue
            full = len(waiting) == self.batch_size
            if waiting and (full or waiting[0][2].shape != image.shape):
                yield from self._flush(waiting)
            waiting.append((number, path, image))
        yield from self._flush(waiting)

    def save(
        self,
        sources: Sequence[str | Path],
        out: str | Path,
        *,
        overlays: bool = True,
        min_score: float = 0.5,
        fresh: bool = False,
        progress: bool = False,
    ) -> Report:
        """Predict every image of `sources` and write into the folder `out`.

        overlays/NAME.png    the prediction drawn on the image
        labels/NAME.png      semantic models: the label map, class numbers with a palette
        predictions.json     instance models: one COCO file (images, categories, annotations with scores)

        NAME keeps the folders below the images' common parent, so equal names in different folders stay
        apart. A run that did not come to its end is continued, with the same model and settings; until the
        end, OUT/.unfinished has its state.

        Under torchrun every process calls this with the same arguments; all get the same report.

        Args:
            sources: files, folders (searched with their subfolders) and glob patterns.
            min_score: detections below it are not drawn; the JSON has all that the model returns.
            fresh: start over where a run did not come to its end.
            progress: show a progress bar on the terminal (stderr).

        Raises:
            ValueError: no image at all was found, the folder has an unfinished run with another model or settings, or
                it cannot be written.
        """
        folder = Path(out)
        paths, failures = find_images(sources, skip=[folder / "overlays", folder / "labels"])
        if not paths and not failures:
            shown = ", ".join(map(str, sources)) or "nothing"
            raise ValueError(
                f"no images found in {shown}; expected files, folders or patterns of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        names, class_names = output_names(paths), self.model.config.class_names
        writer = Writer(folder, names, class_names, overlays=overlays, min_score=min_score)
        settings = {"model": fingerprint(self.model), "overlays": overlays, "min_score": min_score}
        shard = join_processes()
        with RunFolder(folder / ".unfinished", settings, shard=shard, fresh=fresh) as run:
            if shard.first:
                writer.clean()
            outcomes = Outcomes(run, paths, writer)
            self._save(outcomes.undone()[shard.index :: shard.count], outcomes, progress)
            run.refresh()
            if shard.first:
                writer.compose(outcomes.found)
            missing = {number: outcomes.reason(number) for number in outcomes.undone()}
            run.remove()
        failures += [Failure(paths[number], reason) for number, reason in missing.items()]
        return Report(tuple(p for n, p in enumerate(paths) if n not in missing), tuple(failures), folder)

    def _save(self, numbers: Sequence[int], outcomes: Outcomes, progress: bool) -> None:
        """Predict and write the images with these numbers."""

        def write(item: tuple[int, Prediction | Failure]) -> None:
            outcomes.add(*item)

        predictions = self.stream(outcomes.paths[number] for number in numbers)
        with BackgroundWorker(WAITING) as worker:
            for item in track(zip(numbers, predictions, strict=True), len(numbers), progress):
                worker(write, item)

    def read(self, path: Path) -> Tensor:
        """An image from its file, (3, H, W) uint8 RGB.

        Raises:
            ValueError: it cannot be read, or has more than `max_pixels` (which is seen before it is read).
        """
        height, width = image_size(path)
        if height * width > self.max_pixels:
            raise ValueError(
                f"{path}: {width}x{height} pixels are more than the limit of {self.max_pixels:,}; scale the "
                "image down, cut it into tiles, or raise max_pixels if the memory suffices"
            )
        return read_image(path)

    def _flush(self, waiting: list[tuple[int, Path, Tensor]]) -> Iterator[Prediction | Failure]:
        """Predict what waits, together if that works and else one by one; empties the list."""
        batch, waiting[:] = list(waiting), []
        try:
            results = self._predict([image for _, _, image in batch])
        except ValueError as error:
            if len(batch) == 1:
                yield Failure(batch[0][1], str(error))
                return
            for item in batch:
                yield from self._flush([item])
            return
        for (number, path, image), result in zip(batch, results, strict=True):
            yield Prediction(path, image, result, number)

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


def _without_prefix(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ")
