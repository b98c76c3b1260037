"""Our own checkpoint: one safetensors file that says what it is.

The header's metadata holds, as strings:

- "format": "pointrend";
- "version": of the package that wrote it;
- "task": "instance" or "semantic" ("kind" in files of before 0.1.0);
- "config": the model's configuration as JSON: architecture, class names, palette, normalisation, test size..;
- "extra": what the caller adds, as JSON: where it was trained, its scores;
- "sha256": of all the others and of each tensor's name, type, shape and bytes: a flipped bit is noticed.

Loading needs nothing but the file and runs nothing from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pointrend._version import __version__
from pointrend.checkpoints.config_io import from_dict, rename_fields
from pointrend.checkpoints.external import refuse_nonfinite, refuse_placeholder
from pointrend.io import atomic_write
from pointrend.models.attached import AttachedConfig, AttachedSegmenter
from pointrend.models.base import Pretrained
from pointrend.models.instance import InstanceConfig, InstanceSegmenter
from pointrend.models.semantic import SemanticConfig, SemanticSegmenter

M = TypeVar("M", bound=Pretrained)
Config = InstanceConfig | SemanticConfig | AttachedConfig
Model = InstanceSegmenter | SemanticSegmenter | AttachedSegmenter

FORMAT = "pointrend"
# The header is read before anything else: a configuration of more than this is none.
_MAX_HEADER = 32 * 2**20

# Fields of the configuration by the names that files of before 0.1.0 hold, and their names today.
RENAMED_FIELDS: dict[str, dict[str, str]] = {
    "instance": {
        "head": "mask_head",
        "masks.side": "mask_size",
        "masks.coarse_side": "coarse_size",
        "masks.points": "num_points",
        "masks.sampling.count": "num_points",
    },
    "semantic": {
        "head": "decoder",
        "head_channels": "decoder_channels",
        "head_norm": "decoder_norm",
        "point_rend.count": "num_points",
        "point_rend.steps": "subdivision_steps",
        "point_rend.sampling.count": "num_points",
    },
}
# The same for the first part of tensors' names.
RENAMED_TENSORS: dict[str, dict[str, str]] = {"semantic": {"head.": "decoder."}}


@dataclass(frozen=True)
class FileInfo:
    """A checkpoint's header.

    version: of the package that wrote it.
    task: "instance" or "semantic".
    extra: what was handed to `save`.
    """

    version: str
    task: str
    config: Config
    extra: dict[str, object]


def save(model: nn.Module, path: str | Path, *, extra: Mapping[str, object] | None = None) -> None:
    """Write a model of ours so that `load` can build it again, in the tensors' own dtypes.

    Args:
        model: of this package.
        path: the file, which appears under its name only when it is complete.
        extra: plain JSON values kept beside the configuration; if not given, what the model's own file said
            (`model.origin`), such as its licence.

    Raises:
        ValueError: another module than ours, or one made by `optimize`, whose weights are folded.
    """
    if getattr(model, "only_predicts", False):
        raise ValueError("this model was made by optimize(): save the one that it was made from")

    path, model = Path(path), own_model(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "version": __version__,
        "task": model.task,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "extra": json.dumps(dict(model.origin if extra is None else extra)),
    }
    metadata["sha256"] = _digest(metadata, tensors)
    with atomic_write(path, durable=True) as part:
        save_file(tensors, part, metadata)


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """The model of a file written by `save`, in evaluation mode on `device`.

    Raises FileNotFoundError, and ValueError naming the reason for a file that is none of ours, is damaged, or
    whose tensors are not exactly those of the model it describes.
    """
    info, tensors = read(path)
    model = build_from(info.config, tensors, source=str(path))
    model.origin = info.extra
    return model.to(device)


def read_info(path: str | Path) -> FileInfo:
    """The header of a file written by `save`; no tensor is read. Raises as `load`."""
    return read(path, with_tensors=False)[0]


def read(path: str | Path, *, with_tensors: bool = True) -> tuple[FileInfo, dict[str, Tensor]]:
    """Header and tensors of a file written by `save`. Raises as `load`."""
    metadata, tensors = open_safetensors(path, with_tensors=with_tensors)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: no checkpoint of this package (its metadata lacks format={FORMAT!r}); for files of "
            "Detectron2 or MMSegmentation use from_detectron2 or from_mmsegmentation"
        )
    if with_tensors and not _intact(metadata, tensors):
        raise ValueError(f"{path}: damaged, its contents do not have the SHA-256 in its header")
    refuse_nonfinite(tensors, source=str(path))
    try:
        task = metadata["task"] if "task" in metadata else metadata["kind"]
        values = rename_fields(json.loads(metadata["config"]), RENAMED_FIELDS.get(task, {}))
        config = from_dict(_config_class(task, values), values)
        extra = json.loads(metadata.get("extra", "{}"))
        if not isinstance(extra, dict):
            raise ValueError(f"extra: expected a dictionary, got {type(extra).__name__}")
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} (written by version {metadata.get('version')}, this is {__version__}): {error}"
        ) from error
    for old, new in RENAMED_TENSORS.get(task, {}).items():
        tensors = {
            new + name.removeprefix(old) if name.startswith(old) else name: tensor
            for name, tensor in tensors.items()
        }
    return FileInfo(metadata.get("version", "unknown"), task, config, extra), tensors


def open_safetensors(
    path: str | Path, *, with_tensors: bool = True
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file; FileNotFoundError, or ValueError for another file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
    refuse_placeholder(path)
    if not 2 <= header_size <= min(_MAX_HEADER, path.stat().st_size - 8):
        raise ValueError(f"{path}: not a safetensors file; convert other formats first (`pointrend convert`)")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            names = file.keys() if with_tensors else []
            return metadata, {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error})") from error


def compare(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Raise ValueError unless both have the same names with the same shapes, listing all that differ."""
    lines = [f"missing: {name} {tuple(expected[name].shape)}" for name in expected if name not in tensors]
    lines += [
        f"not in the model: {name} {tuple(tensors[name].shape)}" for name in tensors if name not in expected
    ]
    lines += [
        f"{name}: expected {tuple(tensor.shape)}, got {tuple(tensors[name].shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if lines:
        shown = lines if len(lines) <= 40 else [*lines[:40], f".. and {len(lines) - 40} more"]
        raise ValueError(f"{source}: its tensors do not fit the model:\n  " + "\n  ".join(shown))


def load_into(make: Callable[[Config], M], path: str | Path) -> M:
    """The model that `make` builds of a file's configuration, with the file's tensors, in evaluation mode.

    For a network that cannot be built by name. Raises as `load`.
    """
    info, tensors = read(path)
    model = _filled(make(info.config), tensors, source=str(path))
    model.origin = info.extra
    return model


def build_from(config: Config, tensors: Mapping[str, Tensor], *, source: str) -> Model:
    """The model with exactly these tensors, in evaluation mode.

    Raises ValueError, beginning with `source`, for a configuration that no model has, and listing tensors that do not
    fit.
    """
    # Shapes are compared before anything is built: a small file may describe a model that fills the memory.
    try:
        with torch.device("meta"), _WithoutInitialisation():
            expected = build(config).state_dict()
    except ValueError as error:
        raise ValueError(f"{source}: its model cannot be built: {error}") from error
    compare(expected, tensors, source=source)
    return _filled(build(config), tensors, source=source)


def _filled(model: M, tensors: Mapping[str, Tensor], *, source: str) -> M:
    compare(model.state_dict(), tensors, source=source)
    model.load_state_dict(tensors)
    return model.eval()


class _WithoutInitialisation(TorchFunctionMode):
    """Random values are not drawn: drawing them for a meta tensor loads torch.compile, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build(config: Config) -> Model:
    """A freshly initialised model of this configuration."""
    if isinstance(config, AttachedConfig):
        return AttachedSegmenter(config)
    return InstanceSegmenter(config) if isinstance(config, InstanceConfig) else SemanticSegmenter(config)


def own_model(model: nn.Module) -> Model:
    """The model; ValueError for anything but one of ours."""
    if isinstance(model, Model):
        return model
    raise ValueError(f"expected an InstanceSegmenter or a SemanticSegmenter, got {type(model).__name__}")


def _config_class(task: str, values: object = None) -> type[Config]:
    if task == "instance":
        return InstanceConfig
    if task != "semantic":
        raise ValueError(f"task: expected 'instance' or 'semantic', got {task!r}")
    return AttachedConfig if isinstance(values, Mapping) and "network" in values else SemanticConfig


def _intact(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bool:
    noted = metadata.get("sha256")
    # The sum of the first files covers the configuration and the tensors' bytes alone.
    return noted == _digest(metadata, tensors) or noted == _sum(metadata.get("config", ""), tensors)


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Of every entry but the sum itself, and of the tensors with what the header says of them."""
    entries = sorted((key, value) for key, value in metadata.items() if key != "sha256")
    described = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in sorted(tensors.items())]
    return _sum(json.dumps([entries, described]), tensors)


def _sum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
