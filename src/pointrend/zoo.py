"""The published PointRend models by name: where their weights are, what they are, what they scored.

`load("pointrend_rcnn_R_50_FPN_3x_coco")` fetches, converts and builds one. This module is plain Python; torch
is imported when something is built. The scores are those their authors published: nobody has measured them
with this package yet. What was shown is that deterministic weights give the originals' numbers
(tests/reference).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pointrend.checkpoints.download import Progress, cache_folder, fetch, file_sha256

if TYPE_CHECKING:
    from pointrend.models.instance import InstanceConfig
    from pointrend.models.semantic import SemanticConfig
    from pointrend.training.recipe import Recipe

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/PointRend"
OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/point_rend"
_DETECTRON2_LICENCE = "CC BY-SA 3.0 (Detectron2's MODEL_ZOO.md)"
_CITYSCAPES = "; trained on Cityscapes, whose terms allow non-commercial use only"


@dataclass(frozen=True)
class Entry:
    """A published model.

    backbone: "R-50", "R-101" or "X-101-32x8d".
    data: "COCO", "Cityscapes" or "ADE20K".
    url: of its weights.
    sha256: beginning of the file's SHA-256, checked after a download; "" where the publisher states none.
        Detectron2's file names end in six digits of a hash that it does not explain: they are not checked.
    scores: published numbers by name, in percent; score_source tells where they were published.
    parameters: trainable ones and those of frozen convolutions; frozen norms are not counted.
    schedule: in the project's words: "1x", "3x", "80k", "160k".
    mebibytes: size of the file, where published.
    """

    name: str
    project: Literal["Detectron2", "MMSegmentation"]
    kind: Literal["instance", "semantic"]
    backbone: Literal["R-50", "R-101", "X-101-32x8d"]
    data: Literal["COCO", "Cityscapes", "ADE20K"]
    url: str
    scores: tuple[tuple[str, float], ...]
    score_source: str
    licence: str
    parameters: int
    schedule: str
    mebibytes: float | None = None
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """Under this name the weights are looked for in the cache folder."""
        return self.url.rpartition("/")[2]

    def config(self) -> InstanceConfig | SemanticConfig:
        """The model's configuration; class names as published (ADE20K's come with the file)."""
        return _CONFIGS[self.project, self.kind](self)

    def recipe(self) -> Recipe:
        """How it was trained, as far as our recipe can say it. Augmentation and crops: see the project's own
        files.
        """
        return _recipe(self)


def _instance(
    name: str, backbone: Any, data: Any, file: str, ap: float, ap_star: float | None, **rest: Any
) -> Entry:
    scores = (("mask AP", ap),) if ap_star is None else (("mask AP", ap), ("mask AP*", ap_star))
    return Entry(
        name=name,
        project="Detectron2",
        kind="instance",
        backbone=backbone,
        data=data,
        url=f"{DETECTRON2}/InstanceSegmentation/{name}/{file}",
        scores=scores,
        score_source="Detectron2, projects/PointRend/README.md",
        licence=_DETECTRON2_LICENCE + (_CITYSCAPES if data == "Cityscapes" else ""),
        **rest,
    )


def _mmseg(name: str, backbone: Any, data: Any, file: str, miou: float, flip: float, **rest: Any) -> Entry:
    return Entry(
        name=name,
        project="MMSegmentation",
        kind="semantic",
        backbone=backbone,
        data=data,
        url=f"{OPENMMLAB}/{name}/{file}",
        sha256=file.rpartition("-")[2].removesuffix(".pth"),  # OpenMMLab's convention
        scores=(("mIoU", miou), ("mIoU ms+flip", flip)),
        score_source="MMSegmentation, configs/point_rend/README.md",
        licence="Apache-2.0 (OpenMMLab)" + (_CITYSCAPES if data == "Cityscapes" else ""),
        **rest,
    )


_ENTRIES = (
    _instance("pointrend_rcnn_R_50_FPN_1x_coco", "R-50", "COCO", "164254221/model_final_736f5a.pkl",
              36.2, 39.7, parameters=60_161_792, schedule="1x"),
    _instance("pointrend_rcnn_R_50_FPN_3x_coco", "R-50", "COCO", "164955410/model_final_edd263.pkl",
              38.3, 41.6, parameters=60_161_792, schedule="3x", mebibytes=229.95),
    _instance("pointrend_rcnn_R_101_FPN_3x_coco", "R-101", "COCO", "28119983/model_final_3f4d2a.pkl",
              40.1, 43.8, parameters=79_101_696, schedule="3x", mebibytes=302.63),
    _instance("pointrend_rcnn_X_101_32x8d_FPN_3x_coco", "X-101-32x8d", "COCO", "28119989/model_final_ba17b9.pkl",
              41.1, 44.7, parameters=123_246_336, schedule="3x", mebibytes=471.77),
    _instance("pointrend_rcnn_R_50_FPN_1x_cityscapes", "R-50", "Cityscapes", "164255101/model_final_115bfb.pkl",
              35.9, None, parameters=56_096_456, schedule="1x", mebibytes=214.44),
    Entry(
        name="pointrend_semantic_R_101_FPN_1x_cityscapes",
        project="Detectron2",
        kind="semantic",
        backbone="R-101",
        data="Cityscapes",
        url=f"{DETECTRON2}/SemanticSegmentation/pointrend_semantic_R_101_FPN_1x_cityscapes/202576688/"
        "model_final_cf6ac1.pkl",
        scores=(("mIoU", 78.9),),
        score_source="Detectron2, projects/PointRend/README.md",
        licence=_DETECTRON2_LICENCE + _CITYSCAPES,
        parameters=47_572_582,
        schedule="1x",
        mebibytes=182.36,
    ),
    _mmseg("pointrend_r50_512x1024_80k_cityscapes", "R-50", "Cityscapes",
           "pointrend_r50_512x1024_80k_cityscapes_20200711_015821-bb1ff523.pth",
           76.47, 78.13, parameters=28_715_119, schedule="80k"),
    _mmseg("pointrend_r101_512x1024_80k_cityscapes", "R-101", "Cityscapes",
           "pointrend_r101_512x1024_80k_cityscapes_20200711_170850-d0ca84be.pth",
           78.30, 79.97, parameters=47_707_247, schedule="80k"),
    _mmseg("pointrend_r50_512x512_160k_ade20k", "R-50", "ADE20K",
           "pointrend_r50_512x512_160k_ade20k_20200807_232644-ac3febf2.pth",
           37.64, 39.17, parameters=28_888_432, schedule="160k"),
    _mmseg("pointrend_r101_512x512_160k_ade20k", "R-101", "ADE20K",
           "pointrend_r101_512x512_160k_ade20k_20200808_030852-8834902a.pth",
           40.02, 41.60, parameters=47_880_560, schedule="160k"),
)  # fmt: skip

ZOO: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def load(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Any:
    """A model, ready to predict: an `InstanceSegmenter` or a `SemanticSegmenter` in evaluation mode.

    Args:
        name_or_path: a name of the zoo, or a file: one of ours, or a checkpoint of Detectron2 or
            MMSegmentation.
        weights: the published file of that name, where it has been downloaded already; otherwise it is
            fetched once and kept, converted, in the cache folder (POINTREND_CACHE).
        device: where the model is wanted.
        progress: called with the bytes downloaded and those of the whole file.

    Raises:
        FileNotFoundError: a path without a file.
        ConnectionError: the network is off or POINTREND_OFFLINE is set; names the URL and where to put the
            file.
        ValueError: an unknown name; a file that is damaged, of another model, or tries to run code.
    """
    entry = ZOO.get(str(name_or_path))
    if entry is None:
        if weights is not None:
            raise ValueError(
                f"weights: goes with a name of the zoo, {name_or_path} is none; {_similar(name_or_path)}"
            )
        return _load_path(Path(name_or_path)).to(device)
    if weights is not None:
        return _convert(entry, Path(weights)).to(device)
    return _load_published(entry, progress).to(device)


def _load_published(entry: Entry, progress: Progress | None) -> Any:
    from pointrend.checkpoints import files

    converted = cache_folder() / f"{entry.name}.safetensors"
    if converted.is_file():
        return files.load(converted)
    source = fetch(entry.url, cache_folder() / entry.file_name, sha256=entry.sha256, progress=progress)
    model = _convert(entry, source)
    origin = {"name": entry.name, "url": entry.url, "licence": entry.licence, "sha256": file_sha256(source)}
    files.save(model, converted, extra=origin)
    return model


def _convert(entry: Entry, path: Path) -> Any:
    """The published file as our model; ValueError if it is another model than the entry's."""
    model = _read(path, entry.project)
    blank: dict[str, Any] = {"class_names": (), **({"palette": ()} if entry.kind == "semantic" else {})}
    wanted = entry.config()
    names = {key: getattr(model.config, key) for key in blank}
    if type(model.config) is not type(wanted) or replace(wanted, **names) != model.config:
        raise ValueError(
            f"{path}: not the file of {entry.name} ({entry.kind}, {entry.backbone}, {entry.data}); it holds "
            f"{type(model.config).__name__} with {model.config.backbone.name} and {model.config.num_classes} classes"
        )
    return model


