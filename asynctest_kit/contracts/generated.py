"""Requests made from an OpenAPI document by schemathesis, sent to the app on our loop, and what they found.

Another process makes the cases of one operation after the other; here they are sent, all at once. Of the cases that
found the same fault of an operation the smallest is told; one that was made at random is made smaller first.
"""

from __future__ import annotations

import fnmatch
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
import msgspec

from asynctest_kit.contracts.case_messages import (
    Answer,
    Broken,
    Case,
    Fault,
    FromMaker,
    Judge,
    Judged,
    Made,
    Make,
    Read,
    Send,
    Smaller,
    Smallest,
    ToMaker,
)
from asynctest_kit.contracts.errors import DocumentError
from asynctest_kit.errors import AtkError, SettingsError
from asynctest_kit.http.own_frames import place_raised
from asynctest_kit.http.scrubbing import OF_TRANSFER, Scrubber, content_of
from asynctest_kit.http.sockets import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from asynctest_kit.contracts.documents import Document
    from asynctest_kit.settings.contracts import OpenApiSettings

__all__ = ["CaseMaker", "Finding", "GeneratedCases", "OpenApiFindings", "case_client", "check_installed"]

#: Lines of what a check says.
_MOST_LINES: Final = 16

#: Seconds for each step of a case.
_PATIENCE: Final = 60.0

_T = TypeVar("_T")

#: What a case is known by when it is made again: its place among those of its operation, and what is sent.
_Known: TypeAlias = tuple[int, tuple[str, str, tuple[tuple[str, str], ...], bytes]]


class _Gone(Exception):  # noqa: N818  # the word for it
    pass


