"""A time-out for code that blocks the main thread: tests that pytest's own protocol runs, while the loop stands still.

Nothing can cancel a blocking call but a signal. So the limit is the process's alarm (``SIGALRM``), whose handler raises
the failure where the main thread is: the report ends at the line that blocked. As with every such signal, code that
catches everything can swallow it, and a call into C that retries after a signal isn't ended.

There is one alarm in a process, and it may have a user already: pytest-timeout, or the test itself. If anyone has a
handler or a running timer when the test starts, nothing is done; if someone takes the alarm over meanwhile, it is his,
and stays as he leaves it. A test whose module names the alarm is never limited.

Where there is no such signal (Windows), or the tests don't run in the main thread, sync tests have no time-out.
"""

from __future__ import annotations

import re
import signal
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import pytest

from asynctest_kit.engine.time_limit import time_out_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

__all__ = ["is_available", "sync_limit"]

#: Seconds until it is tried again where the failure can't be raised.
_AGAIN = 0.1

_ALARM = re.compile(rb"SIGALRM|setitimer|\balarm\(")


def is_available() -> bool:
    """Tell whether sync code can be limited at all here."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _never() -> bool:
    return False


@contextmanager
def sync_limit(
    seconds: float,
    what: str,
    module: Path | None = None,
    is_elsewhere: Callable[[], bool] = _never,
) -> Iterator[None]:
    """Fail the block when it takes longer than ``seconds`` (0: no limit).

    Args:
        seconds: The limit.
        what: What is limited, for the message.
        module: The file of the test; if it uses the alarm itself, nothing is done.
        is_elsewhere: Whether just now other code than the test's has the thread, in which nothing may be raised, such
            as our loop's.

    Raises:
        Failed: It took too long.
    """
    if not seconds or not is_available() or _is_taken() or (module is not None and _names_the_alarm(module)):
        yield
        return
    is_over = False

    def expire(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        __tracebackhide__ = True
        if is_over:
            return
        if is_elsewhere():
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            return
        pytest.fail(time_out_message(what, seconds))

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        is_over = True
        if signal.getsignal(signal.SIGALRM) is expire:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _is_taken() -> bool:
    unused = (signal.SIG_DFL, signal.SIG_IGN)
    return signal.getsignal(signal.SIGALRM) not in unused or signal.getitimer(signal.ITIMER_REAL)[0] > 0


@cache
def _names_the_alarm(module: Path) -> bool:
    try:
        return _ALARM.search(module.read_bytes()) is not None
    except OSError:
        return True
