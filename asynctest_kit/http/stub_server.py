"""One test's stubs on a server that many tests share.

Each test has a lease: a port of its own before the server (:mod:`asynctest_kit.http.lease_port`), which adds a header
with the lease's id to what comes by it. A stub of the test's answers requests with that id alone, so any number of
tests may have their own answers at one URL; and what the server remembers of a request is found by that id.

    lease     <- headers, url     what the code under test is given
    stubs     <- made with the id, removed with the lease
    requests  <- found by the id, removed with the lease

What is asked of the server at the end of leases is asked for all that end at about the same time together. What a run
leaves that was killed is removed by the next one: each run puts a mark on the server that says which process it is.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count as counting
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from asynctest_kit.errors import AtkError
from asynctest_kit.http.lease_port import open_lease_port
from asynctest_kit.http.stub_products import Lease
from asynctest_kit.http.stubs import Stubs
from asynctest_kit.provision.identity import Identity, proven_dead, this_process
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from asynctest_kit.http.stub_products import Closed, Product, Stub
    from asynctest_kit.provision.service import Endpoint

__all__ = ["Ended", "StubNotCalledError", "StubServer", "UnmockedRequestError", "open_stub_server"]

_K = TypeVar("_K")
_T = TypeVar("_T")


class UnmockedRequestError(AtkError, AssertionError):
    """Something called what no stub answers."""


class StubNotCalledError(AtkError, AssertionError):
    """Stubs that no request came to."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a lease, in words; both are empty if all went as it should."""

    unmatched: str
    uncalled: str

    def check(self) -> None:
        """Make sure that it went so.

        Raises:
            UnmockedRequestError: Something called what no stub answers.
            StubNotCalledError: A stub was not called.
        """
        if self.unmatched:
            raise UnmockedRequestError(self.unmatched)
        if self.uncalled:
            raise StubNotCalledError(self.uncalled)


class _Together(Generic[_K, _T]):
    """Does for many at once what each asks for: who asks while it is being done is in the next round."""

    def __init__(self, work: Callable[[list[_K]], Awaitable[Mapping[_K, _T]]]) -> None:
        self._work = work
        self._waiting: dict[_K, asyncio.Future[_T]] = {}
        self._is_wanted = asyncio.Event()

    async def run(self) -> None:
        """Do it, as often as it is asked for, until cancelled."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            await self._round()

    async def _round(self) -> None:
        waiting, self._waiting = self._waiting, {}
        try:
            done = await self._work(list(waiting))
        except Exception as error:  # noqa: BLE001  # it is for those who asked
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)
            return
        for key, future in waiting.items():
            if not future.done():
                future.set_result(done[key])

    async def ask(self, key: _K) -> _T:
        """What came of it for ``key``."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        self._is_wanted.set()
        return await future


class StubServer:
    """A server with the leases of one run; made by :func:`open_stub_server`.

    Attributes:
        server: Where it is.
        run: What all leases' ids begin with.
        title: What people call its kind.
        product: How it is asked.
    """

    def __init__(self, server: Endpoint, product: Product, *, fixture: str) -> None:
        self.server = server
        self.run = secrets.token_hex(8)
        self.title = product.title
        self.product = product
        self._fixture = fixture
        self._numbers = counting(1)
        self._stubs: dict[str, Sequence[Stub]] = {}
        self._of_each: list[dict[str, Any]] = []
        self._unmatched = _Together(product.unmatched)
        self._ends = _Together(self._end)

    async def work(self) -> None:
        """Do what leases ask for together, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._unmatched.run())
            group.create_task(self._ends.run())

    async def load(self, place: Path) -> None:
        """Put the stubs in a file or a folder on the server, for all leases; those that have state for each.

        Raises:
            StubFileError: A file is none.
            StubServerError: The server refuses one.
        """
        stubs = await asyncio.to_thread(self._read, place)
        self._of_each = [stub for stub in stubs if self.product.has_state(stub)]
        shared = [self.product.of_run(stub, self.run) for stub in stubs if not self.product.has_state(stub)]
        if shared:
            await self.product.add(shared)

    def _read(self, place: Path) -> list[dict[str, Any]]:
        files = self.product.files(place) if place.is_dir() else [place]
        return [stub for file in files for stub in self.product.read(file)]

    @asynccontextmanager
    async def lease(self, test: str) -> AsyncIterator[Stubs]:
        """Stubs of one test, removed at the end, however that comes.

        Raises:
            StubServerError: The server does not do as it is asked.
        """
        lease = Lease(f"{self.run}.{next(self._numbers)}", self.run, test)
        product = self.product
        self._stubs[lease.id] = ()
        try:
            await to_its_end(product.begin(lease))
            async with open_lease_port(self.server, product.header, lease.id) as port:
                stubs = Stubs(product, lease, server=self.server, port=port, fixture=self._fixture)
                if self._of_each:
                    stubs.optional(*await stubs.add(*self._of_each))
                yield stubs
        finally:
            if lease.id in self._stubs:
                await to_its_end(self._drop(lease.id))

    async def end(self, stubs: Stubs) -> Ended:
        """What became of a lease; its stubs and requests are removed."""
        lease = stubs.headers[self.product.header]
        unmatched = await self._unmatched.ask(lease)
        told_unmatched = await stubs.told_unmatched(unmatched)
        self._stubs[lease] = tuple(stubs.known.values())
        return Ended(told_unmatched, stubs.told_uncalled(await self._drop(lease)))

    async def _drop(self, lease: str) -> Closed:
        closed = await self._ends.ask(lease)
        self._stubs.pop(lease, None)
        return closed

    async def _end(self, leases: list[str]) -> dict[str, Closed]:
        return await self.product.end({lease: self._stubs.get(lease, ()) for lease in leases})


@asynccontextmanager
async def open_stub_server(
    server: Endpoint, product: Product, *, fixture: str, mappings: Path | None = None
) -> AsyncIterator[StubServer]:
    """The leases of one run, for as long as the block runs.

    Args:
        server: Where it is.
        product: What it is.
        fixture: What tests call it, for messages.
        mappings: A file or a folder with the stubs that all tests have.

    Raises:
        StubServerError: The server does not do as it is asked.
        StubFileError: A file of stubs is none.
    """
    opened = StubServer(server, product, fixture=fixture)
    await _sweep(product)
    try:
        await product.open(opened.run, msgspec.structs.asdict(this_process()))
        if mappings is not None:
            await opened.load(mappings)
        working = asyncio.ensure_future(opened.work())
        try:
            yield opened
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    finally:
        await to_its_end(product.forget(opened.run))


async def _sweep(product: Product) -> None:
    """Remove what runs have left that were killed."""
    for run, process in (await product.marks()).items():
        try:
            owner = msgspec.convert(process, Identity)
        except msgspec.ValidationError:
            continue
        if proven_dead(owner):
            await product.forget(run)
