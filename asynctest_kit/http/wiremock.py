"""WireMock's own words: stub mappings, its journal, and what is removed by metadata.

A stub has the lease in a condition on the header and in its metadata, ``{"asynctest_kit": {"run", "lease", "test"}}``.
The name of a scenario has the lease before it.
"""

from __future__ import annotations

import base64
import json as json_module
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.http.stub_products import (
    NOT_GIVEN,
    Closed,
    Product,
    Received,
    Stub,
    StubFileError,
    StubServerError,
    headers_but,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from asynctest_kit.http.stub_products import Lease, Reply, Wanted

__all__ = ["WireMock"]

#: A failure is shown where the test asked.
__tracebackhide__ = True

_OURS: Final = "asynctest_kit"

#: WireMock's usual priority, of which 1 is the highest; the run's stubs are below all of tests' by so much.
_USUAL: Final = 5
_BELOW: Final = 1000

#: Keys of a pattern as people call them.
_NAMES: Final = {
    "url": "path", "urlPath": "path", "urlPattern": "path", "urlPathPattern": "path", "urlPathTemplate": "path",
    "queryParameters": "query", "bodyPatterns": "body", "formParameters": "form", "multipartPatterns": "parts",
    "basicAuthCredentials": "credentials",
}  # fmt: skip


class WireMock(Product):
    """See :class:`~asynctest_kit.http.stub_products.Product`."""

    title = "WireMock"
    header = "X-Atk-Lease"

    async def open(self, run: str, process: Mapping[str, Any]) -> None:
        """See that it remembers requests, and mark the run's process, on a stub that answers nothing."""
        if (await self.admin.call("GET", "/__admin/requests/unmatched")).get("requestJournalDisabled"):
            raise StubServerError(
                "WireMock keeps no journal of requests, so nobody could tell what was called and what wasn't answered. "
                "Start it without --no-request-journal."
            )
        pattern = {"urlPath": f"/{_OURS}", "headers": {self.header: {"absent": True}, "X-Atk-Mark": {"equalTo": run}}}
        mark = {"request": pattern, "response": {"status": 204}, "metadata": {_OURS: {"run": run, "process": process}}}
        await self.add([mark])

    async def marks(self) -> dict[str, Mapping[str, Any]]:
        """The processes of runs."""
        asked = {"matchesJsonPath": f"$.{_OURS}.process"}
        found = await self.admin.call("POST", "/__admin/mappings/find-by-metadata", asked)
        ours = [mapping["metadata"][_OURS] for mapping in found["mappings"]]
        return {one["run"]: one["process"] for one in ours}

    async def forget(self, run: str) -> None:
        """Remove a run's stubs and requests."""
        await self._remove("run", re.escape(run))
        await self._remove_requests(f"{re.escape(run)}\\..*")

    def read(self, file: Path) -> list[dict[str, Any]]:
        """One mapping, or ``{"mappings": [...]}``; bodies that are in files of their own are taken in."""
        try:
            content = json_module.loads(file.read_text(encoding="utf-8"))
            stubs = content.get("mappings", [content])
            return [_with_body(stub, file) for stub in stubs]
        except FileNotFoundError:
            raise StubFileError(f"There is no file {file} of WireMock's mappings.") from None
        except (ValueError, AttributeError, TypeError, OSError) as error:
            raise StubFileError(f"{file} is no file of WireMock's mappings: {error}") from None

    def files(self, folder: Path) -> list[Path]:
        """Those in its ``mappings``, or if it has none in it."""
        inner = folder / "mappings"
        return sorted((inner if inner.is_dir() else folder).rglob("*.json"))

    def has_state(self, stub: Mapping[str, Any]) -> bool:
        """Whether it is a part of a scenario."""
        return "scenarioName" in stub

    def made(self, wanted: Wanted, reply: Reply) -> dict[str, Any]:
        """A mapping."""
        if reply.times is not None:
            raise StubServerError("WireMock doesn't count a stub's answers: say scenario, state and next_state.")
        response: dict[str, Any] = {"status": reply.status, "headers": dict(reply.headers)}
        if reply.body is not None:
            response["body"] = reply.body
        if reply.delay:
            response["fixedDelayMilliseconds"] = round(reply.delay * 1000)
        if reply.fault is not None:
            response = {"fault": reply.fault} | {key: response[key] for key in response if key.startswith("fixed")}
        keys = ("scenarioName", "requiredScenarioState", "newScenarioState")
        states = {key: value for key, value in zip(keys, reply.scenario, strict=True) if value is not None}
        return {"request": self.pattern(wanted), "response": response, **states}

    def pattern(self, wanted: Wanted) -> dict[str, Any]:
        """A request pattern."""
        found: dict[str, Any] = {} if wanted.method is None else {"method": wanted.method.upper()}
        if isinstance(wanted.path, re.Pattern):
            found["urlPathPattern"] = wanted.path.pattern
        elif wanted.path is not None:
            found["urlPathTemplate" if "{" in wanted.path else "urlPath"] = wanted.path
        for key, values in (("queryParameters", wanted.query), ("headers", wanted.headers)):
            if values:
                found[key] = {name: {"equalTo": value} for name, value in values.items()}
        if wanted.json is not NOT_GIVEN:
            found["bodyPatterns"] = [{"equalToJson": wanted.json, "ignoreExtraElements": True}]
        return found

    def conditions(self, pattern: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Each key alone."""
        return {_NAMES.get(key, key): {key: value} for key, value in pattern.items()}

    def of_run(self, stub: Mapping[str, Any], run: str) -> dict[str, Any]:
        """Below what tests have."""
        return _fresh(stub) | {
            "metadata": {**stub.get("metadata", {}), _OURS: {"run": run}},
            "priority": stub.get("priority", _USUAL) + _BELOW,
        }

    def of_lease(self, stub: Mapping[str, Any], lease: Lease) -> tuple[dict[str, Any], Stub]:
        """With the lease in the header, in the metadata and in the name of the scenario."""
        pattern = dict(stub.get("request", {}))
        made = _fresh(stub)
        made["request"] = {**pattern, "headers": {**pattern.get("headers", {}), self.header: {"equalTo": lease.id}}}
        ours = {"run": lease.run, "lease": lease.id, "test": lease.test}
        made["metadata"] = {**stub.get("metadata", {}), _OURS: ours}
        if "scenarioName" in stub:
            made["scenarioName"] = f"{lease.id}.{stub['scenarioName']}"
        return made, Stub(id=made["id"], told=_told(pattern), pattern=pattern, made=made)

    async def begin(self, lease: Lease) -> None:
        """There is nothing to be done."""

    async def add(self, stubs: Sequence[Mapping[str, Any]]) -> None:
        """Import them."""
        how = {"duplicatePolicy": "OVERWRITE", "deleteAllNotInImport": False}
        await self.admin.call("POST", "/__admin/mappings/import", {"mappings": list(stubs), "importOptions": how})

    async def find(self, lease: str, pattern: Mapping[str, Any]) -> list[Received]:
        """Look into the journal."""
        headers = {**pattern.get("headers", {}), self.header: {"equalTo": lease}}
        found = await self.admin.call("POST", "/__admin/requests/find", {**pattern, "headers": headers})
        return [self._received(one) for one in found["requests"]]

    async def unmatched(self, leases: Sequence[str]) -> dict[str, list[Received]]:
        """Look into the journal."""
        found: dict[str, list[Received]] = {lease: [] for lease in leases}
        answer = await self.admin.call("GET", "/__admin/requests/unmatched")
        for one in reversed(answer["requests"]):
            if (lease := self._lease_of(one)) in found:
                found[lease].append(self._received(one))
        return found

    async def end(self, leases: Mapping[str, Sequence[Stub]]) -> dict[str, Closed]:
        """Remove stubs by their metadata, and requests by the header; those tell which stubs were called."""
        expression = "|".join(map(re.escape, leases))
        await self._remove("lease", expression)
        closed = {lease: Closed(set(), []) for lease in leases}
        for event in reversed(await self._remove_requests(expression)):
            if (lease := self._lease_of(event["request"])) in closed:
                closed[lease].requests.append(self._received(event["request"]))
                if event.get("wasMatched"):
                    closed[lease].called.add(event["stubMapping"]["id"])
        return closed

    async def _remove(self, key: str, expression: str) -> None:
        matching = {"matchesJsonPath": {"expression": f"$.{_OURS}.{key}", "matches": expression}}
        await self.admin.call("POST", "/__admin/mappings/remove-by-metadata", matching)

    async def _remove_requests(self, expression: str) -> list[dict[str, Any]]:
        matching = {"headers": {self.header: {"matches": expression}}}
        found = await self.admin.call("POST", "/__admin/requests/remove", matching)
        events: list[dict[str, Any]] = found["serveEvents"]
        return events

    def _lease_of(self, request: Mapping[str, Any]) -> str:
        values = (value for name, value in request["headers"].items() if name.lower() == self.header.lower())
        return _joined(next(values, ""))

    def _received(self, request: Mapping[str, Any]) -> Received:
        headers = {name: _joined(value) for name, value in request["headers"].items()}
        return Received(
            method=request["method"],
            url=request["url"],
            headers=headers_but(self.header, headers),
            body=base64.b64decode(request.get("bodyAsBase64", "")),
        )


def _told(pattern: Mapping[str, Any]) -> str:
    """A stub for people."""
    place = next((value for key, value in pattern.items() if _NAMES.get(key) == "path"), "any path")
    more = [_NAMES.get(key, key) for key in pattern if key != "method" and _NAMES.get(key) != "path"]
    return f"{pattern.get('method', 'ANY')} {place}" + (f" with {', '.join(more)}" if more else "")


def _joined(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _fresh(stub: Mapping[str, Any]) -> dict[str, Any]:
    """The stub with an id of its own, kept nowhere but in memory."""
    left = {key: value for key, value in stub.items() if key not in ("uuid", "persistent")}
    return left | {"id": str(uuid.uuid4())}


def _with_body(stub: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The stub with what is in its body's file, looked for in the next ``__files`` upwards.

    So nothing has to be put on the server's disk, where several runs would share it.

    Raises:
        StubFileError: The file is not there.
    """
    response = dict(stub.get("response", {}))
    name = response.pop("bodyFileName", None)
    if name is None:
        return dict(stub)
    folder = next((one / "__files" for one in file.absolute().parents if (one / "__files").is_dir()), None)
    body = None if folder is None else folder / name
    if body is None or not body.is_file():
        raise StubFileError(f"{file}: there is no {body or '__files beside it'} for its bodyFileName {name!r}.")
    content = body.read_bytes()
    try:
        response["body"] = content.decode()
    except UnicodeDecodeError:
        response["base64Body"] = base64.b64encode(content).decode()
    return {**stub, "response": response}