class OpenApiFindings(AtkError, AssertionError):  # noqa: N818  # it is read in failures
    """What generated cases found.

    Attributes:
        findings: Each fault once.
    """

    def __init__(self, document: str, findings: Sequence[Finding], seed: int) -> None:
        super().__init__("\n\n".join([f"{document} is not kept to:", *(one.told(seed) for one in findings)]))
        self.findings = tuple(findings)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of an operation.

    Attributes:
        operation: Its method and path.
        check: The check of schemathesis that found it.
        title: What schemathesis calls it.
        message: What it says of it.
        curl: How to send the smallest case that shows it, without secrets.
        phase: How that was made.
        cases: So many showed it.
    """

    operation: str
    check: str
    title: str
    message: str
    curl: str
    phase: str
    cases: int

    def told(self, seed: int) -> str:
        """It, for people."""
        lines = [f"  {line}" for line in self.message.splitlines()[:_MOST_LINES]]
        again = f"--seed {seed} --include {shlex.quote(self.operation)}"
        count = f"{self.cases} case{'s' if self.cases > 1 else ''}, this one of phase {self.phase}; again with"
        return "\n".join(
            [f"{self.operation}: {self.title} ({self.check})", *lines, f"  {self.curl}", f"  {count} {again}"]
        )


class GeneratedCases:
    """The cases that a document gives rise to.

    Args:
        document: It.
        settings: Which, and how many.
        maker: The process that makes them, if it has been started already; it is ended by :meth:`close`.

    Raises:
        DocumentError: schemathesis is not installed.
        SettingsError: A glob of operations fits none, or all are left out.
    """

    def __init__(self, document: Document, settings: OpenApiSettings, maker: CaseMaker | None = None) -> None:
        check_installed()
        self.operations = _chosen(document, settings)
        self._settings = settings
        self._document = document
        self._maker = maker
        self._turn = anyio.Lock()

    async def check(
        self, name: str | None, client: httpx.AsyncClient, headers: Mapping[str, str], limiter: anyio.CapacityLimiter
    ) -> int:
        """Try one operation, or all; how many were tried.

        Raises:
            OpenApiFindings: There is a fault.
            DocumentError: schemathesis can't read the document.
            SettingsError: A check that is left out doesn't exist.
        """
        names = self.operations if name is None else (name,)
        base = str(client.base_url).rstrip("/") + _first_server_path(self._document)
        findings: list[Finding] = []
        for one in names:  # the process makes the cases of one at a time
            make = Make(operation=one, base=base, headers=dict(headers))
            findings += await self._tried(make, client, limiter)
        if findings:
            raise OpenApiFindings(self._document.name, findings, self._settings.seed)
        return len(names)

    def close(self) -> None:
        """End the process that makes cases."""
        if self._maker is not None:
            self._maker.end()
            self._maker = None

    async def _tried(self, make: Make, client: httpx.AsyncClient, limiter: anyio.CapacityLimiter) -> list[Finding]:
        """Try an operation: once more if another that was broken off has ended the process that knew the cases."""

        async def send(case: Case) -> Answer:
            async with limiter:
                return await _answer(client, case)

        answers: dict[_Known, Answer] = {}
        while True:
            with suppress(_Gone):
                return await self._try(make, send, answers)

    async def _try(
        self, make: Make, send: Callable[[Case], Awaitable[Answer]], answers: dict[_Known, Answer]
    ) -> list[Finding]:
        """Try an operation; what is in ``answers`` before is not sent again."""

        async def send_for(known: _Known, case: Case) -> None:
            answers[known] = await send(case)

        maker = await self._opened()
        made = await self._ask(maker, make, Made, send)
        cases = {(place, case.sent): case for place, case in enumerate(made.cases)}
        async with anyio.create_task_group() as group:
            for known, case in cases.items():
                if known not in answers:
                    group.start_soon(send_for, known, case)
        answered = {case.number: answers[known] for known, case in cases.items()}
        judged = await self._ask(maker, Judge(answered), Judged, send)
        shown: dict[tuple[str, str], list[tuple[Case, Fault]]] = defaultdict(list)
        for case in made.cases:
            for fault in judged.faults[case.number]:
                shown[fault.key].append((case, fault))
        return [await self._finding(maker, make, alike, send) for alike in shown.values()]

    async def _finding(
        self,
        maker: CaseMaker,
        make: Make,
        shown: list[tuple[Case, Fault]],
        send: Callable[[Case], Awaitable[Answer]],
    ) -> Finding:
        case, fault = min(shown, key=lambda one: one[0].size)
        if case.phase == "fuzzing":
            smallest = await self._ask(maker, Smaller(case.number, fault), Smallest, send)
            case, fault = smallest.case, smallest.fault
        curl = _curl(case, Scrubber(tuple(make.headers)))
        return Finding(make.operation, fault.check, fault.title, fault.message, curl, case.phase, len(shown))

    async def _opened(self) -> CaseMaker:
        """The process, which has read the document."""
        async with self._talk():
            if self._maker is None:
                self._maker = CaseMaker(self._settings)
            await self._maker.open(self._document)
            return self._maker

    async def _ask(
        self, maker: CaseMaker, asked: ToMaker, kind: type[_T], send: Callable[[Case], Awaitable[Answer]]
    ) -> _T:
        """Ask the process something; it may want a case to be sent before it answers.

        Raises:
            _Gone: It has been ended.
        """
        async with self._talk(maker):
            said = await maker.ask(asked)
            while isinstance(said, Send):
                said = await maker.ask(await send(said.case))
        if not isinstance(said, kind):
            raise TypeError(said)
        return said

    @asynccontextmanager
    async def _talk(self, maker: CaseMaker | None = None) -> AsyncIterator[None]:
        """Have the turn to talk with the process; if that breaks off, nobody knows whose turn it is: it is ended."""
        async with self._turn:
            if maker is not None and maker is not self._maker:
                raise _Gone
            try:
                yield
            except BaseException:
                self.close()
                raise


class CaseMaker:
    """The process that makes cases; see :mod:`asynctest_kit.contracts.case_maker`."""

    def __init__(self, settings: OpenApiSettings) -> None:
        from asynctest_kit.contracts.case_maker import Order

        self._name = ""
        self._is_ready = False
        self._decoder = msgspec.json.Decoder(FromMaker)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(  # this interpreter
            [sys.executable, "-P", "-m", "asynctest_kit.contracts.case_maker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._write(
            Order(
                examples=settings.examples,
                seed=settings.seed,
                phases=settings.phases,
                without_checks=settings.without_checks,
            )
        )

    def begin(self) -> None:
        """Wait until it knows its settings.

        Raises:
            SettingsError: A check that is left out doesn't exist.
        """
        if not self._is_ready:
            self.read()
            self._is_ready = True

    async def open(self, document: Document) -> None:
        """Have it read the document, once.

        Raises:
            DocumentError: schemathesis can't read it.
            SettingsError: As of :meth:`begin`.
        """
        if self._name:
            return
        await anyio.to_thread.run_sync(self.begin, abandon_on_cancel=True)
        self._name = document.name or "the document"
        await self.ask(Read(dict(document.content)))

    async def ask(self, said: ToMaker) -> FromMaker:
        """Say something, and wait for the answer."""

        def talk() -> FromMaker:
            self._write(said)
            return self.read()

        return await anyio.to_thread.run_sync(talk, abandon_on_cancel=True)

    def read(self) -> FromMaker:
        """What it says next."""
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        line = self._process.stdout.readline()
        said: FromMaker = self._decoder.decode(line) if line else Broken("document", self._last_words())
        if isinstance(said, Broken):
            if said.what == "check":
                raise SettingsError(f"OpenAPI, without-checks: {said.message}")
            raise DocumentError(f"schemathesis can't make cases of {self._name or 'the document'}: {said.message}")
        return said

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                _close(stream)

    def _write(self, said: Any) -> None:
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        with suppress(BrokenPipeError):  # read() tells why
            self._process.stdin.write(msgspec.json.encode(said) + b"\n")
            self._process.stdin.flush()

    def _last_words(self) -> str:
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace").strip()
        return told or f"its process ended with {self._process.wait()}"


def case_client(base_url: str, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A client that keeps no cookies: a case is not to see another's."""
    jar = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    carrying = SocketTransport() if transport is None else transport
    return httpx.AsyncClient(base_url=base_url, transport=carrying, cookies=jar, timeout=_PATIENCE, trust_env=False)


