"""Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them."""

from __future__ import annotations

import codecs
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynctest_kit.http.matching import MISSING
from asynctest_kit.http.responses import ExpectationError, check
from asynctest_kit.http.transcripts import LAST_MESSAGES, spoken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.http.responses import Response

__all__ = ["Event", "Events", "parsed"]

#: A failure is shown where the test expected.
__tracebackhide__ = True


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: What it says.
        event: Its type.
        id: The last id that was sent until then.
        retry: Milliseconds that the server asks to be left in peace for, if it did with this event.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None

    def json(self) -> Any:
        """What it says, as JSON."""
        return json.loads(self.data)


class Events:
    """The events of a response, as they come: ``async for event in events``, or ``await anext(events)``."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self._coming = parsed(response.aiter_bytes())
        self._last: deque[Event] = deque(maxlen=LAST_MESSAGES)

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        event = await anext(self._coming)
        self._last.append(event)
        return event

    async def take(self, count: int) -> list[Event]:
        """The next ``count`` events.

        Raises:
            ExpectationError: The stream ended before.
        """
        taken: list[Event] = []
        while len(taken) < count:
            try:
                taken.append(await anext(self))
            except StopAsyncIteration:
                came = f"{len(taken)} came before the stream ended" if taken else "none came before the stream ended"
                what = f"events of {self.response.request.url.path}: {count} were to be taken, {came}"
                raise ExpectationError(f"{what}\n\n{self._transcript()}") from None
        return taken

    async def expect(self, expected: Any, *, event: str | None = None) -> Event:
        """Hold the next event against what is expected.

        Args:
            expected: What it says: as text if this is one, or a pattern, else as JSON.
            event: Its type; None: any.

        Raises:
            ExpectationError: It says something else, or there is none.
        """
        found = await anext(self, None)
        wanted = expected if event is None else {"event": event, "data": expected}
        received: Any = MISSING
        if found is not None:
            data = _read(found.data, expected)
            received = data if event is None else {"event": found.event, "data": data}
        what = f"the next event of {self.response.request.url.path}"
        check(what, wanted, received, self.response.scrubber, self._transcript)
        assert found is not None  # noqa: S101  # it was held against something
        return found

    def _transcript(self) -> str:
        events = [(f"{one.event} {one.id}".strip(), one.data) for one in self._last]
        return f"{self.response.transcript()}\n{spoken(events, self.response.scrubber)}"


def _read(data: str, expected: Any) -> Any:
    if isinstance(expected, str) or hasattr(expected, "search"):
        return data
    try:
        return json.loads(data)
    except ValueError:
        return data


async def parsed(parts: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The events in a stream of bytes."""
    last_id, event, retry = "", "", None
    data: list[str] = []
    async for line in _lines(parts):
        if not line:
            if data:
                yield Event("\n".join(data), event or "message", last_id, retry)
            event, retry = "", None
            data = []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retry = int(value)


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Lines that end with a carriage return, a line feed or both; what comes after the last of them is none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    kept = ""
    ended_with_return = False
    async for part in parts:
        text = decoder.decode(part)
        if ended_with_return:
            text, ended_with_return = text.removeprefix("\n"), not text
        if not text:
            continue
        ended_with_return = text.endswith("\r")
        *lines, kept = (kept + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            yield line
