"""Who blocks the loop is told while it does, and others don't pay for it.

Each test has a loop of its own. What blocks waits for what the watchdog does about it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import re
import subprocess
import sys
import threading
import time

import pytest

from asynctest_kit.engine import watchdog
from asynctest_kit.engine.capture import CaseOutput, current_output
from asynctest_kit.engine.code_places import Place
from asynctest_kit.engine.pausing_loop import PausingLoop
from asynctest_kit.engine.time_limit import TimeLimit
from asynctest_kit.engine.watchdog import Thresholds, Watchdog

FAST = Thresholds(blocked=0.02, stuck=0.04, look=0.005)
LONG = 20


class Bench:
    """A watched loop; ``ended`` and ``stuck`` hold what was told."""

    def __init__(self, thresholds=FAST):
        self.thresholds = thresholds
        self.ended = []
        self.stuck = []
        self.threads = set()
        self.is_stuck = threading.Event()

    def run(self, main):
        asyncio.run(self.watched(main))

    async def watched(self, main):
        self.watchdog = Watchdog(
            asyncio.get_running_loop(), self.thresholds, self.on_blocked, self.on_stuck, (self.reports.__code__,)
        )
        with self.watchdog.watching():
            await main()

    def on_blocked(self, blocked):
        self.threads.add(threading.current_thread())
        self.ended.append(blocked)

    def on_stuck(self, blocked):
        self.stuck.append(blocked)
        self.is_stuck.set()

    def reports(self, work):
        return work()

    def block(self):
        assert self.is_stuck.wait(LONG)  # here


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def output(request):
    return CaseOutput(request.node)


def context_of(output):
    context = contextvars.copy_context()
    context.run(current_output.set, output)
    return context


def told(blocked):
    """The message without its figure."""
    return re.sub(r"for [0-9.e-]+ s", "for N s", str(blocked))


def block_place():
    lines, first = inspect.getsourcelines(Bench.block)
    return Place(__file__, first + next(n for n, line in enumerate(lines) if "# here" in line), "block")


def test_a_block_is_told_while_it_lasts_and_after(bench, output):
    async def test():
        bench.block()

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)
    message = f"{output.item.nodeid} has blocked the event loop for N s at {block_place()}"
    assert [told(one) for one in bench.stuck] == [message]
    assert [told(one) for one in bench.ended] == [message]
    assert bench.ended[0].seconds >= bench.stuck[0].seconds >= FAST.stuck
    assert bench.threads == {threading.current_thread()}


def test_the_stack_holds_the_users_frames_alone(bench, output):
    async def test():
        bench.block()

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)
    frames = re.findall(r'File "(.*)", line \d+, in (.*)', bench.ended[0].stack)
    files = [file for file, _ in frames]
    assert (__file__, "block") in frames
    assert not any("/asyncio/" in file or "/_pytest/" in file or "/asynctest_kit/" in file for file in files)
    assert "assert self.is_stuck.wait(LONG)  # here" in bench.ended[0].stack


def test_the_runs_own_work_is_no_block_and_the_users_within_is(bench, output):
    is_over = threading.Event()

    async def test():
        bench.reports(functools.partial(is_over.wait, 20 * FAST.stuck))
        await asyncio.sleep(0.01)
        bench.reports(bench.block)

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)
    assert [one.place for one in bench.ended] == [one.place for one in bench.stuck] == [block_place()]


def test_what_runs_the_loop_is_no_place(bench, output):
    async def main():
        asyncio.get_running_loop().call_soon(threading.Event().wait, 5 * FAST.stuck, context=context_of(output))
        await asyncio.sleep(0.001)

    bench.run(main)
    (blocked,) = bench.stuck
    assert blocked.place is not None
    assert blocked.place.file == threading.__file__
    assert __file__ not in blocked.stack


def test_a_callback_is_charged_to_the_test_that_asked_for_it(bench, output):
    async def main():
        asyncio.get_running_loop().call_soon(bench.block, context=context_of(output))
        await asyncio.sleep(0.001)

    bench.run(main)
    assert [one.nodeid for one in bench.ended] == [output.item.nodeid]


def test_what_belongs_to_no_test_is_named_by_its_task(bench):
    async def fixture():
        bench.block()

    async def main():
        await asyncio.create_task(fixture(), name="fixture tests::server")

    bench.run(main)
    assert [told(one) for one in bench.stuck] == [
        f"fixture tests::server has blocked the event loop for N s at {block_place()}"
    ]


def test_a_callback_of_nobody(bench):
    async def main():
        asyncio.get_running_loop().call_soon(bench.block)
        await asyncio.sleep(0.001)

    bench.run(main)
    assert [told(one) for one in bench.stuck] == [f"a callback has blocked the event loop for N s at {block_place()}"]


def test_a_loop_that_runs_inside_blocks_the_outer_one(bench, output):
    async def inner():
        bench.block()

    async def test():
        thread_loop = asyncio.new_event_loop()
        running = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(None)
        try:
            thread_loop.call_soon(bench.block)
            thread_loop.call_soon(thread_loop.stop)
            thread_loop.run_forever()
        finally:
            asyncio.events._set_running_loop(running)
            thread_loop.close()

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)
    assert [one.nodeid for one in bench.ended] == [output.item.nodeid]


def test_the_delay_is_charged_to_the_others(bench, output, request):
    other = CaseOutput(request.node)

    async def test():
        bench.block()

    async def main():
        await asyncio.create_task(test(), context=context_of(output))
        # Now, when the thread may not have seen the end yet.
        assert bench.watchdog.delay_of(output) < FAST.stuck
        assert bench.watchdog.delay_of(other) >= FAST.stuck
        assert bench.watchdog.delay_of(None) >= FAST.stuck

    bench.run(main)
    assert bench.watchdog.delay_of(other) >= bench.ended[0].seconds >= FAST.stuck
    assert bench.watchdog.delay_of(other) - bench.watchdog.delay_of(output) >= bench.ended[0].seconds


def test_the_time_out_of_a_victim_waits(bench, output):
    async def victim(done):
        limit = TimeLimit(0.02, "test_victim: the call", lambda: bench.watchdog.delay_of(output))
        await limit.run(done.wait)

    async def main():
        done = asyncio.Event()
        task = asyncio.create_task(victim(done))
        await asyncio.sleep(0)
        bench.block()
        asyncio.get_running_loop().call_soon(done.set)
        await task

    bench.run(main)
    assert bench.stuck


def test_the_time_out_of_the_blocker_does_not(bench, output):
    async def test():
        limit = TimeLimit(0.02, "test_x: the call", lambda: bench.watchdog.delay_of(output))

        async def body():
            bench.block()
            await asyncio.sleep(LONG)

        with pytest.raises(pytest.fail.Exception, match=r"^test_x: the call took longer than its time-out of 0.02 s$"):
            await limit.run(body)

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)


def test_short_steps_are_no_block():
    bench = Bench(Thresholds(blocked=0.01, stuck=0.02, look=LONG))

    async def main():
        for _ in range(5):
            time.sleep(0.01)  # noqa: ASYNC251  # longer than the threshold, in all
            bench.watchdog._look()
            await asyncio.sleep(0)

    bench.run(main)
    assert not bench.stuck
    assert not bench.ended


def test_a_paused_loop_is_not_blocked():
    bench = Bench(Thresholds(blocked=0.01, stuck=0.02, look=LONG))
    loop = PausingLoop()

    def sync_test():
        for _ in range(3):
            bench.watchdog._look()
            time.sleep(0.01)

    async def main():
        await loop.outside(sync_test)

    loop.run(lambda: bench.watched(main))
    assert not bench.stuck
    assert not bench.ended


def test_a_debugger_is_no_block_and_costs_nobody(bench, output):
    namespace = {"__name__": "pdb", "time": time}
    exec("def interaction(is_seen):\n while not is_seen():\n  time.sleep(0.001)", namespace)

    async def test():
        namespace["interaction"](lambda: bench.watchdog.delay_of(output) > FAST.stuck * 2)

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)
    assert bench.watchdog.delay_of(output) > FAST.stuck * 2
    assert not bench.stuck
    assert not bench.ended


def test_what_holds_the_interpreter_is_seen_afterwards(output):
    bench = Bench(Thresholds(blocked=0.02, stuck=LONG, look=0.005))

    async def test():
        sum(range(10_000_000))

    async def main():
        for _ in range(50):
            await asyncio.create_task(test(), context=context_of(output))
            await asyncio.sleep(0.02)
            if bench.ended:
                return

    bench.run(main)
    assert (bench.ended[0].nodeid, bench.ended[0].place.function) == (output.item.nodeid, "test")


#: Whoever looks for garbage while the frames of threads are read starts a thread then, and waits for ever.
READER = """
import gc, sys, threading
from asynctest_kit.engine.watchdog import frames_of_threads

