"""Reading other projects' checkpoint files without trusting them.

A pickle is a program: unpickling a `.pkl` or an old `.pth` from the internet runs whatever its author wrote.
    Here

- a bare pickle (Detectron2's and Caffe2's `.pkl`) is read by an unpickler that knows numpy arrays of numbers,
  numbers, strings and plain containers only, and builds arrays itself, so that not even numpy's own
  unpickling sees the file;
- `.pth` files are read by `torch.load(weights_only=True)`, both the zip and the older serialisation.

Every size that a file claims is compared with the size of the file before anything is allocated, and whatever
is wrong with a file ends in one `ValueError` that names it.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of torch < 1.6: its magic number
_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"}
# A checkpoint has about 20 instructions per tensor; a file of many more is only meant to fill the memory.
_MAX_INSTRUCTIONS = 2_000_000
# Instructions that checkpoints are made of. Missing: those that make instances of classes, persistent ids and
# extension codes, and DUP, with which a few bytes grow without bound.
_INSTRUCTIONS = frozenset(
    """PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4
    FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL
    REDUCE BUILD""".split()  # noqa: SIM905 -- fifty quotes would hide the words
)
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
_READ_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class ForeignCheckpoint:
    """What a file holds.

    tensors: on the CPU, by the file's own names (a leading "module." is taken off).
    meta: the rest of the file's outermost dictionary, plain values: author, iteration, class names..
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def read_foreign(path: str | Path) -> ForeignCheckpoint:
    """The tensors of a `.pkl`, `.pth` or `.safetensors` file; what it is, is told by its first bytes.

    The state dict may be the file itself or its entry "model" (Detectron2), "state_dict" (OpenMMLab) or
    "blobs" (Caffe2).

    Raises FileNotFoundError, and ValueError for a file that is damaged, is none of these or tries to run
    code.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a checkpoint file, got a folder")
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
            content = _read_pickle(path)
        return _split(content, path.stat().st_size)
    except _READ_ERRORS as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({reason}). It is damaged, is no checkpoint, or holds "
            "more than tensors and plain values; nothing in it was run. Fetch it anew and compare its SHA-256"
        ) from error


def _split(content: Any, file_size: int) -> ForeignCheckpoint:
    """Tell the state dict from the metadata around it."""
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a dictionary, got {type(content).__name__}")
    state: Any = content
    meta: dict[str, Any] = {}
    for key in ("model", "state_dict", "blobs"):
        if isinstance(content.get(key), Mapping):
            state = content[key]
            meta = {str(k): v for k, v in content.items() if k != key}
            break
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        tensor = value.value if isinstance(value, _Array) else value
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"expected tensors by name, got {type(tensor).__name__} under {name!r}")
        # A view with stride 0 looks as large as it likes.
        if tensor.numel() * tensor.element_size() > file_size:
            raise ValueError(f"{name} claims {tuple(tensor.shape)}, more than the file's {file_size} bytes")
        plain = name.removeprefix("module.")
        if plain in tensors:
            raise ValueError(f"{plain} is there twice, with and without 'module.'")
        tensors[plain] = tensor.detach()
    if not tensors:
        raise ValueError("no tensors in it")
    return ForeignCheckpoint(tensors, meta)


# --- torch's formats
# ------------------------------------------------------------------------------------------------


class _Skipped:
    """Stands for an object of a skipped class: takes anything, keeps and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed zip entries, which torch never writes")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its zip entries claim more bytes than it has")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"checksum of {damaged} is wrong")
    return _torch_load(path, use_mmap=True)


def _torch_load(path: Path, use_mmap: bool) -> Any:
    def load() -> Any:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=use_mmap)

    try:
        return load()
    except pickle.UnpicklingError:
        find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
        names = set(find(str(path))) if find is not None and use_mmap else set()
        if not names or not names <= _SKIPPED_CLASSES:
            raise
        with torch.serialization.safe_globals([(_Skipped, name) for name in names]):
            return load()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


# --- bare pickles
# ---------------------------------------------------------------------------------------------------


