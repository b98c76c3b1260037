"""The loop over a data set that every evaluation runs: predict or read back, save, count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from torch import nn

from pointrend.distributed import Shard
from pointrend.formats.coco_results import Records
from pointrend.results import Model, Result
from pointrend.structures import Sample, Samples

__all__ = ["InstanceStore", "Options", "Progress", "Store", "each_image", "merged"]

Options = Mapping[str, object]
"""Keyword arguments of a model's `predict`."""
Progress = Callable[[int, int], None]
"""Called after each image with the number done and the number of all (of this process)."""


Prediction = TypeVar("Prediction")


class _Merges(Protocol):
    def merge(self: Mergeable, other: Mergeable, /) -> None: ...


Mergeable = TypeVar("Mergeable", bound=_Merges)


class Store(Protocol[Prediction]):
    """Predictions on disk, image by image; what a prediction is depends on the task."""

    def load(self, sample: Sample) -> Prediction | None:
        """The image's prediction, or None if there is none yet."""

    def save(self, sample: Sample, prediction: Prediction) -> None:
        """Keep a prediction, so that it outlives an interruption."""


class InstanceStore(Store[Records], Protocol):
    """Detections on disk: COCO-format records."""

    def finish(self, records: Iterable[Records]) -> None:
        """Called once, when all images are done, with the detections of each; nothing to do where each is kept."""
        return


def each_image(
    model: Model | None,
    dataset: Samples,
    variants: Mapping[str, Options],
    *,
    convert: Callable[[Sample, Result], Prediction],
    use: Callable[[str, int, Sample, Prediction], None],
    stores: Mapping[str, Store[Prediction]],
    progress: Progress | None,
    shard: Shard,
) -> dict[str, float]:
    """Have every image of this process predicted with each variant, unless its store has it, and counted.

    Args:
        model: has `predict(images, **options)`; None if the stores have everything.
        convert: a result into what is counted and stored.
        use: called with variant, index of the image, sample and prediction.
        stores: of some or all variants.

    Returns:
        The seconds that each variant spent in `predict`.

    Raises:
        ValueError: naming the image, whatever is wrong with it or its prediction.
    """
    seconds = dict.fromkeys(variants, 0.0)
    mine = shard.images(len(dataset))
    with _evaluating(model):
        for done, index in enumerate(mine, 1):
            sample = dataset[index]
            try:
                for variant, options in variants.items():
                    store = stores.get(variant)
                    prediction = store.load(sample) if store is not None else None
                    if prediction is None:
                        started = time.perf_counter()
                        result = _predict(model, sample, options)
                        seconds[variant] += time.perf_counter() - started
                        prediction = convert(sample, result)
                        if store is not None:
                            store.save(sample, prediction)
                    use(variant, index, sample, prediction)
            except ValueError as error:
                raise ValueError(f"image {sample.path or sample.image_id}: {error}") from error
            if progress is not None:
                progress(done, len(mine))
    return seconds


def merged(parts: Sequence[Mergeable]) -> Mergeable:
    """The evaluators of all processes as one."""
    first, *others = parts
    for other in others:
        first.merge(other)
    return first


def _predict(model: Model | None, sample: Sample, options: Options) -> Result:
    if model is None:
        raise ValueError("there is no saved prediction, and no model to make one")
    return model.predict([sample.image], **options)[0]


@contextmanager
def _evaluating(model: Model | None) -> Iterator[None]:
    """The model in evaluation mode, and afterwards as it was."""
    network = model if isinstance(model, nn.Module) and model.training else None
    if network is not None:
        network.eval()
    try:
        yield
    finally:
        if network is not None:
            network.train()
