"""Generated scenes: textured shapes with exact vector outlines, for both tasks, without any download.

A scene is a list of outlines. Its image is rendered with antialiasing, its labels are taken exactly at the
pixel centres, at the image's resolution or any other (`Scene.labels_at`), so boundaries can be measured
beyond pixels. Shapes overlap, have holes, thin parts and needles. A class leans towards a hue, but patterns,
brightness and saturation vary and the background has every hue: no colour threshold finds the boundaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pointrend.data import shape_drawing
from pointrend.data.annotations import tight
from pointrend.data.shape_drawing import PATTERNS, Texture, background, blurred
from pointrend.data.transforms import finished
from pointrend.masks import polygons
from pointrend.masks.polygons import Ring
from pointrend.metadata.colors import default_palette
from pointrend.structures import RGB, Dataset, InstanceMasks, InstanceTarget, Sample, SemanticTarget, Task

KINDS = (
    shape_drawing.ellipse,
    shape_drawing.polygon,
    shape_drawing.star,
    shape_drawing.ring,
    shape_drawing.bar,
)
OBJECT_NAMES = ("ellipse", "polygon", "star", "ring", "bar")
PALETTE = ((60, 60, 72), (231, 111, 81), (233, 196, 106), (42, 157, 143), (69, 123, 201), (175, 99, 201))


@dataclass(frozen=True)
class SceneObject:
    """One shape: its kind (0..4, index of OBJECT_NAMES) and its contours in the scene's pixels."""

    kind: int
    contours: Sequence[Ring]
    texture: Texture
    shadow: float

    def label(self, patterned: bool) -> int:
        """Its kind, or which of the kinds in which of the patterns, 0..24."""
        return self.kind * len(PATTERNS) + PATTERNS.index(self.texture.pattern) if patterned else self.kind


class Scene:
    """The scene of this number: the same objects for the same arguments.

    Objects are ordered from back to front. `hue_spread` (0..0.5, of the colour circle) says how far a hue
    strays from that of its class: at 0.5 colour tells nothing and only shape does.

    Raises ValueError for a scene without pixels and for an impossible number of objects.
    """

    def __init__(
        self,
        index: int,
        *,
        seed: int = 0,
        height: int = 256,
        width: int = 256,
        objects: tuple[int, int] = (5, 10),
        hue_spread: float = 0.08,
    ) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"expected a scene of at least 1x1 pixels, got {height}x{width}")
        if not 0 <= objects[0] <= objects[1]:
            raise ValueError(f"objects: expected 0 <= least <= most, got {objects}")
        self.height, self.width = height, width
        self._entropy = (seed, index)
        rng = np.random.default_rng([*self._entropy, 0])
        count = int(rng.integers(objects[0], objects[1] + 1))
        self.objects = [_draw_object(rng, height, width, hue_spread) for _ in range(count)]

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, antialiased."""
        rng = np.random.default_rng([*self._entropy, 1])
        canvas = background(rng, self.height, self.width)
        for item in self.objects:
            self._paint(rng, canvas, item)
        canvas *= (
            1 + 0.15 * (np.linspace(1, -1, self.height, dtype=np.float32)[:, None, None])
        )  # light from above
        grain = rng.standard_normal((self.height, self.width, 1), dtype=np.float32)
        canvas += grain * np.float32(rng.uniform(2, 9))
        return canvas.clip(0, 255).astype(np.uint8)

    def _paint(self, rng: np.random.Generator, canvas: NDArray[np.float32], item: SceneObject) -> None:
        window = polygons.bounds(item.contours, self.height, self.width)
        top, left, height, width = window
        if height == 0 or width == 0:
            return
        share = polygons.coverage(item.contours, window)[..., None]
        region = canvas[top : top + height, left : left + width]
        color = item.texture.paint(rng, *window)
        if item.shadow:  # inside, along the lower right edge: a hint of relief, and of confusion
            edge = np.roll(blurred(share[..., 0], item.shadow), (-2, -2), (0, 1))
            color *= (0.55 + 0.45 * edge)[..., None]
        region += share * (color - region)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(H, W) class of each pixel centre: 0 background, 1 + kind."""
        return self.labels_at(self.height, self.width)

    def labels_at(self, height: int, width: int, *, patterned: bool = False) -> NDArray[np.uint8]:
        """(height, width) classes on a grid of this size over the whole scene, exact at the cell centres.

        0 is the background, then the kinds or, `patterned`, each kind in each of the PATTERNS.
        """
        classes = np.array([0, *(1 + item.label(patterned) for item in self.objects)], dtype=np.uint8)
        return classes[self.objects_at(height, width)]

    def objects_at(self, height: int, width: int) -> NDArray[np.int64]:
        """As `labels_at`, but 0 for the background, else 1 + index in `objects` of the foremost one."""
        if height < 1 or width < 1:
            raise ValueError(f"expected a grid of at least 1x1 cells, got {height}x{width}")
        scale = np.array([width / self.width, height / self.height])
        result = np.zeros((height, width), dtype=np.int64)
        for number, item in enumerate(self.objects, start=1):
            contours = [contour * scale for contour in item.contours]
            window = polygons.bounds(contours, height, width)
            top, left, rows, columns = window
            result[top : top + rows, left : left + columns][polygons.inside(contours, window)] = number
        return result


