"""The command line: `pointrend train`, `eval`, `predict` and the others that `main` lists.

Each command is a frozen dataclass whose fields are its options and whose `run` does it; heavy modules are imported
there, so that `--help` is quick. Exit codes: 0 done; 1 done in part (some files could not be read); 2 a wrong option
or bad input, with one line that says what to do; 130 stopped by Ctrl-C. Set POINTREND_DEBUG=1 for tracebacks.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import os
import sys
import types
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from tyro.conf import arg

from pointrend._version import __version__
from pointrend.cli.app import App, Label
from pointrend.cli.data import Data
from pointrend.cli.evaluate import Evaluate
from pointrend.cli.explain import Demo, Explain
from pointrend.cli.export import Export
from pointrend.cli.predict import Predict, Refine
from pointrend.cli.serve import Serve
from pointrend.cli.train import Finetune, Train
from pointrend.cli.zoo import Cite, Convert, Zoo

DONE, PARTLY, WRONG, STOPPED = 0, 1, 2, 130


def _say(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    print(f"pointrend: {message}", file=sys.stderr)


def _prepare_streams() -> None:
    """Escape characters that a stream's encoding lacks, as of file names in Windows; drop what goes to a closed one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are the process's own if not given."""
    import tyro

    given = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    if given == ["--version"]:
        print(f"pointrend {__version__}")
        return DONE

    def named(name: str, kind: type) -> object:
        plain_help(kind)
        # The list of all commands has the first sentence of each; a command's own help has everything.
        text = inspect.getdoc(kind) or ""
        return tyro.conf.subcommand(
            name, description=text if given[:1] == [name] else text.partition("\n")[0]
        )

    commands = (
        Annotated[Demo, named("demo", Demo)]
        | Annotated[Train, named("train", Train)]
        | Annotated[Finetune, named("finetune", Finetune)]
        | Annotated[Evaluate, named("eval", Evaluate)]
        | Annotated[Predict, named("predict", Predict)]
        | Annotated[Refine, named("refine", Refine)]
        | Annotated[Explain, named("explain", Explain)]
        | Annotated[Export, named("export", Export)]
        | Annotated[App, named("app", App)]
        | Annotated[Serve, named("serve", Serve)]
        | Annotated[Label, named("label", Label)]
        | Annotated[Data, named("data", Data)]
        | Annotated[Convert, named("convert", Convert)]
        | Annotated[Zoo, named("zoo", Zoo)]
        | Annotated[Cite, named("cite", Cite)]
    )
    try:
        chosen = tyro.cli(
            commands,
            prog="pointrend",
            description="PointRend: crisp segmentation masks, rendered point by point. "
            "Start with `pointrend demo`; `pointrend COMMAND --help` explains a command, "
            "`pointrend --version` says which version this is.",
            args=given,
        )
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _say  # in one line, without the source of the place
                return int(chosen.run())
        finally:
            if "pointrend.distributed" in sys.modules:  # else there are no other processes
                sys.modules["pointrend.distributed"].shutdown()
    except SystemExit as stop:  # tyro's own: 0 after --help, 2 after a wrong option
        return stop.code if isinstance(stop.code, int) else WRONG
    except KeyboardInterrupt:
        print("pointrend: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PARTLY
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        if os.environ.get("POINTREND_DEBUG"):
            raise
        print(f"pointrend: {str(error) or type(error).__name__}", file=sys.stderr)
        return WRONG


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
        changes: dict[str, object] = {}
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
