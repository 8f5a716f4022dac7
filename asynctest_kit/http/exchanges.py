"""Real HTTP exchanges, kept in a file without their secrets and told again from it.

A file is JSON, made to be read and to be under version control. What is secret is replaced before anything is kept:
headers, parameters of a query and of a form, its parts, and keys of JSON, at any depth, by their names. A request is
known again by its method, its URL and its body, as they are without secrets; what is between parts doesn't matter.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.multipart import with_boundary
from asynctest_kit.http.scrubbing import content_of

if TYPE_CHECKING:
    from asynctest_kit.http.scrubbing import Scrubber

__all__ = ["ExchangeError", "Exchanges", "Recorded"]


#: Exchanges by the file that they are written to.
Recorded = dict[Path, list[dict[str, Any]]]


class ExchangeError(AtkError):
    """A file of exchanges is not there, or is none."""


class Exchanges:
    """The exchanges of one file.

    Args:
        file: Where they are kept.
        scrubber: Takes secrets out.
        records: Whether they are made anew, by real calls.

    Raises:
        ExchangeError: The file isn't there, or is none, and they are not made anew.
    """

    def __init__(self, file: Path, scrubber: Scrubber, *, records: bool) -> None:
        self.records = records
        self.file = file
        self._scrubber = scrubber
        self._kept: list[dict[str, Any]] = []
        self._answers: dict[str, list[dict[str, Any]]] = {} if records else self._read()

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
        self._kept.append({"request": self._told(request), "response": told})

    def write(self, recorded: Recorded | None = None) -> bool:
        """Write what was kept, all at once.

        Args:
            recorded: What other tests of this run have recorded, by file, to which this is added: of a request that
                several of them made there is what the one was answered that made it most often.

        Returns:
            Whether there was a file before.
        """
        kept = _together((recorded or {}).get(self.file, []), self._kept)
        if recorded is not None:
            recorded[self.file] = kept
        was_there = self.file.exists()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_name(f".{self.file.name}.new")
        new.write_text(json.dumps({"exchanges": kept}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(self.file)
        return was_there

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        """The answers by their requests, without what is secret now, whatever it was when they were kept."""
        how = "Set ATK_RECORD=1 for one run that may make the real calls."
        found = defaultdict(list)
        try:
            for one in json.loads(self.file.read_text(encoding="utf-8"))["exchanges"]:
                request = _request(one["request"])
                _response(one["response"], request)
                found[_key(self._told(request))].append(one["response"])
        except FileNotFoundError:
            raise ExchangeError(f"There is no file {self.file} of exchanges to be replayed. {how}") from None
        except (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL) as error:
            raise ExchangeError(f"{self.file} is no file of exchanges: {error!r}. {how}") from None
        return found

    def _told(self, request: httpx.Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": self._scrubber.url(request.url),
            "headers": self._scrubber.headers(httpx.Headers(_comparable(request.headers), "utf-8")),
            "body": self._scrubber.body(request.content, request.headers.get("content-type", "")),
        }


def _together(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found, ours = (_by_request(before), _by_request(now))
    longer = {key: each for key, each in ours.items() if len(each) > len(found.get(key, ()))}
    kept = [one for one in before if _key(one["request"]) not in longer]
    return kept + [one for one in now if _key(one["request"]) in longer]


def _by_request(exchanges: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for one in exchanges:
        found[_key(one["request"])].append(one)
    return found


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
