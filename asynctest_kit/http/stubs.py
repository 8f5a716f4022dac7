"""The stubs of one test on a server that many tests share; see :mod:`asynctest_kit.http.stub_server`."""

from __future__ import annotations

import asyncio
import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from asynctest_kit.errors import AtkError
from asynctest_kit.http.stub_products import NOT_GIVEN, BrokenAnswer, Reply, StubServerError, Wanted
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence

    from asynctest_kit.http.faults import Proxy
    from asynctest_kit.http.stub_products import Closed, Lease, Product, Received, Stub
    from asynctest_kit.provision.service import Endpoint

__all__ = ["Stubs", "VerificationError"]

#: A failure is shown where the test asked.
__tracebackhide__ = True

#: Seconds between the first two looks for requests that are still to come; then twice as many, and so on.
_PAUSE: Final = 0.02

#: How many requests are listed.
_LISTED: Final = 20

#: How many of the nearest are shown, and of the differences of each.
_NEAREST: Final = 3
_DIFFERENCES: Final = 5


class VerificationError(AtkError, AssertionError):
    """The requests are not those that were expected."""


class Stubs:
    """The stubs of one test, and what came to them.

    Attributes:
        url: The base URL for the code under test: the root of a port that is the test's own.
        headers: For code that can't use that URL: what each of its requests to the server itself must have.
        server: The server itself.
        port: The port, on which faults may be made: ``async with wiremock.port.latency(0.2)``.
    """

    def __init__(self, product: Product, lease: Lease, *, server: Endpoint, port: Proxy, fixture: str) -> None:
        self.server = server
        self.port = port
        self.url = port.url
        self.headers = {product.header: lease.id}
        self.known: dict[str, Stub] = {}
        self._product = product
        self._lease = lease
        self._fixture = fixture
        self._optional: set[str] = set()
        self._all_optional = False
        self._allowed: list[str] = []

    async def stub(  # noqa: PLR0913  # what a request and its answer have
        self,
        method: str,
        path: str | re.Pattern[str],
        *,
        query: Mapping[str, str] | None = None,
        request_headers: Mapping[str, str] | None = None,
        request_json: Any = NOT_GIVEN,
        status: int = 200,
        json: Any = NOT_GIVEN,
        text: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        fault: BrokenAnswer | None = None,
        times: int | None = None,
        scenario: str | None = None,
        state: str | None = None,
        next_state: str | None = None,
        optional: bool = False,
    ) -> Stub:
        """Answer requests of this test. Of several stubs that match, the newest does.

        Args:
            method: The method, or ``ANY``.
            path: The path, ``{name}`` in it for any one part; or a compiled regular expression that all of it matches.
            query: Parameters that it must have.
            request_headers: Headers that it must have.
            request_json: What its body must be; more keys than these may be there.
            status: The answer's status.
            json: The answer's body, as JSON.
            text: The answer's body, as text.
            headers: The answer's headers.
            delay: Seconds until it comes.
            fault: What becomes of the connection instead.
            times: How often it is answered so; MockServer's alone.
            scenario: A state machine of this test's by its name, ``Started`` at first.
            state: The state in which this stub answers.
            next_state: The state afterwards.
            optional: Whether it may go without a call.

        Raises:
            StubServerError: The server refuses it.
        """
        if fault is not None and fault not in get_args(BrokenAnswer):
            raise StubServerError(f"fault={fault!r} is none. Allowed: {', '.join(get_args(BrokenAnswer))}.")
        if json is not NOT_GIVEN and text is not None:
            raise StubServerError(f"{self._fixture}.stub({method!r}, ...) has json and text: an answer has one body.")
        given = dict(headers or {})
        if json is not NOT_GIVEN:
            text = json_module.dumps(json)
            if "content-type" not in {name.lower() for name in given}:
                given["Content-Type"] = "application/json"
        wanted = _wanted(method, path, query, request_headers, request_json)
        states = (scenario, state, next_state)
        reply = Reply(status=status, headers=given, body=text, delay=delay, fault=fault, times=times, scenario=states)
        (added,) = await self.add(self._product.made(wanted, reply))
        stub = self.known[added.id] = replace(added, wanted=wanted)
        if optional:
            self.optional(stub)
        return stub

    async def add(self, *stubs: Mapping[str, Any]) -> list[Stub]:
        """Put stubs on the server in the product's own JSON, all at once. They are this test's alone.

        Raises:
            StubServerError: The server refuses one.
        """
        bound = [self._product.of_lease(stub, self._lease) for stub in stubs]
        if bound:
            # Cut short, they might be there after all that is the test's has been removed.
            await to_its_end(self._product.add([made for made, _ in bound]))
            self.known |= {stub.id: stub for _, stub in bound}
        return [stub for _, stub in bound]

    async def load(self, *files: str | Path) -> list[Stub]:
        """Put those in files of the product's own JSON on the server; each may go without a call.

        Raises:
            StubFileError: A file isn't there, or is none.
            StubServerError: The server refuses one.
        """
        stubs = [stub for file in files for stub in self._product.read(Path(file))]
        loaded = await self.add(*stubs)
        self._optional |= {stub.id for stub in loaded}
        return loaded

    def optional(self, *stubs: Stub) -> None:
        """Let ``stubs``, or all if none is given, go without a call."""
        self._optional |= {stub.id for stub in stubs}
        self._all_optional = self._all_optional or not stubs

    def allow_unmatched(self, *paths: str) -> None:
        """Let requests whose paths begin with one of ``paths``, or all if none is given, go without a stub."""
        self._allowed += paths or ("",)

    async def requests(
        self,
        method: str | None = None,
        path: str | re.Pattern[str] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = NOT_GIVEN,
    ) -> list[Received]:
        """This test's requests so far that match, the first one first."""
        return await self._find(self._product.pattern(_wanted(method, path, query, headers, json)))

    async def verify(  # noqa: PLR0913  # what a request has
        self,
        method: str | None = None,
        path: str | re.Pattern[str] | None = None,
        *,
        count: int | None = None,
        within: float = 0.0,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = NOT_GIVEN,
    ) -> list[Received]:
        """Make sure that this test made such requests: ``count`` of them, or at least one. They are the result.

        Args:
            method: Their method; None for any.
            path: Their path, as in :meth:`stub`; None for any.
            count: How many.
            within: Seconds in which they may still come; with ``count=0`` those in which none may.
            query: Parameters that they have.
            headers: Headers that they have.
            json: What their body is; more keys than these may be there.

        Raises:
            VerificationError: It didn't; with those that come nearest.
        """
        wanted = _wanted(method, path, query, headers, json)
        pattern, clock, pause = self._product.pattern(wanted), asyncio.get_running_loop().time, _PAUSE
        deadline = clock() + within
        while True:
            found = await self._find(pattern)
            left = deadline - clock()
            if _enough(found, count) and (count != 0 or left <= 0):
                return found
            if left <= 0 or (count is not None and len(found) > count):
                raise VerificationError(await self._not_verified(wanted, found, count))
            await asyncio.sleep(min(pause, left))  # nothing tells of a request
            pause *= 2

    async def told_unmatched(self, unmatched: Sequence[Received]) -> str:
        """What nothing answered, in words; empty if that was allowed."""
        amiss = [one for one in unmatched if not one.path.startswith(tuple(self._allowed))]
        if not amiss:
            return ""
        stubs = list(self.known.values())
        differences = await self._differences([stub.pattern for stub in stubs])
        lines = []
        for one in amiss[:_LISTED]:
            lines.append(f"{self._lease.test} called {one.told()}, which nothing mocks on {self._product.title}.")
            nearest = sorted(zip(stubs, differences, strict=True), key=lambda pair: len(pair[1](one)))
            lines += ["Nearest stubs:"] if nearest else ["There are no stubs of this test."]
            told = dict.fromkeys(_near(stub.told, stub.wanted, one, differs(one)) for stub, differs in nearest)
            lines += list(told)[:_NEAREST]
        lines += [f"And {len(amiss) - _LISTED} more."] if len(amiss) > _LISTED else []
        first = amiss[0]
        lines.append(
            f'Answer it with {self._fixture}.stub("{first.method}", "{first.path}", ...), or let it go unanswered with'
            f' {self._fixture}.allow_unmatched("{first.path}").'
        )
        return "\n".join(lines)

    def told_uncalled(self, closed: Closed) -> str:
        """Which stubs nothing called, in words; empty if none must have been."""
        missing = [stub for stub in self.known.values() if not self._may_be_missing(stub, closed.called)]
        if not missing:
            return ""
        lines = [f"{self._lease.test} mocked what nothing called:", *[f"  {stub.told}" for stub in missing]]
        lines += ["It called:", *_listed(closed.requests)] if closed.requests else ["It called nothing."]
        lines.append(f"A stub that may go without a call is told to {self._fixture}.optional(stub).")
        return "\n".join(lines)

    def _may_be_missing(self, stub: Stub, called: set[str]) -> bool:
        return self._all_optional or stub.id in called or stub.id in self._optional

    async def _find(self, pattern: Mapping[str, Any]) -> list[Received]:
        return await self._product.find(self._lease.id, pattern)

    async def _not_verified(self, wanted: Wanted, found: Sequence[Received], count: int | None) -> str:
        pattern = self._product.pattern(wanted)
        others = [one for one in await self._find({}) if one not in found]
        (differs,) = await self._differences([pattern])
        asked = "at least once" if count is None else _times(count)
        more = [name for name in self._product.conditions(pattern) if name not in ("method", "path")]
        by = f" with this {' and '.join(more)}" if more else ""
        lines = [f"{self._lease.test} expected {wanted}{by} to be called {asked}; it was {_times(len(found))}."]
        lines += ["These were:", *_listed(found)] if found else []
        if others:
            nearest = sorted(others, key=lambda one: len(differs(one)))[:_NEAREST]
            lines += ["Nearest requests:", *[_near(one.told(), wanted, one, differs(one)) for one in nearest]]
        elif not found:
            lines.append("It called nothing.")
        return "\n".join(lines)

    async def _differences(self, patterns: Sequence[Mapping[str, Any]]) -> list[Callable[[Received], list[str]]]:
        """For each pattern what tells which of its conditions a request doesn't meet; the server says."""
        conditions = [self._product.conditions(pattern) for pattern in patterns]
        keys = {json_module.dumps(one): one for each in conditions for one in each.values()}
        found = await asyncio.gather(*(self._find(one) for one in keys.values()))
        met = dict(zip(keys, found, strict=True))

        def differs_of(each: Mapping[str, Any]) -> Callable[[Received], list[str]]:
            return lambda request: [name for name, one in each.items() if request not in met[json_module.dumps(one)]]

        return [differs_of(each) for each in conditions]


