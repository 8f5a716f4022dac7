"""Exchanges with the app, held against its OpenAPI document.

A response must be documented: its status, content type, headers and body. What a request does that the document
forbids is a fault only if the app took it for good (a status below 400), so that tests of bad input are left alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

from asynctest_kit.contracts.documents import asked_for
from asynctest_kit.contracts.errors import DocumentError
from asynctest_kit.errors import AtkError
from asynctest_kit.http.scrubbing import Scrubber
from asynctest_kit.http.transcripts import transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from asynctest_kit.contracts.documents import Document, Operation
    from asynctest_kit.http.client import Session

__all__ = ["ExchangeChecks", "Fault", "OpenApiViolation", "Seen"]

#: A failure is shown where the test called.
__tracebackhide__ = True

_MOST_OF_A_PROBLEM: Final = 300
_MOST_FAULTS: Final = 10
_MOST_NAMED: Final = 6

#: What a path may answer that isn't documented.
_NOT_THERE: Final = (404, 405)

#: Bodies that never end, or are not to be understood from outside.
_UNREAD: Final = ("text/event-stream", "multipart/")

#: Marks requests that aren't the test's.
_OF_OURS: Final = "asynctest_kit.openapi"

#: Headers of parameters that OpenAPI leaves to other places of the document.
_NO_PARAMETERS: Final = ("accept", "authorization", "content-type")


class OpenApiViolation(AtkError, AssertionError):  # noqa: N818  # it is read in failures
    """An exchange is not as the app's OpenAPI document has it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is not as documented.

    Attributes:
        rule: Which rule it breaks.
        where: The place: a JSON path in a body, a header's or a parameter's name; may be empty.
        problem: What is wrong there.
    """

    rule: str
    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.rule}{f', {self.where}' if self.where else ''}: {self.problem}"


class Seen:
    """Which operations were called, and what they answered, over a whole run."""

    def __init__(self) -> None:
        self._answers: dict[str, set[str]] = defaultdict(set)
        self.document: Document | None = None

    def add(self, document: Document, operation: Operation, status: int) -> None:
        """Remember an exchange."""
        self.document = document
        self._answers[operation.name].add(operation.status_for(status) or str(status))

    def told(self) -> list[str]:
        """Lines for the end of the run."""
        if self.document is None:
            return []
        operations = self.document.operations
        called = [one for one in operations if one.name in self._answers]
        answers = sum(len(self._answers[one.name] & set(one.statuses)) for one in called)
        documented = sum(len(one.statuses) for one in operations)
        missing = [one.name for one in operations if one.name not in self._answers]
        first = f"{self.document.name}: {len(called)} of {len(operations)} operations called"
        lines = [f"{first}, {answers} of {documented} documented answers seen"]
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        return lines + ([f"never called: {', '.join(missing[:_MOST_NAMED])}{more}"] if missing else [])


class ExchangeChecks:
    """Checks the exchanges of one test.

    Args:
        location: Where the document is, for messages and, if it begins with a slash or is a URL, for getting it.
        document: It; None if it is to be asked of the app.
        keep: Given the document when it was asked for.
        seen: Where exchanges are counted.
        scrubber: Takes secrets out of what is shown.
    """

    def __init__(
        self,
        location: str,
        document: Document | None,
        *,
        keep: Callable[[Document], None] = lambda _: None,
        seen: Seen | None = None,
        scrubber: Scrubber | None = None,
    ) -> None:
        self._location = location
        self._document = document
        self._keep = keep
        self._seen = seen or Seen()
        self._scrubber = scrubber or Scrubber()
        self._is_off = False
        self._failed: list[AtkError] = []

    def watch(self, client: httpx.AsyncClient | Session) -> None:
        """Check every exchange of ``client`` from now on; one that isn't as documented fails the call.

        Whoever called may have swallowed that: :meth:`check_swallowed` raises it again.
        """

        async def look(response: httpx.Response) -> None:
            __tracebackhide__ = True
            if self._is_off or _OF_OURS in response.request.extensions:
                return
            try:
                document = self._document or await self._asked_for(client)
                if not _kind(response.headers).startswith(_UNREAD):
                    await response.aread()
                self._check(document, response)
            except AtkError as error:
                self._failed.append(error)
                raise

        client.event_hooks["response"].append(look)

    def check_swallowed(self) -> None:
        """Make sure that no exchange of a client that is watched has failed, and the test went on.

        Raises:
            OpenApiViolation: One wasn't as documented.
            DocumentError: The document couldn't be had.
        """
        __tracebackhide__ = True
        if self._failed:
            raise self._failed[0]

    def check(self, response: httpx.Response) -> None:
        """Check one exchange, whose response has been read.

        Raises:
            OpenApiViolation: It isn't as documented.
            DocumentError: The document is the app's, and no client that is watched has got it yet.
        """
        __tracebackhide__ = True
        if self._document is None:
            raise DocumentError(f"Watch a client, so that {self._location} can be asked for: openapi.watch(client)")
        self._check(self._document, response)

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """Leave exchanges in the block alone."""
        before, self._is_off = self._is_off, True
        try:
            yield
        finally:
            self._is_off = before

    async def _asked_for(self, client: httpx.AsyncClient | Session) -> Document:
        self._document = await asked_for(client, self._location, extensions={_OF_OURS: True})
        self._keep(self._document)
        return self._document

    def _check(self, document: Document, response: httpx.Response) -> None:
        __tracebackhide__ = True
        request = response.request
        found = document.find(request.method, request.url.path)
        if found:
            self._seen.add(document, found[0], response.status_code)
        faults = list(_faults(document, found, response, self._scrubber))
        if faults:
            name = found[0].name if found else f"{request.method} {request.url.path}"
            lines = [f"  {fault}" for fault in faults[:_MOST_FAULTS]]
            lines += [f"  and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
            shown = transcript(response, self._scrubber)
            raise OpenApiViolation("\n".join([f"{name} does not keep to {document.name}:", *lines, shown]))


def _faults(
    document: Document, found: tuple[Operation, dict[str, str]] | None, response: httpx.Response, scrubber: Scrubber
) -> Iterator[Fault]:
    """What of an exchange is not as documented."""
    if not found:
        if response.status_code not in _NOT_THERE:
            yield Fault("unknown operation", "", f"the document has none, and the answer is {response.status_code}")
        return
    operation, path = found
    judge = _Judge(document, scrubber)
    yield from judge.response(operation, response)
    if response.status_code < httpx.codes.BAD_REQUEST:
        yield from judge.request(operation, response.request, path)


@dataclass(frozen=True, slots=True)
class _Judge:
    document: Document
    scrubber: Scrubber

    def response(self, operation: Operation, response: httpx.Response) -> Iterator[Fault]:
        """What of a response is not documented."""
        status = operation.status_for(response.status_code)
        if status is None:
            known = ", ".join(operation.statuses) or "none"
            yield Fault("undocumented status", "", f"{response.status_code}. Documented: {known}")
            return
        told = operation.content["responses"][status]
        pointer = f"{operation.pointer}/responses/{_escaped(status)}"
        answer, pointer = self.document.located(told, pointer)
        for name, header in answer.get("headers", {}).items():
            yield from self._header(response.headers, name, header)
        content = answer.get("content", {})
        if operation.method != "HEAD" and response.status_code not in (204, 304):
            yield from self._body("response", pointer, content, response)

    def request(self, operation: Operation, request: httpx.Request, path: Mapping[str, str]) -> Iterator[Fault]:
        """What of a request is forbidden."""
        given = {
            "path": {name: [value] for name, value in path.items()},
            "query": _by_name(request.url.params.multi_items()),
            "header": {name.lower(): [value] for name, value in request.headers.items()},
            "cookie": _by_name(_cookies(request)),
        }
        for parameter in operation.parameters:
            place, name = str(parameter.get("in")), str(parameter.get("name"))
            if place == "header" and name.lower() in _NO_PARAMETERS:
                continue
            values = given.get(place, {}).get(name.lower() if place == "header" else name)
            yield from self._parameter(parameter, place, name, values)
        told = operation.content.get("requestBody")
        if told:
            body, pointer = self.document.located(told, f"{operation.pointer}/requestBody")
            if not _is_empty(request):
                yield from self._body("request", pointer, body.get("content", {}), request)
            elif body.get("required"):
                yield Fault("request body", "", "there is none, it is required, and the app took that for good")

    def _parameter(
        self, parameter: Mapping[str, Any], place: str, name: str, values: list[str] | None
    ) -> Iterator[Fault]:
        where = f'{place} "{name}"'
        if values is None:
            if parameter.get("required"):
                yield Fault("request parameter", where, "is required and not given, and the app took that for good")
        elif "schema" in parameter and (taken := self._taken(parameter["schema"], values)) is not None:
            for fault in self._invalid(self._inline(parameter["schema"], "requests"), taken[0], name):
                yield Fault("request parameter", where, f"{fault.problem}, and the app took it for good")

    def _header(self, headers: httpx.Headers, name: str, told: Mapping[str, Any]) -> Iterator[Fault]:
        header = self.document.resolved(told)
        values = headers.get_list(name)
        if not values:
            if header.get("required"):
                yield Fault("response header", name, "is required and not there")
        elif "schema" in header and (taken := self._taken(header["schema"], values)) is not None:
            for fault in self._invalid(self._inline(header["schema"], "responses"), taken[0], name):
                yield Fault("response header", name, fault.problem)

    def _body(
        self, side: str, pointer: str, content: Mapping[str, Any], message: httpx.Request | httpx.Response
    ) -> Iterator[Fault]:
        kind = _kind(message.headers)
        if not content:
            return
        documented = _documented(content, kind)
        if documented is None:
            yield Fault(f"{side} content type", "", f'"{kind}" is none of {", ".join(content)}')
            return
        if "schema" not in content[documented] or not _is_json(kind):
            return
        try:
            value = json.loads(message.content)
        except (ValueError, httpx.RequestNotRead, httpx.ResponseNotRead) as error:
            if isinstance(error, ValueError):
                yield Fault(f"{side} body", "", f"is no JSON: {error}")
            return
        schema = f"{pointer}/content/{_escaped(documented)}/schema"
        for fault in self._invalid({"$ref": f"urn:{side}s#{quote(schema)}"}, value, ""):
            yield Fault(f"{side} body", fault.where, fault.problem)

    def _invalid(self, schema: dict[str, Any], value: object, name: str) -> Iterator[Fault]:
        """What of ``value`` is not as ``schema`` says; without the values of what is secret."""
        validator = _validator(_Held(self.document), json.dumps(schema))
        for error in validator.iter_errors(value):
            path = [name, *error.instance_path]
            is_secret = any(isinstance(part, str) and self.scrubber.is_secret(part) for part in path)
            problem = f'breaks "{error.schema_path[-1]}"' if is_secret else _shortened(error.message)
            yield Fault("", _json_path(error.instance_path), problem)

    def _inline(self, schema: Mapping[str, Any], side: str) -> dict[str, Any]:
        """A schema of a parameter: they are small, and may be in components."""
        made = json.loads(json.dumps(schema).replace('"#/', f'"urn:{side}#/'))
        return dict(made)

    def _taken(self, schema: Mapping[str, Any], values: list[str]) -> tuple[object] | None:
        """The values of a parameter as ``schema`` types them; None for objects, whose styles are many."""
        told = self.document.resolved(schema)
        types = told.get("type", "string")
        kinds = [types] if isinstance(types, str) else list(types)
        if "object" in kinds:
            return None
        if "array" in kinds:
            parts = values if len(values) > 1 else values[0].split(",")
            kind = self.document.resolved(told.get("items", {})).get("type", "string")
            return ([_typed(part, [kind]) for part in parts],)
        return (_typed(values[0], kinds),)


class _Held:
    """A document as a key: by identity, since it is large."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def __hash__(self) -> int:
        return id(self.document)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.document is self.document


