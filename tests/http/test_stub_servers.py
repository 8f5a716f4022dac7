"""WireMock and MockServer with stubs of each test's own: a suite under both runners, and what single leases do.

Both servers start once, for this module and the suites that it runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
from types import SimpleNamespace

import anyio
import httpx
import msgspec
import pytest
import stub_suite
from anyio import Path

from asynctest_kit.http.mockserver import MockServer
from asynctest_kit.http.stub_products import Lease, Reply, StubFileError, StubServerError, Wanted
from asynctest_kit.http.stub_server import StubNotCalledError, UnmockedRequestError, open_stub_server
from asynctest_kit.http.stubs import Stubs, VerificationError
from asynctest_kit.http.wiremock import WireMock
from asynctest_kit.provision.catalog import spec_for
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.identity import identify
from asynctest_kit.settings import load

pytestmark = pytest.mark.anyio

PRODUCTS = {"wiremock": WireMock, "mockserver": MockServer}
JARS = tuple(f"ATK_{name.upper()}_JAR" for name in PRODUCTS)


@pytest.fixture(scope="module")
async def servers(tmp_path_factory):
    """The folder of the suite, and both servers, which its runs share."""
    if missing := [variable for variable in JARS if not os.environ.get(variable)]:
        pytest.skip(f"{' and '.join(missing)} not set")
    folder = tmp_path_factory.mktemp("stubs")
    stub_suite.write(folder, wiremock="http://127.0.0.1:1")
    settings = load(paths=(), directory=folder, environ=environment(), options={})
    client = Client.connect(folder)
    try:
        found = {name: await client.endpoint(spec_for(name, settings)) for name in PRODUCTS}
        stub_suite.write_settings(folder, wiremock=found["wiremock"].url)
        yield folder, found
    finally:
        client.close()


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("ATK_") or name in JARS}


async def run(folder, *command):
    argv = [sys.executable, "-m", *command, "-p", "no:cacheprovider", "--tb=short", "-rfE"]
    done = await anyio.run_process(argv, cwd=folder, env=environment(), check=False)
    return done.stdout.decode()


@pytest.fixture(scope="module")
async def together(servers):
    return await run(servers[0], "asynctest_kit", "run", "--concurrency", str(2 * stub_suite.COUNT), "--shuffle", "5")


def odd(output):
    lines = {line.partition(" - ")[0] for line in output.splitlines()}
    return {line for line in lines if line.startswith(("FAILED", "ERROR"))}


async def test_none_of_many_at_once_on_each_gets_anothers_answer(together):
    assert odd(together) == stub_suite.ODD, together
    assert re.search(rf"1 failed, {stub_suite.PASSED} passed, 4 errors", together)
    assert "interference" not in together


async def test_outcomes_are_the_same_under_pytest(servers):
    output = await run(servers[0], "pytest", "-q", "-k", f"not test_on or {stub_suite.COUNT - 1}")
    assert odd(output) == stub_suite.ODD, output


async def test_what_nothing_answered_is_told_of_a_test_that_failed_in_another_process(servers):
    output = await run(servers[0], "pytest", "-q", "-p", "xdist", "-n", "1", "-k", "test_unmocked_and_failed")
    assert odd(output) == {f"{kind} test_it.py::test_unmocked_and_failed" for kind in ("FAILED", "ERROR")}, output
    assert "test_unmocked_and_failed called GET /nowhere, which nothing mocks on WireMock." in output


async def test_what_nothing_answered_is_told_with_the_nearest_stubs(together):
    for name, title in (("wiremock", "WireMock"), ("mockserver", "MockServer")):
        told = rf"test_it.py::test_unmocked_on_{name} called GET /users\?.*api_key=\*\*\*.*, which nothing mocks on"
        assert re.search(
            rf"{told} {title}\.\nNearest stubs:\n(  .*\n)*  GET /users with query  differs in: query\n", together
        )
        assert f'Answer it with {name}.stub("GET", "/users", ...), or let it go unanswered with' in together
    assert "hidden" not in together


async def test_what_nothing_answered_is_told_where_a_test_failed(together):
    _, _, failure = together.partition("___ test_unmocked_and_failed ___")
    told = r"--- WireMock: requests that nothing answered -+\ntest_it.py::test_unmocked_and_failed called GET /nowhere"
    assert re.search(told, failure)


async def test_a_stub_that_nothing_called_is_told(together):
    for name in PRODUCTS:
        told = f"test_it.py::test_not_called_on_{name} mocked what nothing called:\n  POST /pay with body\n"
        assert f"{told}It called nothing.\n" in together


@pytest.fixture(params=PRODUCTS)
async def opened(request, servers):
    server = servers[1][request.param]
    async with open_stub_server(server, PRODUCTS[request.param](server), fixture="stubs") as opened:
        yield opened


@pytest.fixture
async def stubs(opened):
    async with opened.lease("test_shop") as stubs:
        yield stubs


@pytest.fixture
async def client(stubs):
    async with httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client:
        yield client


async def test_verification_tells_what_comes_nearest(stubs, client):
    await stubs.stub("ANY", "/pay")
    for amount in (1, 2):
        await client.post("/pay?page=1", json={"amount": amount, "password": "hidden"})
    await client.get("/pay")
    (found,) = await stubs.verify("POST", "/pay", count=1, json={"amount": 2})
    assert (found.json()["amount"], found.path, found.query) == (2, "/pay", {"page": "1"})
    assert len(await stubs.requests("POST", query={"page": "1"})) == 2
    assert [one.method for one in await stubs.requests()] == ["POST", "POST", "GET"]
    await stubs.verify("DELETE", count=0)
    with pytest.raises(VerificationError) as caught:
        await stubs.verify("POST", "/pay", headers={"X-Shop": "tea"}, json={"amount": 3})
    told = str(caught.value).splitlines()
    assert told[0].startswith("test_shop expected POST /pay with this ")
    assert told[0].endswith(" to be called at least once; it was 0 times.")
    assert told[1] == "Nearest requests:"
    assert re.fullmatch(
        r'  POST /pay\?page=1  \{"amount": 1, "password": "\*\*\*"\}  differs in: headers, body', told[2]
    )
    assert told[3:5] == [
        "    header X-Shop: expected 'tea', and it is not there",
        "    body $.amount: expected 3, received 1",
    ]
    assert told[5].startswith("  POST /pay?page=1  ")
    assert told[8].startswith("  GET /pay  differs in: method, ")
    assert told[10] == "    body: there is none"
    with pytest.raises(VerificationError, match=r"(?s)to be called once; it was 2 times\.\nThese were:\n  POST"):
        await stubs.verify("POST", "/pay", count=1)


async def test_differences_hide_secrets_and_are_not_many(stubs, client):
    stubs.allow_unmatched()
    wanted = {"password": "wanted", "of": {"token": "hidden-too", **{str(number): number for number in range(9)}}}
    await client.post("/pay?api_key=hidden", json={"password": "hidden", "of": [1]}, headers={"X-Token": "hidden"})
    with pytest.raises(VerificationError) as caught:
        await stubs.verify("POST", "/pay", json=wanted, query={"api_key": "1", "page": "2"}, headers={"x-token": "1"})
    told = str(caught.value)
    assert "hidden" not in told.replace("hidden-too", "")
    assert "    query api_key: expected '1', received ***\n" in told
    assert "    query page: expected '2', and it is not there\n" in told
    assert "    header x-token: expected '1', received ***\n" in told
    assert "    body $.password: expected 'wanted', received ***\n" in told
    with pytest.raises(VerificationError, match=r"received 0\n    and 4 more$"):
        await client.post("/pay", json={"of": dict.fromkeys(map(str, range(9)), 0)})
        await stubs.verify("POST", "/pay", json={"of": {str(number): number + 1 for number in range(9)}})


@pytest.fixture(params=["every level", "few levels"])
def log(request, opened):
    """MockServer's log as it is, and with errors alone beside what it keeps at any level."""
    call = opened.product.admin.call

    async def kept(method, path, *content):
        answer = await call(method, path, *content)
        return [one for one in answer if one["type"] != "EXPECTATION_MATCHED"] if "LOG_ENTRIES" in path else answer

    if request.param == "few levels":
        opened.product.admin.call = kept