def _load_path(path: Path) -> Any:
    from pointrend.checkpoints import files

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file, and no name of the zoo: {_similar(path)}")
    if path.suffix == ".safetensors":
        return files.load(path)
    return _read(path, None)


def _read(path: Path, project: str | None) -> Any:
    """A foreign checkpoint; which project's is told by its names unless it is known."""
    from pointrend.checkpoints.detectron2 import from_detectron2
    from pointrend.checkpoints.foreign import read_foreign
    from pointrend.checkpoints.mmsegmentation import from_mmsegmentation

    if project is None:
        names = read_foreign(path).tensors
        project = "MMSegmentation" if any(name.startswith("decode_head.") for name in names) else "Detectron2"
    return from_mmsegmentation(path) if project == "MMSegmentation" else from_detectron2(path)


def _similar(name: str | Path) -> str:
    close = difflib.get_close_matches(str(name), ZOO, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(ZOO)}"


def _detectron2_backbone(entry: Entry) -> dict[str, Any]:
    from pointrend.models.backbones import BackboneConfig
    from pointrend.models.images import Preprocessing

    resnext = entry.backbone == "X-101-32x8d"
    network: Any = {"R-50": "resnet50", "R-101": "resnet101", "X-101-32x8d": "resnext101_32x8d"}[
        entry.backbone
    ]
    short, long = (1024, 2048) if entry.data == "Cityscapes" else (800, 1333)
    return {
        "backbone": BackboneConfig(network, stride_in_1x1=not resnext),
        "preprocessing": Preprocessing(
            std=(58.395, 57.12, 57.375) if resnext else (1.0, 1.0, 1.0),
            channel_order="BGR",
            short_edge=short,
            long_edge=long,
        ),
    }