@lru_cache(maxsize=512)
def _validator(held: _Held, schema: str) -> Any:
    jsonschema = _jsonschema()
    try:
        return jsonschema.Draft202012Validator(json.loads(schema), registry=_registry(held), validate_formats=True)
    except (ValueError, jsonschema.ValidationError) as error:
        raise DocumentError(f"A schema in {held.document.name} is none: {error}") from None


@lru_cache(maxsize=8)
def _registry(held: _Held) -> Any:
    jsonschema = _jsonschema()
    parts = {"urn:requests": held.document.for_requests, "urn:responses": held.document.for_responses}
    return jsonschema.Registry(list(parts.items()))


def _jsonschema() -> Any:
    try:
        import jsonschema_rs
    except ImportError:
        raise DocumentError(
            "Checks against an OpenAPI document need jsonschema-rs, which is not installed: "
            "pip install 'asynctest_kit[openapi]'"
        ) from None
    return jsonschema_rs


def _kind(headers: httpx.Headers) -> str:
    """What a body is, without parameters; empty if that isn't said."""
    return str(headers.get("content-type", "")).partition(";")[0].strip().lower()


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_OF_A_PROBLEM else f"{text[:_MOST_OF_A_PROBLEM]}…"


def _is_json(kind: str) -> bool:
    return kind.endswith(("/json", "+json"))


def _documented(content: Mapping[str, Any], kind: str) -> str | None:
    """The key of ``content`` under which a media type falls, the most exact first."""
    known = {key.partition(";")[0].strip().lower(): key for key in content}
    for one in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if one in known:
            return known[one]
    return None


def _is_empty(request: httpx.Request) -> bool:
    try:
        return not request.content
    except httpx.RequestNotRead:
        return False


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        found[name].append(value)
    return dict(found)


def _cookies(request: httpx.Request) -> Iterator[tuple[str, str]]:
    for one in request.headers.get("cookie", "").split(";"):
        name, equals, value = one.strip().partition("=")
        if equals:
            yield name, value


def _typed(text: str, kinds: list[str]) -> object:
    """A text as the first of the JSON types that it can be; the text itself if it is none of them."""
    for kind in kinds:
        if kind == "boolean" and text in ("true", "false"):
            return text == "true"
        if kind == "null" and not text:
            return None
        if kind in ("integer", "number"):
            try:
                return float(text) if kind == "number" else int(text)
            except ValueError:
                continue
    return text


def _json_path(path: list[str | int]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "$" + "".join(parts)


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
