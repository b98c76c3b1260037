"""Frozen configuration dataclasses <-> plain dictionaries of JSON, driven by their annotations.

`dataclasses.asdict` is the way there; `from_dict` is the way back and trusts nothing: a checkpoint's metadata
is somebody else's text. Understood annotations: bool, int, float, str, None, Literal, unions, tuples,
dictionaries with string keys, and further dataclasses.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")

# No number of classes, channels, points, layers or pixels of ours is near it; a file must not make us build a
# giant.
MAX_INTEGER = 2**24


def from_dict(cls: type[T], values: object, where: str = "") -> T:
    """Build the dataclass `cls` from `dataclasses.asdict` of one, or from its JSON (lists for tuples).

    Missing fields take their defaults, so that older files load.

    Raises ValueError naming the field (as "backbone.name") for an unknown field, a missing one without
    default, and a value of another type; what the dataclass itself refuses, it refuses with its own message.
    """
    where = where or cls.__name__
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a dictionary of fields, got {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = [str(name) for name in values if name not in fields]
    if unknown:
        raise ValueError(
            f"{where}: unknown fields {', '.join(sorted(unknown))}; expected {', '.join(fields)}. "
            "A newer version of this package may have written it"
        )
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: fields {', '.join(missing)} are missing")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def rename_fields(values: object, renamed: Mapping[str, str]) -> object:
    """A copy of nested dictionaries in which fields have new names.

    Args:
        values: as for `from_dict`; anything else is returned as it is.
        renamed: old path ("masks.sampling.count") -> new name of its last part.
    """
    if not isinstance(values, Mapping):
        return values
    inner: dict[str, dict[str, str]] = {}
    for path, new in renamed.items():
        first, _, rest = path.partition(".")
        inner.setdefault(first, {})[rest] = new
    own = {name: below.pop("") for name, below in inner.items() if "" in below}
    return {
        own[name] if name in own and own[name] not in values else name: rename_fields(
            value, inner.get(name, {})
        )
        for name, value in values.items()
    }


def _convert(hint: object, value: object, where: str) -> object:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, where)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint)):
            raise ValueError(f"{where}: expected one of {typing.get_args(hint)}, got {value!r}")
        return value
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where)
    if origin in (dict, Mapping):
        return _convert_mapping(typing.get_args(hint), value, where)
    return _convert_plain(hint, value, where)


def _convert_union(options: tuple[object, ...], value: object, where: str) -> object:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    complaints = []
    for option in options:
        try:
            return _convert(option, value, where)
        except ValueError as error:
            complaints.append(str(error))
    raise ValueError("; or ".join(complaints))


def _convert_tuple(items: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: expected a list, got {value!r}")
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ValueError(f"{where}: expected {len(items)} values, got {len(value)}")
    return tuple(
        _convert(item, v, f"{where}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True))
    )


def _convert_mapping(items: tuple[object, ...], value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: expected a dictionary with string keys, got {value!r}")
    return {key: _convert(items[1] if items else Any, v, f"{where}[{key!r}]") for key, v in value.items()}


def _convert_plain(hint: Any, value: object, where: str) -> object:
    if hint not in (bool, int, float, str):
        raise TypeError(f"{where}: no rule for a field annotated {hint!r}")
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError(f"{where}: expected a number below {MAX_INTEGER}, got {value}")
    return value
