"""Reading other projects' checkpoint files without trusting them.

A pickle is a program: unpickling a `.pkl` or an old `.pth` from the internet runs whatever its author wrote. Here

- a bare pickle (Detectron2's and Caffe2's `.pkl`) is read by the unpickler of `safe_pickle`, which knows arrays of
  numbers and plain values only;
- `.pth` files are read by `torch.load(weights_only=True)`, both the zip and the older serialisation.

Every size that a file claims is compared with the size of the file before anything is allocated, and whatever
is wrong with a file ends in one `ValueError` that names it.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pointrend.checkpoints.safe_pickle import ForbiddenClass, PickledArray, read_pickle

_PREFIXES = re.compile(r"^(?:(?:module|model|_orig_mod|net)\.)+")
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of torch < 1.6: its magic number
# Classes of training logs in the metadata of OpenMMLab's and our users' files: skipped over, never made.
_SKIPPED_CLASSES = frozenset(
    {
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.ndarray",
        "numpy.dtype",
        "argparse.Namespace",
        "_codecs.encode",
    }
)
STATE_KEYS = ("model", "state_dict", "model_state_dict", "net", "blobs")


@dataclass(frozen=True)
class ForeignCheckpoint:
    """What a file holds.

    tensors: on the CPU, by the file's own names, without the prefixes that wrappers put before all of them ("module.",
        "model.", "_orig_mod.", "net.").
    meta: the rest of the file's outermost dictionary, plain values: author, iteration, class names..
    """

    tensors: dict[str, Tensor]
    meta: dict[str, object]


def read_foreign(path: str | Path) -> ForeignCheckpoint:
    """The tensors of a `.pkl`, `.pth` or `.safetensors` file; what it is, is told by its first bytes.

    The state dict may be the file itself or one of its entries: "model" (Detectron2), "state_dict" (OpenMMLab,
    Lightning), "model_state_dict", "net", "blobs" (Caffe2); else the only dictionary of tensors.

    Raises FileNotFoundError, and ValueError for a file that is damaged or is none of these; that holds objects of other
    classes, or NaN or infinite weights, which it names; or that is a Git LFS pointer or a web page.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a checkpoint file, got a folder")
    refuse_placeholder(path)
    with path.open("rb") as file:
        head = file.read(16)
    try:
        if head.startswith(_ZIP_MAGIC):
            content = _read_zip(path)
        elif head.startswith(_LEGACY_MAGIC):
            content = _torch_load(path, use_mmap=False)
        elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
            content = _read_safetensors(path)
        else:
            content = read_pickle(path)
        found = _split(content, path.stat().st_size)
    except ForbiddenClass as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint: it holds {error} beside its tensors, which is not allowed. "
            "Reading such an object may run code, so nothing in it was run. Where you trust the file, save its "
            "tensors alone: torch.save({'state_dict': checkpoint['state_dict']}, 'weights.pth'), of a whole model "
            "model.state_dict()"
        ) from error
    except Exception as error:  # whatever the readers raise on a damaged file
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({reason}). It is damaged, is no checkpoint, or holds "
            "more than tensors and plain values; nothing in it was run. Download it again and compare its SHA-256"
        ) from error
    refuse_nonfinite(found.tensors, source=str(path))
    return found