def _draw_object(rng: np.random.Generator, height: int, width: int, hue_spread: float) -> SceneObject:
    side = min(height, width)
    kind = int(rng.integers(len(KINDS)))
    radius = side * np.exp(rng.uniform(np.log(0.09), np.log(0.3)))
    contours = KINDS[kind](rng, radius)
    x, y = rng.uniform(0.02, 0.98) * width, rng.uniform(0.02, 0.98) * height
    return SceneObject(
        kind=kind,
        contours=shape_drawing.placed(contours, x, y, rng.uniform(0, 2 * np.pi)),
        texture=Texture.drawn(rng, kind / len(KINDS), hue_spread, side),
        shadow=side * 0.015 if rng.random() < 0.6 else 0.0,
    )


class ShapeScenes(Dataset):
    """`count` scenes as samples, from `first` on: other numbers are other scenes, so splits never overlap.

    For "semantic" the classes are the background and five kinds; for "instance" the five kinds, the masks are
    what is visible of each object, the boxes are tight, and objects with fewer than `min_area` visible pixels
    are left out.

    `patterned` makes a class of each kind in each pattern, 26 for "semantic": to train features that are to be used for
    something else (docs/training.md).
    """

    task: Task = "semantic"

    def __init__(
        self,
        count: int,
        task: Task = "semantic",
        *,
        first: int = 0,
        seed: int = 0,
        size: tuple[int, int] = (256, 256),
        objects: tuple[int, int] = (5, 10),
        hue_spread: float = 0.08,
        min_area: int = 16,
        patterned: bool = False,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least one scene, got {count}")
        if task not in ("semantic", "instance"):
            raise ValueError(f'task: expected "semantic" or "instance", got {task!r}')
        self.count, self.task, self.first, self.seed = count, task, first, seed
        self.size, self.objects, self.hue_spread, self.min_area = size, objects, hue_spread, min_area
        self.patterned, self.transforms = patterned, transforms

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0..K-1 of this task."""
        names: tuple[str, ...] = OBJECT_NAMES
        if self.patterned:
            names = tuple(f"{name}, {pattern}" for name in OBJECT_NAMES for pattern in PATTERNS)
        return ("background", *names) if self.task == "semantic" else names

    @property
    def palette(self) -> tuple[RGB, ...]:
        """A colour (0..255) for each class."""
        palette = (PALETTE[0], *default_palette(len(KINDS) * len(PATTERNS))) if self.patterned else PALETTE
        return palette if self.task == "semantic" else palette[1:]

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """The scene behind sample `index`.

        Raises IndexError if there is no such sample.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"expected an index of 0..{self.count - 1}, got {index}")
        height, width = self.size
        return Scene(
            self.first + index,
            seed=self.seed,
            height=height,
            width=width,
            objects=self.objects,
            hue_spread=self.hue_spread,
        )

    @property
    def image_ids(self) -> list[int]:
        """Numbers of the scenes."""
        return list(range(self.first, self.first + len(self)))

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        image = torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()
        target = (
            SemanticTarget(torch.from_numpy(scene.labels_at(*self.size, patterned=self.patterned)))
            if self.task == "semantic"
            else visible_objects(scene, self.min_area, patterned=self.patterned)
        )
        sample = Sample(image, target, image_id=self.first + index)
        return sample if self.transforms is None else finished(self.transforms(sample))


def visible_objects(scene: Scene, min_area: int = 1, *, patterned: bool = False) -> InstanceTarget:
    """The visible part of each object with at least `min_area` visible pixels, with its tight box."""
    owner = scene.objects_at(scene.height, scene.width)
    windows, boxes, labels = [], [], []
    for number, item in enumerate(scene.objects, start=1):
        top, left, height, width = polygons.bounds(item.contours, scene.height, scene.width)
        mask = owner[top : top + height, left : left + width] == number
        if mask.sum() < max(min_area, 1):
            continue
        bits, y, x = tight(mask.astype(np.uint8), top, left)
        windows.append(torch.from_numpy(bits))
        boxes.append((x, y, x + bits.shape[1], y + bits.shape[0]))
        labels.append(item.label(patterned))
    corners = torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4)
    return InstanceTarget(
        boxes=corners.float(),
        labels=torch.tensor(labels, dtype=torch.int64),
        masks=InstanceMasks(windows, corners[:, :2], (scene.height, scene.width)),
        crowd=torch.zeros(len(labels), dtype=torch.bool),
    )
