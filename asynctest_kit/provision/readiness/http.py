"""An HTTP request is answered as it should be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import NotReadyError, wait_ready

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctest_kit.provision.readiness import Address, Note

__all__ = ["HttpAnswer"]

#: Seconds for one answer.
_ANSWER = 10.0

_LONGEST = 0.1

#: Bytes of a body that are looked through, and characters of it that a message shows.
_BODY = 1 << 16
_SHOWN = 200

_OK = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """An answer to a request; a :class:`~asynctest_kit.provision.readiness.Waiting`. Redirects are not followed.

    Attributes:
        address: Where it is sent.
        path: Path and query.
        method: Its method.
        headers: Its headers.
        tls: Whether it goes over TLS; the certificate is not verified, for that is the tests' to judge.
        status: Statuses that will do; none for any of 200 to 299.
        body: A regular expression that is found in the body; None for any.
    """

    address: Address
    path: str
    method: str
    headers: Mapping[str, str] = field(repr=False)
    tls: bool
    status: tuple[int, ...]
    body: str | None

    @property
    def expectation(self) -> str:
        """What is waited for."""
        statuses = " or ".join(map(str, self.status)) or "2xx"
        body = "" if self.body is None else f" and a body with {self.body!r}"
        return f"{self.method} {self._url} to be answered with {statuses}{body}"

    @property
    def _url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.address.host}:{self.address.port}{self.path}"

    async def wait(self, note: Note) -> None:
        """See :class:`~asynctest_kit.provision.readiness.Waiting`."""
        import aiohttp  # in the supervisor it is there already, for the engine's sake

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

            async def attempt() -> None:
                try:
                    async with session.request(
                        self.method, self._url, headers=self.headers, allow_redirects=False, ssl=False
                    ) as answer:
                        self._judge(answer.status, await answer.content.read(_BODY))
                except aiohttp.ClientConnectorError as error:
                    raise NotReadyError(error.strerror or str(error)) from None
                except aiohttp.ClientError as error:
                    raise NotReadyError(str(error) or "the connection was closed without an answer") from None

            await wait_ready(attempt, note, limit=_ANSWER, longest=_LONGEST)

    def _judge(self, status: int, body: bytes) -> None:
        text = body.decode(errors="replace")
        is_status = status in (self.status or _OK)
        if not is_status or (self.body is not None and not re.search(self.body, text)):
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            raise NotReadyError(f"the status {status} and the body {shown!r}")
