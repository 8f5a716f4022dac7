"""The fixture ``graphql`` against a real app, in process and on a socket."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest
from gql import FileVar, gql
from library import library
from starlette.requests import Request
from starlette.responses import JSONResponse

from asynctest_kit.http.apps import serve
from asynctest_kit.http.client import Api
from asynctest_kit.http.graphql import GraphQL, GraphQLError, Result
from asynctest_kit.http.websocket import WebSocketRefusedError

pytestmark = pytest.mark.anyio


@pytest.fixture
def app():
    return library()


async def test_query_with_variables(graphql):
    result = await graphql("query($id: Int!) { book(id: $id) { id title } }", id=7)

    assert result["book"] == {"id": 7, "title": "Book 7"}
    assert result.expect({"book": {"id": int, "title": "Book 7"}}) is result


async def test_mutation_and_one_of_several_operations(graphql):
    document = gql('query other { books { id } } mutation change { rename(id: 1, title: "New") { title } }')
    result = await graphql(document, operation="change")

    result.expect({"rename": {"title": "New"}})


async def test_headers(graphql):
    graphql.headers["x-caller"] = "all"

    assert (await graphql("{ caller }"))["caller"] == "all"
    assert (await graphql("{ caller }", headers={"x-caller": "one"}))["caller"] == "one"


async def test_upload(tmp_path):
    bodies = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            bodies.append(await Request(scope, receive).body())
            await JSONResponse({"data": {"read": 1}})(scope, receive, send)

    (tmp_path / "note.txt").write_text("hello")
    async with Api(app) as api:
        graphql = GraphQL(api)
        async with graphql.unchecked():
            files = [FileVar(str(tmp_path / "note.txt"))]
            await graphql("mutation($files: [Upload!]!) { read(files: $files) }", files=files)

    body = bodies[0].decode()
    assert '"variables": {"files": [null]}' in body
    assert '{"0": ["variables.files.0"]}' in body
    assert 'name="0"; filename="note.txt"' in body and "hello" in body


async def test_expected_error(graphql):
    result = await graphql("{ book(id: -1) { id } books { id } }")

    result.expect_error("no such book", path="book", code="NOT_FOUND").expect({"book": None, "books": [{}, {"id": 1}]})


async def test_expected_error_of_what_can_not_be_null():
    answer = {"data": None, "errors": [{"message": "no stock", "path": ["placeOrder"]}]}

    Result(answer).expect_error("no stock").expect(None)
    with pytest.raises(GraphQLError, match=r"expected \{\}, received None"):
        Result(answer).expect_error("no stock").expect({})
    with pytest.raises(GraphQLError, match=r"expected None, received \{"):
        Result({"data": {"book": None}}).expect(None)


async def test_errors_are_not_passed_over(graphql):
    result = await graphql("{ book(id: -1) { id } }")

    for ask in (lambda: result.data, lambda: result["book"], lambda: result.expect({})):
        with pytest.raises(GraphQLError, match=r"there is no such book, at book, code NOT_FOUND"):
            ask()


@pytest.mark.parametrize(
    "expectation", [{"message": "other"}, {"path": ["books", 0]}, {"code": "X"}, {"message": re.compile("^no such")}]
)
async def test_no_error_as_expected(graphql, expectation):
    result = await graphql("{ book(id: -1) { id } }")

    with pytest.raises(GraphQLError, match=r"No error as expected \((message|path|code) .*\n  there is no such book"):
        result.expect_error(**expectation)


async def test_an_error_is_expected_once(graphql):
    result = (await graphql("{ book(id: -1) { id } }")).expect_error()

    with pytest.raises(GraphQLError, match="No error as expected"):
        result.expect_error()


async def test_other_data_than_expected(graphql):
    result = await graphql(
        "query($secret: Int!) { books(first: 1) { id title secret } x: book(id: $secret) { id } }", secret=5
    )

    with pytest.raises(GraphQLError) as failure:
        result.expect({"books": [{"id": 3, "title": int, "other": 1}], "more": 1})
    told = str(failure.value)
    assert "$.books[0].id: expected 3, received 0" in told
    assert "$.books[0].title: expected int, received 'Book 0'" in told
    assert "$.books[0].other: expected 1, and it is not there" in told
    assert "$.more: expected 1, and it is not there" in told
    assert '"secret": "***"' in told and "200 OK" in told


async def test_a_query_that_the_schema_does_not_know_is_not_sent(graphql):
    with pytest.raises(GraphQLError) as failure:
        await graphql("{\n  book(id: 1) { titel }\n}")

    told = str(failure.value)
    assert "Cannot query field 'titel' on type 'Book'. Did you mean 'title'?" in told
    assert "query:2:17" in told

    with pytest.raises(GraphQLError, match="Syntax Error"):
        await graphql("{ book(")


@pytest.mark.parametrize("given", [{"frist": 1}, {"first": 1, "frist": 1}])
async def test_a_variable_that_is_not_declared_is_not_passed_over(graphql, given):
    query = "query most($first: Int) { books(first: $first) { id } } query other { caller }"
    told = r"The query doesn't declare \$frist; it declares \$first\. Did you mean \$first\?"
    with pytest.raises(GraphQLError, match=told):
        await graphql(query, given, operation="most")
    with pytest.raises(GraphQLError, match=r"it declares none\.$"):
        await graphql(query, {"first": 1}, operation="other")
    with pytest.raises(GraphQLError, match=r"doesn't declare \$x"):
        async with graphql.subscribe("subscription { count(to: 1) }", x=1):
            pass

    (await graphql(query, {"first": 1}, operation="most")).expect({"books": [{"id": 0}]})
    async with graphql.unchecked():
        (await graphql("query other { caller }", frist=1)).expect({"caller": ...})


async def test_a_query_is_sent_as_it_is_if_asked(graphql):
    async with graphql.unchecked():
        result = await graphql("{ titel }")

    result.expect_error("Cannot query field")


async def test_what_is_no_graphql_is_told(graphql):
    graphql._path = "/other"

    with pytest.raises(GraphQLError, match=r"none of GraphQL:\nrequest\n  POST http://app\.test/other\n"):
        await graphql("{ books { id } }")


async def test_subscription(graphql):
    async with graphql.subscribe("subscription($to: Int!) { count(to: $to) }", to=3) as events:
        assert [event["count"] async for event in events] == [0, 1, 2]


async def test_subscription_that_is_left(graphql):
    async with graphql.subscribe("subscription { count(to: 1000000) }") as events:
        assert (await anext(events))["count"] == 0


async def test_subscription_with_an_error(graphql):
    async with graphql.subscribe("subscription { count(to: 0) }") as events:
        (await anext(events)).expect_error("nothing to count")


async def test_subscriptions_at_once(graphql):
    async def counted(to):
        async with graphql.subscribe("subscription($to: Int!) { count(to: $to) }", to=to) as events:
            return [event["count"] async for event in events]

    assert await asyncio.gather(*map(counted, range(1, 9))) == [list(range(to)) for to in range(1, 9)]


async def test_subscription_to_what_is_no_socket(graphql):
    await graphql.schema()
    graphql._schemas["/other"] = await graphql.schema()
    graphql._path = "/other"

    with pytest.raises(WebSocketRefusedError):
        async with graphql.subscribe("subscription { count(to: 1) }"):
            pass


async def ended(app, use):
    """What the end of an Api says of what was done with it."""
    try:
        async with Api(app) as api:
            await use(GraphQL(api))
    except GraphQLError as error:
        return str(error)
    return ""


async def test_errors_that_nobody_looks_at_fail_at_the_end(app):
    async def use(graphql):
        await graphql("{ book(id: -1) { id } }")
        await graphql("{ book(id: -2) { id } }")

    told = await ended(app, use)
    assert re.match(
        r"The answer to the call at \S*test_graphql\.py:\d+ in use has errors that .* \(and 1 more like", told
    )
    assert "\n  there is no such book, at book, code NOT_FOUND\n" in told
    assert '"query": "{ book(id: -1) { id } }"' in told


async def test_errors_of_events_too(app):
    async def use(graphql):
        async with graphql.subscribe("subscription { count(to: 0) }") as events:
            await anext(events)

    assert "nothing to count\n" in await ended(app, use)


async def test_an_error_beside_the_one_that_is_expected(app):
    async def use(graphql):
        (await graphql("{ a: book(id: -1) { id } b: book(id: -2) { id } }")).expect_error(path="a")

    assert "at b, code NOT_FOUND" in await ended(app, use)


LOOKS = (
    lambda result: result.errors,
    lambda result: result.expect_error(),
    lambda result: result.response.expect(200, json={"errors": [{"message": "there is no such book"}]}),
    lambda result: result.response.json(),
    lambda result: result.response.text,
    lambda result: result.response.expect(jsonpath={"$.errors[0].extensions.code": "NOT_FOUND"}),
)


@pytest.mark.parametrize("look", LOOKS)
async def test_errors_that_were_looked_at(app, look):
    async def use(graphql):
        look(await graphql("{ book(id: -1) { id } }"))

    assert await ended(app, use) == ""


@pytest.mark.parametrize("status", [200, 400])
async def test_the_status_of_a_response_tells_of_errors_only_if_it_is_an_errors(status):
    async def app(scope, receive, send):
        await JSONResponse({"errors": [{"message": "no such thing"}]}, status)(scope, receive, send)

    async def use(graphql):
        async with graphql.unchecked():
            result = await graphql("{ thing }")
        result.response.expect(status, headers={"content-type": "application/json"})

    assert ("that the test has not looked at" in await ended(app, use)) is (status == 200)


async def test_a_block_that_fails_says_only_that(app):
    async def use(graphql):
        await graphql("{ book(id: -1) { id } }")
        raise LookupError("of the test")

    with pytest.raises(LookupError, match="of the test"):
        await ended(app, use)


async def test_what_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "gql", None)

    async with Api(library()) as api:
        with pytest.raises(GraphQLError, match=r"pip install 'asynctest_kit\[graphql\]'"):
            GraphQL(api)


async def test_who_calls_is_the_session(app):
    async with Api(app) as api:
        graphql = GraphQL(api.session(headers={"x-caller": "ada"}))

        assert (await graphql("{ caller }"))["caller"] == "ada"


class TestOnASocket:
    @pytest.fixture
    def app(self):
        return serve(library())

    async def test_it_works_too(self, graphql):
        (await graphql("{ books { id } }")).expect({"books": [{"id": 0}, {"id": 1}]})
        async with graphql.subscribe("subscription { count(to: 2) }") as events:
            assert [event["count"] async for event in events] == [0, 1]