@pytest.mark.usefixtures("log")
async def test_a_stub_in_anothers_shadow_was_not_called(opened, stubs, client):
    await stubs.stub("GET", "/users/1", text="older")
    await stubs.stub("GET", "/users/{id}", text="newer")
    assert [(await client.get("/users/1")).text for _ in range(2)] == ["newer"] * 2
    if opened.title == "MockServer":  # it notes an answer when it has been sent
        matcher = {"headers": {opened.product.header: list(stubs.headers.values())}}
        path = "/mockserver/retrieve?type=REQUEST_RESPONSES&format=JSON"
        while len(await opened.product.admin.call("PUT", path, matcher)) < 2:
            pass
    ended = await opened.end(stubs)
    with pytest.raises(StubNotCalledError, match=r"mocked what nothing called:\n  GET /users/1\nIt called:"):
        ended.check()


@pytest.mark.usefixtures("log")
async def test_a_stub_whose_answer_is_still_to_come_was_called(opened, stubs, client):
    await stubs.stub("GET", "/late", delay=30)
    asking = asyncio.ensure_future(client.get("/late"))
    await stubs.verify("GET", "/late", within=60)
    (await opened.end(stubs)).check()
    asking.cancel()


@pytest.mark.usefixtures("log")
async def test_a_stub_in_the_shadow_of_one_whose_answer_is_still_to_come_was_not_called(opened, stubs, client):
    await stubs.stub("GET", "/late", text="older")
    await stubs.stub("GET", "/{any}", delay=30)
    asking = asyncio.ensure_future(client.get("/late"))
    await stubs.verify("GET", "/late", within=60)
    ended = await opened.end(stubs)
    with pytest.raises(StubNotCalledError, match=r"mocked what nothing called:\n  GET /late\nIt called:"):
        ended.check()
    asking.cancel()


