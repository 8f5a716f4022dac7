"""What a test leaves running is named, and ended if it is the test's alone."""

# ruff: noqa: RUF006  # tasks that nobody refers to are the subject

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import sys
import weakref

import anyio
import pytest

from asynctest_kit.engine.capture import CaseOutput, current_output
from asynctest_kit.engine.code_places import Place
from asynctest_kit.engine.leaked_tasks import TaskLedger, end_leftovers


class Bench:
    """Runs one function as a test, on a loop of its own."""

    def __init__(self, item):
        self.output = CaseOutput(item)
        self.ledger = TaskLedger()
        self.pending = set()

    def leaks_of(self, test, *, shared=(), functions=None, factory=None):
        """What ``test`` leaves; ``pending`` are the tasks that still run after that."""

        async def body():
            self.ledger.open(self.output)
            with contextlib.suppress(LookupError):
                await test()
            return await self.ledger.close(self.output, [test] if functions is None else functions, shared)

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_task_factory(factory)
            with self.ledger.installed(loop):
                context = contextvars.copy_context()
                context.run(current_output.set, self.output)
                leaks = await loop.create_task(body(), context=context)
                self.pending = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
            assert loop.get_task_factory() is factory
            return leaks

        return asyncio.run(main())


@pytest.fixture
def bench(request):
    return Bench(request.node)


def place(function, text):
    lines, first = inspect.getsourcelines(function)
    return Place(__file__, first + next(n for n, line in enumerate(lines) if text in line), function.__name__)


async def forever():
    await asyncio.Event().wait()  # waits here


class Pool:
    """Starts its reader when it is first used."""

    def __init__(self):
        self.reader = None

    def use(self):
        if self.reader is None:
            self.reader = asyncio.create_task(self.read(), name="reader")  # created here

    async def read(self):
        await asyncio.Event().wait()  # reads here


def test_a_task_that_the_test_made_is_ended_and_named(bench):
    async def test():
        asyncio.create_task(forever(), name="mine")  # created here
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test)
    assert str(leak) == (
        f"task 'mine' (forever), created at {place(test, '# created here')}, "
        f"waiting at {place(forever, '# waits here')}: it was cancelled"
    )
    assert not bench.pending


def test_nothing_is_said_of_what_has_ended_or_is_about_to(bench):
    async def test():
        await asyncio.create_task(asyncio.sleep(0))
        asyncio.create_task(forever()).cancel()
        asyncio.create_task(asyncio.sleep(0))

    assert bench.leaks_of(test) == []


async def _gather():
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.gather(forever(), forever())), 0.001)


async def _ensure_future():
    asyncio.ensure_future(forever())
    await asyncio.sleep(0)


async def _inner_function():
    def start():
        asyncio.create_task(forever())

    asyncio.get_running_loop().call_soon(start)
    await asyncio.sleep(0)


async def _task_group():
    group = await asyncio.TaskGroup().__aenter__()
    group.create_task(forever())


@pytest.mark.parametrize(
    ("test", "number"), [(_gather, 2), (_ensure_future, 1), (_inner_function, 1), (_task_group, 1)]
)
def test_tasks_made_by_way_of_asyncio_are_the_tests(bench, test, number):
    leaks = bench.leaks_of(test)
    assert [leak.fate for leak in leaks] == ["ended"] * number
    assert not bench.pending


def test_a_task_of_a_group_that_was_never_left_is_left_alone(bench):
    async def test():
        group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(forever, name="member")  # created here
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test)
    assert str(leak) == (
        f"task 'member' (forever), created at {place(test, '# created here')}, "
        f"waiting at {place(forever, '# waits here')}: "
        "it was left running, because the task group that it is in was never left"
    )
    assert bench.pending == {"member"}


def test_a_leak_that_cancels_its_maker_cancels_nothing(bench):
    async def test():
        maker = asyncio.current_task()

        async def vengeful():
            try:
                await asyncio.Event().wait()
            finally:
                maker.cancel()

        asyncio.create_task(vengeful())
        await asyncio.sleep(0)

    assert [leak.fate for leak in bench.leaks_of(test)] == ["ended"]


def test_the_reader_of_a_shared_pool_is_left(bench):
    pool = Pool()

    async def test():
        pool.use()
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test)
    assert str(leak) == (
        f"task 'reader' (Pool.read), created at {place(Pool.use, '# created here')}, "
        f"waiting at {place(Pool.read, '# reads here')}: it was left running, because others may need it"
    )
    assert bench.pending == {"reader"}


