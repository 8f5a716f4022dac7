"""Looking into a service that is up: its log, its streams kept apart, and programs run in it."""

from __future__ import annotations

import asyncio

import pytest
from provision_traces import spec_of

from asynctest_kit.container_options import ContainerOptions, CopiedFile
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.console import Console

pytestmark = pytest.mark.anyio


@pytest.fixture
def console(engine, client):
    return Console(client, spec_of("redis", provider="docker"))


async def test_a_program_is_run_and_all_it_says_is_kept(console):
    script = 'echo out; echo err >&2; echo "$GREETING from $PWD as $(id -u)"; exit 3'
    done = await console.run(
        "sh", "-c", script, environment={"GREETING": "hi"}, user="998", directory="/tmp", check=False
    )
    assert (done.code, done.text, done.stderr) == (3, "out\nhi from /tmp as 998", b"err\n")
    with pytest.raises(ProvisionError, match="sh in the service 'redis' ended with exit code 3: err"):
        await console.run("sh", "-c", script)
    with pytest.raises(ProvisionError, match="no-such-program"):
        await console.run("no-such-program")
    binary = await console.run("head", "-c", "200000", "/dev/urandom")
    assert len(binary.stdout) == 200_000


@pytest.mark.once
async def test_many_programs_at_once_and_one_that_is_given_up(console):
    waiting = asyncio.ensure_future(console.run("sleep", "60"))
    done = await asyncio.gather(*(console.run("echo", str(number)) for number in range(20)))
    assert [one.text for one in done] == [str(number) for number in range(20)]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await console.run("echo", "still here")).text == "still here"


SAYS = """
mkfifo -m 666 /tmp/say
(while read -r line < /tmp/say; do echo "$line"; echo "not $line" >&2; done) &
exec "$@"
"""


async def test_a_log_is_followed_with_its_streams(engine, client):
    entry = CopiedFile(target="/entry.sh", content=SAYS)
    options = ContainerOptions(files=(entry,), entrypoint=("sh", "/entry.sh"))
    console = Console(client, spec_of("redis", provider="docker", container=options))
    async with console.follow() as lines:
        await console.run("sh", "-c", "echo hello > /tmp/say")
        seen = {}
        async for line in lines:
            seen[line.text] = line.stream
            if {"hello", "not hello"} <= seen.keys():
                break
    assert (seen["hello"], seen["not hello"]) == ("stdout", "stderr")
    assert {line.text for line in await console.log(2)} == {"hello", "not hello"}


@pytest.mark.once
async def test_a_followed_log_ends_with_its_service(console, client):
    async with console.follow(1) as lines:
        assert (await anext(lines)).text
        await asyncio.to_thread(client.close)
        with pytest.raises(
            ProvisionError, match="Nobody can read the log of the service 'redis': its client was closed"
        ):
            async for _ in lines:
                pass


async def test_a_local_program_has_a_log_and_no_place_to_run_in(client):
    console = Console(client, spec_of("postgres", provider="embedded"))
    async with console.follow(100) as lines:
        async for line in lines:
            if "ready to accept connections" in line.text:
                break
    assert await console.log(1)
    with pytest.raises(
        ProvisionError, match="run psql in the service 'postgres': it is in no container: run the program"
    ):
        await console.run("psql")
