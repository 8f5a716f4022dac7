"""Services that start, and tests that wait for each other, told while they do.

On a terminal each has a line with what it does and for how long; the lines stand below the place where the next output
goes, and are gone when all are up and prepared. An end of a run that takes long has one, too. A service that fails is
told at once, with its last words. What is no terminal (a CI log, a pipe) is told of a start or a wait only when it
takes long.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from asynctest_kit.budget.wording import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asynctest_kit.provision.client import Asked, Client

__all__ = ["Screen", "Watch", "terminal_size", "watched_output", "watched_run"]

#: Seconds between two looks at services that start.
_LOOK = 0.1

#: Seconds of a start after which a log is told of it; then after twice that, and so on.
_LONG = 5.0

#: Seconds after which it is told what the end of a run waits for.
_LONG_END = 1.0

#: What a service does once a phase of its start is over.
_NEXT = {
    "resolve": "creating",
    "pull": "creating",
    "create": "booting",
    "boot": "waiting for its answer",
    "ready": "finishing its start",  # or giving it up: only the outcome tells
    "remove": "starting again",
}

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_ERASE, _UP, _RIGHT = "\x1b[J", "\x1b[{}A", "\x1b[{}C"


class Screen:
    """Where a run prints: what others write passes through it, so that lines can stand below.

    Args:
        stream: Where to.
        size: Columns and rows; None for what is no terminal, where no lines are shown.
    """

    def __init__(self, stream: IO[str], size: Callable[[], tuple[int, int]] | None) -> None:
        self._stream = stream
        self._size = size
        self._mutex = threading.Lock()
        self._begun = ""
        self._lines: list[str] = []
        self._erasing = ""

    @property
    def is_live(self) -> bool:
        """Whether lines can be shown."""
        return self._size is not None

    def write(self, text: str) -> int:
        """Print above the lines that are shown."""
        with self._mutex:
            self._erase()
            self._print(text)
            self._draw()
        return len(text)

    def say(self, text: str) -> None:
        """Print whole lines, below the one that others have begun."""
        with self._mutex:
            self._erase()
            self._print(f"\n{text}\n" if self._begun else f"{text}\n")
            self._draw()
            self._stream.flush()

    def show(self, lines: list[str]) -> None:
        """Have these lines below, instead of those that are."""
        with self._mutex:
            self._erase()
            self._lines = lines
            self._draw()
            self._stream.flush()

    def flush(self) -> None:
        """Have it seen."""
        with self._mutex:
            self._stream.flush()

    def _print(self, text: str) -> None:
        self._stream.write(text)
        _, newline, last = text.rpartition("\n")
        self._begun = last if newline else self._begun + last

    def _draw(self) -> None:
        if self._size is None or not self._lines:
            return
        columns, rows = self._size()
        length = len(_CONTROL.sub("", self._begun.rpartition("\r")[2]))
        column = length % columns
        if length and not column:  # at a terminal's last column it is not known which line comes next
            return
        shown = [line[: columns - 1] for line in self._lines[: max(rows - 2, 1)]]
        right = _RIGHT.format(column) if column else ""
        if self._begun:
            self._stream.write("\n" + "\n".join(shown) + _UP.format(len(shown)) + "\r" + right)
            self._erasing = "\n" + _ERASE + _UP.format(1) + right
        else:
            up = _UP.format(len(shown) - 1) if len(shown) > 1 else ""
            self._stream.write("\n".join(shown) + up + "\r")
            self._erasing = _ERASE
        self._stream.flush()

    def _erase(self) -> None:
        self._stream.write(self._erasing)
        self._erasing = ""


class Watch:
    """A look now and then at the services that a client has asked for.

    Args:
        client: Gives the client, or None as long as there is none.
        screen: Where to tell.
        tells_all: Whether to tell of each that is up, and where, and in a log of each that failed; for a run's report
            tells of them too.
        waits: Gives who waits for whom among the tests: in words, and since when on ``CLOCK_MONOTONIC``.
    """

    def __init__(
        self,
        client: Callable[[], Client | None],
        screen: Screen,
        *,
        tells_all: bool,
        waits: Callable[[], Sequence[tuple[str, float]]] = tuple,
    ) -> None:
        self._waits = waits
        self._long_waits: dict[str, float] = {}
        self._client = client
        self._screen = screen
        self._tells_all = tells_all
        self._told: set[int] = set()
        self._long: dict[int, float] = {}
        self._closed_at = 0.0
        self.failed = 0

    def look(self) -> list[Asked]:
        """Tell what is new; give those that are starting."""
        client = self._client()
        if client is None:
            return []
        untold = [one for one in client.asked if one.number not in self._told]
        done = [one for one in untold if one.future.done()]
        if client.is_closed:  # what was still starting then has not failed: nobody wants it any more
            self._screen.show(self._kept(client))
            return []
        starting = [one for one in untold if one not in done]
        width = max((len(one.name) for one in client.asked), default=0)
        now = time.monotonic()
        lines = [f"{one.name:{width}}  {_doing(client, one.name)}  {duration(now - one.at)}" for one in starting]
        waits = self._waits()
        self._screen.show(lines + _preparing(client) + [_waiting(text, now - since) for text, since in waits])
        for one in done:
            self._told.add(one.number)
            self._tell(one, width, duration(now - one.at))
        if not self._screen.is_live:
            self._tell_long(starting, lines, now)
            self._tell_long_waits(waits, now)
        return starting

    def look_and_wait(self) -> bool:
        """Look, and wait for the moment to look again; whether any is starting."""
        starting = self.look()
        wait([one.future for one in starting], timeout=_LOOK, return_when=FIRST_COMPLETED)
        return bool(starting)

    def _kept(self, client: Client) -> list[str]:
        """What the end of a run waits for, once that takes long: who sees it may go on without."""
        now = time.monotonic()
        self._closed_at = self._closed_at or now
        notes = [f"{name}: {note}" for name, note in client.notes.items() if note]
        if not notes or now - self._closed_at < _LONG_END:
            return []
        return [f"{'; '.join(notes)}  {duration(now - self._closed_at)}; Ctrl-C doesn't wait for it"]

    def _tell(self, one: Asked, width: int, took: str) -> None:
        error = one.future.exception()
        if error is not None:
            self.failed += 1
            if self._tells_all or self._screen.is_live:
                self._screen.say(f"{one.name:{width}}  FAILED after {took}\n{error}")
        elif self._tells_all:
            endpoint = one.future.result()
            self._screen.say(
                f"{one.name:{width}}  ready in {took}  {endpoint.safe_url}\n{'':{width}}  {endpoint.detail}"
            )

    def _tell_long(self, starting: list[Asked], lines: list[str], now: float) -> None:
        for one, line in zip(starting, lines, strict=True):
            limit = self._long.setdefault(one.number, _LONG)
            if now - one.at >= limit:
                self._long[one.number] = 2 * limit
                self._screen.say(line)

    def _tell_long_waits(self, waits: Sequence[tuple[str, float]], now: float) -> None:
        for text, since in waits:
            limit = self._long_waits.setdefault(text, _LONG)
            if now - since >= limit:
                self._long_waits[text] = 2 * limit
                self._screen.say(_waiting(text, now - since))


@contextmanager
def watched_run(
    client: Callable[[], Client | None], waits: Callable[[], Sequence[tuple[str, float]]] = tuple
) -> Iterator[None]:
    """Tell of the services that start, and of tests that wait for each other, while the block runs.

    What it prints on standard output passes through.
    """
    with watched_output(client, waits) as begin:
        begin()
        yield


@contextmanager
def watched_output(
    client: Callable[[], Client | None], waits: Callable[[], Sequence[tuple[str, float]]] = tuple
) -> Iterator[Callable[[], None]]:
    """The same, from when the block calls what it is given: until then no thread looks."""
    # Not the descriptor itself: pytest's capture takes that away while tests run.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors) as stream:
        screen = Screen(stream, terminal_size(stream))
        over = threading.Event()
        watch = Watch(client, screen, tells_all=False, waits=waits)

        def keep_looking() -> None:
            while not over.is_set():
                if not watch.look_and_wait():
                    over.wait(_LOOK)

        looking = threading.Thread(target=keep_looking, name="asynctest_kit services view", daemon=True)
        before, sys.stdout = sys.stdout, _Passed(sys.stdout, screen)
        try:
            yield looking.start
        finally:
            over.set()
            if looking.ident is not None:
                looking.join()
            try:
                screen.show([])
                sys.stdout.flush()
            finally:
                sys.stdout = before


def terminal_size(stream: IO[str]) -> Callable[[], tuple[int, int]] | None:
    """What tells the size of the terminal that ``stream`` goes to; None if it is none that can move its cursor."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    descriptor = stream.fileno()

    def size() -> tuple[int, int]:
        columns, rows = os.get_terminal_size(descriptor)
        return columns or 80, rows or 24  # some don't know how large they are

    return size


class _Passed:
    """Standard output, written through a screen."""

    def __init__(self, stream: IO[str], screen: Screen) -> None:
        self._stream = stream
        self.write = screen.write
        self.flush = screen.flush

    def writelines(self, lines: list[str]) -> None:
        """Write them all."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _waiting(text: str, seconds: float) -> str:
    return f"lock wait {duration(seconds)}  {text}"  # the time first, for a long line is cut off


def _preparing(client: Client) -> list[str]:
    """What is being done with services that are up."""
    return [f"{name}  {note}" for name, note in client.notes.items() if note and name in client.endpoints]


def _doing(client: Client, name: str) -> str:
    if note := client.notes.get(name):
        return note
    done = [phase for phase in client.phases if phase.service == name]
    if not done:
        return "looking for who can give it"
    last = done[-1]
    if last.provider == "external":  # nobody creates it
        return _NEXT["boot"]
    return _NEXT.get(last.phase, last.phase)
