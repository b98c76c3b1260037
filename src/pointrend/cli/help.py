"""Help for people: options that may be left out are shown as "INT", not as "{None}|INT ... (default: None)"."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from tyro.conf import arg

_PLACEHOLDERS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


def plain_help(command: type) -> None:
    """Give the fields of a command placeholders without Python's None, and no empty defaults; in place."""
    hints = typing.get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        kind, *extras = (
            typing.get_args(hints[field.name])
            if typing.get_origin(hints[field.name]) is Annotated
            else (hints[field.name],)
        )
        for choice in typing.get_args(kind):  # of subcommands
            choice = typing.get_args(choice)[0] if typing.get_origin(choice) is Annotated else choice
            if dataclasses.is_dataclass(choice):
                plain_help(choice)  # type: ignore[arg-type]
        given: Any = next((extra for extra in extras if hasattr(extra, "help_behavior_hint")), arg())
        others = [extra for extra in extras if extra is not given]
        changes: dict[str, Any] = {}
        variadic = typing.get_args(kind)[-1:] == (Ellipsis,)
        empty = field.default in (None, "", ()) or (field.default is dataclasses.MISSING and variadic)
        if given.metavar is None and (empty or others):  # positional ones are called by their name
            name = field.name.upper() if field.default is dataclasses.MISSING else f"[{field.name.upper()}]"
            changes["metavar"] = name if others else _placeholder(kind)
        if empty:
            changes["help_behavior_hint"] = ""
        if changes:
            shown = dataclasses.replace(given, **changes)
            command.__annotations__[field.name] = Annotated[(kind, *others, shown)]


def _placeholder(hint: Any) -> str | None:
    """ "INT" for int | None, "{a,b}" for choices; None leaves it to tyro."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return _placeholder(options[0]) if len(options) == 1 else None
    if typing.get_origin(hint) is Literal:
        return "{" + ",".join(map(str, typing.get_args(hint))) + "}"
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        if items[-1] is Ellipsis:
            return f"{_placeholder(items[0])} ..."
        return " ".join(str(_placeholder(item)) for item in items)
    return _PLACEHOLDERS.get(hint)
