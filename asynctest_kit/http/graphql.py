"""The app's GraphQL, called as a client would.

A query is held against the app's schema before it is sent, so that a misspelt field is told with its line and column.
Errors in an answer are never passed over: whoever asks for data of an answer with errors that no expectation has named
gets an AssertionError that shows them, and so does a test that ends without having looked at all.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, asynccontextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from asynctest_kit.errors import AtkError
from asynctest_kit.http.matching import differences, shown
from asynctest_kit.http.own_frames import place_called
from asynctest_kit.http.responses import HEARS_OF_READING, told_difference
from asynctest_kit.http.scrubbing import Scrubber

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from graphql import DocumentNode, GraphQLSchema

    from asynctest_kit.http.client import Session
    from asynctest_kit.http.responses import Response

__all__ = ["GraphQL", "GraphQLError", "Result", "check_installed"]

#: A failure is shown where the test called.
__tracebackhide__ = True


class GraphQLError(AtkError, AssertionError):
    """A query is none by the app's schema, or its answer is not as expected."""


class Result:
    """What a query was answered.

    Attributes:
        extensions: What the server adds.
    """

    def __init__(self, answer: Mapping[str, Any], response: Response | None = None) -> None:
        self._errors: tuple[Mapping[str, Any], ...] = tuple(answer.get("errors") or ())
        self.extensions: Mapping[str, Any] = answer.get("extensions") or {}
        self._response = response
        self._data = answer.get("data")
        self._expected: list[Mapping[str, Any]] = []
        self._is_read = False
        if response is not None:
            response.extensions[HEARS_OF_READING] = self._look

    @property
    def response(self) -> Response | None:
        """The HTTP response; None for an event of a subscription.

        Whoever asks for its body has looked at the errors, or for the response itself if its status is an error's.
        """
        if self._response is not None and self._response.is_error:
            self._look()
        return self._response

    def _look(self) -> None:
        self._is_read = True

    @property
    def errors(self) -> tuple[Mapping[str, Any], ...]:
        """As GraphQL has them: tables with ``message``, ``path``, ``extensions``. Whoever asks has looked at them."""
        self._look()
        return self._errors

    @property
    def data(self) -> Any:
        """The data; beside errors only if each of them was expected.

        Raises:
            GraphQLError: There are other errors.
        """
        __tracebackhide__ = True
        self._look()
        if self._unexpected:
            raise self._failure("There are errors:")
        return self._data

    def __getitem__(self, field: str) -> Any:
        """A field of the data."""
        __tracebackhide__ = True
        data = self.data
        if not isinstance(data, dict) or field not in data:
            raise self._failure(f'There is no data "{field}":')
        return data[field]

    def expect(self, data: Mapping[str, Any] | None) -> Result:
        """Expect data to hold ``data``, as :mod:`asynctest_kit.http.matching` has it: tables may have more.

        None is what an error of a field that can't be null leaves of them.

        Raises:
            GraphQLError: It is otherwise, or there are errors that were not expected.
        """
        __tracebackhide__ = True
        found = list(differences(None if data is None else dict(data), self.data))
        if found:
            scrubber = Scrubber() if self._response is None else self._response.scrubber
            lines = [f"  {one.place}: {told_difference(one, scrubber)}" for one in found]
            raise self._failure("\n".join(["The data are not as expected:", *lines]))
        return self

    def expect_error(
        self,
        message: str | re.Pattern[str] | None = None,
        *,
        path: str | Sequence[str | int] | None = None,
        code: str | None = None,
    ) -> Result:
        """Expect an error.

        Args:
            message: A part of its message, or a pattern.
            path: Where it happened, as ``"user.posts.0"`` or ``["user", "posts", 0]``.
            code: What its extensions say.

        Raises:
            GraphQLError: There is none.
        """
        __tracebackhide__ = True
        for error in self._errors:
            if error not in self._expected and _is_like(error, message, path, code):
                self._expected.append(error)
                return self
        what = {"message": message, "path": path, "code": code}
        wanted = ", ".join(f"{name} {value!r}" for name, value in what.items() if value is not None) or "any"
        self._look()
        raise self._failure(f"No error as expected ({wanted}):")

    @property
    def _unexpected(self) -> list[Mapping[str, Any]]:
        return [error for error in self._errors if error not in self._expected]

    @property
    def _is_unread(self) -> bool:
        """Whether there are errors that nobody has expected, or looked at otherwise."""
        return not self._is_read and bool(self._unexpected)

    def _failure(self, first: str, *more: str) -> GraphQLError:
        lines = [first, *(f"  {_told(error)}" for error in self._errors)] if self._errors else [first, "  no errors"]
        lines += more
        if self._response is not None:
            lines.append(self._response.transcript())
        else:
            lines.append(f"event: {shown(Scrubber().within(self._data))}")
        return GraphQLError("\n".join(lines))

    def __repr__(self) -> str:
        return f"<Result data={self._data!r} errors={list(self._errors)!r}>"