def _differing(names: Sequence[str]) -> str:
    if names:
        return f"differs in: {', '.join(names)}"
    return "differs in nothing: it was made later, or its scenario or its number of answers didn't allow it"


def _near(what: str, wanted: Wanted | None, received: Received, names: Sequence[str]) -> str:
    """What comes near, and what differs of what."""
    found = [*wanted.differences(received, names)] if wanted is not None else []
    more = [f"    and {len(found) - _DIFFERENCES} more"] if len(found) > _DIFFERENCES else []
    return "\n".join([f"  {what}  {_differing(names)}", *(f"    {one}" for one in found[:_DIFFERENCES]), *more])


def _listed(requests: Sequence[Received]) -> list[str]:
    more = len(requests) - _LISTED
    return [f"  {one.told()}" for one in requests[:_LISTED]] + ([f"  and {more} more"] if more > 0 else [])


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _enough(found: Sequence[Received], count: int | None) -> bool:
    return bool(found) if count is None else len(found) == count


def _wanted(
    method: str | None,
    path: str | re.Pattern[str] | None,
    query: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    json: Any,
) -> Wanted:
    if isinstance(path, str) and (not path.startswith("/") or "?" in path):
        raise StubServerError(
            f"{path!r} is no path: one begins with / and has no query, which is told by query={{...}}."
        )
    return Wanted(method=method, path=path, query=query or {}, headers=headers or {}, json=json)
