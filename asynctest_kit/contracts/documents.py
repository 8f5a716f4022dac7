"""An OpenAPI document, read for its operations: what each takes, and what it may answer.

Versions 3.0 to 3.2. The schemas of 3.0 are made into JSON Schema of today, so that one validator serves all. One that
is spread over several files is made one: see :mod:`asynctest_kit.contracts.document_files`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from asynctest_kit.contracts.document_files import bundled, found_at
from asynctest_kit.contracts.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import httpx

    from asynctest_kit.http.client import Session

__all__ = [
    "Document",
    "Operation",
    "asked_for",
    "is_path_in_app",
    "parsed_document",
    "read_document",
    "resolved",
]

#: In the order in which documents have them.
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")

_OBJECT: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_OK: Final = 200
_PLACEHOLDER: Final = re.compile(r"\{[^{}]+\}")
_EXAMPLE: Final = '[tool.asynctest_kit.openapi] schema = "openapi.json"'


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: In capitals.
        path: With its placeholders.
        content: What the document says of it.
        parameters: Of the operation and of its path.
        pointer: Where it stands in the document, as a JSON pointer.
    """

    method: str
    path: str
    content: Mapping[str, Any]
    parameters: tuple[Mapping[str, Any], ...]
    pointer: str

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.method} {self.path}"

    @property
    def statuses(self) -> tuple[str, ...]:
        """Those that are documented, as the document has them: ``200``, ``4XX``, ``default``."""
        return tuple(str(status) for status in self.content.get("responses", {}))

    def status_for(self, status: int) -> str | None:
        """Under which of its statuses an answer falls; None if it is documented under none."""
        known = {one.upper(): one for one in self.statuses}
        for one in (str(status), f"{status // 100}XX", "DEFAULT"):
            if one in known:
                return known[one]
        return None


@dataclass(frozen=True)
class Document:
    """A document.

    Attributes:
        content: It, as JSON has it.
        name: What it is called in messages.
    """

    content: Mapping[str, Any] = field(repr=False)
    name: str

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All, in the document's order."""
        return tuple(self._operations())

    @cached_property
    def for_requests(self) -> dict[str, Any]:
        """The document with schemas that hold for requests, where nobody gives what is read only."""
        return {"$id": "urn:requests", **_converted(self.content, "readOnly", old=self._is_old)}

    @cached_property
    def for_responses(self) -> dict[str, Any]:
        """The document with schemas that hold for responses."""
        return {"$id": "urn:responses", **_converted(self.content, "writeOnly", old=self._is_old)}

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation that a request is for, with the path's parameters; None if there is none."""
        for operation, pattern in self._patterns:
            if operation.method != method.upper():
                continue
            for prefix in self._prefixes:
                found = pattern.fullmatch(path.removeprefix(prefix)) if path.startswith(prefix) else None
                if found:
                    names = [name[1:-1] for name in _PLACEHOLDER.findall(operation.path)]
                    return operation, dict(zip(names, found.groups(), strict=True))
        return None

    def resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """``value``, or what it refers to."""
        return resolved(self.content, value)

    def located(self, value: Mapping[str, Any], pointer: str) -> tuple[Mapping[str, Any], str]:
        """``value``, which is at ``pointer``, or what it refers to and where that is."""
        return located(self.content, value, pointer)

    @property
    def _is_old(self) -> bool:
        return str(self.content["openapi"]).startswith("3.0")

    @cached_property
    def _patterns(self) -> list[tuple[Operation, re.Pattern[str]]]:
        """Concrete paths come before those with placeholders."""
        ordered = sorted(self.operations, key=lambda one: len(_PLACEHOLDER.findall(one.path)))
        return [(one, re.compile(_pattern(one.path), re.DOTALL)) for one in ordered]

    @cached_property
    def _prefixes(self) -> tuple[str, ...]:
        """The paths of the servers, the longest first; requests may go without."""
        paths = {urlsplit(str(server.get("url", ""))).path.rstrip("/") for server in self.content.get("servers", ())}
        return tuple(sorted({*paths, ""}, key=len, reverse=True))

    def _operations(self) -> Iterator[Operation]:
        for path, item in self.content.get("paths", {}).items():
            shared, pointer = self.located(item, f"/paths/{path.replace('~', '~0').replace('/', '~1')}")
            for method in METHODS:
                if method in shared:
                    yield self._operation(path, method, shared, f"{pointer}/{method}")

    def _operation(self, path: str, method: str, item: Mapping[str, Any], pointer: str) -> Operation:
        content = item[method]
        given = [self.resolved(one) for one in (*item.get("parameters", ()), *content.get("parameters", ()))]
        parameters = {(one.get("in"), one.get("name")): one for one in given}
        return Operation(method.upper(), path, content, tuple(parameters.values()), pointer)


def is_path_in_app(location: str) -> bool:
    """Whether a document is to be asked of the app."""
    return location.startswith("/") or "://" in location


