"""What the verifier talks to: the states of the provider, its messages, and the provider itself if it has no socket.

It listens on the loopback interface. States are asked for at a path that no other user of the machine knows, for that
runs the test's code; messages at one of their own; everything else is handed to the application.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

import h11
import httpx

from asynctest_kit.contracts.errors import PactError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asynctest_kit.contracts.states import States

__all__ = ["Fault", "Kind", "Message", "MessageHandler", "ProviderServer", "open_provider_server"]

#: Bytes that are read at once.
_CHUNK: Final = 2**16

#: Headers about one connection, which are not handed on.
_OF_CONNECTION: Final = frozenset({b"connection", b"content-length", b"keep-alive", b"transfer-encoding"})

#: What is answered to what failed: the verifier asks again if it is a server's error.
_FAILED: Final = 400

MessageHandler = Callable[[], Awaitable[object] | object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of the provider's, if there is more to it than its contents.

    Attributes:
        contents: Bytes or text as they are; anything else becomes JSON.
        metadata: What goes with it.
        content_type: Its media type; empty for that of the contents.
    """

    contents: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = ""


class Kind(Enum):
    """What the verifier asks for."""

    SETUP = auto()
    TEARDOWN = auto()
    MESSAGE = auto()
    REQUEST = auto()


@dataclass(frozen=True, slots=True)
class Fault:
    """What failed: what was asked for, in words too, the name of the state or message, and why."""

    kind: Kind
    what: str
    name: str
    error: Exception


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""


class ProviderServer:
    """The server; :func:`open_provider_server` opens one.

    Args:
        states: Of the provider.
        messages: What makes its messages, by their descriptions.
        transport: What reaches the application, or None.
        base_url: What the application's URLs begin with.
        headers: Beside those of each request to it.

    Attributes:
        url: Where it listens.
        doing: What was asked for and is not answered yet, in words.
        errors: What failed.
    """

    def __init__(
        self,
        states: States,
        messages: Mapping[str, MessageHandler],
        transport: httpx.AsyncBaseTransport | None,
        base_url: str,
        headers: Mapping[str, str],
    ) -> None:
        self._states = states
        self._messages = messages
        self._transport = transport
        self._base_url = httpx.URL(base_url)
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.states_path = f"/{secrets.token_urlsafe(16)}/states"
        self.messages_path = f"/{secrets.token_urlsafe(16)}/messages"
        self.url = ""
        self.doing: list[str] = []
        self.errors: list[Fault] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes over a connection, until it is closed."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a connection has one
        self._tasks.add(task)
        try:
            with suppress(OSError, h11.RemoteProtocolError):
                await self._converse(h11.Connection(h11.SERVER), reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """End what is still asked for."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                answer = await self._answer(request, body)
                length = (b"content-length", str(len(answer.body)).encode())
                head = h11.Response(status_code=answer.status, headers=[*answer.headers, length])
                parts = [head, h11.Data(data=answer.body), h11.EndOfMessage()]
                if request.method == b"HEAD":
                    del parts[1]
                writer.write(b"".join(http.send(part) or b"" for part in parts))
                await writer.drain()
                if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                    return
                http.start_next_cycle()
            else:
                return

    async def _answer(self, request: h11.Request, body: bytes) -> _Answer:
        target = request.target.decode()
        kind, what, name = Kind.REQUEST, f"{request.method.decode()} {target}", ""
        try:
            if target == self.states_path:
                asked = json.loads(body)
                action, name = asked["action"], asked.get("state") or ""
                kind = Kind.TEARDOWN if action == "teardown" else Kind.SETUP
                what = f"{'bringing about' if kind is Kind.SETUP else 'taking away'} the state {name!r}"
                return await self._doing(what, self._state(name, action, asked.get("params") or {}))
            if target == self.messages_path:
                kind = Kind.MESSAGE
                name = json.loads(body)["description"]
                what = f"making the message {name!r}"
                return await self._doing(what, self._message(name))
            return await self._doing(what, self._handed_on(request, body))
        except Exception as error:  # noqa: BLE001  # the test's own; told with the interaction that it broke
            self.errors.append(Fault(kind, what, name, error))
            return _Answer(_FAILED)

    async def _doing(self, what: str, work: Awaitable[_Answer]) -> _Answer:
        self.doing.append(what)
        try:
            return await work
        finally:
            self.doing.remove(what)

    async def _state(self, state: str, action: str, parameters: Mapping[str, Any]) -> _Answer:
        values = await self._states.ask(state, action, parameters)
        return _Answer(200, [(b"content-type", b"application/json")], json.dumps(values).encode())

    async def _message(self, description: str) -> _Answer:
        handler = self._messages.get(description)
        if handler is None:
            known = ", ".join(map(repr, sorted(self._messages))) or "none"
            raise PactError(
                f"Nobody makes the message {description!r}. Give an async function for it: "
                f"messages={{{description!r}: ...}}. Known: {known}."
            )
        found = handler()
        if inspect.isawaitable(found):
            found = await found
        message = found if isinstance(found, Message) else Message(contents=found)
        contents, kind = _encoded(message.contents)
        kind = message.content_type or kind
        metadata = json.dumps({"contentType": kind, **message.metadata}).encode()
        headers = [(b"content-type", kind.encode()), (b"pact-message-metadata", base64.b64encode(metadata))]
        return _Answer(200, headers, contents)

    async def _handed_on(self, request: h11.Request, body: bytes) -> _Answer:
        if self._transport is None:
            raise PactError("A request came, and there is no application: pact_verifier(app, ...).")
        target = self._base_url.raw_path.rstrip(b"/") + request.target
        url = self._base_url.copy_with(raw_path=target)
        host = (b"host", url.netloc)
        headers = [pair for pair in request.headers if pair[0] not in _OF_CONNECTION | {b"host"}]
        sent = httpx.Request(request.method.decode(), url, headers=[host, *headers, *self._headers], content=body)
        response = await self._transport.handle_async_request(sent)
        try:
            content = b"".join([part async for part in _stream(response)])
        finally:
            await response.aclose()
        kept = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_CONNECTION]
        return _Answer(response.status_code, kept, content)


def _stream(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it came, encoded or not."""
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  # an async transport's
    return aiter(response.stream)


def _encoded(contents: object) -> tuple[bytes, str]:
    if isinstance(contents, bytes):
        return contents, "application/octet-stream"
    if isinstance(contents, str):
        return contents.encode(), "text/plain"
    return json.dumps(contents).encode(), "application/json"


@asynccontextmanager
async def open_provider_server(
    states: States,
    messages: Mapping[str, MessageHandler],
    transport: httpx.AsyncBaseTransport | None,
    base_url: str,
    headers: Mapping[str, str],
) -> AsyncIterator[ProviderServer]:
    """Have a server listen while the block runs; see :class:`ProviderServer`."""
    provider = ProviderServer(states, messages, transport, base_url, headers)
    server = await asyncio.start_server(provider.admit, "127.0.0.1")
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await provider.end()