async def _answer(client: httpx.AsyncClient, case: Case) -> Answer:
    request = client.build_request(case.method, case.url, headers=list(case.headers), content=case.body)
    try:
        response = await client.send(request)
    except httpx.TimeoutException:
        return Answer(fault=Fault("time-out", "No answer", f"in {client.timeout.read} s"))
    except httpx.TransportError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever the app in this process raises
        return Answer(fault=_raised(error))
    headers = [pair for pair in response.headers.multi_items() if pair[0].lower() not in OF_TRANSFER]
    seconds = response.elapsed.total_seconds()
    return Answer(response.status_code, tuple(headers), response.content, seconds)


def _raised(error: Exception) -> Fault:
    """What the app raised, by its kind and place."""
    place = place_raised(error)
    told = f"The app raised {type(error).__name__}: {error}\nat {place}"
    return Fault("not_a_server_error", "Server error", told, place)


def _curl(case: Case, scrubber: Scrubber) -> str:
    """How a case is sent from a shell."""
    words = ["curl", "-X", case.method]
    for name, value in scrubber.headers(httpx.Headers(list(case.headers), "utf-8")):
        words += ["-H", shlex.quote(f"{name}: {value}")]
    if case.body:
        words += ["--data-binary", _quoted_body(case, scrubber)]
    return " ".join([*words, shlex.quote(scrubber.url(httpx.URL(case.url)))])


def _quoted_body(case: Case, scrubber: Scrubber) -> str:
    kind = next((value for name, value in case.headers if name.lower() == "content-type"), "")
    told = scrubber.body(case.body, kind)
    if "base64" in told:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in case.body) + "'"
    return shlex.quote(content_of(told, kind).decode(errors="replace"))


def check_installed() -> None:
    """See that cases can be made at all.

    Raises:
        DocumentError: schemathesis is not installed.
    """
    if find_spec("schemathesis") is None:
        raise DocumentError(
            "Cases are made by schemathesis, which is not installed: pip install 'asynctest_kit[openapi]'"
        )


def _chosen(document: Document, settings: OpenApiSettings) -> tuple[str, ...]:
    """The operations that cases are made for; one glob that fits none was meant otherwise."""
    names = [operation.name for operation in document.operations]
    known = f"Operations of {document.name}: {', '.join(names) or 'none'}."
    for key, globs in (("include", settings.include), ("exclude", settings.exclude)):
        for glob in globs:
            if not any(fnmatch.fnmatchcase(name, glob) for name in names):
                raise SettingsError(f'OpenAPI, {key}: "{glob}" fits no operation. {known}')
    chosen = tuple(name for name in names if _is_chosen(name, settings))
    if not chosen:
        raise SettingsError(f"OpenAPI: no operation is included and not excluded. {known}")
    return chosen


def _is_chosen(name: str, settings: OpenApiSettings) -> bool:
    is_in = not settings.include or any(fnmatch.fnmatchcase(name, one) for one in settings.include)
    return is_in and not any(fnmatch.fnmatchcase(name, one) for one in settings.exclude)


def _first_server_path(document: Document) -> str:
    servers = document.content.get("servers") or [{}]
    return urlsplit(str(servers[0].get("url", ""))).path.rstrip("/")


def _close(stream: Any) -> None:
    with suppress(BrokenPipeError):
        stream.close()