@pytest.mark.usefixtures("log")
async def test_a_stub_that_was_given_up_for_a_newer_one_was_called(opened, stubs, client):
    await stubs.stub("GET", "/late", delay=30)
    asking = asyncio.ensure_future(client.get("/late"))
    await stubs.verify("GET", "/late", within=60)
    asking.cancel()
    await stubs.stub("GET", "/late", text="newer")
    assert (await client.get("/late")).text == "newer"
    (await opened.end(stubs)).check()


async def test_a_request_may_still_be_to_come(opened, stubs, client):
    await stubs.stub("POST", "/pay")
    looked, find = asyncio.Event(), opened.product.find

    async def seen(*asked):
        found = await find(*asked)
        looked.set()
        return found

    opened.product.find = seen
    async with asyncio.TaskGroup() as group:
        verified = group.create_task(stubs.verify("POST", "/pay", count=1, within=60))
        await looked.wait()
        await client.post("/pay")
    assert len(verified.result()) == 1


async def test_none_may_come_in_the_time_in_which_none_is_expected(opened, stubs, client):
    await stubs.stub("POST", "/pay")
    await stubs.verify("POST", "/pay", count=0, within=0.05)
    looked, find = asyncio.Event(), opened.product.find

    async def seen(*asked):
        found = await find(*asked)
        looked.set()
        return found

    opened.product.find = seen
    verifying = asyncio.ensure_future(stubs.verify("POST", "/pay", count=0, within=60))
    await looked.wait()
    await client.post("/pay")
    with pytest.raises(VerificationError, match="to be called 0 times; it was once"):
        await verifying


class TickingLoop(asyncio.SelectorEventLoop):
    """Whose clock goes a second on whenever it is looked at."""

    def time(self):
        self.seconds = getattr(self, "seconds", 0.0) + 1
        return self.seconds


@pytest.mark.parametrize("within", [0.5, 1.5, 2.5, 9.5])
async def test_where_none_is_expected_time_runs_out_at_any_point(within):
    async def found(*_):
        return []

    async def verified():
        product = SimpleNamespace(title="Stubs", header="X", pattern=lambda _: {}, conditions=lambda _: {}, find=found)
        lease = SimpleNamespace(id="id", test="test_shop")
        stubs = Stubs(product, lease, server=None, port=SimpleNamespace(url=""), fixture="stubs")
        return await stubs.verify("GET", "/tea", count=0, within=within)

    def run():
        with asyncio.Runner(loop_factory=TickingLoop) as runner:
            return runner.run(verified())

    assert await asyncio.to_thread(run) == []


async def test_answers_are_what_was_asked_for(stubs, client):
    stubs.optional()
    await stubs.stub("GET", "/plain", text="tea", status=203, headers={"X-Shop": "1"}, delay=0.01)
    await stubs.stub("GET", "/orders/{id}/lines", json=[1])
    await stubs.stub("GET", re.compile("/(tea|milk)"), json=None)
    await stubs.stub("GET", "/orders/1/lines", request_headers={"X-Shop": "2"}, text="other")
    plain = await client.get("/plain")
    assert (plain.status_code, plain.text, plain.headers["X-Shop"]) == (203, "tea", "1")
    assert (await client.get("/orders/1/lines")).json() == [1]
    assert (await client.get("/orders/1/lines", headers={"X-Shop": "2"})).text == "other"
    assert (await client.get("/milk")).json() is None