def _detectron2_instance(entry: Entry) -> InstanceConfig:
    from pointrend.checkpoints.class_names import CITYSCAPES_THINGS, COCO
    from pointrend.models.instance import InstanceConfig

    names = COCO if entry.data == "COCO" else CITYSCAPES_THINGS
    return InstanceConfig(names, freeze_stages=2, **_detectron2_backbone(entry))


def _detectron2_semantic(entry: Entry) -> SemanticConfig:
    from pointrend.checkpoints.class_names import CITYSCAPES, CITYSCAPES_PALETTE
    from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig

    head = SemanticPointRendConfig(coarse_each_layer=False, count=8192, steps=2)
    return SemanticConfig(CITYSCAPES, CITYSCAPES_PALETTE, point_rend=head, **_detectron2_backbone(entry))


def _mmseg_semantic(entry: Entry) -> SemanticConfig:
    from pointrend.checkpoints.class_names import CITYSCAPES, CITYSCAPES_PALETTE, numbered_names
    from pointrend.models.backbones import BackboneConfig
    from pointrend.models.images import Preprocessing
    from pointrend.models.semantic import SemanticConfig, SemanticPointRendConfig

    cityscapes = entry.data == "Cityscapes"
    return SemanticConfig(
        CITYSCAPES if cityscapes else numbered_names(150),
        CITYSCAPES_PALETTE if cityscapes else (),
        BackboneConfig("resnet50" if entry.backbone == "R-50" else "resnet101", "batch", deep_stem=True),
        Preprocessing(short_edge=1024 if cityscapes else 512, long_edge=2048, resize="cv2", divisor=1),
        head_norm="BN",
        loss_normalize="all",
        point_rend=SemanticPointRendConfig(count=8196, steps=2),
    )


_CONFIGS: dict[tuple[str, str], Callable[[Entry], Any]] = {
    ("Detectron2", "instance"): _detectron2_instance,
    ("Detectron2", "semantic"): _detectron2_semantic,
    ("MMSegmentation", "semantic"): _mmseg_semantic,
}


def _recipe(entry: Entry) -> Recipe:
    """Detectron2's solver settings and MMSegmentation's 0.x schedules (which end at a rate of 1e-4, ours at
    0).
    """
    from pointrend.training.recipe import Recipe

    if entry.project == "MMSegmentation":
        steps, batch = {"80k": (80_000, 8), "160k": (160_000, 16)}[entry.schedule]
        return Recipe(
            steps,
            batch,
            learning_rate=0.01,
            weight_decay=5e-4,
            norm_weight_decay=5e-4,
            schedule="poly",
            warmup_steps=200,
            warmup_factor=0.1,
        )
    steps, batch, rate, milestones = {
        ("COCO", "instance", "1x"): (90_000, 16, 0.02, (60_000, 80_000)),
        ("COCO", "instance", "3x"): (270_000, 16, 0.02, (210_000, 250_000)),
        ("Cityscapes", "instance", "1x"): (24_000, 8, 0.01, (18_000,)),
        ("Cityscapes", "semantic", "1x"): (65_000, 32, 0.01, (40_000, 55_000)),
    }[entry.data, entry.kind, entry.schedule]
    return Recipe(
        steps, batch, learning_rate=rate, schedule="milestones", milestones=milestones, warmup_steps=1000
    )
