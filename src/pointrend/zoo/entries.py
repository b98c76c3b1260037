"""What was published: for each model where its weights are, what it is, what its authors say it scores.

Plain Python: torch is imported when a configuration is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pointrend.models.instance import InstanceConfig
    from pointrend.models.semantic import SemanticConfig

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/PointRend"
MMSEGMENTATION = "https://download.openmmlab.com/mmsegmentation/v0.5/point_rend"
MMDETECTION = "https://download.openmmlab.com/mmdetection/v2.0/point_rend"
_DETECTRON2_LICENCE = "CC BY-SA 3.0 (Detectron2's MODEL_ZOO.md)"
_CITYSCAPES = "; trained on Cityscapes, whose terms allow non-commercial use only"


MULTIPLY_ADDS = {
    "pointrend_rcnn_R_50_FPN_1x_coco": 284.7,
    "pointrend_rcnn_R_50_FPN_3x_coco": 284.7,
    "pointrend_rcnn_R_101_FPN_3x_coco": 356.6,
    "pointrend_rcnn_X_101_32x8d_FPN_3x_coco": 528.1,
    "pointrend_rcnn_R_50_FPN_1x_cityscapes": 464.5,
    "pointrend_semantic_R_101_FPN_1x_cityscapes": 501.0,
    "pointrend_deeplabv3_R_103_cityscapes": 606.0,
    "pointrend_r50_4xb2-80k_cityscapes-512x1024": 365.7,
    "pointrend_r101_4xb2-80k_cityscapes-512x1024": 520.9,
    "pointrend_r50_4xb4-160k_ade20k-512x512": 67.3,
    "pointrend_r101_4xb4-160k_ade20k-512x512": 93.4,
    "point-rend_r50-caffe_fpn_ms-1x_coco": 284.7,
    "point-rend_r50-caffe_fpn_ms-3x_coco": 284.7,
    "implicit_pointrend_R_50_FPN_1x_coco": 312.7,
    "implicit_pointrend_R_50_FPN_3x_coco": 312.7,
}
"""In 10^9, of one image of `COUNTED_SIZES`; counted by benchmarks/zoo_flops.py."""
COUNTED_SIZES = {"COCO": (800, 1199), "Cityscapes": (1024, 2048), "ADE20K": (512, 683)}
"""Rows and columns."""


@dataclass(frozen=True)
class Entry:
    """A published model.

    project: who published it; "paper" where only its numbers are known.
    backbone: "R-50", "R-101", "R-103" (a deep stem) or "X-101-32x8d".
    data: "COCO", "Cityscapes" or "ADE20K".
    url: of its weights; "" where none were published.
    checksum: how the file's hash begins, which its name tells, as "sha256:01234567" (OpenMMLab: tools/publish_model.py)
        or "md5:012345" (Detectron2: MODEL_ZOO.md); checked after a download. "" where there is no file.
    scores: published numbers by name, in percent; score_source tells where they were published.
    parameters: trainable ones and those of frozen convolutions; frozen norms are not counted.
    training: the name of its training in `training.published`, if not its own. MMDetection's differ a little from the
        Detectron2 ones named here.
    mebibytes: size of the file, where published.
    log: address of the training's log (metrics.json or .log.json), where published.
    hardware, memory_gb, images_per_second: of the training, its memory per GPU, and of inference, where published.
    """

    name: str
    project: Literal["Detectron2", "MMSegmentation", "MMDetection", "paper"]
    task: Literal["instance", "semantic"]
    backbone: Literal["R-50", "R-101", "R-103", "X-101-32x8d"]
    data: Literal["COCO", "Cityscapes", "ADE20K"]
    url: str
    scores: tuple[tuple[str, float], ...]
    score_source: str
    licence: str
    parameters: int
    mebibytes: float | None = None
    checksum: str = ""
    training: str = ""
    log: str = ""
    hardware: str = ""
    memory_gb: float | None = None
    images_per_second: float | None = None

    @property
    def model_id(self) -> str:
        """Detectron2's number of the training, which its addresses have; "" for other projects."""
        return self.url.split("/")[-2] if self.project == "Detectron2" and self.url else ""

    @property
    def file_name(self) -> str:
        """Under this name the weights are looked for in the cache folder."""
        return self.url.rpartition("/")[2]

    def config(self) -> InstanceConfig | SemanticConfig:
        """The model's configuration with its data set's class names (and colours)."""
        from pointrend.models.published import NETWORKS, with_classes

        return with_classes(NETWORKS[self.name], *_classes(self.data, self.task))


