"""``pact`` in a suite of its own, under both runners: fifty tests at once write what they write one at a time."""

from __future__ import annotations

import json
import os
import re
import shutil

import preloaded
import pytest

pytestmark = pytest.mark.anyio

PYPROJECT = """
[tool.pytest.ini_options]
filterwarnings = ["error"]
[tool.asynctest_kit]
[tool.asynctest_kit.pact]
name = "shop"
provider = "bank0"
"""

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""

FIFTY = """
import asyncio
import os

import httpx
import pytest
from pact import match

pytestmark = pytest.mark.anyio

MEETING = asyncio.Event()
HERE = set()


async def meet(number):
    # Under the engine each waits until all of them have their servers; alone there is nobody to wait for.
    HERE.add(number)
    if len(HERE) == 50 or "TOGETHER" not in os.environ:
        MEETING.set()
    await MEETING.wait()


@pytest.mark.parametrize("number", range(50))
async def test_account(pact, number):
    bank = pact(provider=f"bank{number % 5}")
    (
        bank.upon_receiving(f"account {number // 10}")
        .given("an account", number=number % 5)
        .with_request("GET", f"/accounts/{number % 5}")
        .will_respond_with(200)
        .with_body({"number": match.int(number % 5), "names": ["a", match.str("b")]}, "application/json")
    )
    (
        bank.upon_receiving(f"transfer {number}")
        .with_request("POST", "/transfers")
        .with_body({"z": 1, "cents": match.number(number), "a": match.uuid()}, "application/json")
        .will_respond_with(201)
    )
    async with bank.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        await meet(number)
        assert (await http.get(f"/accounts/{number % 5}")).json() == {"number": number % 5, "names": ["a", "b"]}
        transfer = {"z": 1, "cents": number, "a": "c0ffee00-0000-4000-8000-000000000000"}
        assert (await http.post("/transfers", json=transfer)).status_code == 201
    bank.upon_receiving(f"booked {number}", "Async").with_body({"cents": number}, "application/json")
    got = []

    async def handler(contents, metadata):
        await asyncio.sleep(0)
        got.append((contents, metadata["contentType"]))

    await bank.receive(handler)
    assert got == [('{"cents":%d}' % number, "application/json")]
"""

ODD = """
import httpx
import pytest

pytestmark = pytest.mark.anyio


def expect(pact, description="odd", **body):
    request = pact.upon_receiving(description).with_request("POST", "/x").with_body(body, "application/json")
    request.will_respond_with(200)


async def post(pact, *requests):
    async with pact.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        for path, body in requests:
            (await http.post(path, json=body)).raise_for_status()


@pytest.fixture
def odd(pact):
    return pact(provider="odd")


async def test_mismatch(odd):
    expect(odd, cents=1, password="secret")
    with pytest.raises(httpx.HTTPStatusError):
        await post(odd, ("/x", {"cents": "1", "password": "s3cret"}))


async def test_unexpected_and_missing(odd):
    expect(odd, cents=1)
    async with odd.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        await http.get("/elsewhere")


async def test_never_played(odd):
    expect(odd)


async def test_message_that_is_not_understood(odd):
    odd.upon_receiving("m", "Async").with_body({}, "application/json")

    async def handler(contents, metadata):
        raise LookupError("no cents")

    await odd.receive(handler)


async def test_played_and_failed(odd):
    expect(odd, "failed", a=1)
    await post(odd, ("/x", {"a": 1}))
    assert not "passed"


@pytest.mark.xfail(strict=True)
async def test_played_and_expected_to_fail(odd):
    expect(odd, "expected to fail", a=1)
    await post(odd, ("/x", {"a": 1}))
    assert not "passed"


@pytest.fixture
def falls(pact):
    yield
    raise LookupError("while it is torn down")


async def test_torn_down_with_an_error(falls, odd):
    expect(odd, "torn down", a=1)
    await post(odd, ("/x", {"a": 1}))


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_conflict(odd, status):
    odd.upon_receiving("one").given("open").with_request("GET", "/1").will_respond_with(status)
    async with odd.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        await http.get("/1")
"""

OTHER = """
import httpx
import pytest


@pytest.mark.anyio
async def test_other(pact):
    bank = pact(provider="bank2")
    bank.upon_receiving("transfer 2").with_request("POST", "/other").will_respond_with(201)
    async with bank.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        await http.post("/other")
"""

#: What becomes of those that don't pass, whoever of the two that disagree comes second.
FAILED = {
    "ERROR test_odd.py::test_mismatch",
    "FAILED test_odd.py::test_unexpected_and_missing",
    "ERROR test_odd.py::test_never_played",
    "FAILED test_odd.py::test_message_that_is_not_understood",
    "FAILED test_odd.py::test_played_and_failed",
    "ERROR test_odd.py::test_torn_down_with_an_error",
    "ERROR test_odd.py::test_conflict",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pacts")
    files = {"pyproject.toml": PYPROJECT, "conftest.py": CONFTEST, "test_fifty.py": FIFTY, "test_odd.py": ODD}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


async def run(folder, *command, **environment):
    """Run it; what it said, and the pacts that there are then."""
    options = ("-p", "no:cacheprovider", "--tb=short", "-rfE", "-q")
    addopts = os.environ["PYTEST_ADDOPTS"].replace("-p no:pact", "")  # pact-python's own plugin is there, as for users
    environment |= {"PYTEST_ADDOPTS": addopts}
    done = await preloaded.finished(["-m", *command, *options], cwd=folder, env=os.environ | environment)
    return done.stdout + done.stderr, pacts(folder)


def pacts(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / "pacts").iterdir())}