def found(phase, info):
    if reading and threading.get_ident() == main:
        threading.Thread(target=int).start()

main, reading, over = threading.get_ident(), False, threading.Event()
for _ in range(8):
    threading.Thread(target=over.wait).start()
gc.callbacks.append(found)
gc.set_threshold(1)
reading = True
assert main in frames_of_threads()
reading = False
assert gc.isenabled()
gc.disable()
assert main in frames_of_threads()
assert not gc.isenabled()
over.set()
print("read")
"""


def test_frames_of_threads_are_read_without_looking_for_garbage():
    done = subprocess.run([sys.executable, "-c", READER], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "read\n", done.stderr


def test_switched_off():
    bench = Bench(Thresholds(blocked=0))
    threads = threading.active_count()

    async def main():
        assert threading.active_count() == threads
        assert bench.watchdog.delay_of(None) == 0

    bench.run(main)


def test_it_has_no_thread_while_the_process_forks_and_one_afterwards(bench, output):
    threads = threading.active_count()
    counted = []

    async def test():
        # What a fork calls; a real one would double the test run.
        watchdog._before_fork()
        counted.append(threading.active_count())
        await asyncio.sleep(0)
        counted.append(threading.active_count())
        bench.block()

    async def main():
        await asyncio.create_task(test(), context=context_of(output))

    bench.run(main)
    assert counted[0] <= threads  # fewer, where the test itself runs under a watchdog
    assert counted[1] > counted[0]
    assert [one.nodeid for one in bench.ended] == [output.item.nodeid]


def test_its_own_failure_fails_no_test(bench, caplog):
    def broken(blocked):
        bench.is_stuck.set()
        raise OSError("the terminal is gone")

    bench.on_stuck = broken

    async def main():
        bench.block()

    bench.run(main)
    assert "the watchdog of the event loop failed, and watches no more" in caplog.text
