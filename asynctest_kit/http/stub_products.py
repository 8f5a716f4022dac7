"""What a server of stubs is to us: what it calls things, and how it is asked."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx

from asynctest_kit.errors import AtkError
from asynctest_kit.http.matching import MISSING, differences
from asynctest_kit.http.responses import told_difference
from asynctest_kit.http.scrubbing import Scrubber
from asynctest_kit.provision.readiness import Address
from asynctest_kit.provision.readiness.admin import ask

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from asynctest_kit.provision.readiness.admin import Answer
    from asynctest_kit.provision.service import Endpoint

__all__ = [
    "NOT_GIVEN",
    "Admin",
    "BrokenAnswer",
    "Closed",
    "Lease",
    "Product",
    "Received",
    "Reply",
    "Stub",
    "StubFileError",
    "StubServerError",
    "Wanted",
    "headers_but",
]

#: A failure is shown where the test asked.
__tracebackhide__ = True

#: Seconds for the server to answer, under whatever load.
_PATIENCE: Final = 60.0

#: Calls to the server's admin API at once.
_AT_ONCE: Final = 16

#: Characters of a body that are shown, and of a refusal.
_SHOWN: Final = 300
_REFUSAL: Final = 2000

#: Where JSON may be null.
NOT_GIVEN: Final = object()

#: What may become of a connection instead of an answer.
BrokenAnswer = Literal[
    "CONNECTION_RESET_BY_PEER", "EMPTY_RESPONSE", "MALFORMED_RESPONSE_CHUNK", "RANDOM_DATA_THEN_CLOSE"
]


class StubServerError(AtkError):
    """The server did not do what it was asked."""


class StubFileError(AtkError):
    """A file of stubs is not there, or is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request that came to the server.

    Attributes:
        method: Its method.
        url: Path and query.
        headers: Its headers, by their names in any case, without ours; of several the values joined by commas.
        body: Its body.
    """

    method: str
    url: str
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """The URL without its query."""
        return urlsplit(self.url).path

    @property
    def query(self) -> dict[str, str]:
        """The parameters of its query; of several with a name the last."""
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON; raises ValueError if it is none."""
        return json.loads(self.body)

    def told(self) -> str:
        """It, and the beginning of its body, for people: without secrets."""
        scrubber = Scrubber()
        line = f"{self.method} {scrubber.shown(httpx.URL(self.url))}"
        if not self.body:
            return line
        kind = self.headers.get("content-type", "")
        (body,) = scrubber.body(self.body, kind).values()
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        return f"{line}  {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"


