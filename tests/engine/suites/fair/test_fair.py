"""Timers of one test, while a neighbour keeps the loop from turning for longer than they are apart."""

import asyncio
import contextlib
import os
import time

import anyio
import pytest
from trail import note

pytestmark = pytest.mark.anyio

TESTS = 25
running = set()
attempts = []
blocking = asyncio.Event()


def busy(seconds):
    """Block the loop by work, as a test does that computes or parses."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_blocks():
    """50 ms in each turn, as long as others run, up to a minute."""
    blocking.set()
    for _ in range(1200):
        busy(0.05)
        await asyncio.sleep(0)
        if len(running) == TESTS or "SUITE_PLAIN" in os.environ:
            break


@contextlib.contextmanager
def counted(name):
    try:
        yield
    finally:
        running.add(name)


async def test_two_timers():
    """What the first timer starts has its turns before the second."""
    seen = []

    async def answer():
        await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        seen.append("answered")

    with counted("two"):
        asking = asyncio.create_task(answer())
        await asyncio.sleep(0.02)
        seen.append("looked")
        await asking
        note("two", *seen)
    assert seen == ["answered", "looked"]


async def test_time_limit():
    """A limit of the test's own isn't used up by its neighbour."""
    with counted("limit"):
        async with asyncio.timeout(0.05):
            for _ in range(3):
                await asyncio.sleep(0.005)


async def test_wait_for():
    async def answer():
        await asyncio.sleep(0.01)
        return "answer"

    with counted("wait"):
        assert await asyncio.wait_for(answer(), 0.03) == "answer"


async def test_three_in_order():
    seen = []
    loop = asyncio.get_running_loop()

    with counted("three"):
        for delay in (0.03, 0.01, 0.02):
            loop.call_later(delay, lambda delay=delay: loop.call_soon(seen.append, delay))
        await asyncio.sleep(0.04)
        await asyncio.sleep(0)
    assert seen == [0.01, 0.02, 0.03]


async def test_clock_goes_on():
    """The loop's time never goes back, and a sleep takes it at least as far as it says."""
    loop = asyncio.get_running_loop()
    with counted("clock"):
        for _ in range(5):
            before = loop.time()
            await asyncio.sleep(0.002)
            assert loop.time() >= before + 0.002 - time.get_clock_info("monotonic").resolution


async def test_sees_times_of_its_own():
    with counted("own"):
        start = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - start >= 0.009


@contextlib.asynccontextmanager
async def outside():
    """Another process that ends 0.5 s after it is asked, by a clock that nobody here keeps."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("sh", "-c", "read x; exec sleep 0.5", stdin=pipe, stdout=pipe)

    async def answer():
        process.stdin.write(b"\n")
        assert await process.stdout.read() == b""

    await blocking.wait()
    try:
        yield answer
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            process.kill()
        await process.wait()


async def by_timeout(answer):
    async with asyncio.timeout(0.1):
        await answer()


async def by_wait_for(answer):
    await asyncio.wait_for(answer(), 0.1)


async def by_fail_after(answer):
    with anyio.fail_after(0.1):
        await answer()


async def by_wait(answer):
    task = asyncio.create_task(answer())
    _, late = await asyncio.wait([task], timeout=0.1)
    task.cancel()
    assert not late


async def by_alarm(answer):
    alarm, task = asyncio.create_task(asyncio.sleep(0.1)), asyncio.create_task(answer())
    await asyncio.wait([task, alarm], return_when=asyncio.FIRST_COMPLETED)
    is_late = alarm.done()
    alarm.cancel()
    task.cancel()
    assert not is_late


async def by_timer(answer):
    late = []
    timer = asyncio.get_running_loop().call_later(0.1, late.append, True)
    await answer()
    timer.cancel()
    assert not late


@pytest.mark.parametrize("way", [by_timeout, by_wait_for, by_fail_after, by_wait, by_alarm, by_timer])
async def test_misses_its_deadline(way):
    """It takes 0.5 s and has 0.1 s."""
    with counted(way):
        async with outside() as answer:
            await way(answer)


async def test_is_skipped_alone():
    """Alone it says nothing of the deadline that it may have missed."""
    if "skipped" in running:
        pytest.skip("it has run")
    with counted("skipped"):
        async with outside() as answer:
            await by_timeout(answer)


async def test_runs_only_once():
    """What its first attempt has left makes the second fail, by no deadline."""
    with counted("only once"):
        attempts.append("only once")
        assert attempts.count("only once") == 1, "409: is there already"
        async with outside() as answer:
            await by_timeout(answer)


async def test_waits_for_what_is_gone():
    """The second attempt runs into another deadline than the one in doubt."""
    with counted("gone"):
        attempts.append("gone")
        if attempts.count("gone") > 1:
            asking = asyncio.create_task(asyncio.Event().wait())
            _, late = await asyncio.wait([asking], timeout=0.3)
            asking.cancel()
            assert not late
        async with outside() as answer:
            await by_timeout(answer)


async def with_raises(answer):
    with pytest.raises(TimeoutError):
        await by_timeout(answer)


async def with_a_result(answer):
    is_late = False
    try:
        await by_wait_for(answer)
    except TimeoutError:
        is_late = True
    assert is_late


@pytest.mark.parametrize("way", [with_raises, with_a_result])
async def test_expects_to_miss_it(way):
    """What takes 0.5 s doesn't come within 0.1 s, but beside who blocks it does."""
    with counted(way):
        async with outside() as answer:
            await way(answer)