async def test_requests_of_a_connection_come_through_whole(stubs, client):
    await stubs.stub("PUT", "/much")

    async def pieces():
        for _ in range(3):
            yield b"GET / HTTP/1.1\r\n\r\n" * 1000

    for _ in range(3):
        await client.put("/much", content=pieces())
    assert {one.body for one in await stubs.verify("PUT", "/much", count=3)} == {b"GET / HTTP/1.1\r\n\r\n" * 3000}
    assert stubs.port.connections == 1


@pytest.mark.parametrize("fault", ["CONNECTION_RESET_BY_PEER", "EMPTY_RESPONSE", "MALFORMED_RESPONSE_CHUNK"])
async def test_answers_may_be_broken(stubs, client, fault):
    await stubs.stub("GET", "/broken", fault=fault)
    with pytest.raises(httpx.TransportError):
        await client.get("/broken")


async def test_faults_of_the_connection_may_be_added(stubs, client):
    await stubs.stub("GET", "/tea", text="tea")
    async with stubs.port.reset(connections=1):
        with pytest.raises(httpx.TransportError):
            await client.get("/tea")
    assert (await client.get("/tea")).text == "tea"


async def test_a_scenario_goes_from_state_to_state_for_each_test(opened, stubs, client):
    async with opened.lease("other") as other:
        for one in (stubs, other):
            await one.stub("GET", "/job", text="waiting", scenario="job", state="Started", next_state="done")
            await one.stub("GET", "/job", text="done", scenario="job", state="done")
        told = [(await client.get(f"{one.url}/job")).text for one in (stubs, other, stubs)]
    assert told == ["waiting", "waiting", "done"]


async def test_code_that_passes_a_header_needs_no_port(stubs, client):
    await stubs.stub("GET", "/tea", text="tea")
    headers = {**stubs.headers, "x-colour": "green"}
    assert (await client.get(f"{stubs.server.url}/tea", headers=headers)).text == "tea"
    (found,) = await stubs.verify("GET", "/tea", count=1)
    assert found.headers["X-Colour"] == "green"
    assert not {name.lower() for name in found.headers} & {name.lower() for name in stubs.headers}


