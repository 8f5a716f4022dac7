"""What a test expects of a response, and what it is told when that doesn't hold."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.matching import MISSING, Difference, differences, shown
from asynctest_kit.http.scrubbing import STARS, Scrubber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["HEARS_OF_READING", "SCRUBBER", "TELLS_ERROR", "ExpectationError", "Response", "check", "told_difference"]

#: A failure is shown where the test expected.
__tracebackhide__ = True

#: In a response's extensions: a function that is called when somebody asks for the body.
HEARS_OF_READING: Final = "asynctest_kit.reading"

#: In a response's extensions: a function that tells what its application raised.
TELLS_ERROR: Final = "asynctest_kit.error"

#: In a response's extensions: what its transcript hides.
SCRUBBER: Final = "asynctest_kit.scrubber"

_UNSAID: Final = object()

_REDIRECTS: Final = range(300, 400)


class ExpectationError(AtkError, AssertionError):
    """A response is not what a test expected; the message shows where, and the request and the response."""


class Response(httpx.Response):
    """A response of :class:`httpx.Response` that can be held against what is expected."""

    @property
    def error(self) -> BaseException | None:
        """What the application raised while it made this, if it runs in this process."""
        told = self.extensions.get(TELLS_ERROR)
        return told() if told is not None else None

    @property
    def content(self) -> bytes:
        """As of httpx."""
        self._tell_of_reading()
        return super().content

    @property
    def text(self) -> str:
        """As of httpx."""
        self._tell_of_reading()
        return super().text

    async def aread(self) -> bytes:
        """As of httpx; it is quicker where nothing is to be decoded."""
        if hasattr(self, "_content") or "content-encoding" in self.headers or self.is_stream_consumed:
            return await super().aread()
        self.is_stream_consumed = True
        parts = [part async for part in self.stream]  # type: ignore[union-attr]
        self._num_bytes_downloaded = sum(map(len, parts))
        await self.aclose()
        self._content = b"".join(parts)
        return self._content

    def expect(  # noqa: PLR0913  # what a response is made of
        self,
        status: Any = _UNSAID,
        *,
        json: Any = _UNSAID,
        text: Any = _UNSAID,
        headers: Mapping[str, Any] | None = None,
        cookies: Mapping[str, Any] | None = None,
        jsonpath: Mapping[str, Any] | None = None,
    ) -> Self:
        """Hold this against what is expected; see :mod:`asynctest_kit.http.matching` for what that may be.

        Args:
            status: A status, or a collection of those that are all right: ``range(200, 300)``.
            json: What the body is as JSON, in part.
            text: What the body is as text.
            headers: Headers by name; None: it isn't there.
            cookies: Cookies that are set by this response, by name; None: it isn't.
            jsonpath: What is found at places in the body as JSON: ``{"$.items[*].price": each(int)}``.

        Returns:
            This response.

        Raises:
            ExpectationError: It isn't so; all that isn't is told at once.
        """
        told = [*self._of_status(status), *self._of_pairs("header", headers, self.headers)]
        told += self._of_pairs("cookie", cookies, dict(self.cookies) if cookies else {})
        if json is not _UNSAID or jsonpath:
            told += self._of_json(json, jsonpath or {})
        if text is not _UNSAID:
            told += self._lines("text", differences(text, self.text))
        if told:
            raise ExpectationError(self._message(told))
        return self

    def at(self, path: str) -> list[Any]:
        """The values at a JSONPath of the body, in their order.

        Raises:
            AtkError: The path can't be read, or its library isn't installed.
        """
        return _found(path, self.json())

    def transcript(self) -> str:
        """The request and this, for people: secrets starred, bodies shortened."""
        from asynctest_kit.http.transcripts import transcript

        return transcript(self, self.scrubber)

    @property
    def scrubber(self) -> Scrubber:
        """What its messages hide."""
        scrubber: Scrubber = self.extensions.get(SCRUBBER) or Scrubber()
        return scrubber

    def _tell_of_reading(self) -> None:
        hears = self.extensions.get(HEARS_OF_READING)
        if hears is not None:
            hears()

    def _of_status(self, expected: Any) -> Iterable[str]:
        if expected is _UNSAID:
            return
        is_one_of = isinstance(expected, (range, set, frozenset, list, tuple))
        found = [] if is_one_of else [*differences(expected, self.status_code)]
        if (self.status_code in expected) if is_one_of else not found:
            return
        raised = _raised(found[0]) if found else ""
        yield f"status: expected {_statuses(expected)}, received {self.status_code} {self.reason_phrase}{raised}"
        if self.status_code in _REDIRECTS and "location" in self.headers:
            place = self.scrubber.shown(self.url.join(self.headers["location"]))
            yield f"        it redirects to {place}; follow_redirects=True follows"

    def _of_pairs(self, kind: str, expected: Mapping[str, Any] | None, received: Mapping[str, Any]) -> Iterator[str]:
        for name, value in (expected or {}).items():
            there = received.get(name, MISSING)
            wanted = MISSING if value is None else value
            if wanted is MISSING and there is MISSING:
                continue
            found = [Difference((), wanted, there)] if wanted is MISSING else [*differences(wanted, there)]
            for one in found:
                hides = kind == "cookie" or (there is not MISSING and self.scrubber.header(name, there) != there)
                yield f"{kind} {name}: {told_difference(one, self.scrubber, hides=hides)}"

    def _of_json(self, expected: Any, paths: Mapping[str, Any]) -> Iterator[str]:
        try:
            body = self.json()
        except ValueError as error:
            yield f"json: the body is no JSON: {error}"
            return
        if expected is not _UNSAID:
            yield from self._lines("json", differences(expected, body))
        for path, value in paths.items():
            found = _found(path, body)
            received: Any = found
            if _is_single(path) or (value is ... and not found):
                received = found[0] if found else MISSING
            for one in differences(value, received):
                yield f"jsonpath {path}{one.place[1:]}: {told_difference(one, self.scrubber)}"

    def _lines(self, kind: str, found: Iterable[Difference]) -> list[str]:
        return [f"{kind}{_at(one)}: {told_difference(one, self.scrubber)}" for one in found]

    def _message(self, told: list[str]) -> str:
        what = f"{self.request.method} {self.scrubber.shown(self.request.url)}"
        lines = [f"{what} was not answered as expected", *(f"  {line}" for line in told), "", self.transcript()]
        return "\n".join(lines)


def check(what: str, expected: Any, received: Any, scrubber: Scrubber, transcript: Callable[[], str]) -> None:
    """Hold a value against what is expected; ``transcript`` tells what it came with.

    Raises:
        ExpectationError: It isn't so; all that isn't is told at once.
    """
    found = [f"  {one.place}: {told_difference(one, scrubber)}" for one in differences(expected, received)]
    if found:
        raise ExpectationError("\n".join([f"{what} is not as expected", *found, "", transcript()]))


def _at(one: Difference) -> str:
    return f" {one.place}" if one.path else ""


def told_difference(one: Difference, scrubber: Scrubber, *, hides: bool = False) -> str:
    """What was expected and what is there, for people; ``hides`` for what is secret, whatever its name."""
    if one.received is MISSING:
        return f"expected {shown(one.expected)}, and it is not there"
    hides = hides or any(isinstance(step, str) and scrubber.is_secret(step) for step in one.path)
    kept = scrubber.text(one.received) if isinstance(one.received, str) else scrubber.within(one.received)
    received = STARS if hides else shown(kept)
    kind = f" ({type(one.received).__name__})" if isinstance(one.expected, type) else ""
    return f"expected {shown(one.expected)}, received {received}{kind}{_raised(one, hides=hides)}"


def _raised(one: Difference, *, hides: bool = False) -> str:
    """What the expectation raised; it may quote the value."""
    if one.error is None:
        return ""
    return f"; asked, it raised {type(one.error).__name__}{f': {one.error}' if str(one.error) and not hides else ''}"


def _statuses(expected: Any) -> str:
    if isinstance(expected, range):
        return f"{expected.start} to {expected.stop - 1}"
    if isinstance(expected, (set, frozenset, list, tuple)):
        return " or ".join(map(str, sorted(expected)))
    return shown(expected)


def _library() -> Any:
    if find_spec("jsonpath") is None:
        raise AtkError("JSONPath is read by python-jsonpath, which isn't installed: pip install 'asynctest_kit[api]'")
    import jsonpath

    return jsonpath


def _found(path: str, body: Any) -> list[Any]:
    library = _library()
    try:
        found: list[Any] = library.findall(path, body)
    except library.JSONPathError as error:
        raise AtkError(f"{path!r} is no JSONPath: {error}") from None
    return found


def _is_single(path: str) -> bool:
    compiled = _library().compile(path)
    return bool(getattr(compiled, "singular_query", lambda: False)())