class GraphQL:
    """Calls an app's GraphQL.

    ``result = await graphql("query($id: ID!) { user(id: $id) { name } }", id="7")``

    Args:
        api: Calls the app; cookies, headers and who it is are this one's.
        path: Where it answers.
        known: The schema that it had when it was last asked; and is kept here when it is asked again.
        headers: Sent with all queries.
    """

    def __init__(
        self,
        api: Session,
        *,
        path: str = "/graphql",
        known: dict[str, GraphQLSchema] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_installed()
        self.headers = dict(headers or {})
        self._api = api
        self._path = path
        self._schemas = {} if known is None else known
        self._is_checked = True
        self._with_errors: list[tuple[Result, str]] = []
        api.at_end(self.check)

    def check(self) -> None:
        """Make sure that no answer has errors that nobody looked at; the session ``api`` does it when it ends.

        Raises:
            GraphQLError: There is one.
        """
        __tracebackhide__ = True
        unread = [(result, place) for result, place in self._with_errors if result._is_unread]  # noqa: SLF001
        self._with_errors.clear()
        if unread:
            result, place = unread[0]
            more = f" (and {len(unread) - 1} more like it)" if len(unread) > 1 else ""
            called = f" to the call at {place}" if place else ""
            raise result._failure(  # noqa: SLF001
                f"The answer{called} has errors that the test has not looked at{more}:",
                "Name those that are meant by expect_error(...); expect({...}) holds only without others.",
            )

    async def __call__(
        self,
        query: str | DocumentNode,
        variables: Mapping[str, Any] | None = None,
        /,
        *,
        operation: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Result:
        """Send a query or a mutation.

        Args:
            query: Its text, or a document of gql or graphql-core. ``gql.FileVar`` among the variables is uploaded.
            variables: By name.
            operation: Which of several operations.
            headers: For this one only.
            **more: Other variables.

        Raises:
            GraphQLError: The schema doesn't know it, it doesn't declare a variable, or the answer is none of GraphQL.
        """
        __tracebackhide__ = True
        given = {**(variables or {}), **more}
        text = await self._valid(query, given, operation)
        content = {"query": text, "variables": given, **({"operationName": operation} if operation else {})}
        response = await self._sent(content, {**self.headers, **(headers or {})})
        result = Result(_answer(response), response)
        return self._noted(result, place_called()) if result._errors else result  # noqa: SLF001

    @asynccontextmanager
    async def subscribe(
        self,
        query: str | DocumentNode,
        variables: Mapping[str, Any] | None = None,
        /,
        *,
        operation: str | None = None,
        payload: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> AsyncIterator[AsyncIterator[Result]]:
        """Subscribe, over graphql-transport-ws; ends with the block.

        ``async with graphql.subscribe("subscription { ticks }") as events: first = await anext(events)``

        Args:
            query: As of a call, and so are the others.
            variables: By name.
            operation: Which of several operations.
            payload: Of ``connection_init``, where servers look for a token.
            **more: Other variables.

        Raises:
            GraphQLError: The schema doesn't know it.
        """
        __tracebackhide__ = True
        from gql import GraphQLRequest

        from asynctest_kit.http.graphql_sockets import PROTOCOL, subscriptions

        given = {**(variables or {}), **more}
        text = await self._valid(query, given, operation)
        request = GraphQLRequest(text, variable_values=given, operation_name=operation)
        async with (
            self._api.websocket(self._path, subprotocols=[PROTOCOL], headers=self.headers) as websocket,
            subscriptions(websocket, dict(payload or {})) as socket,
        ):
            place = place_called()
            events = _events(socket, request, lambda result: self._noted(result, place))
            try:
                yield events
            finally:
                await events.aclose()

    async def schema(self, *, again: bool = False) -> GraphQLSchema:
        """The app's schema, asked for by introspection once; ``again`` asks once more.

        Raises:
            GraphQLError: It doesn't tell.
        """
        __tracebackhide__ = True
        from graphql import build_client_schema, get_introspection_query

        if again or self._path not in self._schemas:
            query = get_introspection_query(input_value_deprecation=True)
            response = await self._sent({"query": query}, self.headers)
            answer = _answer(response)
            if answer.get("errors") or not answer.get("data"):
                told = "; ".join(map(_told, answer.get("errors") or ())) or "no data"
                raise GraphQLError(
                    f"The app at {self._path} doesn't tell its schema: {told}. With graphql.unchecked() around them "
                    "queries are sent as they are."
                )
            self._schemas[self._path] = build_client_schema(answer["data"])
        return self._schemas[self._path]

    @asynccontextmanager
    async def unchecked(self) -> AsyncIterator[None]:
        """Send queries in the block as they are, whether the schema knows them or not."""
        before, self._is_checked = self._is_checked, False
        try:
            yield
        finally:
            self._is_checked = before

    def _noted(self, result: Result, place: str) -> Result:
        if result._errors:  # noqa: SLF001
            self._with_errors.append((result, place))
        return result

    async def _valid(self, query: str | DocumentNode, given: Mapping[str, Any], operation: str | None) -> str:
        """The text of a query that the schema knows; it is asked for again before one is refused."""
        __tracebackhide__ = True
        text = query if isinstance(query, str) else _printed(query)
        if self._is_checked and _problems(await self.schema(), text):
            problems = _problems(await self.schema(again=True), text)
            if problems:
                raise GraphQLError("\n\n".join(["The app's schema doesn't know this query:", *problems]))
        if self._is_checked:
            _check_declared(text, given, operation)
        return text

    async def _sent(self, content: dict[str, Any], headers: Mapping[str, str]) -> Response:
        files = _taken_out(content)
        if not files:
            return await self._api.post(self._path, json=content, headers=headers)
        with ExitStack() as opened:
            for file in files.values():
                file.open_file()
                opened.callback(file.close_file)
            return await self._api.post(self._path, headers=headers, **_parts(content, files))


async def _events(socket: Any, request: Any, noted: Callable[[Result], Result]) -> Any:
    from gql.transport.exceptions import TransportQueryError

    try:
        async for event in socket.subscribe(request):
            yield noted(Result({"data": event.data, "errors": event.errors, "extensions": event.extensions}))
    except TransportQueryError as error:
        yield noted(Result({"data": error.data, "errors": error.errors, "extensions": error.extensions}))


def check_installed() -> None:
    """See that queries can be sent at all.

    Raises:
        GraphQLError: gql is not installed.
    """
    try:
        import gql  # noqa: F401
    except ImportError:
        raise GraphQLError(
            "The fixture graphql needs gql, which is not installed: pip install 'asynctest_kit[graphql]'"
        ) from None


def _answer(response: Response) -> Mapping[str, Any]:
    __tracebackhide__ = True
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict) and not answer.keys().isdisjoint(("data", "errors")):
        return answer
    raise GraphQLError(f"The answer is none of GraphQL:\n{response.transcript()}")


def _printed(query: Any) -> str:
    from graphql import print_ast

    return print_ast(getattr(query, "document", query))


def _problems(schema: GraphQLSchema, text: str) -> list[str]:
    """What is wrong with a query, each with its place."""
    from graphql import GraphQLSyntaxError, Source, parse, validate

    try:
        document = parse(Source(text, "query"))
    except GraphQLSyntaxError as error:
        return [str(error)]
    return [str(error) for error in validate(schema, document)]


def _check_declared(text: str, given: Mapping[str, Any], operation: str | None) -> None:
    """Make sure that a query declares the variables that are given: servers pass over others.

    Raises:
        GraphQLError: It doesn't.
    """
    from graphql import OperationDefinitionNode, parse

    __tracebackhide__ = True
    if not given:
        return
    found = [one for one in parse(text).definitions if isinstance(one, OperationDefinitionNode)]
    named = [one for one in found if operation is None or (one.name is not None and one.name.value == operation)]
    declared = [it.variable.name.value for one in named for it in one.variable_definitions or ()]
    if named and (missing := [name for name in given if name not in declared]):
        nearest = get_close_matches(missing[0], declared, 1)
        hint = f" Did you mean ${nearest[0]}?" if nearest else ""
        known = ", ".join(f"${name}" for name in declared) or "none"
        raise GraphQLError(f"The query doesn't declare ${', $'.join(missing)}; it declares {known}.{hint}")


def _taken_out(content: dict[str, Any]) -> dict[str, Any]:
    """The files among the variables, by their paths; what stays there is null."""
    from gql import FileVar

    found: dict[str, Any] = {}

    def without_files(value: Any, path: str) -> Any:
        if isinstance(value, FileVar):
            found[path] = value
            return None
        if isinstance(value, dict):
            return {key: without_files(one, f"{path}.{key}") for key, one in value.items()}
        if isinstance(value, list):
            return [without_files(one, f"{path}.{place}") for place, one in enumerate(value)]
        return value

    content["variables"] = without_files(content.get("variables"), "variables")
    return found


def _parts(content: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """A request with uploads, as https://github.com/jaydenseric/graphql-multipart-request-spec has it."""
    places = {str(number): [path] for number, path in enumerate(files)}
    parts = {str(number): (file.filename or "file", file.f) for number, file in enumerate(files.values())}
    return {"data": {"operations": json.dumps(content), "map": json.dumps(places)}, "files": parts}


def _is_like(
    error: Mapping[str, Any],
    message: str | re.Pattern[str] | None,
    path: str | Sequence[str | int] | None,
    code: str | None,
) -> bool:
    text = str(error.get("message", ""))
    if isinstance(message, str) and message not in text:
        return False
    if isinstance(message, re.Pattern) and not message.search(text):
        return False
    wanted = path if path is None or isinstance(path, str) else ".".join(map(str, path))
    if wanted is not None and ".".join(map(str, error.get("path") or ())) != wanted:
        return False
    return code is None or (error.get("extensions") or {}).get("code") == code


def _told(error: Mapping[str, Any]) -> str:
    path = ".".join(map(str, error.get("path") or ()))
    code = (error.get("extensions") or {}).get("code")
    return "".join([str(error.get("message", "")), f", at {path}" if path else "", f", code {code}" if code else ""])
