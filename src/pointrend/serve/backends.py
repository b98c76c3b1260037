"""What answers requests: a model in torch, or an exported file without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pointrend.data.decode import decode, to_rgb_array
from pointrend.io import palette_image
from pointrend.metadata.colors import default_palette
from pointrend.runtime import load
from pointrend.runtime.model import InstanceModel, Instances
from pointrend.serve.answers import (
    NOTHING,
    Answer,
    AnswerFormat,
    MaskFormat,
    class_map,
    class_objects,
    json_answer,
    png_answer,
)

if TYPE_CHECKING:
    from torch import Tensor

    from pointrend.predict import Predictor
    from pointrend.results import Result

Found = TypeVar("Found")
ImageT = TypeVar("ImageT", bound="NDArray[np.uint8] | Tensor")


class Backend(Protocol[ImageT, Found]):
    """What the service needs of a model."""

    batch_size: int
    """Most images that are predicted together."""
    min_score: float
    """Of objects, where a request does not say another one."""

    @property
    def class_names(self) -> Sequence[str]:
        """Of the model."""

    def read(self, content: bytes) -> ImageT:
        """An image file as what `predict` takes; its `shape` says which ones fit together.

        Raises:
            ValueError: it cannot be read.
        """

    def predict(self, images: Sequence[ImageT]) -> Sequence[Found | ValueError]:
        """A result for each of several images of one size, or a ValueError that says why there is none."""

    def answer(self, result: Found, kind: AnswerFormat, masks: MaskFormat, min_score: float) -> Answer:
        """The body of an answer.

        Args:
            kind: "json": see `json_answer`, of a label map an object for each class that occurs; "mask": a PNG of class
                numbers with a palette, 255 where there is nothing; "cutout": the image with all but what was found
                transparent; "overlay": what was found drawn on it.
            masks: in JSON.
            min_score: of objects.
        """


class TorchBackend:
    """A predictor."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.batch_size = predictor, predictor.batch_size
        self.class_names = predictor.model.config.class_names
        self.min_score = predictor.min_score or 0.0
        self.read = predictor.read

    def predict(self, images: Sequence[Tensor]) -> list[Result | ValueError]:
        """See `Backend`."""
        from pointrend.predict.results import Prediction

        numbered = [(number, "image", image) for number, image in enumerate(images)]
        found = self.predictor.predict_batch(numbered)
        return [one.result if isinstance(one, Prediction) else ValueError(one.reason) for one in found]

    def answer(self, result: Result, kind: AnswerFormat, masks: MaskFormat, min_score: float) -> Answer:
        """See `Backend`."""
        from pointrend.masks.export import as_objects
        from pointrend.predict.writers import as_label_map, labels_image
        from pointrend.results import InstanceResult

        if isinstance(result, InstanceResult):
            result = result.above(min_score)
        if kind == "mask":
            return png_answer(labels_image(as_label_map(result)))
        if kind != "json":
            return drawn_answer(result, kind, min_score)
        objects = as_objects(result)
        found = Instances(
            objects.boxes.cpu().numpy(),
            objects.labels.cpu().numpy(),
            objects.scores.cpu().numpy(),
            [window.cpu().numpy() for window in objects.masks.windows],
            [(int(x), int(y)) for x, y in objects.masks.offsets.tolist()],
            (int(objects.masks.image_size[0]), int(objects.masks.image_size[1])),
        )
        return json_answer(found, objects.class_names, masks)


ImageAndFound = tuple[NDArray[np.uint8], np.ndarray | Instances]
"""The image, and its label map or objects."""


class ExportedBackend:
    """A file that `pointrend export` wrote, by its runtime. Cut-outs and overlays are drawn with torch, if it is there.

    Raises:
        FileNotFoundError, ValueError, ImportError: see `pointrend.runtime.load`; a `min_score` for a semantic model, or
            one that gives logits.
    """

    batch_size = 1

    def __init__(self, path: str | Path, min_score: float | None = None) -> None:
        self.model = load(path)
        if self.model.task == "semantic" and self.model.metadata["gives"] == "logits":
            raise ValueError(f"{path}: gives logits instead of labels; export the model without --logits")
        if min_score is not None and (self.model.task == "semantic" or not 0 <= min_score <= 1):
            raise ValueError(
                f"min_score: expected a score from 0 to 1 for an instance model, got {min_score} for a "
                f"{self.model.task} one"
            )
        self.class_names, self.min_score = self.model.class_names, min_score or 0.0

    def read(self, content: bytes) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        return to_rgb_array(decode(BytesIO(content)))

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[ImageAndFound | ValueError]:
        """See `Backend`."""
        return [self._predict(image) for image in images]

    def answer(
        self, result: ImageAndFound, kind: AnswerFormat, masks: MaskFormat, min_score: float
    ) -> Answer:
        """See `Backend`."""
        image, found = result
        if isinstance(found, Instances):
            found = found.above(min_score)
        if kind in ("cutout", "overlay"):
            try:
                import torch

                from pointrend.zoo.exported import as_result
            except ImportError:
                raise ValueError(
                    f"format: {kind} is drawn with torch, which is not installed here; ask for json or mask"
                ) from None
            pixels = torch.from_numpy(image).permute(2, 0, 1)
            return drawn_answer(replace(as_result(self.model, found), image=pixels), kind, min_score)
        if kind == "json":
            objects = found if isinstance(found, Instances) else class_objects(found)
            return json_answer(objects, self.class_names, masks)
        labels = class_map(found) if isinstance(found, Instances) else found
        used = 1 + int(labels[labels != NOTHING].max(initial=0))
        palette = self.model.palette if self.model.task == "semantic" else ()
        return png_answer(palette_image(labels, palette or default_palette(max(used, len(self.class_names)))))

    def _predict(self, image: NDArray[np.uint8]) -> ImageAndFound | ValueError:
        try:
            if isinstance(self.model, InstanceModel):
                return image, self.model.find(image)
            return image, self.model.predict(image)
        except ValueError as error:  # such as another size than the file is for
            return error


def drawn_answer(result: Result, kind: AnswerFormat, min_score: float) -> Answer:
    """A cut-out or an overlay of a result with its image."""
    from pointrend.predict.cutouts import cutout, foreground
    from pointrend.visualize.overlays import draw

    assert result.image is not None
    if kind == "cutout":
        return png_answer(Image.fromarray(cutout(result.image, foreground(result))))
    drawn = draw(result.image, result, min_score=min_score)
    return png_answer(drawn if isinstance(drawn, Image.Image) else Image.fromarray(drawn))
