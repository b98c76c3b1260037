"""The ImageNet backbones that published trainings start from, by the names that `training.published` gives them.

They are no models of their own: `fill_backbone(model.backbone, "MSRA/R-50")` puts one into a network that
fits. What the network must be like for it (stride, stem, pixels) is a field of each entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pointrend.checkpoints.download import Progress, cache_folder, fetch

if TYPE_CHECKING:
    from pointrend.models.backbones import Backbone
    from pointrend.models.library_backbones import LibraryBackbone

_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained"
_TORCHVISION = "https://download.pytorch.org/models"
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party"
_BGR = "BGR, the mean subtracted"
_BGR_STD = "BGR, mean and standard deviation"
_RGB_STD = "RGB, mean and standard deviation"


@dataclass(frozen=True)
class PretrainedBackbone:
    """Published ImageNet weights.

    url: of the file. checksum: "sha256:" and the beginning of its SHA-256 where its name tells, else "".
    backbone: the network's name in `BackboneConfig`; the next two fields are those of the same names there.
    pixels: what the network was trained to see; ImageNet's mean (and deviation), in 0..255.
    """

    name: str
    url: str
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext101_32x8d"]
    pixels: str
    licence: str
    checksum: str = ""
    stride_in_1x1: bool = False
    deep_stem: bool = False
    stem_width: int = 32

    @property
    def file_name(self) -> str:
        """In the cache folder; MSRA's "R-50.pkl" alone would say too little there."""
        return self.name.replace("/", "_") + Path(self.url).suffix

    @property
    def origin(self) -> dict[str, object]:
        """What a model says of itself whose backbone these weights filled (`model.origin`)."""
        return {"backbone_started_from": {"name": self.name, "url": self.url, "licence": self.licence}}


def _detectron2(
    name: str, backbone: Literal["resnet50", "resnet101", "resnext101_32x8d"]
) -> PretrainedBackbone:
    msra = name.startswith("MSRA")
    return PretrainedBackbone(
        name,
        f"{_DETECTRON2}/{name}.pkl",
        backbone,
        _BGR if msra else _BGR_STD,
        "CC BY-SA 3.0 (Detectron2's MODEL_ZOO.md)"
        + ("; converted there from MSRA's deep-residual-networks" if msra else ""),
        stride_in_1x1=msra,
    )


_R_103 = PretrainedBackbone(
    "DeepLab/R-103",
    "https://dl.fbaipublicfiles.com/detectron2/DeepLab/R-103.pkl",
    "resnet101",
    _RGB_STD,
    "CC BY-SA 3.0 (Detectron2's MODEL_ZOO.md)",
    deep_stem=True,
    stem_width=64,
)


def _torchvision(
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext101_32x8d"], sha256: str
) -> PretrainedBackbone:
    return PretrainedBackbone(
        f"torchvision/{backbone}",
        f"{_TORCHVISION}/{backbone}-{sha256}.pth",
        backbone,
        _RGB_STD,
        "torchvision is BSD-3-Clause; it states no licence for weights and refers to ImageNet's terms",
        f"sha256:{sha256}",
    )


def _openmmlab(backbone: Literal["resnet50", "resnet101"], sha256: str) -> PretrainedBackbone:
    return PretrainedBackbone(
        f"openmmlab/{backbone}_v1c",
        f"{_OPENMMLAB}/{backbone}_v1c-{sha256}.pth",
        backbone,
        _RGB_STD,
        'OpenMMLab\'s projects are Apache-2.0; it keeps this file under "third_party" and states no licence for it',
        f"sha256:{sha256}",
        deep_stem=True,
    )


# torchvision's are the first version of each (IMAGENET1K_V1).
PRETRAINED: dict[str, PretrainedBackbone] = {
    entry.name: entry
    for entry in (
        _detectron2("MSRA/R-50", "resnet50"),
        _detectron2("MSRA/R-101", "resnet101"),
        _detectron2("FAIR/X-101-32x8d", "resnext101_32x8d"),
        _R_103,
        _openmmlab("resnet50", "2cccc1ad"),
        _openmmlab("resnet101", "e67eebb6"),
        _torchvision("resnet18", "f37072fd"),
        _torchvision("resnet34", "b627a593"),
        _torchvision("resnet50", "0676ba61"),
        _torchvision("resnet101", "63fe2227"),
        _torchvision("resnext101_32x8d", "8ba56ff5"),
    )
}
"""Every ImageNet backbone by name."""


def fill_backbone(
    backbone: Backbone, name_or_path: str | Path, *, progress: Progress | None = None
) -> PretrainedBackbone | None:
    """Fill a backbone with published ImageNet weights; returns what they are, None for a file of one's own.

    Args:
        name_or_path: a name of `PRETRAINED`, fetched once into the cache folder, or a file: any that
            `checkpoints.imagenet` reads (Caffe2, Detectron2, torchvision, OpenMMLab), or a `.safetensors` with
            batch norm folded in. For a backbone of a library its own name, "timm/..", whose weights the library
            fetches, or a file of the whole network as the library names its tensors.
        progress: called with the bytes downloaded and those of the whole file.

    Raises:
        ValueError: a name that does not exist, weights of another network or another stride, a damaged file.
        ConnectionError: it has to be downloaded, and cannot be; says what to fetch and where to put it.
    """
    from pointrend.checkpoints.imagenet import load_imagenet, load_pretrained_backbone
    from pointrend.models.library_backbones import LibraryBackbone

    if isinstance(backbone, LibraryBackbone):
        _fill_from_library(backbone, name_or_path)
        return None
    entry = PRETRAINED.get(str(name_or_path))
    if entry is None:
        path = Path(name_or_path)
        if not path.is_file():
            raise ValueError(
                f"{name_or_path}: no such file of backbone weights, and none of {', '.join(PRETRAINED)}"
            )
        if path.suffix == ".safetensors":
            load_pretrained_backbone(backbone, path)
        else:
            load_imagenet(backbone, path)
        return None
    ours = backbone.config
    wanted = (entry.backbone, entry.deep_stem, entry.stem_width, entry.stride_in_1x1)
    if wanted != (ours.name, ours.deep_stem, ours.stem_width, ours.stride_in_1x1):
        raise ValueError(
            f"{entry.name}: made for {entry.backbone} with (deep_stem, stem_width, stride_in_1x1) = {wanted[1:]}, the "
            f"network is {ours.name} with {(ours.deep_stem, ours.stem_width, ours.stride_in_1x1)}"
        )
    path = fetch(entry.url, cache_folder() / entry.file_name, checksum=entry.checksum, progress=progress)
    load_imagenet(backbone, path)
    return entry


def _fill_from_library(backbone: LibraryBackbone, name_or_path: str | Path) -> None:
    from pointrend.checkpoints.external import read_foreign

    if str(name_or_path) == backbone.config.name:
        try:
            return backbone.load_pretrained()
        except OSError as error:
            raise ConnectionError(
                f"{name_or_path}: its weights could not be fetched ({error}); pass their file instead of the name"
            ) from error
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(
            f"{name_or_path}: no such file of weights; {backbone.config.name} is the name of the published ones"
        )
    return backbone.load_pretrained(read_foreign(path).tensors)
