"""MockServer's own words: expectations, and its log.

An expectation has the lease in a condition on the header; from MockServer 8 on also as its namespace, by which the
server leaves others' expectations out before it compares anything. What no expectation of a lease matches, one of ours
answers, so that it is known.
"""

from __future__ import annotations

import asyncio
import base64
import json as json_module
import re
import uuid
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

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

    from asynctest_kit.http.stub_products import BrokenAnswer, Lease, Reply, Wanted
    from asynctest_kit.provision.service import Endpoint

__all__ = ["MockServer"]

#: A failure is shown where the test asked.
__tracebackhide__ = True

#: The first version with namespaces.
_NAMESPACES_SINCE: Final = 8

#: Of what answers what nothing else does, and of the run's expectations: below all of tests'.
_LOWEST: Final = -1_000_000
_BELOW: Final = 1000

#: In the answer to a request that nothing matched; on the mark of a run.
_UNMATCHED: Final = "X-Atk-Unmatched"
_MARK: Final = "/asynctest_kit/"

#: What is sent before the connection is closed.
_BROKEN: Final[dict[BrokenAnswer, bytes]] = {
    "CONNECTION_RESET_BY_PEER": b"",
    "EMPTY_RESPONSE": b"",
    "MALFORMED_RESPONSE_CHUNK": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
    "RANDOM_DATA_THEN_CLOSE": bytes(range(128, 256)),
}

#: Its log's words for answers, whoever gave them.
_ANSWERS: Final = ("EXPECTATION_RESPONSE", "FORWARDED_REQUEST", "NO_MATCH_RESPONSE")

_GOOD: Final = range(200, 300)

_NAMES: Final = {"queryStringParameters": "query"}


