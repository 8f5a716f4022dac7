"""Several things to wait for: all of them, or any."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import RejectedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asynctest_kit.provision.readiness import Note, Waiting

__all__ = ["All", "Any"]


@dataclass(frozen=True, slots=True)
class All:
    """All of them, waited for at once; the first that never will be ends it."""

    parts: tuple[Waiting, ...]

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return ", and ".join(part.expectation for part in self.parts)

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        seen = _Seen(self.parts, note)
        tasks = [asyncio.ensure_future(seen.wait(place)) for place in range(len(self.parts))]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)


@dataclass(frozen=True, slots=True)
class Any:
    """Whichever comes first; only if none ever will be is it at an end."""

    parts: tuple[Waiting, ...]

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return " or ".join(part.expectation for part in self.parts)

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        seen = _Seen(self.parts, note)
        tasks = [asyncio.ensure_future(seen.wait(place)) for place in range(len(self.parts))]
        rejections: list[str] = []
        try:
            for first in asyncio.as_completed(tasks):
                try:
                    return await first
                except RejectedError as error:
                    rejections.append(str(error))
            raise RejectedError("; ".join(rejections))
        finally:
            await _end(tasks)


class _Seen:
    """What was last seen of each part that is still waited for."""

    def __init__(self, parts: tuple[Waiting, ...], note: Note) -> None:
        self._parts = parts
        self._note = note
        self._last = dict.fromkeys(range(len(parts)), "nothing yet")

    async def wait(self, place: int) -> None:
        def note(what: str) -> None:
            self._last[place] = what
            self._tell()

        await self._parts[place].wait(note)
        del self._last[place]
        self._tell()

    def _tell(self) -> None:
        self._note("; ".join(f"{what} (of {self._parts[place].expectation})" for place, what in self._last.items()))


async def _end(tasks: Iterable[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
