"""A consumer's words and its mock servers, in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from asynctest_kit.contracts.consumer import ConsumerPact, Words
from asynctest_kit.contracts.errors import PactError, PactMismatchError
from asynctest_kit.settings.pacts import PactSettings

pytestmark = pytest.mark.anyio

SETTINGS = PactSettings(folder=Path("pacts"), name="shop", provider="bank")


def begin(settings=SETTINGS):
    words = Words("t.py::test")
    return words, ConsumerPact(words, settings)


def expect(pact, path="/x"):
    pact.upon_receiving(path).with_request("GET", path).will_respond_with(200)


async def is_open(url):
    parts = httpx.URL(url)
    try:
        _, writer = await asyncio.open_connection(parts.host, parts.port)
    except OSError:
        return False
    writer.close()
    return True


async def test_64_servers_at_once_are_each_closed_with_their_blocks():
    meeting = asyncio.Barrier(64)

    async def one(n):
        _, pact = begin()
        expect(pact, f"/{n}")
        async with pact.serve() as provider:
            async with httpx.AsyncClient(base_url=provider.url, verify=False) as http:
                await meeting.wait()
                assert (await http.get(f"/{n}")).status_code == 200
            assert await is_open(provider.url)
        return provider.url

    urls = await asyncio.gather(*(one(n) for n in range(64)))
    assert len(set(urls)) == 64
    assert not any(await asyncio.gather(*map(is_open, urls)))


async def test_a_cancelled_server_is_closed_and_nothing_is_said():
    words, pact = begin()
    expect(pact)
    urls = asyncio.Queue()

    async def test():
        async with pact.serve() as provider:
            urls.put_nowait(provider.url)
            await asyncio.Event().wait()

    task = asyncio.create_task(test())
    url = await urls.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await is_open(url)
    assert words.said == []
    with pytest.raises(PactMismatchError, match="'/x': broken off"):
        words.check()


async def test_an_error_in_the_block_is_told_with_what_did_not_match_and_the_server_is_closed():
    words, pact = begin()
    expect(pact)
    with pytest.raises(LookupError) as caught:
        async with pact.serve() as provider:
            raise LookupError
    (note,) = caught.value.__notes__
    assert "'/x': the request GET /x never came" in note
    assert not await is_open(provider.url)
    with pytest.raises(PactMismatchError, match="never came"):
        words.check()


async def test_what_was_played_is_said_though_the_consumer_raises_for_the_answer():
    words, pact = begin()
    pact.upon_receiving("declined").with_request("GET", "/x").will_respond_with(402)
    with pytest.raises(httpx.HTTPStatusError):
        async with pact.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
            (await http.get("/x")).raise_for_status()
    words.check()
    (said,) = words.said
    assert said.document["interactions"][0]["description"] == "declined"


async def test_what_is_expected_after_a_block_is_played_in_the_next():
    words, pact = begin()
    for path in ("/1", "/2"):
        expect(pact, path)
        async with pact.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
            await http.get(path)
    words.check()
    told = [each["description"] for said in words.said for each in said.document["interactions"]]
    assert told == ["/1", "/2"]


@pytest.mark.parametrize("version", ["V2", "V3", "V4"])
async def test_each_version_of_the_specification(version):
    words, pact = begin()
    pact = pact(specification=version)
    expect(pact)
    async with pact.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        await http.get("/x")
    (said,) = words.said
    assert said.document["metadata"]["pactSpecification"]["version"].startswith(version[1])
    assert said.document["interactions"][0]["description"] == "/x"


async def test_a_message_with_an_answer():
    words, pact = begin()
    message = pact.upon_receiving("how much", "Sync").with_body({"account": 1}, "application/json")
    message.will_respond_with().with_body({"cents": 2}, "application/json")
    got = []
    await pact.receive(lambda contents, metadata: got.append(contents))
    assert got == ['{"account":1}']
    assert len(words.said) == 1


@pytest.mark.parametrize(
    ("settings", "names", "told"),
    [
        (
            PactSettings(folder=Path()),
            {},
            r"who the consumer is. Set name in .*, or say pact\(consumer=",
        ),
        (PactSettings(folder=Path(), name="shop"), {}, r"who the provider is. Set provider in"),
        (SETTINGS, {"provider": "a/b"}, "'a/b' can't be the name"),
    ],
)
async def test_names_that_are_missing_or_impossible(settings, names, told):
    _, pact = begin(settings)
    with pytest.raises(PactError, match=told):
        pact(**names).upon_receiving("x")


async def test_nothing_to_play():
    _, pact = begin()
    with pytest.raises(PactError, match="nothing is expected yet"):
        async with pact.serve():
            pass
    with pytest.raises(PactError, match="no message is expected yet"):
        await pact.receive(print)


async def test_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pact", None)
    _, pact = begin()
    with pytest.raises(PactError, match=r"pip install 'asynctest_kit\[pact\]'"):
        pact.upon_receiving("x")
