"""Stopping in good order when a process is interrupted or asked to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pointrend.distributed import defer_signal

T = TypeVar("T")
TERMINATED = 143
"""Exit code after SIGTERM, 128 + 15: what schedulers expect of a job that ended when it was told to."""


class Terminated(SystemExit):
    """SIGTERM came, and the checkpoint to resume from is written; ends the process with code 143."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


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


class Sigterm:
    """Whether SIGTERM came: called, it says so."""

    def __init__(self) -> None:
        self.came = False
        self._interrupting = False

    def __call__(self) -> bool:
        return self.came

    def note(self, *_: object) -> None:
        """The signal handler."""
        self.came = True
        defer_signal(self._interrupt)

    def unless(self, work: Callable[[], T]) -> T | None:
        """What the work gives; None if the signal came before or comes meanwhile, which ends it at once.

        An evaluation takes longer than schedulers wait.
        """
        if self.came:
            return None
        try:
            try:
                self._interrupting = True
                return work()
            finally:
                self._interrupting = False
        except _Interrupted:
            return None

    def _interrupt(self) -> None:
        if self._interrupting:
            self._interrupting = False
            raise _Interrupted


class _Interrupted(BaseException):
    """Ends an evaluation; no handler for errors on the way may swallow it."""


@contextmanager
def sigterm() -> Iterator[Sigterm]:
    """SIGTERM only sets a flag, unless something asks to be interrupted by it; as before afterwards.

    In another thread than the main one signals are somebody else's: the flag stays down.
    """
    flag = Sigterm()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.signal(signal.SIGTERM, flag.note)
    owner = os.getpid()
    try:
        yield flag
    finally:
        if os.getpid() == owner:
            signal.signal(signal.SIGTERM, before)