def _read_pickle(path: Path) -> Any:
    """Look over the whole program first, then run the harmless rest."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    # A mapped file gives at most what it has; a buffered one allocates what it is asked for.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _check_instructions(data)
        data.seek(0)
        return _RestrictedUnpickler(data, budget=size).load()


def _check_instructions(data: mmap.mmap) -> None:
    """Refuse unknown instructions, strings longer than the file, and memo slots far away (the memo is an
    array).
    """
    for number, (opcode, argument, position) in enumerate(pickletools.genops(cast(IO[bytes], data))):
        if opcode.name not in _INSTRUCTIONS:
            raise ValueError(f"pickle instruction {opcode.name} at byte {position} is not allowed")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(cast(int, argument)) > number:
            raise ValueError(f"memo slot {argument} at byte {position} is out of range")
        if number > _MAX_INSTRUCTIONS:
            raise ValueError(f"more than {_MAX_INSTRUCTIONS} pickle instructions")


class _Dict(dict[Any, Any]):
    """An OrderedDict of the file; its attributes (torch's `_metadata`) are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _DType:
    """A numpy dtype of numbers, as `numpy.dtype(code)` followed by its byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.order, self.code = (code[0], code[1:]) if code[:1] in ("<", ">", "|", "=") else ("=", code)
        if self.code not in _DTYPES:
            raise ValueError(f"arrays of dtype {code!r} are not allowed")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {state[1]!r} is unknown")
        self.order = state[1]

    def tensor(self, raw: bytes, shape: tuple[int, ...], fortran: bool) -> Tensor:
        dtype = np.dtype(self.order + self.code)
        if any(not isinstance(n, int) or n < 0 for n in shape) or len(shape) > 8:
            raise ValueError(f"an array of shape {shape} is not allowed")
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise ValueError(f"an array of shape {shape} has {len(raw)} bytes of data")
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
        return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))


class _Array:
    """A numpy array: made empty, then filled by `__setstate__`, as numpy pickles it."""

    def __init__(self, unpickler: _RestrictedUnpickler) -> None:
        self._unpickler = unpickler
        self.value: Tensor | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = self._unpickler.tensor(raw, shape, dtype, bool(fortran))


class _Call:
    """What a name in the file stands for: a function of ours. No attributes, so that BUILD cannot change
    it.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a function has no state")


class _RestrictedUnpickler(pickle.Unpickler):
    """budget: bytes of array data that may be made in all, so that one string cannot become a thousand
    arrays.
    """

    def __init__(self, file: Any, budget: int) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 pickles keep raw bytes in strings
        self._budget = budget
        self._text_budget = budget

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core").replace("builtins", "__builtin__")
        calls: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(self),
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("numpy", "ndarray"): self._forbidden,
            ("numpy", "dtype"): _DType,
            ("collections", "OrderedDict"): _Dict,
            ("_codecs", "encode"): self._encode,
            ("__builtin__", "bytes"): lambda: b"",  # how protocol 2 writes an empty one
        }
        if (module, name) not in calls:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _Call(calls[module, name])

    def tensor(self, raw: Any, shape: Any, dtype: Any, fortran: bool) -> Tensor:
        data = self._bytes(raw)
        if not isinstance(dtype, _DType) or not isinstance(shape, tuple):
            raise ValueError("an array without dtype or shape")
        return dtype.tensor(data, shape, fortran)

    def _bytes(self, raw: Any) -> bytes:
        if not isinstance(raw, bytes | bytearray | str):
            raise ValueError(f"array data of type {type(raw).__name__} is not allowed")
        self._budget -= len(raw)
        if self._budget < 0:
            raise ValueError("its arrays claim more bytes than it has")
        return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)

    def _scalar(self, dtype: Any, raw: Any) -> int | float | bool:
        return self.tensor(raw, (), dtype, False).item()

    def _from_buffer(self, raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array(self)
        array.value = self.tensor(raw, shape, dtype, order == "F")
        return array

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"encoding {encoding!r} is not allowed")
        # Python 3 writes bytes this way in protocol 2. They are counted again when they become an array.
        self._text_budget -= len(text)
        if not isinstance(text, str) or self._text_budget < 0:
            raise ValueError("its strings claim more bytes than it has")
        return text.encode("latin1")

    def _forbidden(self, *_: Any) -> None:
        raise ValueError("arrays are made by numpy's _reconstruct only")