class MockServer(Product):
    """See :class:`~asynctest_kit.http.stub_products.Product`."""

    title = "MockServer"
    header = "X-MockServer-Namespace"

    def __init__(self, server: Endpoint, header: str | None = None) -> None:
        super().__init__(server, header)
        self._has_namespaces = False
        self._order = count(1)

    async def open(self, run: str, process: Mapping[str, Any]) -> None:
        """Ask for its version, and mark the run's process on an expectation that answers nothing."""
        version = str((await self.admin.call("PUT", "/mockserver/status")).get("version", ""))
        major = version.partition(".")[0]
        is_usual = self.header == MockServer.header  # the server looks for namespaces there
        self._has_namespaces = is_usual and major.isdigit() and int(major) >= _NAMESPACES_SINCE
        mark = {
            "id": f"{run}.mark",
            "httpRequest": {"path": f"{_MARK}{run}"},
            "httpResponse": {"statusCode": 204, "body": json_module.dumps(process)},
        }
        await self.add([mark])

    async def marks(self) -> dict[str, Mapping[str, Any]]:
        """The processes of runs."""
        marks = {}
        for one in await self._retrieve("ACTIVE_EXPECTATIONS", {"path": f"{_MARK}.*"}):
            path = str(one.get("httpRequest", {}).get("path", ""))
            if path.startswith(_MARK):
                body = one["httpResponse"]["body"]
                marks[path.removeprefix(_MARK)] = json_module.loads(body) if isinstance(body, str) else body
        return marks

    async def forget(self, run: str) -> None:
        """Remove a run's expectations and requests; the mark last, so that what is left is found again."""
        await self._clear(f"{re.escape(run)}\\..*")
        ids = [one["id"] for one in await self._retrieve("ACTIVE_EXPECTATIONS", {})]
        for one in sorted((one for one in ids if one.startswith(f"{run}.")), key=lambda one: one.endswith(".mark")):
            await self.admin.status("PUT", "/mockserver/clear?type=EXPECTATIONS", {"id": one})  # or it is gone

    def read(self, file: Path) -> list[dict[str, Any]]:
        """One expectation, or a list."""
        try:
            content = json_module.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StubFileError(f"There is no file {file} of MockServer's expectations.") from None
        except (ValueError, OSError) as error:
            raise StubFileError(f"{file} is no file of MockServer's expectations: {error}") from None
        stubs = content if isinstance(content, list) else [content]
        for stub in stubs:
            if not isinstance(stub, dict) or not isinstance(stub.get("httpRequest"), dict):
                raise StubFileError(f"{file}: an expectation without httpRequest can't be told apart for each test.")
        return stubs

    def files(self, folder: Path) -> list[Path]:
        """Those in it."""
        return sorted(folder.rglob("*.json"))

    def has_state(self, stub: Mapping[str, Any]) -> bool:
        """Whether it is a part of a scenario, or answers so many times only."""
        return "scenarioName" in stub or not stub.get("times", {}).get("unlimited", True)

    def made(self, wanted: Wanted, reply: Reply) -> dict[str, Any]:
        """An expectation."""
        delay = {"delay": {"timeUnit": "MILLISECONDS", "value": round(reply.delay * 1000)}} if reply.delay else {}
        made: dict[str, Any] = {"httpRequest": self.pattern(wanted)}
        if reply.fault is not None:
            said = base64.b64encode(_BROKEN[reply.fault]).decode()
            made["httpError"] = {"dropConnection": True, **({"responseBytes": said} if said else {}), **delay}
        else:
            headers = {name: [value] for name, value in reply.headers.items()}
            body = {} if reply.body is None else {"body": reply.body}
            made["httpResponse"] = {"statusCode": reply.status, "headers": headers, **body, **delay}
        if reply.times is not None:
            made["times"] = {"remainingTimes": reply.times, "unlimited": False}
        keys = ("scenarioName", "scenarioState", "newScenarioState")
        made["priority"] = next(self._order)  # of equals MockServer takes the oldest
        return made | {key: value for key, value in zip(keys, reply.scenario, strict=True) if value is not None}

    def pattern(self, wanted: Wanted) -> dict[str, Any]:
        """A request matcher, in which methods and paths are regular expressions, too."""
        found: dict[str, Any] = {} if wanted.method in (None, "ANY") else {"method": str(wanted.method).upper()}
        if isinstance(wanted.path, re.Pattern):
            found["path"] = wanted.path.pattern
        elif wanted.path is not None:
            found["path"] = re.sub(r"\{[^{}]*\}", "[^/]+", wanted.path)
        for key, values in (("queryStringParameters", wanted.query), ("headers", wanted.headers)):
            if values:
                found[key] = {name: [value] for name, value in values.items()}
        if wanted.json is not NOT_GIVEN:
            found["body"] = {"type": "JSON", "json": wanted.json, "matchType": "ONLY_MATCHING_FIELDS"}
        return found

    def conditions(self, pattern: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Each key alone, but parameters of a path with it."""
        alone = {_NAMES.get(key, key): {key: value} for key, value in pattern.items() if key != "pathParameters"}
        if "pathParameters" in pattern and "path" in pattern:
            alone["path"] = {"path": pattern["path"], "pathParameters": pattern["pathParameters"]}
        return alone

    def of_run(self, stub: Mapping[str, Any], run: str) -> dict[str, Any]:
        """Below what tests have."""
        return {**stub, "id": f"{run}.{uuid.uuid4()}", "priority": stub.get("priority", 0) - _BELOW}

    def of_lease(self, stub: Mapping[str, Any], lease: Lease) -> tuple[dict[str, Any], Stub]:
        """With the lease in the header, in the namespace and in the name of the scenario."""
        pattern = stub.get("httpRequest")
        if not isinstance(pattern, dict):
            raise StubServerError("An expectation without httpRequest can't be told apart for each test.")
        made = {**stub, "id": f"{lease.id}.{uuid.uuid4()}", "httpRequest": self._of(lease.id, pattern)}
        if self._has_namespaces:
            made["namespace"] = lease.id
        if "scenarioName" in stub:
            made["scenarioName"] = f"{lease.id}.{stub['scenarioName']}"
        return made, Stub(id=made["id"], told=_told(pattern), pattern=pattern, made=made)

    async def begin(self, lease: Lease) -> None:
        """Have what nothing else matches answered, and known by its answer."""
        answer = {"statusCode": 404, "headers": {_UNMATCHED: ["1"]}, "body": f"No expectation of {lease.test} matches."}
        made, _ = self.of_lease({"httpRequest": {}, "httpResponse": answer, "priority": _LOWEST}, lease)
        await self.add([made])

    async def add(self, stubs: Sequence[Mapping[str, Any]]) -> None:
        """Put them there."""
        await self.admin.call("PUT", "/mockserver/expectation", list(stubs))

    async def find(self, lease: str, pattern: Mapping[str, Any]) -> list[Received]:
        """Look into the log."""
        return [self._received(one) for one in await self._retrieve("REQUESTS", self._of(lease, pattern))]

    async def unmatched(self, leases: Sequence[str]) -> dict[str, list[Received]]:
        """Look into the log for our own answer."""
        found: dict[str, list[Received]] = {lease: [] for lease in leases}
        for one in await self._retrieve("REQUEST_RESPONSES", self._of(_any(leases), {})):
            answer, request = one.get("httpResponse", {}), one["httpRequest"]
            if _header(answer, _UNMATCHED) and (lease := _header(request, self.header)) in found:
                found[lease].append(self._received(request))
        return found

    async def end(self, leases: Mapping[str, Sequence[Stub]]) -> dict[str, Closed]:
        """Ask which expectations were met, then remove them and the requests."""
        expression = _any(tuple(leases))
        closed = {lease: Closed(set(), []) for lease in leases}
        if any(leases.values()):
            for one in await self._retrieve("REQUESTS", self._of(expression, {})):
                if (lease := _header(one, self.header)) in closed:
                    closed[lease].requests.append(self._received(one))

        async def see(lease: str, stub: Stub, before: Sequence[Stub]) -> None:
            if closed[lease].requests and await self._is_called(lease, stub, before):
                closed[lease].called.add(stub.id)

        ordered = {lease: _in_order(stubs) for lease, stubs in leases.items()}
        each = [(lease, one, stubs[:place]) for lease, stubs in ordered.items() for place, one in enumerate(stubs)]
        await asyncio.gather(*(see(*one) for one in each))
        await self._clear(expression)
        return closed

    async def _is_called(self, lease: str, stub: Stub, before: Sequence[Stub]) -> bool:
        """Whether it answers a request: one that another one answers, and that it matches too, doesn't count."""
        if await self._is_verified({"expectationId": {"id": stub.id}}):
            return True
        matcher = self._of(lease, stub.pattern)
        if not await self._is_verified({"httpRequest": matcher}):
            return False
        # Another one answered, or its own answer is still to come, or it has answered so often that it is forgotten.
        log = await self._retrieve("LOGS", matcher, "LOG_ENTRIES")
        if stub.id in {one.get("expectationId") or one.get("expectation", {}).get("id") for one in log}:
            return True
        types = [one["type"] for one in log]
        says_who = "EXPECTATION_MATCHED" in types  # not if its log has fewer levels
        is_to_come = types.count("RECEIVED_REQUEST") > sum(map(types.count, _ANSWERS))
        return not says_who and is_to_come and not await self._is_in_shadow(lease, stub, before)

    async def _is_in_shadow(self, lease: str, stub: Stub, before: Sequence[Stub]) -> bool:
        """Whether an answer that is still to come is not its own: it answers at once, and one before it doesn't."""
        slow = [one for one in before if _takes_time(one) and not self.has_state(one.made)]
        if not slow or _takes_time(stub):
            return False
        taken = [request for one in slow for request in await self.find(lease, one.pattern)]
        return all(request in taken for request in await self.find(lease, stub.pattern))

    async def _is_verified(self, what: Mapping[str, Any]) -> bool:
        asked = {**what, "times": {"atLeast": 1}}
        return await self.admin.status("PUT", "/mockserver/verify", asked) in _GOOD

    async def _retrieve(self, kind: str, matcher: Mapping[str, Any], form: str = "JSON") -> list[dict[str, Any]]:
        path = f"/mockserver/retrieve?type={kind}&format={form}"
        return await self.admin.call("PUT", path, matcher) or []

    async def _clear(self, expression: str) -> None:
        await self.admin.call("PUT", "/mockserver/clear?type=ALL", self._of(expression, {}))

    def _of(self, lease: str, pattern: Mapping[str, Any]) -> dict[str, Any]:
        """A matcher with a condition on the lease; headers are given by their names or one by one."""
        headers = pattern.get("headers", {})
        if isinstance(headers, list):
            headers = {one["name"]: one.get("values", []) for one in headers}
        return {**pattern, "headers": {**headers, self.header: [lease]}}

    def _received(self, request: Mapping[str, Any]) -> Received:
        # In one order, for the server keeps none.
        query = urlencode(sorted(request.get("queryStringParameters", {}).items()), doseq=True)
        headers = {name: ", ".join(values) for name, values in request.get("headers", {}).items()}
        return Received(
            method=request.get("method", ""),
            url=f"{request.get('path', '')}{'?' if query else ''}{query}",
            headers=headers_but(self.header, headers),
            body=_content(request.get("body")),
        )


def _told(pattern: Mapping[str, Any]) -> str:
    """A stub for people."""
    more = [_NAMES.get(key, key) for key in pattern if key not in ("method", "path", "pathParameters")]
    told = f"{pattern.get('method', 'ANY')} {pattern.get('path', 'any path')}"
    return told + (f" with {', '.join(more)}" if more else "")


def _in_order(stubs: Sequence[Stub]) -> list[Stub]:
    """As the server asks them."""
    return sorted(stubs, key=lambda one: -one.made.get("priority", 0))


def _takes_time(stub: Stub) -> bool:
    return any(isinstance(part, dict) and "delay" in part for part in stub.made.values())


def _any(leases: Sequence[str]) -> str:
    return "|".join(map(re.escape, leases))


def _header(message: Mapping[str, Any], name: str) -> str:
    values = (value for key, value in message.get("headers", {}).items() if key.lower() == name.lower())
    return next(iter(next(values, [])), "")


def _content(body: Any) -> bytes:
    """A body as it came, where that is told; else what it says."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if "rawBytes" in body:
        return base64.b64decode(body["rawBytes"])
    if "base64Bytes" in body:
        return base64.b64decode(body["base64Bytes"])
    told = body.get("json", body.get("string", body))
    return (told if isinstance(told, str) else json_module.dumps(told)).encode()
