"""HTTP calls of one test, answered in its process.

A router of respx that says more when something is amiss: what nothing answers is told with the test and the routes that
come closest, also if the code under test swallowed the error; and so is a route that nothing called.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import respx
from respx.models import AllMockedAssertionError, PassThrough, ResolvedRoute

from asynctest_kit.errors import AtkError
from asynctest_kit.http.exchanges import Exchanges, write
from asynctest_kit.http.scrubbing import OF_TRANSFER, Scrubber

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from respx.models import Route

__all__ = ["MockHttp", "RouteNotCalledError", "UnmockedCallError"]

#: A failure is shown where the test called, not where respx looked for a route.
__tracebackhide__ = True

#: Of a route's conditions those that its URL shows, and those whose values may be secret.
_IN_URL = ("method", "scheme", "host", "port", "path", "params", "url")

_NEAREST = 3

#: Seconds for each step of a real call.
_PATIENCE = 60.0

#: For messages.
_SCRUBBER = Scrubber()

#: Set while a real call is made to be recorded.
_REAL: ContextVar[bool] = ContextVar("asynctest_kit_real_call", default=False)


class UnmockedCallError(AtkError, AllMockedAssertionError):
    """Something called what no route answers, and what isn't let through."""


class RouteNotCalledError(AtkError, AssertionError):
    """Routes that no call came to."""


class MockHttp(respx.MockRouter):
    """The mocks of one test: routes as of :class:`respx.MockRouter`.

    Args:
        test: The test's name, in messages and in files of exchanges.
        records: Whether exchanges that are replayed are made anew, unless :meth:`replay` says otherwise.
        root: What their files' paths are relative to; None: the working directory.
        settings: Those of respx, such as ``base_url``.
    """

    def __init__(
        self,
        test: str = "the test",
        *,
        records: bool = False,
        root: Path | None = None,
        **settings: Any,
    ) -> None:
        self._test = test
        self._records = records
        self._root = root
        self._optional: list[Route] = []
        self._all_optional = False
        self._unmocked: list[UnmockedCallError] = []
        self._exchanges: list[Exchanges] = []
        super().__init__(**{"assert_all_called": False, **settings})

    def optional(self, *routes: Route) -> None:
        """Let ``routes``, or all if none is given, go without a call."""
        self._optional += routes
        self._all_optional = self._all_optional or not routes

    def let_through(self, *urls: str) -> None:
        """Let calls to what begins with one of ``urls`` reach the real server, if no route before answers them."""
        for url in urls:
            self.optional(self.route(url__startswith=url).pass_through())

    def replay(self, file: str | Path, *, scrub: Sequence[str] = (), record: bool | None = None) -> None:
        """Answer what no route answers from the exchanges in ``file``; with the setting ``record`` make them anew.

        Args:
            file: A JSON file; relative to pytest's rootdir in tests, wherever they are run from.
            scrub: More names of headers, parameters and JSON keys whose values must not get into it.
            record: Whether to make them anew; None: as the settings say.

        Raises:
            ExchangeError: The file is none, or isn't there and they are not made anew.
        """
        records = self._records if record is None else record
        path = ((self._root or Path()) / file).absolute()
        self._exchanges.append(Exchanges(path, Scrubber(scrub), test=self._test, records=records))

    def keep(self) -> list[tuple[Path, bool]]:
        """Write the files of exchanges that were made anew; each, and whether there was one before."""
        made: dict[Path, list[dict[str, Any]]] = {}
        for each in self._exchanges:
            if each.records:
                made.setdefault(each.file, []).extend(each.kept)
        return [(file, write(file, self._test, kept)) for file, kept in made.items()]

    def check(self) -> None:
        """Make sure that nothing called what isn't mocked, and that every route was called.

        Raises:
            UnmockedCallError: Something did, and the test went on.
            RouteNotCalledError: A route was not.
        """
        if self._unmocked:
            raise self._unmocked[0]
        missing = [route for route in self.routes if not self._may_be_missing(route)]
        if missing:
            raise RouteNotCalledError(self._not_called(missing))

    def resolve(self, request: httpx.Request) -> ResolvedRoute:
        """As of respx, but for exchanges and the message."""
        _let_through(request)
        try:
            return super().resolve(request)
        except AllMockedAssertionError:
            if (replayed := self._replayed(request)) is not None:
                return replayed
            if (recording := self._recording(request)) is None:
                raise self._refusal(request) from None
        with _really(), httpx.Client(timeout=_PATIENCE) as client:
            response = client.send(_copied(request))
        return _kept(recording, request, response)

    async def aresolve(self, request: httpx.Request) -> ResolvedRoute:
        """As of respx, but for exchanges and the message."""
        _let_through(request)
        try:
            return await super().aresolve(request)
        except AllMockedAssertionError:
            if (replayed := self._replayed(request)) is not None:
                return replayed
            if (recording := self._recording(request)) is None:
                raise self._refusal(request) from None
        with _really():
            async with httpx.AsyncClient(timeout=_PATIENCE) as client:
                response = await client.send(_copied(request))
        return _kept(recording, request, response)

    def _recording(self, request: httpx.Request) -> Exchanges | None:
        if self._is_anothers(request):
            return None
        return next((one for one in self._exchanges if one.records), None)

    def _replayed(self, request: httpx.Request) -> ResolvedRoute | None:
        answers = (one.answer(request) for one in self._exchanges if not one.records)
        response = next((one for one in answers if one is not None), None)
        return None if response is None else _resolved(response)

    def _may_be_missing(self, route: Route) -> bool:
        return self._all_optional or route.called or any(route is one for one in self._optional)

    def _refusal(self, request: httpx.Request) -> UnmockedCallError:
        nearest = sorted(((_differences(route, request), route) for route in self.routes), key=lambda one: len(one[0]))
        lines = [f"{self._test} called {request.method} {_SCRUBBER.shown(request.url)}, which nothing mocks."]
        lines += ["Nearest routes:"] if nearest else ["There are no routes."]
        lines += [f"  {_told(route)}  differs in: {', '.join(keys)}" for keys, route in nearest[:_NEAREST]]
        lines.append(
            f"Answer it with mock_http.{request.method.lower()}(...).respond(...), or let it reach the real server"
            f" with mock_http.let_through({str(request.url.copy_with(raw_path=b'/', userinfo=b''))!r})."
        )
        for exchanges in self._exchanges:
            lines.append(f"{exchanges.file} has no answer for it either: record it by a run with ATK_RECORD=1.")
        error = UnmockedCallError("\n".join(lines))
        if not self._is_anothers(request):
            self._unmocked.append(error)
        return error

    def _is_anothers(self, request: httpx.Request) -> bool:
        """Whether another open router answers it."""
        others = [router for router in (self.Mocker.routers if self.Mocker else ()) if router is not self]
        return any(route.pattern.match(request) for router in others for route in router.routes)

    def _not_called(self, missing: list[Route]) -> str:
        calls = [f"  {call.request.method} {_SCRUBBER.shown(call.request.url)}" for call in self.calls]
        lines = [f"{self._test} mocked what nothing called:", *[f"  {_told(route)}" for route in missing]]
        lines += ["It called:", *calls] if calls else ["It called nothing."]
        lines += ["A route that may go without a call is told to mock_http.optional(route)."]
        return "\n".join(lines)


