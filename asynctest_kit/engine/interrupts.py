"""The signals that end a run in order: Ctrl-C, and SIGTERM, by which CI systems and ``kill`` end one.

A SIGTERM handler that somebody else has installed stays. In a child that the process forks, ours leaves the signal to
the system: ``multiprocessing`` ends its workers with it.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["TERMINATED", "Terminated", "raising", "received_by"]

#: Exit code of a run that SIGTERM has ended: that of a shell for a process that it killed.
TERMINATED = 128 + signal.SIGTERM

_set_handler = signal.signal  # the guard puts another in its place while tests run


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what Ctrl-C is to all code that runs."""


def _raise(kind: type[KeyboardInterrupt]) -> None:
    raise kind


@contextmanager
def raising() -> Iterator[None]:
    """Raise :class:`Terminated` in the main thread when SIGTERM comes; Ctrl-C is Python's own."""
    with _handled(signal.SIGTERM, Terminated, _raise):
        yield


@contextmanager
def received_by(receive: Callable[[type[KeyboardInterrupt]], None]) -> Iterator[None]:
    """Call ``receive`` in the main thread when one of the signals comes, with what it is to be raised as."""
    with _handled(signal.SIGINT, KeyboardInterrupt, receive), _handled(signal.SIGTERM, Terminated, receive):
        yield


@contextmanager
def _handled(
    number: signal.Signals, kind: type[KeyboardInterrupt], receive: Callable[[type[KeyboardInterrupt]], None]
) -> Iterator[None]:
    previous, process = signal.getsignal(number), os.getpid()
    is_free = (
        (number == signal.SIGINT and previous is not None)
        or previous == signal.SIG_DFL
        or hasattr(previous, "is_asynctest_kits")
    )
    if threading.current_thread() is not threading.main_thread() or not is_free:
        yield
        return

    def handle(signum: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM and os.getpid() != process:
            _set_handler(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        receive(kind)

    handle.is_asynctest_kits = True  # type: ignore[attr-defined]
    _set_handler(number, handle)
    try:
        yield
    finally:
        _set_handler(number, previous)