def _classes(data: str, task: str) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Names and colours of a data set's classes; no colours where none are customary."""
    from pointrend.metadata import ade20k, cityscapes, coco

    if data == "COCO":
        return tuple(category.name for category in coco.CATEGORIES), ()
    if data == "ADE20K":
        return ade20k.CLASSES, ()
    labels = cityscapes.INSTANCE_LABELS if task == "instance" else cityscapes.TRAIN_LABELS
    return tuple(label.name for label in labels), tuple(label.color for label in labels)


def _checksum(file: str) -> str:
    """Of "x-01234567.pth" and "model_final_012345.pkl", what the publishers put into their names."""
    if file.endswith(".pkl"):
        return "md5:" + file.rpartition("_")[2].removesuffix(".pkl")
    return "sha256:" + file.rpartition("-")[2].removesuffix(".pth")


def _instance(
    name: str, backbone: Any, data: Any, file: str, ap: float, ap_star: float | None, **rest: Any
) -> Entry:
    scores = (("mask AP", ap),) if ap_star is None else (("mask AP", ap), ("mask AP*", ap_star))
    return Entry(
        name=name,
        project="Detectron2",
        task="instance",
        backbone=backbone,
        data=data,
        url=f"{DETECTRON2}/InstanceSegmentation/{name}/{file}",
        log=f"{DETECTRON2}/InstanceSegmentation/{name}/{file.partition('/')[0]}/metrics.json",
        hardware="8 GPUs",
        checksum=_checksum(file),
        scores=scores,
        score_source="Detectron2, projects/PointRend/README.md",
        licence=_DETECTRON2_LICENCE + (_CITYSCAPES if data == "Cityscapes" else ""),
        **rest,
    )


def _mmseg(
    name: str, backbone: Any, data: Any, file: str, miou: float, flip: float, log: str, **rest: Any
) -> Entry:
    folder = f"{MMSEGMENTATION}/{file[: file.index('_2020')]}"
    return Entry(
        name=name,
        project="MMSegmentation",
        task="semantic",
        backbone=backbone,
        data=data,
        url=f"{folder}/{file}",
        log=f"{folder}/{file[: file.index('_2020')]}-{log}.log.json",
        hardware="4 V100",
        checksum=_checksum(file),
        scores=(("mIoU", miou), ("mIoU ms+flip", flip)),
        score_source="MMSegmentation, configs/point_rend/README.md",
        licence="Apache-2.0 (OpenMMLab)" + (_CITYSCAPES if data == "Cityscapes" else ""),
        **rest,
    )


def _mmdet(name: str, file: str, ap: float, box_ap: float, training: str, log: str) -> Entry:
    folder = f"{MMDETECTION}/{file.rpartition('-')[0]}"
    return Entry(
        name=name,
        project="MMDetection",
        task="instance",
        backbone="R-50",
        data="COCO",
        url=f"{folder}/{file}",
        log=f"{folder}/{file.rpartition('-')[0]}_{log}.log.json",
        hardware="8 V100",
        memory_gb=4.6,
        checksum=_checksum(file),
        scores=(("mask AP", ap), ("box AP", box_ap)),
        score_source="MMDetection, configs/point_rend/README.md",
        licence="Apache-2.0 (OpenMMLab)",
        parameters=60_161_792,
        training=training,
    )


def _implicit(name: str) -> Entry:
    return Entry(
        name=name,
        project="Detectron2",
        task="instance",
        backbone="R-50",
        data="COCO",
        url="",
        scores=(),
        score_source="",
        licence="no weights were published",
        parameters=346_416_816,
    )


