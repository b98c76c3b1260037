"""Stopping in good order when a process is interrupted or asked to end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopping(*signals: signal.Signals, after: str = "this step") -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or one of these signals, asks for an orderly end (the function then says True); the second one is a
    KeyboardInterrupt.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(f"stopping after {after}; Ctrl-C again gives up at once", file=sys.stderr)

    try:
        before = {one: signal.signal(one, ask) for one in (signal.SIGINT, *signals)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