def headers_but(ours: str, headers: Mapping[str, str]) -> httpx.Headers:
    """Those of a request that the code under test has set."""
    return httpx.Headers({name: value for name, value in headers.items() if name.lower() != ours.lower()}, "utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which requests are meant, in no product's own words; ``json`` is :data:`NOT_GIVEN` for any body."""

    method: str | None
    path: str | re.Pattern[str] | None
    query: Mapping[str, str]
    headers: Mapping[str, str]
    json: Any = NOT_GIVEN

    def differences(self, received: Received, names: Collection[str]) -> Iterator[str]:
        """What of ``received`` is not as wanted, in words without secrets.

        Args:
            received: What came.
            names: Of what the server says that it differs: ``query``, ``headers``, ``body``.
        """
        scrubber = Scrubber()
        came = {name.lower(): value for name, value in received.headers.items()}
        if "query" in names:
            yield from _of_pairs("query", self.query, received.query, scrubber)
        if "headers" in names:
            yield from _of_pairs(
                "header", self.headers, {name: came.get(name.lower()) for name in self.headers}, scrubber
            )
        if "body" in names and self.json is not NOT_GIVEN:
            try:
                body = received.json()
            except ValueError:
                yield "body: it is no JSON" if received.body else "body: there is none"
                return
            yield from (f"body {one.place}: {told_difference(one, scrubber)}" for one in differences(self.json, body))

    def __str__(self) -> str:
        path = self.path if self.path is None or isinstance(self.path, str) else self.path.pattern
        return f"{self.method or 'any method'} {path or 'any path'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a stub answers, in no product's own words.

    Attributes:
        status: The status.
        headers: The headers.
        body: The body.
        delay: Seconds until it comes.
        fault: What becomes of the connection instead.
        times: How often it is given; None for always.
        scenario: A scenario's name, the state that the stub needs in it and the one that it leads to.
    """

    status: int
    headers: Mapping[str, str]
    body: str | None
    delay: float
    fault: BrokenAnswer | None
    times: int | None
    scenario: tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """A stub of a test's.

    Attributes:
        id: What the server knows it by.
        told: For people.
        pattern: Which requests it answers, in the product's words.
        wanted: The same in no product's, if it was made so.
        made: All of it, as it was sent.
    """

    id: str
    told: str
    pattern: Mapping[str, Any] = field(repr=False)
    wanted: Wanted | None = field(default=None, repr=False)
    made: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Lease:
    """Whose stubs and requests; ``id`` is in the header of its requests."""

    id: str
    run: str
    test: str


class Closed(NamedTuple):
    """What there was of a lease: the ids of the stubs that were called, and all requests, the first one first."""

    called: set[str]
    requests: list[Received]


def _of_pairs(
    kind: str, wanted: Mapping[str, str], came: Mapping[str, str | None], scrubber: Scrubber
) -> Iterator[str]:
    for name, value in wanted.items():
        received = came.get(name)
        for one in differences(value, MISSING if received is None else received):
            yield f"{kind} {name}: {told_difference(one, scrubber, hides=scrubber.is_secret(name))}"


class Admin:
    """The admin API of a server.

    Args:
        server: Where it is.
        title: What people call it.
    """

    def __init__(self, server: Endpoint, title: str) -> None:
        self._address = Address.of(server)
        self._title = title
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._place = server.safe_url

    async def call(self, method: str, path: str, content: Any = None) -> Any:
        """What the server answers, parsed; None for nothing.

        Raises:
            StubServerError: It doesn't, or refuses.
        """
        answer = await self._ask(method, path, content)
        if answer.status not in range(200, 300):
            why = answer.body.decode()[:_REFUSAL]
            raise StubServerError(f"{self._title} refused {method} {path} with {answer.told}:\n{why}")
        return json.loads(answer.body) if answer.body.strip() else None

    async def status(self, method: str, path: str, content: Any) -> int:
        """The status with which the server answers.

        Raises:
            StubServerError: It doesn't answer.
        """
        return (await self._ask(method, path, content)).status

    async def _ask(self, method: str, path: str, content: Any) -> Answer:
        body = b"" if content is None else json.dumps(content).encode()
        try:
            async with self._turns, asyncio.timeout(_PATIENCE):
                answer = await ask(self._address, method, path, body)
        except TimeoutError:
            raise StubServerError(f"{self._title} at {self._place} did not answer within {_PATIENCE:g} s.") from None
        except (OSError, EOFError) as error:
            raise StubServerError(f"{self._title} at {self._place} can't be reached: {error}.") from None
        return answer


class Product(ABC):
    """What one product calls things, and how it is asked.

    Args:
        server: Where it is.
        header: Another header for the lease's id.

    Attributes:
        title: What people call it.
        header: Of the header with the lease's id.
    """

    title: str
    header: str

    def __init__(self, server: Endpoint, header: str | None = None) -> None:
        self.header = header or type(self).header
        self.admin = Admin(server, self.title)

    @abstractmethod
    async def open(self, run: str, process: Mapping[str, Any]) -> None:
        """Get to know the server, and mark the run's process on it."""

    @abstractmethod
    async def marks(self) -> dict[str, Mapping[str, Any]]:
        """The processes of all runs that have marked theirs, by run."""

    @abstractmethod
    async def forget(self, run: str) -> None:
        """Remove all that a run has left, its mark too."""

    @abstractmethod
    def read(self, file: Path) -> list[dict[str, Any]]:
        """The stubs in a file.

        Raises:
            StubFileError: It is none.
        """

    @abstractmethod
    def files(self, folder: Path) -> list[Path]:
        """The files of stubs in a folder."""

    @abstractmethod
    def has_state(self, stub: Mapping[str, Any]) -> bool:
        """Whether what it answers depends on requests before, which must be one test's."""

    @abstractmethod
    def made(self, wanted: Wanted, reply: Reply) -> dict[str, Any]:
        """A stub.

        Raises:
            StubServerError: The product has nothing like it.
        """

    @abstractmethod
    def pattern(self, wanted: Wanted) -> dict[str, Any]:
        """Which requests are meant."""

    @abstractmethod
    def conditions(self, pattern: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """A pattern's conditions, each as a pattern of its own, by what people call them."""

    @abstractmethod
    def of_run(self, stub: Mapping[str, Any], run: str) -> dict[str, Any]:
        """The same for whoever calls during a run, below what tests have."""

    @abstractmethod
    def of_lease(self, stub: Mapping[str, Any], lease: Lease) -> tuple[dict[str, Any], Stub]:
        """The same for one lease."""

    @abstractmethod
    async def begin(self, lease: Lease) -> None:
        """Do what is to be done before any request of a lease."""

    @abstractmethod
    async def add(self, stubs: Sequence[Mapping[str, Any]]) -> None:
        """Put stubs on the server, all at once."""

    @abstractmethod
    async def find(self, lease: str, pattern: Mapping[str, Any]) -> list[Received]:
        """Which of a lease's requests match, the first one first."""

    @abstractmethod
    async def unmatched(self, leases: Sequence[str]) -> dict[str, list[Received]]:
        """The requests that nothing answered."""

    @abstractmethod
    async def end(self, leases: Mapping[str, Sequence[Stub]]) -> dict[str, Closed]:
        """Remove leases' stubs and requests."""
