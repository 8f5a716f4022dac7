"""A request and its response for people: bodies shortened, secrets starred, and what the application raised."""

from __future__ import annotations

import base64
import json
import traceback
from typing import TYPE_CHECKING, Any, Final

import httpx

from asynctest_kit.http.own_frames import own_frames
from asynctest_kit.http.scrubbing import OF_TRANSFER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asynctest_kit.http.scrubbing import Scrubber

__all__ = ["LAST_MESSAGES", "asked", "raised", "spoken", "transcript"]

#: Characters of a body that are shown.
_SHOWN: Final = 2000

#: So many messages of a connection are shown.
LAST_MESSAGES: Final = 10

#: Characters that are shown of one message of many.
_SHOWN_OF_A_MESSAGE: Final = 200

#: Lines of a traceback that are shown where no frame is the application's own.
_LAST_FRAMES: Final = 3

#: Headers that say nothing of a test.
_UNTOLD: Final = OF_TRANSFER | {"accept", "accept-encoding", "host", "user-agent"}


def transcript(response: httpx.Response, scrubber: Scrubber) -> str:
    """What was sent and what came back."""
    parts = [
        asked(response.request, scrubber),
        f"response{_after(response)}",
        _indented(f"{response.status_code} {response.reason_phrase}\n{_headers(response.headers, scrubber)}"),
        _indented(_body_of_response(response, scrubber)),
    ]
    error = getattr(response, "error", None)  # of one of ours
    if error is not None:
        parts += ["the application raised", raised(error)]
    return "\n".join(part for part in parts if part)


def asked(request: httpx.Request, scrubber: Scrubber) -> str:
    """What was sent."""
    parts = [
        "request",
        _indented(f"{request.method} {scrubber.shown(request.url)}\n{_headers(request.headers, scrubber)}"),
        _indented(_body_of_request(request, scrubber)),
    ]
    return "\n".join(part for part in parts if part)


def spoken(messages: Iterable[tuple[str, str | bytes]], scrubber: Scrubber) -> str:
    """What was said on an open connection, one line each: who or which kind, and what, shortened and starred."""
    lines = [f"{who}: {_said(data, scrubber)}" for who, data in messages]
    return "\n".join(["messages, the last ones", _indented("\n".join(lines))]) if lines else "no messages"


def _said(data: str | bytes, scrubber: Scrubber) -> str:
    if isinstance(data, bytes):
        return f"({len(data)} bytes)"
    text = scrubber.text(data)
    return text if len(text) <= _SHOWN_OF_A_MESSAGE else f"{text[:_SHOWN_OF_A_MESSAGE]}… ({len(text)} characters)"


def _headers(headers: httpx.Headers, scrubber: Scrubber) -> str:
    shown = [(name, value) for name, value in headers.multi_items() if name.lower() not in _UNTOLD]
    return "\n".join(f"{name}: {scrubber.header(name, value)}" for name, value in shown)


def _body_of_request(request: httpx.Request, scrubber: Scrubber) -> str:
    try:
        return _body(request.content, request.headers.get("content-type", ""), scrubber)
    except httpx.RequestNotRead:
        return "(a body that was streamed)"


def _body_of_response(response: httpx.Response, scrubber: Scrubber) -> str:
    try:
        return _body(response.content, response.headers.get("content-type", ""), scrubber)
    except httpx.ResponseNotRead:
        return "(a body that was streamed)"


def _body(content: bytes, kind: str, scrubber: Scrubber) -> str:
    if not content:
        return ""
    text = _shown(scrubber.body(content, kind))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…\n({len(text)} characters)"


def _shown(told: Mapping[str, Any]) -> str:
    if "parts" in told:
        return "\n".join(f"{_named(part['headers'])}\n{_indented(_shown(part))}" for part in told["parts"])
    if "base64" in told:
        return f"({len(base64.b64decode(told['base64']))} bytes)"
    return told["text"] if "text" in told else json.dumps(told["json"], indent=2, ensure_ascii=False)


def _named(headers: list[list[str]]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers)


def _after(response: httpx.Response) -> str:
    try:
        return f", after {response.elapsed.total_seconds() * 1000:.0f} ms"
    except RuntimeError:  # it isn't at its end
        return ""


def raised(error: BaseException) -> str:
    """What an application raised, with those frames that are no library's, or the last ones if all are."""
    lines = traceback.format_list(own_frames(error) or traceback.extract_tb(error.__traceback__)[-_LAST_FRAMES:])
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines += traceback.format_exception_only(error)
    if cause is not None:
        lines.append(f"(from {''.join(traceback.format_exception_only(cause)).rstrip()})")
    return _indented("".join(lines).rstrip())


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.strip("\n").split("\n")) if text else ""