def odd(output):
    lines = {line.partition(" - ")[0].partition("[")[0] for line in output.splitlines()}
    return {line for line in lines if line.startswith(("FAILED", "ERROR"))}


@pytest.fixture(scope="module")
async def together(suite):
    return await run(suite, "asynctest_kit", "run", "--concurrency", "64", "--shuffle", "7", TOGETHER="1")


async def test_what_does_not_hold_is_told(together):
    output, written = together
    assert odd(output) == FAILED, output
    for text in (
        "The pact of shop with odd was not kept by the consumer:\n",
        "'odd': the request POST /x came otherwise\n",
        "body at $.cents: Expected '1' (String) to be equal to 1 (Integer)\n",
        "body at $.password: differs; what it is named like is a secret and is not shown\n",
        "GET /elsewhere: no interaction expects this request. Expected: POST /x\n",
        "'odd': the request POST /x never came\n",
        "'odd': expected and never played. Call the consumer within",
        "The message 'm' of the pact of shop with odd can't be handled: LookupError: no cents",
        "The pact of shop with odd says two things of 'one', given 'open': one test_odd.py::test_conflict[",
    ):
        assert text in re.sub(r"(?m)^E +", "", output), text
    assert "s3cret" not in output.replace('"password": "s3cret"', "")
    assert "exclusive" not in output
    assert "touched process-global state" not in output
    _, _, told = output.partition("files that were written")
    assert re.findall(r"(?m)^(pacts/\S+)  new$", told) == [f"pacts/{name}" for name in written], output
    assert list(written) == [*(f"shop-bank{n}.json" for n in range(5)), "shop-odd.json"]
    said = json.loads(written["shop-odd.json"])["interactions"]
    assert [each["description"] for each in said] == ["one"]


@pytest.mark.once
async def test_fifty_at_once_write_what_they_write_one_at_a_time(suite, together, tmp_path):
    def shared(written):
        return {name: content for name, content in written.items() if "bank" in name}

    folder = copied(suite, tmp_path / "one-by-one")
    output, one_by_one = await run(folder, "pytest")
    assert odd(output) == FAILED, output
    assert shared(one_by_one) == shared(together[1])
    first = json.loads(one_by_one["shop-bank3.json"])
    assert len(first["interactions"]) == 5 + 10 + 10
    assert len(first["metadata"]["asynctest_kit"]["tests"]) == 25
    folder = copied(suite, tmp_path / "spread")
    output, spread = await run(folder, "pytest", "-n", "2", "test_fifty.py")
    assert spread == shared(together[1]), output
    folder = copied(suite, tmp_path / "by-option")
    output, by_option = await run(folder, "pytest", "--atk", "test_fifty.py", TOGETHER="1")
    assert by_option == shared(together[1])
    assert "exclusive" not in output


def copied(suite, folder):
    shutil.copytree(suite, folder, ignore=shutil.ignore_patterns("pacts", "__pycache__"))
    return folder


async def test_a_part_of_the_tests_leaves_what_the_others_say(suite, together, tmp_path):
    """What is no longer there is taken out; a test that contradicts one that was not run fails the run."""
    folder = copied(suite, tmp_path / "part")
    (folder / "pacts").mkdir()
    for name, content in together[1].items():
        (folder / "pacts" / name).write_bytes(content)
    (folder / "test_other.py").write_text(OTHER)
    (folder / "test_fifty.py").write_text(FIFTY.replace("range(50)", "[*range(41), *range(45, 50)]"))
    output, written = await run(folder, "pytest", "test_fifty.py", "test_other.py", "-k", "other or 10")
    assert "2 passed" in output
    changed = re.findall(r"(?m)^(\S+)  changed$", output)
    assert changed == [f"pacts/shop-bank{number}.json" for number in (1, 3, 4)]
    assert "pacts that were not written" in output
    assert "says two things of 'transfer 2': one test_other.py::test_other says, the other test_fifty.py::" in output
    assert "run it again" in output
    unchanged = {name for name in written if written[name] == together[1][name]}
    assert written.keys() - unchanged == {f"shop-bank{n}.json" for n in (1, 3, 4)}  # those of 41, 43 and 44
    was, now = (told(each["shop-bank1.json"]) for each in (together[1], written))
    assert was - now == {"transfer 41", "booked 41"}
    (folder / "below").mkdir()
    (folder / "test_fifty.py").write_text(FIFTY.replace("range(50)", "range(40)"))
    output, later = await run(folder, "pytest", "--rootdir=.", "below/../test_fifty.py::test_account[1]")
    assert "1 passed" in output
    assert later == written
    assert "files that were written" not in output


def told(pact):
    return {each["description"] for each in json.loads(pact)["interactions"]}