_ENTRIES = (
    _instance("pointrend_rcnn_R_50_FPN_1x_coco", "R-50", "COCO", "164254221/model_final_736f5a.pkl",
              36.2, 39.7, parameters=60_161_792, mebibytes=229.95),
    _instance("pointrend_rcnn_R_50_FPN_3x_coco", "R-50", "COCO", "164955410/model_final_edd263.pkl",
              38.3, 41.6, parameters=60_161_792, mebibytes=229.95),
    _instance("pointrend_rcnn_R_101_FPN_3x_coco", "R-101", "COCO", "28119983/model_final_3f4d2a.pkl",
              40.1, 43.8, parameters=79_101_696, mebibytes=302.63),
    _instance("pointrend_rcnn_X_101_32x8d_FPN_3x_coco", "X-101-32x8d", "COCO", "28119989/model_final_ba17b9.pkl",
              41.1, 44.7, parameters=123_246_336, mebibytes=471.77),
    _instance("pointrend_rcnn_R_50_FPN_1x_cityscapes", "R-50", "Cityscapes", "164255101/model_final_115bfb.pkl",
              35.9, None, parameters=56_096_456, mebibytes=214.44),
    Entry(
        name="pointrend_semantic_R_101_FPN_1x_cityscapes",
        project="Detectron2",
        task="semantic",
        backbone="R-101",
        data="Cityscapes",
        url=f"{DETECTRON2}/SemanticSegmentation/pointrend_semantic_R_101_FPN_1x_cityscapes/202576688/"
        "model_final_cf6ac1.pkl",
        log=f"{DETECTRON2}/SemanticSegmentation/pointrend_semantic_R_101_FPN_1x_cityscapes/202576688/metrics.json",
        hardware="8 GPUs",
        checksum=_checksum("model_final_cf6ac1.pkl"),
        scores=(("mIoU", 78.9),),
        score_source="Detectron2, projects/PointRend/README.md",
        licence=_DETECTRON2_LICENCE + _CITYSCAPES,
        parameters=47_572_582,
        mebibytes=182.36,
    ),
    Entry(
        name="pointrend_deeplabv3_R_103_cityscapes",
        project="paper",
        task="semantic",
        backbone="R-103",
        data="Cityscapes",
        url="",
        scores=(("mIoU", 78.4),),
        score_source="the paper, Table 6",
        licence="no weights were published",
        parameters=58_971_471,
    ),
    _mmseg("pointrend_r50_4xb2-80k_cityscapes-512x1024", "R-50", "Cityscapes",
           "pointrend_r50_512x1024_80k_cityscapes_20200711_015821-bb1ff523.pth",
           76.47, 78.13, "20200715_214714", memory_gb=3.1, images_per_second=8.48, parameters=28_715_119),
    _mmseg("pointrend_r101_4xb2-80k_cityscapes-512x1024", "R-101", "Cityscapes",
           "pointrend_r101_512x1024_80k_cityscapes_20200711_170850-d0ca84be.pth",
           78.30, 79.97, "20200715_214824", memory_gb=4.2, images_per_second=7.0, parameters=47_707_247),
    _mmseg("pointrend_r50_4xb4-160k_ade20k-512x512", "R-50", "ADE20K",
           "pointrend_r50_512x512_160k_ade20k_20200807_232644-ac3febf2.pth",
           37.64, 39.17, "20200807_232644", memory_gb=5.1, images_per_second=17.31, parameters=28_888_432),
    _mmseg("pointrend_r101_4xb4-160k_ade20k-512x512", "R-101", "ADE20K",
           "pointrend_r101_512x512_160k_ade20k_20200808_030852-8834902a.pth",
           40.02, 41.60, "20200808_030852", memory_gb=6.1, images_per_second=15.5, parameters=47_880_560),
    _mmdet("point-rend_r50-caffe_fpn_ms-1x_coco", "point_rend_r50_caffe_fpn_mstrain_1x_coco-1bcb5fb4.pth",
           36.3, 38.4, "pointrend_rcnn_R_50_FPN_1x_coco", "20200612_161407"),
    _mmdet("point-rend_r50-caffe_fpn_ms-3x_coco", "point_rend_r50_caffe_fpn_mstrain_3x_coco-e0ebb6b7.pth",
           38.0, 41.0, "pointrend_rcnn_R_50_FPN_3x_coco", "20200614_002632"),
    _implicit("implicit_pointrend_R_50_FPN_1x_coco"),
    _implicit("implicit_pointrend_R_50_FPN_3x_coco"),
)  # fmt: skip

ZOO: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
