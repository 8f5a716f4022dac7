"""Real HTTP exchanges, kept in a file without their secrets and told again from it.

A file is JSON, made to be read and to be under version control. What is secret is replaced before anything is kept:
headers, parameters of a query and of a form, and keys of JSON, at any depth, by their names. A request is known again
by its method, its URL and its body, as they are without secrets.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import httpx

from asynctest_kit.errors import AtkError

if TYPE_CHECKING:
    from pathlib import Path

    from asynctest_kit.http.scrubbing import Scrubber

__all__ = ["ExchangeError", "Exchanges"]


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
        self._kept: list[dict[str, Any]] = [] if records else _read(file)
        self._answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in self._kept:
            self._answers[_key(one["request"])].append(one["response"])

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        """What was answered to ``request``: of several the next, and the last again and again; None if nothing was."""
        answers = self._answers.get(_key(self._told(request)))
        if not answers:
            return None
        told = answers.pop(0) if len(answers) > 1 else answers[0]
        return httpx.Response(told["status"], headers=told["headers"], content=_content(told["body"]), request=request)

    def keep(self, request: httpx.Request, response: httpx.Response) -> None:
        """Keep an exchange; both bodies have been read."""
        kind = response.headers.get("content-type", "")
        told = {
            "status": response.status_code,
            "headers": self._scrubber.headers(response.headers),
            "body": self._scrubber.body(response.content, kind),
        }
        self._kept.append({"request": self._told(request), "response": told})

    def write(self) -> None:
        """Write what was kept, all at once."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_name(f".{self.file.name}.new")
        new.write_text(json.dumps({"exchanges": self._kept}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(self.file)

    def _told(self, request: httpx.Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": self._scrubber.url(request.url),
            "headers": self._scrubber.headers(request.headers),
            "body": self._scrubber.body(request.content, request.headers.get("content-type", "")),
        }


def _read(file: Path) -> list[dict[str, Any]]:
    how = "Set ATK_RECORD=1 for one run that may make the real calls."
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["exchanges"]
        for one in found:
            _key(one["request"])
            _content(one["response"]["body"])
    except FileNotFoundError:
        raise ExchangeError(f"There is no file {file} of exchanges to be replayed. {how}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ExchangeError(f"{file} is no file of exchanges: {error!r}. {how}") from None
    return found


def _key(request: dict[str, Any]) -> str:
    return json.dumps([request["method"], request["url"], request["body"]], sort_keys=True)


def _content(body: dict[str, Any]) -> bytes:
    if "json" in body:
        return json.dumps(body["json"], ensure_ascii=False).encode()
    return base64.b64decode(body["base64"]) if "base64" in body else str(body["text"]).encode()
