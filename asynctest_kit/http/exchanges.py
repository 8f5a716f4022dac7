"""Real HTTP exchanges, kept in a file without their secrets and told again from it.

A file is JSON, made to be read and to be under version control. What is secret is replaced before anything is kept:
headers, parameters of a query and of a form, its parts, and keys of JSON, at any depth, by their names. A request is
known again by its method, its URL and its body, as they are without secrets; what is between parts doesn't matter.

An exchange has the test that made it, and that test is told what it was answered itself. So tests, workers and runs may
make theirs anew in one file: each takes the place of what the test had there before, under a lock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.multipart import with_boundary
from asynctest_kit.http.scrubbing import content_of
from asynctest_kit.project_files import locked, replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asynctest_kit.http.scrubbing import Scrubber

__all__ = ["ExchangeError", "Exchanges", "write"]

_HOW: Final = "Set ATK_RECORD=1 for one run that may make the real calls."

#: What may be wrong with a file of exchanges.
_AMISS: Final = (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL)


class ExchangeError(AtkError):
    """A file of exchanges is not there, or is none."""


class Exchanges:
    """The exchanges of one file, for one test.

    Args:
        file: Where they are kept.
        scrubber: Takes secrets out.
        test: The test's name in the file.
        records: Whether they are made anew, by real calls.

    Attributes:
        kept: Those that were made anew.

    Raises:
        ExchangeError: The file is none, or isn't there and they are not made anew.
    """

    def __init__(self, file: Path, scrubber: Scrubber, *, test: str = "", records: bool) -> None:
        self.records = records
        self.file = file
        self.kept: list[dict[str, Any]] = []
        self._scrubber = scrubber
        self._test = test
        if not records and not file.exists():
            raise ExchangeError(f"There is no file {file} of exchanges to be replayed. {_HOW}")
        listed = _listed(file)
        self._answers: dict[str, list[dict[str, Any]]] = {} if records else self._answers_in(listed)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        """What was answered to ``request``: of several the next, and the last again and again; None if nothing was."""
        answers = self._answers.get(_key(self._told(request)))
        if not answers:
            return None
        told = answers.pop(0) if len(answers) > 1 else answers[0]
        return _response(told, request)

    def keep(self, request: httpx.Request, response: httpx.Response) -> None:
        """Keep an exchange; both bodies have been read."""
        kind = response.headers.get("content-type", "")
        told = {
            "status": response.status_code,
            "headers": self._scrubber.headers(response.headers),
            "body": self._scrubber.body(response.content, kind),
        }
        self.kept.append({"request": self._told(request), "response": told})

    def _answers_in(self, listed: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """The answers by their requests, without what is secret now, whatever it was when they were kept.

        To a request of which the test has none, what the one was answered that made it most often.
        """
        found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        with _told_of(self.file):
            for one in listed:
                request = _request(one["request"])
                _response(one["response"], request)
                found[_key(self._told(request))][one.get("test", "")].append(one["response"])
        return {key: each.get(self._test) or max(each.values(), key=len) for key, each in found.items()}

    def _told(self, request: httpx.Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": self._scrubber.url(request.url),
            "headers": self._scrubber.headers(httpx.Headers(_comparable(request.headers), "utf-8")),
            "body": self._scrubber.body(request.content, request.headers.get("content-type", "")),
        }


def write(file: Path, test: str, made: list[dict[str, Any]]) -> bool:
    """Put what ``test`` has made anew in the place of what it had in ``file``; what others have there stays.

    Returns:
        Whether there was a file before.

    Raises:
        ExchangeError: The file has become none.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.parent):
        was_there = file.exists()
        keys = {_key(one["request"]) for one in made}
        others = [one for one in _listed(file) if one.get("test", test) != test or _is_nobodys(one, keys)]
        kept = sorted([*others, *({"test": test, **one} for one in made)], key=lambda one: one.get("test", ""))
        replace_file(file, json.dumps({"exchanges": kept}, indent=2, ensure_ascii=False) + "\n")
    return was_there


def _is_nobodys(told: dict[str, Any], made: set[str]) -> bool:
    """Whether no test is said to have made it, and none has now."""
    return "test" not in told and _key(told["request"]) not in made


def _listed(file: Path) -> list[dict[str, Any]]:
    """What is in ``file``; nothing if it isn't there."""
    if not file.exists():
        return []
    with _told_of(file):
        listed: list[dict[str, Any]] = list(json.loads(file.read_text(encoding="utf-8"))["exchanges"])
        for one in listed:
            _key(one["request"])
    return listed


@contextmanager
def _told_of(file: Path) -> Iterator[None]:
    try:
        yield
    except _AMISS as error:
        raise ExchangeError(
            f"{file} is no file of exchanges: {error!r}. Mend it, or remove it, and have all made anew. {_HOW}"
        ) from None


def _key(told: dict[str, Any]) -> str:
    return json.dumps([told["method"], told["url"], told["body"]], sort_keys=True)


def _comparable(headers: httpx.Headers) -> list[tuple[str, str]]:
    """Headers with the same boundary each time."""
    pairs = headers.multi_items()
    return [(name, with_boundary(value) if name.lower() == "content-type" else value) for name, value in pairs]


def _request(kept: dict[str, Any]) -> httpx.Request:
    headers = httpx.Headers(kept["headers"], "utf-8")
    content = content_of(kept["body"], headers.get("content-type", ""))
    return httpx.Request(kept["method"], kept["url"], headers=headers, content=content)


def _response(kept: dict[str, Any], request: httpx.Request) -> httpx.Response:
    headers = httpx.Headers(kept["headers"], "utf-8")
    content = content_of(kept["body"], headers.get("content-type", ""))
    return httpx.Response(kept["status"], headers=headers, content=content, request=request)
