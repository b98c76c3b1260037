"""Bare pickles of arrays, as Detectron2's and Caffe2's `.pkl` are, read without running what is in them.

A pickle is a program. This unpickler knows numpy arrays of numbers, numbers, strings and plain containers only, and
builds arrays itself, so that not even numpy's own unpickling sees the file. Every size that a file claims is compared
with the size of the file before anything is allocated.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

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


class ForbiddenClass(pickle.UnpicklingError):
    """The file holds an object of a class that is not a tensor, a number or a container; says which."""


def read_pickle(path: Path) -> object:
    """What the file holds, its arrays as :class:`PickledArray`: plain values otherwise.

    The whole program is looked over first, then its harmless rest is run.

    Raises whatever is wrong with the file, of many types: `external.read_foreign` makes one ValueError of them.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    # A mapped file gives at most what it has; a buffered one allocates what it is asked for.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _check_instructions(data)
        data.seek(0)
        return _RestrictedUnpickler(data, budget=size).load()


def _check_instructions(data: mmap.mmap) -> None:
    """Refuse unknown instructions, strings longer than the file, and memo slots far away (the memo is an array)."""
    for number, (opcode, argument, position) in enumerate(pickletools.genops(cast(IO[bytes], data))):
        if opcode.name not in _INSTRUCTIONS:
            raise ValueError(f"pickle instruction {opcode.name} at byte {position} is not allowed")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(cast(int, argument)) > number:
            raise ValueError(f"memo slot {argument} at byte {position} is out of range")
        if number > _MAX_INSTRUCTIONS:
            raise ValueError(f"more than {_MAX_INSTRUCTIONS} pickle instructions")


class _Dict(dict[object, object]):
    """An OrderedDict of the file; its attributes (torch's `_metadata`) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _DType:
    """A numpy dtype of numbers, as `numpy.dtype(code)` followed by its byte order."""

    def __init__(self, code: str, *_: object) -> None:
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


class PickledArray:
    """A numpy array: made empty, then filled by `__setstate__`, as numpy pickles it; `value` is its tensor."""

    def __init__(self, unpickler: _RestrictedUnpickler) -> None:
        self._unpickler = unpickler
        self.value: Tensor | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = self._unpickler.tensor(raw, shape, dtype, bool(fortran))


class _Call:
    """What a name in the file stands for: a function of ours. No attributes, so that BUILD cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function has no state")


class _RestrictedUnpickler(pickle.Unpickler):
    """budget: bytes of array data that may be made in all, so that one string cannot become a thousand arrays."""

    def __init__(self, file: mmap.mmap, budget: int) -> None:
        # Python 2 pickles keep raw bytes in strings.
        super().__init__(cast(IO[bytes], file), encoding="latin1")
        self._budget = budget
        self._text_budget = budget

    def find_class(self, module: str, name: str) -> object:
        module = module.replace("numpy._core", "numpy.core").replace("builtins", "__builtin__")
        calls: dict[tuple[str, str], Callable[..., object]] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: PickledArray(self),
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._from_buffer,
            ("numpy", "ndarray"): self._forbidden,
            ("numpy", "dtype"): _DType,
            ("collections", "OrderedDict"): _Dict,
            ("_codecs", "encode"): self._encode,
            ("__builtin__", "bytes"): lambda: b"",  # how protocol 2 writes an empty one
        }
        if (module, name) not in calls:
            raise ForbiddenClass(f"an object of {module}.{name}")
        return _Call(calls[module, name])

    def tensor(self, raw: object, shape: object, dtype: object, fortran: bool) -> Tensor:
        data = self._bytes(raw)
        if not isinstance(dtype, _DType) or not isinstance(shape, tuple):
            raise ValueError("an array without dtype or shape")
        return dtype.tensor(data, shape, fortran)

    def _bytes(self, raw: object) -> bytes:
        if not isinstance(raw, bytes | bytearray | str):
            raise ValueError(f"array data of type {type(raw).__name__} is not allowed")
        self._budget -= len(raw)
        if self._budget < 0:
            raise ValueError("its arrays claim more bytes than it has")
        return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)

    def _scalar(self, dtype: object, raw: object) -> int | float | bool:
        return self.tensor(raw, (), dtype, False).item()

    def _from_buffer(self, raw: object, dtype: object, shape: object, order: object) -> PickledArray:
        array = PickledArray(self)
        array.value = self.tensor(raw, shape, dtype, order == "F")
        return array

    def _encode(self, text: str, encoding: object) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"encoding {encoding!r} is not allowed")
        # Python 3 writes bytes this way in protocol 2. They are counted again when they become an array.
        self._text_budget -= len(text)
        if not isinstance(text, str) or self._text_budget < 0:
            raise ValueError("its strings claim more bytes than it has")
        return text.encode("latin1")

    def _forbidden(self, *_: object) -> None:
        raise ValueError("arrays are made by numpy's _reconstruct only")