async def test_fails_beside_others():
    """By nothing that has to do with its deadline, which is longer alone; who could tell?"""
    attempts.append("fails")
    with counted("fails"):
        async with outside() as answer, asyncio.timeout(10 if attempts.count("fails") > 1 else 0.1):
            await answer()
    assert attempts.count("fails") > 1


async def soon():
    await asyncio.sleep(0.01)


async def within(waiting):
    await asyncio.wait_for(waiting, 0.08)


async def within_as_long(waiting):
    async with asyncio.timeout(0.08):
        await waiting


@pytest.mark.parametrize("other", [within, within_as_long])
async def test_fails_for_another_reason(other):
    """It meets a deadline beside others and alone, and expects that one that is as long is over: so it is."""
    attempts.append(other)
    with counted(other):
        await blocking.wait()
        await within(soon())
        with pytest.raises(TimeoutError):
            await other(asyncio.Event().wait())
    assert attempts.count(other) > 1


async def test_is_late():
    """Its time-out comes, but late by the wall clock, which it may have looked at."""
    attempts.append("late")
    with counted("late"):
        await blocking.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await asyncio.Event().wait()
    assert attempts.count("late") > 1


@pytest.mark.atk(retries=1)
async def test_misses_it_once():
    attempts.append("misses")
    with counted("once"):
        async with outside() as answer, asyncio.timeout(10 if attempts.count("misses") > 2 else 0.1):
            await answer()


async def test_expects_time_outs():
    """What has fired is no deadline that was met."""
    with counted("expects"):
        await blocking.wait()
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        waiting = asyncio.create_task(asyncio.Event().wait())
        assert await asyncio.wait([waiting], timeout=0.01) == (set(), {waiting})
        waiting.cancel()


async def test_stops_a_pause():
    """What waits between two looks has no deadline."""

    async def look():
        for _ in range(100):
            await asyncio.sleep(0.1)

    with counted("pause"):
        looking = asyncio.create_task(look())
        async with outside() as answer:
            await answer()
        looking.cancel()


@pytest.fixture(scope="session")
async def server(anyio_backend):
    """Gives something outside 0.1 s to answer who asks."""
    questions = asyncio.Queue()

    async def serve():
        async with outside() as answer:
            question = await questions.get()
            async with asyncio.timeout(0.1):
                await answer()
            question.set_result(None)

    serving = asyncio.create_task(serve())

    def ask():
        question = asyncio.get_running_loop().create_future()
        questions.put_nowait(question)
        return question

    yield ask
    await serving


async def test_asks_who_misses_a_deadline(server):
    with counted("asks"):
        await server()


@pytest.mark.atk(exclusive=True)
async def test_alone():
    """The clock of a test alone is asyncio's: who moves ``time.monotonic`` moves the loop's time too."""
    loop, original = asyncio.get_running_loop(), time.monotonic
    before = loop.time()
    time.monotonic = lambda: original() + 1000
    try:
        moved = loop.time() - before
    finally:
        time.monotonic = original
    note("moved", moved >= 1000)