async def test_a_server_of_the_users_may_be_behind_tls(servers, tmp_path, monkeypatch):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ("-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate))
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    await anyio.run_process(["openssl", "req", "-x509", *made, *named])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    wiremock = servers[1]["wiremock"]

    async def carry(reader, writer):
        async def copy(source, sink):
            while data := await source.read(1 << 16):
                sink.write(data)
            sink.close()

        behind = await asyncio.open_connection(wiremock.host, wiremock.port)
        await asyncio.gather(copy(reader, behind[1]), copy(behind[0], writer))

    async with await asyncio.start_server(carry, "127.0.0.1", ssl=context) as terminator:
        port = terminator.sockets[0].getsockname()[1]
        outside = msgspec.structs.replace(wiremock, provider="external", scheme="https", host="localhost", port=port)
        async with (
            open_stub_server(outside, WireMock(outside), fixture="stubs") as opened,
            opened.lease("test_shop") as stubs,
            httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client,
        ):
            await stubs.add({"request": {"urlPath": "/host"}, "response": HOST})
            assert stubs.url.startswith("http://127.0.0.1:")
            assert (await client.get("/host")).text == "localhost"


#: Answers with the name by which the server was called.
HOST = {"status": 200, "body": "{{request.host}}", "transformers": ["response-template"]}


@pytest.mark.parametrize("name", PRODUCTS)
async def test_a_header_of_the_applications_may_tell_tests_apart(servers, name):
    server, product = servers[1][name], PRODUCTS[name]
    async with (
        open_stub_server(server, product(server, "X-Request-Id"), fixture="stubs") as opened,
        opened.lease("one") as one,
        opened.lease("other") as other,
        httpx.AsyncClient(base_url=server.url, verify=False, timeout=60) as client,
    ):
        for number, stubs in enumerate((one, other)):
            await stubs.stub("GET", "/tea", text=str(number))
            assert list(stubs.headers) == ["X-Request-Id"]
        assert (await client.get("/tea", headers=one.headers)).text == "0"
        assert (await client.get("/tea", headers=other.headers)).text == "1"
        for stubs in (one, other):
            await stubs.verify("GET", "/tea", count=1)
            (await opened.end(stubs)).check()


async def test_a_lease_ends_with_a_check(opened):
    async with opened.lease("test_shop") as stubs:
        async with httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client:
            await stubs.stub("GET", "/tea")
            await stubs.stub("GET", "/milk")
            await client.get("/tea")
            ended = await opened.end(stubs)
        with pytest.raises(StubNotCalledError) as caught:
            ended.check()
    assert str(caught.value).splitlines() == [
        "test_shop mocked what nothing called:",
        "  GET /milk",
        "It called:",
        "  GET /tea",
        "A stub that may go without a call is told to stubs.optional(stub).",
    ]


async def test_what_may_be_missing_and_unanswered_is_not_told(opened):
    async with opened.lease("test_shop") as stubs:
        async with httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client:
            stubs.optional(await stubs.stub("GET", "/tea"))
            await stubs.stub("GET", "/milk", optional=True)
            stubs.allow_unmatched("/health")
            await client.get("/healthy")
            (await opened.end(stubs)).check()
        stubs.allow_unmatched("/nothing")
    async with (
        opened.lease("test_shop") as stubs,
        httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client,
    ):
        await client.get("/health")
        with pytest.raises(UnmockedRequestError, match="There are no stubs of this test"):
            (await opened.end(stubs)).check()


async def left(opened, lease):
    """How many stubs and requests of a lease are on the server."""
    product = opened.product
    if isinstance(product, WireMock):
        asked = {"matchesJsonPath": {"expression": "$.asynctest_kit.lease", "equalTo": lease}}
        found = (await product.admin.call("POST", "/__admin/mappings/find-by-metadata", asked))["mappings"]
    else:
        asked = {"headers": {product.header: [lease]}}
        found = await product.admin.call("PUT", "/mockserver/retrieve?type=ACTIVE_EXPECTATIONS&format=JSON", asked)
    return len(found) + len(await product.find(lease, {}))


@pytest.mark.parametrize("after", [0, 1, 3, 10, 30])
async def test_nothing_is_left_of_a_lease_that_is_cancelled_anywhere(opened, after):
    leases = []

    async def use():
        async with opened.lease("test_shop") as stubs:
            leases.append(next(iter(stubs.headers.values())))
            await stubs.stub("GET", "/tea")
            async with httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client:
                await client.get("/tea")
            await opened.end(stubs)

    task = asyncio.ensure_future(use())
    for _ in range(after * 3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    lease = leases[0] if leases else f"{opened.run}.1"
    assert await left(opened, lease) == 0


async def test_many_leases_that_end_at_once_are_removed_together(opened):
    calls = []
    ended = opened.product.end

    async def end(leases):
        calls.append(len(leases))
        return await ended(leases)

    opened.product.end = end
    here, everybody = [], asyncio.Event()

    async def use(number):
        async with opened.lease(f"test_{number}") as stubs:
            await stubs.add(*[opened.product.made(*made(number)) for _ in range(4)])
            stubs.optional()
            here.append(stubs)
            if len(here) == 100:
                everybody.set()
            await everybody.wait()
            if number == 50:
                async with httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client:
                    assert (await client.get("/tea")).json() == 50
            (await opened.end(stubs)).check()

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(use(number))
    assert sum(calls) == 100
    assert len(calls) < 20
    leases = [value for stubs in here for value in stubs.headers.values()]
    assert await left(opened, "|".join(leases)) == 0
    assert {await left(opened, lease) for lease in leases[:3]} == {0}


def made(number):
    wanted = Wanted(method="GET", path="/tea", query={}, headers={})
    states = (None, None, None)
    reply = Reply(status=200, headers={}, body=str(number), delay=0, fault=None, times=None, scenario=states)
    return wanted, reply


async def test_what_a_killed_run_left_is_removed_by_the_next(opened, servers):
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    process = msgspec.structs.asdict(identify(killed.pid))
    product = type(opened.product)(opened.server)
    lease = Lease(f"{'dead' * 4}.1", "dead" * 4, "test_killed")
    await product.open(lease.run, process)
    await product.begin(lease)
    await product.add(
        [product.of_lease(product.made(*made(1)), lease)[0], product.of_run(product.made(*made(2)), lease.run)]
    )

    async def next_run():
        async with open_stub_server(opened.server, type(product)(opened.server), fixture="stubs"):
            return await left(opened, lease.id), lease.run in await product.marks()

    lives = await next_run()
    killed.kill()
    await killed.wait()
    assert lives[0] > 0
    assert lives[1]
    assert await next_run() == (0, False)
    assert opened.run in await product.marks()
    async with httpx.AsyncClient(verify=False, timeout=60) as client:
        assert (await client.get(f"{opened.server.url}/tea")).status_code == 404


async def test_files_of_the_products_own_are_loaded(opened, stubs, client, tmp_path):
    loaded = {
        "WireMock": {"request": {"urlPath": "/file"}, "response": {"status": 200, "bodyFileName": "deep/tea.txt"}},
        "MockServer": [{"httpRequest": {"path": "/file"}, "httpResponse": {"statusCode": 200, "body": "tea"}}],
    }[opened.title]
    file = Path(tmp_path) / "mappings" / "tea.json"
    await file.parent.mkdir()
    await file.write_text(json.dumps(loaded))
    if opened.title == "WireMock":
        with pytest.raises(StubFileError, match=r"no __files beside it for its bodyFileName 'deep/tea\.txt'"):
            await stubs.load(tmp_path / "mappings/tea.json")
        body = Path(tmp_path) / "__files/deep/tea.txt"
        await body.parent.mkdir(parents=True)
        await body.write_text("tea")
    (stub,) = await stubs.load(tmp_path / "mappings/tea.json")
    assert stub.told == "ANY /file"
    assert (await client.get("/file")).text == "tea"
    with pytest.raises(StubFileError, match=rf"There is no file .*missing\.json of {opened.title}'s"):
        await stubs.load(tmp_path / "missing.json")
    await file.write_text("[1]")
    with pytest.raises(StubFileError, match=r"tea\.json"):
        await stubs.load(tmp_path / "mappings/tea.json")


async def test_what_the_server_refuses_is_told_in_its_words(opened, stubs):
    bad = {"httpRequest": {"path": 1}, "httpResponse": {"statusCode": "x"}, "request": {"methud": "GET"}}
    with pytest.raises(StubServerError, match=rf"(?s){opened.title} refused (POST|PUT) /.* with 4\d\d .*[Ee]rror"):
        await stubs.add(bad)
    assert stubs.known == {}
    with pytest.raises(StubServerError, match="has json and text: an answer has one body"):
        await stubs.stub("GET", "/tea", json=1, text="1")
    with pytest.raises(StubServerError, match=r"fault='HICCUP' is none\. Allowed: CONNECTION_RESET_BY_PEER, "):
        await stubs.stub("GET", "/tea", fault="HICCUP")
    for path in ("tea", "/tea?page=1"):
        with pytest.raises(StubServerError, match="is no path: one begins with / and has no query"):
            await stubs.stub("GET", path)


async def test_a_stub_that_came_too_late_is_told_so(opened):
    async with opened.lease("test_shop") as stubs:
        async with httpx.AsyncClient(base_url=stubs.url, verify=False, timeout=60) as client:
            for _ in range(22):
                await client.get("/tea")
        await stubs.stub("GET", "/tea")
        ended = await opened.end(stubs)
    with pytest.raises(UnmockedRequestError, match=r"(?s)GET /tea  differs in nothing: it was made later.*And 2 more"):
        ended.check()


async def test_how_often_an_answer_is_given(opened, stubs, client):
    if opened.title == "WireMock":
        with pytest.raises(StubServerError, match="say scenario, state and next_state"):
            await stubs.stub("GET", "/tea", times=1)
        return
    await stubs.stub("GET", "/tea", text="last")
    await stubs.stub("GET", "/tea", text="first", times=1)
    assert [(await client.get("/tea")).text for _ in range(2)] == ["first", "last"]
    (await opened.end(stubs)).check()


async def test_a_server_that_remembers_no_requests_is_refused(servers, monkeypatch):
    product = WireMock(servers[1]["wiremock"])
    call = product.admin.call

    async def without_journal(method, path, *content):  # as it answers with --no-request-journal
        is_asked = path == "/__admin/requests/unmatched"
        return {"requests": [], "requestJournalDisabled": True} if is_asked else await call(method, path, *content)

    monkeypatch.setattr(product.admin, "call", without_journal)
    with pytest.raises(StubServerError, match="Start it without --no-request-journal"):
        async with open_stub_server(servers[1]["wiremock"], product, fixture="stubs"):
            raise AssertionError


async def test_a_server_that_has_gone_is_told(servers):
    gone = msgspec.structs.replace(servers[1]["wiremock"], port=1)
    with pytest.raises(StubServerError, match=r"WireMock at http://127\.0\.0\.1:1 can't be reached: "):
        async with open_stub_server(gone, WireMock(gone), fixture="stubs"):
            raise AssertionError
