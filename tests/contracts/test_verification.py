"""A provider against the pacts of its consumers: with the program ``pact verifier``, from files and from a broker."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path

import httpx
import pytest
from broker_double import BrokerDouble
from pact import match

from asynctest_kit.contracts.consumer import ConsumerPact, Words
from asynctest_kit.contracts.errors import PactError, PactVerificationError
from asynctest_kit.contracts.pact_files import write_pacts
from asynctest_kit.contracts.provider_server import Message
from asynctest_kit.contracts.verification import Broker, Provider, verify
from asynctest_kit.fixtures.pacts import PactVerifier
from asynctest_kit.http.apps import opened_app, serve
from asynctest_kit.settings import Settings
from asynctest_kit.settings.pacts import PactSettings

pytestmark = pytest.mark.anyio


class Bank:
    """A provider: an ASGI application over the accounts that its test gives it."""

    def __init__(self, left="left"):
        self.accounts = {}
        self.asked = []
        self._left = left

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        number = scope["path"].rpartition("/")[2]
        self.asked.append((scope["path"], dict(scope["headers"]).get(b"authorization")))
        if number == "hangs":
            await asyncio.Event().wait()
        found = number in self.accounts
        body = json.dumps({self._left: self.accounts[number]} if found else {"error": "unknown"}).encode()
        start = {"type": "http.response.start", "status": 200 if found else 404}
        await send(start | {"headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
async def pacts(tmp_path_factory):
    """A folder: what two consumers expect of the bank, and one of them of another provider."""
    folder = tmp_path_factory.mktemp("verified")
    words = Words("t.py::test")
    for consumer in ("shop", "web"):
        pact = ConsumerPact(words, PactSettings(folder=folder), consumer=consumer, provider="bank")
        account = pact.upon_receiving("an account").given("an account", number="7", cents=100)
        account.with_request("GET", "/accounts/7").will_respond_with(200)
        account.with_body({"left": match.int(100)}, "application/json")
        pact.upon_receiving("no account").with_request("GET", "/accounts/8").will_respond_with(404)
        async with pact.serve() as bank, httpx.AsyncClient(base_url=bank.url, verify=False) as http:
            for number in (7, 8):
                await http.get(f"/accounts/{number}")
    booked = pact.upon_receiving("booked", "Async").given("an account", number="7", cents=5)
    booked.with_body({"cents": match.int(5)}, "application/json").with_metadata({"topic": "bookings"})
    await pact.receive(lambda contents, metadata: None)
    other = ConsumerPact(words, PactSettings(folder=folder), consumer="bank", provider="post")
    other.upon_receiving("a letter").with_request("POST", "/").will_respond_with(201)
    async with other.serve() as post, httpx.AsyncClient(base_url=post.url, verify=False) as http:
        await http.post("/")
    assert write_pacts(folder, words.said, passed=["t.py::test"], is_gone=lambda test: False)[0] == []
    return folder


@pytest.fixture
def settings(pacts):
    return Settings(root=pacts, pact=PactSettings(folder=pacts, name="bank"))


@pytest.fixture
def verifier(settings):
    return PactVerifier(settings)


@pytest.fixture
def bank():
    return Bank()


def states_of(bank, log=None):
    async def an_account(number, cents):
        bank.accounts[number] = cents
        await asyncio.sleep(0)
        yield {"number": number}
        del bank.accounts[number]
        if log is not None:
            log.append(number)

    return {"an account": an_account}


async def booked():
    return Message(contents={"cents": 5}, metadata={"topic": "bookings"})


@pytest.mark.parametrize("how", ["in this process", "on a socket"])
async def test_a_provider_that_keeps_its_pacts(verifier, bank, how):
    log = []
    app = serve(bank) if how == "on a socket" else bank
    done = await verifier(app, states=states_of(bank, log), messages={"booked": booked})
    assert done.interactions == ("an account", "an account", "booked", "no account", "no account")
    assert log == ["7"] * 3
    assert {path for path, _ in bank.asked} == {"/accounts/7", "/accounts/8"}
    assert "Verifying a pact between shop and bank" in done.output


async def test_a_break_is_told_with_its_interaction_and_its_reason(verifier):
    """The provider has renamed a field, which two consumers read."""
    bank = Bank(left="balance")
    with pytest.raises(PactVerificationError) as caught:
        await verifier(bank, states=states_of(bank), messages={"booked": booked})
    told = str(caught.value).splitlines()
    assert told[0] == "bank does not do what its consumers expect: 2 of 5 interactions fail."
    assert told[1] == "  1. shop and bank Given an account - an account"
    assert told[2].startswith("     body at $: ")
    assert "left" in told[2]
    assert told[3] == "  2. web and bank Given an account - an account"
    assert told[-1].startswith("Let the provider do it again;")


async def test_what_the_test_itself_does_wrong_is_told_in_its_place(verifier, bank):
    async def an_account(number, pounds):
        raise AssertionError

    async def fails():
        raise LookupError("no booking")

    with pytest.raises(PactVerificationError) as caught:
        await verifier(bank, states={"an account": an_account}, consumers=["shop"])
    assert "an_account() got an unexpected keyword argument 'cents'" in str(caught.value)
    assert "One or more" not in str(caught.value)
    with pytest.raises(PactVerificationError) as caught:
        await verifier(bank, states=states_of(bank), messages={"booked": fails}, only="booked")
    (line,) = (line for line in str(caught.value).splitlines() if "making the message" in line)
    assert line.strip().startswith("making the message 'booked': LookupError: no booking (")
    assert re.search(rf"\(\S*{Path(__file__).name}:\d+ in fails\)$", line)
    with pytest.raises(PactVerificationError) as caught:
        await verifier(bank, only="an account|booked")
    assert "Nobody brings about the state 'an account'. Give an async function for it" in str(caught.value)
    await verifier(bank, only="no account")


class Account:
    """Brings a state about; an object that is called."""

    async def __call__(self, number, cents):
        json.loads("no json")


async def test_a_handler_that_fails_is_told_with_its_place_and_is_not_the_providers_fault(verifier, bank):
    line = Account.__call__.__code__.co_firstlineno
    for handler, place in (
        (Account(), line + 1),  # not json's, which raised
        (partial(Account().__call__, pounds=1), line),  # which never began
    ):
        with pytest.raises(PactVerificationError) as caught:
            await verifier(bank, states={"an account": handler}, consumers=["shop"], only="an account")
        told = str(caught.value).splitlines()
        assert told[0] == "The test's own part of verifying bank fails, for 1 of 1 interactions."
        assert told[1] == "  1. shop and bank Given an account - an account"
        assert re.fullmatch(r"     bringing about the state 'an account': (JSONDecodeError|TypeError): .*", told[2])
        assert told[2].endswith(f"{Path(__file__).name}:{place} in __call__)")
        assert told[3] == "What brings states about and makes messages is the test's: mend it where it says."
        assert len(told) == 4
    with pytest.raises(PactVerificationError, match=r"(?s)does not do what .*mend it where it says.*Let the provider"):
        broken = Bank(left="balance")
        await verifier(broken, states=states_of(broken), only="an account|booked")


async def test_a_failing_handler_hides_no_break_of_an_interaction_with_a_longer_name(verifier, tmp_path):
    """Names that begin alike are of different states, and of different messages."""

    async def fails():
        raise LookupError("nothing here")

    async def does_nothing():
        return {"cents": "five"}

    def closed(description, *states):
        given = {"providerStates": [{"name": state} for state in states]}
        request = {"request": {"method": "GET", "path": "/accounts/7"}, "response": {"status": 410}}
        return {"type": "Synchronous/HTTP", "description": description, **given, **request}

    def booked(description):
        contents = {"contentType": "application/json", "encoded": False, "content": {"pounds": 5}}
        return {"type": "Asynchronous/Messages", "description": description, "contents": contents}

    wanted = [
        closed("first", "an account"),
        closed("second", "an account that is closed"),
        closed("third", "an account that is closed", "an account"),
        booked("booked"),
        booked("booked again"),
        closed("booked"),
    ]
    pair = {"consumer": {"name": "app"}, "provider": {"name": "bank"}}
    pact = {**pair, "interactions": wanted, "metadata": {"pactSpecification": {"version": "4.0"}}}
    (tmp_path / "app-bank.json").write_text(json.dumps(pact))
    states = {"an account": fails, "an account that is closed": does_nothing}
    messages = {"booked": fails, "booked again": does_nothing}
    with pytest.raises(PactVerificationError) as caught:
        await verifier(Bank(), tmp_path, states=states, messages=messages)
    first, *lines = str(caught.value).splitlines()
    assert first == "bank does not do what its consumers expect: 6 of 6 interactions fail."
    told = [line.partition(" (")[0].strip() for line in lines]
    state = "bringing about the state 'an account': LookupError: nothing here"
    assert told[:6] == [
        *("1. app and bank Given an account - first", state),
        *("2. app and bank Given an account that is closed - second", "status: expected 410 but was 404"),
        *("3. app and bank Given an account that is closed And an account - third", state),
    ]
    assert told[6:9] == [
        *("4. app and bank - booked", "making the message 'booked': LookupError: nothing here"),
        "5. app and bank - booked again",
    ]
    assert "pounds" in told[9]
    assert told[10:12] == ["6. app and bank - booked", "status: expected 410 but was 404"]


async def test_what_can_not_be_called_is_refused_at_once(verifier, bank):
    for states, told in (
        (
            {"an account": None},
            r"states=\{'an account': None\}: what can't be called does nothing; give an async function",
        ),
        ({"an account": booked()}, r"what can't be called does nothing; give the function itself, which was called"),
        ({7: booked}, r"states=\{7: \.\.\.\}: the name is no text"),
        ([booked], r"states=\[.*\]: give a dict, of a function for each name"),
    ):
        with pytest.raises(PactError, match=told):
            await verifier(bank, states=states)
    with pytest.raises(PactError, match=r"messages=\{'booked': 1\}: what can't be called"):
        await verifier(bank, messages={"booked": 1})
    assert bank.asked == []


async def test_generators_of_any_kind_bring_states_about(verifier, bank):
    log = []

    class AnAccount:
        async def __call__(self, number, cents):
            bank.accounts[number] = cents
            yield
            log.append(number)

    def an_account(number, cents):
        bank.accounts[number] = cents
        yield
        log.append(number)

    for handler in (AnAccount(), an_account):
        bank.accounts.clear()
        await verifier(bank, states={"an account": handler}, consumers=["shop"], only="an account")
    assert log == ["7", "7"]


async def test_a_state_that_can_not_be_taken_away_is_told_though_every_interaction_passes(verifier, bank):
    async def an_account(number, cents):
        bank.accounts[number] = cents
        yield
        raise LookupError("still there")

    with pytest.raises(PactVerificationError, match=r"taking away the state 'an account': LookupError: still there"):
        await verifier(bank, states={"an account": an_account}, consumers=["shop"])


async def test_a_state_may_skip_the_test(verifier, bank):
    async def an_account(number, cents):
        pytest.skip("no accounts here")

    with pytest.raises(pytest.skip.Exception, match="no accounts here"):
        await verifier(bank, states={"an account": an_account}, consumers=["shop"])


async def test_headers_reach_the_provider_and_no_command_line(verifier, bank):
    async with opened_app(serve(bank)) as opened:
        await verifier(opened.base_url, only="no account", headers={"Authorization": "Bearer s3cret"})
    assert bank.asked == [("/accounts/8", b"Bearer s3cret")] * 2


async def test_a_provider_that_hangs_ends_with_the_deadline(verifier, bank):
    began = asyncio.Event()

    async def an_account(number, cents):
        began.set()
        await asyncio.Event().wait()

    for deadline in (1.5, 8, 50):  # the program may take long to begin on a busy machine
        with pytest.raises(PactVerificationError, match=rf"did not end within {deadline} s") as caught:
            await verifier(bank, states={"an account": an_account}, consumers=["shop"], deadline=deadline)
        if began.is_set():
            break
    assert "It waited for: bringing about the state 'an account'." in str(caught.value)


async def test_a_verification_that_is_cancelled_leaves_no_process(verifier, bank, pacts, tmp_path):
    began, ended = asyncio.Event(), asyncio.Event()

    async def an_account(number, cents):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    name = f"bank-{tmp_path.name}"
    pact = json.loads((pacts / "shop-bank.json").read_text()) | {"provider": {"name": name}}
    (tmp_path / "pact.json").write_text(json.dumps(pact))
    task = asyncio.create_task(verifier(bank, tmp_path, provider=name, states={"an account": an_account}))
    await began.wait()
    (running,) = _verifiers_of(name)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert not running.exists()


def _verifiers_of(name):
    return [entry for entry in Path("/proc").iterdir() if _is_verifier_of(entry, name)]


def _is_verifier_of(entry, name):
    try:
        return entry.name.isdigit() and f"--provider-name={name}\0".encode() in (entry / "cmdline").read_bytes()
    except OSError:
        return False


async def test_nothing_to_verify(verifier, bank, pacts, tmp_path):
    with pytest.raises(PactError, match=r"no pact with the provider 'none' in .*There are some with 'bank', 'post'\."):
        await verifier(bank, provider="none")
    with pytest.raises(PactError, match=r"There is no pact file, and no folder of them, .*nowhere"):
        await verifier(bank, "nowhere")
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(PactError, match=r"no\.json is no pact"):
        await verifier(bank, tmp_path / "no.json")
    with pytest.raises(PactError, match="from sources or from a broker, and was given both"):
        await verifier(bank, "pacts", broker=Broker(url="http://127.0.0.1:1"))
    with pytest.raises(PactError, match="Nobody says what the provider is called"):
        await PactVerifier(Settings(root=pacts))(bank)
    with pytest.raises(PactError, match=r"Messages are made in this process, and .* at shop\.example\.org"):
        await verifier("http://shop.example.org", messages={"booked": booked})


@pytest.mark.parametrize("left", [{"only": "no such"}, {"consumers": ["nobody"]}])
async def test_that_nothing_was_verified_is_no_success(verifier, bank, left):
    with pytest.raises(
        PactError, match=r"Nothing was verified: of the pacts with bank no interaction is left. Look at"
    ):
        await verifier(bank, states=states_of(bank), **left)


async def test_without_the_program(verifier, bank, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(PactError, match=r"no program `pact`, .*pip install 'asynctest_kit\[pact\]'"):
        await verifier(bank)


@pytest.fixture
async def broker(pacts, monkeypatch):
    """The double, with what the shop expects of the bank; and the login that it wants."""
    double = BrokerDouble()
    pact = json.loads((pacts / "shop-bank.json").read_text())
    double.pacts["shop", "bank"] = ("1", pact)
    async with opened_app(serve(double)) as opened:
        monkeypatch.setenv("PACT_BROKER_BASE_URL", opened.base_url)
        monkeypatch.setenv("PACT_BROKER_TOKEN", double.token)
        double.url = opened.base_url
        yield double


@pytest.mark.parametrize("selectors", [(), ({"mainBranch": True},)])
async def test_pacts_of_a_broker_are_verified_and_the_result_is_published(verifier, bank, broker, selectors):
    where = Broker(url=broker.url, version="7", branch="main", selectors=selectors)
    done = await verifier(bank, broker=where, states=states_of(bank))
    assert done.interactions == ("an account", "no account")
    assert broker.results == [("shop", "bank", "7", True)]
    assert "PUT /pacticipants/bank/branches/main/versions/7" in broker.asked
    with pytest.raises(PactVerificationError):
        await verifier(Bank(left="balance"), broker=where, states=states_of(bank))
    assert broker.results[1:] == [("shop", "bank", "7", False)]


async def test_a_broker_of_the_environment_is_asked_unless_sources_are_given(verifier, bank, broker, pacts):
    await verifier(bank, states=states_of(bank))
    assert "GET /pacts/provider/bank/latest" in broker.asked
    assert broker.results == []
    broker.asked.clear()
    await verifier(bank, pacts, states=states_of(bank), consumers=["shop"])
    assert broker.asked == []


async def test_a_broker_without_a_pact_is_no_success(verifier, bank, broker):
    broker.pacts.clear()
    with pytest.raises(PactError, match="Nothing was verified"):
        await verifier(bank, broker=Broker(url=broker.url))


async def test_a_login_that_is_refused_is_told_without_it(verifier, bank, broker, monkeypatch):
    monkeypatch.setenv("PACT_BROKER_TOKEN", "wr0ng-token")
    with pytest.raises(PactError) as caught:
        await verifier(bank)
    assert "401 Unauthorized" in str(caught.value)
    assert "The broker refused the login: set PACT_BROKER_TOKEN" in str(caught.value)
    assert "wr0ng-token" not in str(caught.value)


async def test_a_result_that_the_broker_does_not_take_is_an_error(bank, broker, monkeypatch):
    monkeypatch.setattr("broker_double._of_pacticipant", lambda base, name: {})
    where = Broker(url=broker.url, version="7", branch="main")
    async with opened_app(bank) as opened:
        provider = Provider(name="bank", base_url=opened.base_url, transport=opened.transport, states=states_of(bank))
        with pytest.raises(PactError, match=r"the broker did not take the result: .*pb:branch-version"):
            await verify(provider, where)