@contextmanager
def _really() -> Iterator[None]:
    """Make real calls in the block."""
    token = _REAL.set(True)
    try:
        yield
    finally:
        _REAL.reset(token)


def _let_through(request: httpx.Request) -> None:
    if _REAL.get():
        raise PassThrough("made to be recorded", request=request, origin=None)  # type: ignore[arg-type]


def _copied(request: httpx.Request) -> httpx.Request:
    """The same, with a body that has been read, and without the extensions of the client that made it."""
    return httpx.Request(request.method, request.url, headers=request.headers, content=request.content)


def _kept(exchanges: Exchanges, request: httpx.Request, response: httpx.Response) -> ResolvedRoute:
    exchanges.keep(request, response)
    left = [(name, value) for name, value in response.headers.raw if name.decode().lower() not in OF_TRANSFER]
    return _resolved(httpx.Response(response.status_code, headers=left, content=response.content, request=request))


def _resolved(response: httpx.Response) -> ResolvedRoute:
    resolved = ResolvedRoute()  # type: ignore[no-untyped-call]
    resolved.response = response
    return resolved


def _differences(route: Route, request: httpx.Request) -> list[str]:
    """The conditions of ``route`` that ``request`` doesn't meet; all that respx can't take apart is one."""
    found = {getattr(one, "key", "pattern") for one in route.pattern if not one.match(request)}
    return sorted(found, key=lambda key: (*_IN_URL, key).index(key)) or ["pattern"]


def _told(route: Route) -> str:
    found = {getattr(one, "key", "pattern"): getattr(one, "value", "") for one in route.pattern}
    place = str(found.get("url", ""))
    if not place:
        port = f":{found['port']}" if found.get("port") else ""
        place = f"{found.get('scheme', 'any')}://{found.get('host', 'any host')}{port}{found.get('path', '/…')}"
    if found.get("params"):
        place += f"?{_SCRUBBER.query(httpx.QueryParams(found['params']))}"
    more = [key for key in found if key not in _IN_URL]
    return f"{found.get('method', 'any method')} {place}" + (f" with {', '.join(more)}" if more else "")
