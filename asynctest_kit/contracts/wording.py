"""What did not match, in words; the values of what is named like a secret are not shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.contracts.pact_files import named
from asynctest_kit.http.scrubbing import Scrubber

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["told_details", "told_mismatch"]

_SCRUBBER: Final = Scrubber()

#: Longest text of one difference.
_LONGEST: Final = 600


def told_mismatch(mismatch: Any, document: Mapping[str, Any]) -> Iterator[str]:
    """What a mock server found wrong about a request, as lines.

    Args:
        mismatch: As pact-python tells it.
        document: The pact that the server had.
    """
    where = f"{mismatch.method} {mismatch.path}"
    expected = " or ".join(_expected(document, mismatch.method, mismatch.path))
    match mismatch.type:
        case "RequestNotFound":
            every = ", ".join(
                f"{each['request'].get('method')} {each['request'].get('path')}" for each in _all(document)
            )
            yield f"{where}: no interaction expects this request. Expected: {every}"
        case "MissingRequest":
            yield f"{expected or where}: the request {where} never came"
        case _:
            yield f"{expected or where}: the request {where} came otherwise"
            yield from (f"  {line}" for line in told_details(map(_as_table, mismatch.mismatches)))


def told_details(details: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What differs in a request, a response or a message, as lines.

    Args:
        details: Each as the library reports it in JSON.
    """
    for detail in details:
        kind = str(detail.get("type", "")).removesuffix("Mismatch")
        place = str(detail.get("path") or detail.get("key") or detail.get("parameter") or "")
        text = str(detail.get("mismatch") or f"expected {detail.get('expected')}, came {detail.get('actual')}")
        if place and _SCRUBBER.is_secret(_last_name(place)):
            text = "differs; what it is named like is a secret and is not shown"
        elif len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}..."
        yield f"{_WHAT.get(kind, kind)}{f' {place}' if place and kind != 'Path' else ''}: {text}"


_WHAT: Final = {
    "Body": "body at",
    "BodyType": "body",
    "Header": "header",
    "Metadata": "metadata",
    "Method": "method",
    "Path": "path",
    "Query": "parameter",
    "Status": "status",
}


def _as_table(mismatch: Any) -> dict[str, Any]:
    names = ("type", "path", "key", "parameter", "mismatch", "expected", "actual")
    return {name: value for name in names if (value := getattr(mismatch, name, None)) is not None}


def _last_name(place: str) -> str:
    return re.split(r"[.\[\]'\"]+", place.rstrip(".[]'\""))[-1]


def _all(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in document.get("interactions", ()) if "request" in each and "method" in each["request"]]


def _expected(document: Mapping[str, Any], method: str, path: str) -> Iterator[str]:
    for interaction in _all(document):
        request = interaction["request"]
        if (request["method"], request.get("path")) == (method, path):
            yield named(interaction)