def read_document(location: str, root: Path) -> Document:
    """Read the document at ``location``: a file, relative to ``root``, or ``module:attribute``.

    Raises:
        DocumentError: There is none.
    """
    if not location:
        raise DocumentError(f"It isn't said where the OpenAPI document is. Say it in pyproject.toml: {_EXAMPLE}")
    if _OBJECT.fullmatch(location) and not (root / location).exists():
        return parsed_document(_imported(location), location)
    file = root / location
    return parsed_document(_text(file), location, file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"The OpenAPI document {file} can't be read: {error}") from None


async def asked_for(client: httpx.AsyncClient | Session, location: str, **options: Any) -> Document:
    """Ask the app for the document at the path ``location``.

    Raises:
        DocumentError: It has none there.
    """
    answer = await client.get(location, **options)
    if answer.status_code != _OK:
        raise DocumentError(f"The app has no OpenAPI document at {location}: it answers {answer.status_code}.")
    return parsed_document(answer.text, location)


def parsed_document(given: object, name: str, file: Path | None = None) -> Document:
    """The document in ``given``: its text, as JSON or YAML, or itself; a function is called for it.

    Args:
        given: It.
        name: What it is called in messages.
        file: Where it is, for references to others.

    Raises:
        DocumentError: It is none, of a version that isn't known here, or refers to what isn't there.
    """
    content = given() if callable(given) else given
    if isinstance(content, str | bytes):
        content = _loaded(content, name)
    if not isinstance(content, dict) or not isinstance(content.get("paths", {}), dict):
        raise DocumentError(f"{name} is no OpenAPI document: a table with openapi and paths was looked for.")
    if "swagger" in content:
        raise DocumentError(f"{name} is of Swagger {content['swagger']}. Convert it: known here is OpenAPI 3.0 to 3.2.")
    if not str(content.get("openapi", "")).startswith("3."):
        raise DocumentError(f"{name} is no OpenAPI document of a version known here, 3.0 to 3.2: it says none.")
    return Document(bundled(content, name, file, lambda other: _loaded(_text(other), str(other))), name)


def resolved(content: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """``value``, or what it refers to in ``content``.

    Raises:
        DocumentError: There is nothing.
    """
    return located(content, value, "")[0]


def located(content: Mapping[str, Any], value: Mapping[str, Any], pointer: str) -> tuple[Mapping[str, Any], str]:
    """``value``, which is at ``pointer`` in ``content``, or what it refers to and where that is.

    Raises:
        DocumentError: There is nothing.
    """
    seen = []
    while isinstance(value, dict) and isinstance(value.get("$ref"), str):
        reference = value["$ref"]
        if not reference.startswith("#/") or reference in seen:
            raise DocumentError(
                f'The reference "{reference}" in the OpenAPI document leads nowhere in it. Bundle it into one file.'
            )
        seen.append(reference)
        pointer = unquote(reference[1:])
        try:
            value = found_at(content, pointer)
        except KeyError:
            raise DocumentError(f'The reference "{reference}" in the OpenAPI document leads nowhere.') from None
    return value, pointer


def _imported(location: str) -> object:
    module, _, name = location.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise DocumentError(f"The OpenAPI document {location} can't be imported: {error}") from None
    return found


def _loaded(text: str | bytes, name: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        if not name.endswith((".yaml", ".yml")):
            raise DocumentError(f"The OpenAPI document {name} is no JSON: {error}") from None
    try:
        import yaml

        from asynctest_kit.contracts.yaml_text import loaded_yaml
    except ImportError:
        raise DocumentError(
            f"The OpenAPI document {name} is YAML, which needs pyyaml: pip install 'asynctest_kit[openapi]'"
        ) from None
    try:
        return loaded_yaml(text)
    except yaml.YAMLError as error:
        raise DocumentError(f"The OpenAPI document {name} is no YAML: {error}") from None


def _pattern(path: str) -> str:
    """A placeholder takes all but slashes."""
    fixed = [re.escape(part) for part in _PLACEHOLDER.split(path)]
    return "([^/]+)".join(fixed)


def _converted(value: Any, left_out: str, *, old: bool) -> Any:
    """``value`` with schemas as JSON Schema has them, in which properties that are ``left_out`` are not required."""
    if isinstance(value, list):
        return [_converted(one, left_out, old=old) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: _converted(one, left_out, old=old) for key, one in value.items()}
    properties, required = value.get("properties"), value.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        made["required"] = [name for name in required if not _is(properties.get(name), left_out)]
    return _modern(made) if old else made


def _is(schema: object, key: str) -> bool:
    return isinstance(schema, dict) and schema.get(key) is True


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI 3.0 in today's words: what may be null, and bounds that are not in."""
    if schema.pop("nullable", None) is True:
        if isinstance(schema.get("type"), str):
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema and None not in schema["enum"]:
                schema["enum"] = [*schema["enum"], None]
        else:
            schema = {"anyOf": [schema, {"type": "null"}]}
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if schema.get(strict) is True and bound in schema:
            schema[strict] = schema.pop(bound)
        elif isinstance(schema.get(strict), bool):
            del schema[strict]
    return schema
