"""HTTP calls of one test, answered in its process.

A router of respx that says more when something is amiss: what nothing answers is told with the test and the routes that
come closest, also if the code under test swallowed the error; and so is a route that nothing called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import respx
from respx.models import AllMockedAssertionError

from asynctest_kit.errors import AtkError
from asynctest_kit.provision.service import SECRET_NAME

if TYPE_CHECKING:
    from respx.models import ResolvedRoute, Route

__all__ = ["MockHttp", "RouteNotCalledError", "UnmockedCallError"]

#: A failure is shown where the test called, not where respx looked for a route.
__tracebackhide__ = True

#: Of a route's conditions those that its URL shows, and those whose values may be secret.
_IN_URL = ("method", "scheme", "host", "port", "path", "params", "url")

_NEAREST = 3


class UnmockedCallError(AtkError, AllMockedAssertionError):
    """Something called what no route answers, and what isn't let through."""


class RouteNotCalledError(AtkError, AssertionError):
    """Routes that no call came to."""


class MockHttp(respx.MockRouter):
    """The mocks of one test: routes as of :class:`respx.MockRouter`.

    Args:
        test: The test's name for messages.
        settings: Those of respx, such as ``base_url``.
    """

    def __init__(self, test: str = "the test", **settings: Any) -> None:
        self._test = test
        self._optional: list[Route] = []
        self._all_optional = False
        self._unmocked: list[UnmockedCallError] = []
        super().__init__(**{"assert_all_called": False, **settings})

    def optional(self, *routes: Route) -> None:
        """Let ``routes``, or all if none is given, go without a call."""
        self._optional += routes
        self._all_optional = self._all_optional or not routes

    def let_through(self, *urls: str) -> None:
        """Let calls to what begins with one of ``urls`` reach the real server, if no route before answers them."""
        for url in urls:
            self.optional(self.route(url__startswith=url).pass_through())

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
        """As of respx, but for the message."""
        try:
            return super().resolve(request)
        except AllMockedAssertionError:
            raise self._refusal(request) from None

    async def aresolve(self, request: httpx.Request) -> ResolvedRoute:
        """As of respx, but for the message."""
        try:
            return await super().aresolve(request)
        except AllMockedAssertionError:
            raise self._refusal(request) from None

    def _may_be_missing(self, route: Route) -> bool:
        return self._all_optional or route.called or any(route is one for one in self._optional)

    def _refusal(self, request: httpx.Request) -> UnmockedCallError:
        nearest = sorted(((_differences(route, request), route) for route in self.routes), key=lambda one: len(one[0]))
        lines = [f"{self._test} called {request.method} {_shown(request.url)}, which nothing mocks."]
        lines += ["Nearest routes:"] if nearest else ["There are no routes."]
        lines += [f"  {_told(route)}  differs in: {', '.join(keys)}" for keys, route in nearest[:_NEAREST]]
        lines.append(
            f"Answer it with mock_http.{request.method.lower()}(...).respond(...), or let it reach the real server"
            f" with mock_http.let_through({str(request.url.copy_with(raw_path=b'/', userinfo=b''))!r})."
        )
        error = UnmockedCallError("\n".join(lines))
        if not self._is_anothers(request):
            self._unmocked.append(error)
        return error

    def _is_anothers(self, request: httpx.Request) -> bool:
        """Whether another open router answers it."""
        others = [router for router in (self.Mocker.routers if self.Mocker else ()) if router is not self]
        return any(route.pattern.match(request) for router in others for route in router.routes)

    def _not_called(self, missing: list[Route]) -> str:
        calls = [f"  {call.request.method} {_shown(call.request.url)}" for call in self.calls]
        lines = [f"{self._test} mocked what nothing called:", *[f"  {_told(route)}" for route in missing]]
        lines += ["It called:", *calls] if calls else ["It called nothing."]
        lines += ["A route that may go without a call is told to mock_http.optional(route)."]
        return "\n".join(lines)


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
        place += f"?{_hidden(found['params'])}"
    more = [key for key in found if key not in _IN_URL]
    return f"{found.get('method', 'any method')} {place}" + (f" with {', '.join(more)}" if more else "")


def _shown(url: httpx.URL) -> str:
    """A URL without its secrets."""
    bare = str(url.copy_with(query=None, userinfo=b"", fragment=None))
    return f"{bare}?{_hidden(url.params)}" if url.query else bare


def _hidden(params: Any) -> str:
    pairs = httpx.QueryParams(params).multi_items()
    return "&".join(f"{name}={'***' if SECRET_NAME.search(name) else value}" for name, value in pairs)