def test_a_method_of_a_shared_value_is_left(bench):
    pool = Pool()

    async def test():
        asyncio.create_task(pool.read(), name="reader")
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test, shared=[pool])
    assert leak.fate == "left"
    assert bench.pending == {"reader"}


def test_what_works_on_a_shared_value_is_ended(bench):
    pool = Pool()

    async def work(on):
        await asyncio.Event().wait()

    async def test():
        asyncio.create_task(work(pool))
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test, shared=[pool])
    assert leak.fate == "ended"


def test_the_tests_own_fixtures_are_its_own_code(bench):
    async def fixture():
        asyncio.create_task(forever())

    async def test():
        await fixture()

    assert [leak.fate for leak in bench.leaks_of(test, functions=[test, fixture])] == ["ended"]


def test_a_helper_may_keep_its_task(bench):
    async def helper():
        return asyncio.create_task(forever())

    async def test():
        await helper()

    assert [leak.fate for leak in bench.leaks_of(test)] == ["left"]


def test_one_that_raises_when_it_is_cancelled_is_charged_to_nobody(bench):
    async def fails():
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the clean-up")

    async def test():
        asyncio.get_running_loop().set_exception_handler(lambda _, told: pytest.fail(str(told)))
        asyncio.create_task(fails())
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test)
    assert str(leak).endswith(": it was cancelled, and raised ValueError('in the clean-up')")


async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def catches_everything(until):
    while not until.is_set():
        with contextlib.suppress(BaseException):
            await until.wait()


def test_one_that_goes_on_after_its_cancellation_is_closed(bench):
    async def test():
        asyncio.create_task(stubborn(), name="mule")
        await asyncio.sleep(0)

    (leak,) = bench.leaks_of(test)
    assert str(leak).endswith(": it didn't end when it was cancelled, and was closed")
    assert not bench.pending


def test_one_that_catches_everything_is_named(bench):
    async def main():
        until = asyncio.Event()

        async def test():
            asyncio.create_task(catches_everything(until), name="mule")
            await asyncio.sleep(0)

        bench.ledger.open(bench.output)
        context = contextvars.copy_context()
        context.run(current_output.set, bench.output)
        with bench.ledger.installed(asyncio.get_running_loop()):
            await asyncio.get_running_loop().create_task(test(), context=context)
            (leak,) = await bench.ledger.close(bench.output, [test])
        until.set()
        return leak

    assert str(asyncio.run(main())).endswith(": it was cancelled, and goes on nevertheless")


def test_at_the_end_of_the_run_everything_ends():
    told = []

    async def fails():
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the clean-up")

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        until = asyncio.Event()
        tasks = [asyncio.create_task(one) for one in (forever(), stubborn(), fails(), catches_everything(until))]
        await asyncio.sleep(0)
        await end_leftovers()
        return [task.done() for task in tasks]

    assert asyncio.run(main()) == [True, True, True, False]
    assert [repr(error) for error in told] == ["ValueError('in the clean-up')"]


def test_tasks_of_others_are_not_the_tests(bench):
    tasks = []

    async def test():
        tasks.append(asyncio.get_running_loop().create_task(forever(), name="other", context=contextvars.Context()))

    assert bench.leaks_of(test) == []
    assert bench.pending == {"other"}


def test_many_tasks_leave_no_notes_and_are_freed(bench):
    freed = []

    async def test():
        for _ in range(1000):
            task = asyncio.create_task(asyncio.sleep(0))
            await task
        freed.append(weakref.ref(task))
        assert len(bench.ledger._notes[bench.output]) < 300

    assert bench.leaks_of(test) == []
    gc.collect()
    assert freed[0]() is None


if sys.version_info >= (3, 12):

    def test_eager_tasks(bench):
        async def test():
            await asyncio.create_task(asyncio.sleep(0))
            asyncio.create_task(forever(), name="eager")

        leaks = bench.leaks_of(test, factory=asyncio.eager_task_factory)
        assert [(leak.name, leak.fate) for leak in leaks] == [("eager", "ended")]


def test_a_factory_that_a_suite_sets_is_kept():
    def factory(loop, coroutine, **options):
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main():
        loop = asyncio.get_running_loop()
        with TaskLedger().installed(loop):
            loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory

    asyncio.run(main())