def _split(content: object, file_size: int) -> ForeignCheckpoint:
    """Tell the state dict from the metadata around it."""
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a dictionary, got {type(content).__name__}")
    state: Mapping[object, object] = content
    meta: dict[str, object] = {}
    keys = [key for key in STATE_KEYS if isinstance(content.get(key), Mapping)]
    if not keys:
        keys = [key for key, value in content.items() if isinstance(value, Mapping) and _holds_tensors(value)]
        if len(keys) > 1:
            raise ValueError(
                f"several dictionaries of tensors, {', '.join(map(str, keys[:5]))}: save one of them"
            )
    if keys:
        state = content[keys[0]]
        meta = {str(k): v for k, v in content.items() if k != keys[0]}
        if any(isinstance(state.get(key), Mapping) for key in STATE_KEYS):  # {"model": {"state_dict": ..}}
            return _split(state, file_size)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        tensor = value.value if isinstance(value, PickledArray) else value
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            what = "an array or another object" if isinstance(tensor, _Skipped) else type(tensor).__name__
            raise ValueError(f"expected tensors by name, got {what} under {name!r}")
        # A view with stride 0 looks as large as it likes.
        if tensor.numel() * tensor.element_size() > file_size:
            raise ValueError(f"{name} claims {tuple(tensor.shape)}, more than the file's {file_size} bytes")
        plain = _PREFIXES.sub("", name).replace("._orig_mod.", ".")
        if plain in tensors:
            raise ValueError(f"{plain} is there twice, with and without the prefix of a wrapper")
        tensors[plain] = tensor.detach()
    if not tensors:
        raise ValueError("no tensors in it")
    return ForeignCheckpoint(tensors, meta)


def _holds_tensors(state: Mapping[object, object]) -> bool:
    return bool(state) and all(isinstance(value, Tensor) for value in state.values())


class _Skipped:
    """Stands for an object of a skipped class: takes anything, keeps and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if not any(entry.filename.endswith("/data.pkl") for entry in entries):
            raise ValueError(
                f"an archive of {', '.join(e.filename[:60] for e in entries[:3])}, not of torch: unpack it"
            )
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise ValueError("TorchScript, a program: save the model's state_dict() instead")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed zip entries, which torch never writes")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its zip entries claim more bytes than it has")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"checksum of {damaged} is wrong")
    return _torch_load(path, use_mmap=True)


def _torch_load(path: Path, use_mmap: bool) -> object:
    skipped: dict[str, type] = {}
    while True:
        try:
            with torch.serialization.safe_globals(list(skipped.values())):
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=use_mmap)
        except pickle.UnpicklingError as error:
            find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
            names = set(find(str(path))) if find is not None and use_mmap else set()
            if not names:  # the older serialisation, and torch 2.5: its advice is cut off, one name stays
                names = set(re.findall(r"GLOBAL ([\w.]+)", str(error)))
            if not names - skipped.keys():
                raise
            if forbidden := sorted(names - _SKIPPED_CLASSES):
                raise ForbiddenClass(" and ".join(f"an object of {name}" for name in forbidden[:3])) from None
            skipped |= {name: _stand_in(name) for name in names}


def _stand_in(name: str) -> type:
    """A class of this module and name that stands for nothing."""
    module, _, last = name.rpartition(".")
    return type(last, (_Skipped,), {"__module__": module})


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


OTHER_FILES = {
    b"\x1f\x8b": "a gzip archive (unpack it)",
    b"7z\xbc\xaf": "a 7z archive (unpack it)",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}


def refuse_placeholder(path: Path) -> None:
    """Raise a ValueError for what is often found under a checkpoint's name: a Git LFS pointer, a web page, an answer in
    JSON, an archive, an image.
    """
    with path.open("rb") as file:
        start = file.read(512)
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: a Git LFS pointer, not the checkpoint itself; fetch it with `git lfs pull`, or download the file"
        )
    # Without zeros: a safetensors file, which begins with a length, may begin with any letter.
    if b"\0" not in head and head.startswith((b"<", b'{"', b"{ ", b"{\n", b"[")):
        what = "a web page" if head.startswith(b"<") else "a text in JSON"
        raise ValueError(
            f"{path}: {what}, not a checkpoint; download the file itself (its raw or resolve link)"
        )
    for magic, what in OTHER_FILES.items():
        if start.startswith(magic):
            raise ValueError(f"{path}: {what}, not a checkpoint")


def refuse_nonfinite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Raise a ValueError that names tensors with NaN or infinite values: such a model predicts nothing."""
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all()
    ]
    if bad:
        shown = ", ".join(bad[:5]) + (f", .. ({len(bad)} in all)" if len(bad) > 5 else "")
        raise ValueError(
            f"{source}: weights that are NaN or infinite: {shown}. The training diverged before this was saved; "
            "take an earlier checkpoint"
        )
