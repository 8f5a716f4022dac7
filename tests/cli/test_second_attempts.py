"""What a second attempt says of the first, and what it doesn't."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.anyio

SKIPS_AGAIN = """
    import asyncio

    import pytest

    tries = []

    async def test_fails_then_skips():
        tries.append(1)
        if len(tries) > 1:
            pytest.skip("set up already")
        await asyncio.sleep(0.01)
        assert 1 == 2

    async def test_neighbour():
        await asyncio.sleep(0.05)
"""

EXPECTED_AGAIN = """
    import pytest

    class TestSteps:
        async def test_create(self):
            assert 0

        async def test_delete(self):
            pass
"""

INCREMENTAL = """
    import pytest

    failed = set()

    @pytest.fixture(scope="session")
    def anyio_backend():
        return "asyncio"

    def pytest_runtest_makereport(item, call):
        if call.excinfo is not None and item.cls is not None:
            failed.add(item.cls)

    def pytest_runtest_setup(item):
        if item.cls in failed:
            pytest.xfail("an earlier step failed")
"""

TEAR_DOWN = """
    import asyncio

    import pytest

    class Registry:
        users = 0

        @classmethod
        def enter(cls, number):
            cls.users += number

    @pytest.fixture
    async def clean():
        yield
        assert Registry.users == 0

    async def test_holds(clean):
        Registry.enter(1)
        await asyncio.sleep(0.1)
        Registry.enter(-1)

    async def test_looks(clean):
        await asyncio.sleep(0.01)
"""


LOSES_ITS_SERVICE = """
    import asyncio
    import pytest

    attempts = {"test_first": 0, "test_second": 0}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        if report.failed and (item.name == "test_second" or attempts[item.name] == 2):
            report.atk_final = True
        return report
"""

FAILS_EACH_TIME = """
    import asyncio
    from conftest import attempts

    async def test_first():
        attempts["test_first"] += 1
        await asyncio.sleep(0.01)
        raise AssertionError(f"attempt {attempts['test_first']} of the first")

    async def test_second():
        attempts["test_second"] += 1
        await asyncio.sleep(0.01)
        raise AssertionError(f"attempt {attempts['test_second']} of the second")
"""


async def test_a_final_failure_has_no_second_attempt_and_takes_no_other_s_place(project, atk):
    folder = project(conftest__py=LOSES_ITS_SERVICE, test_it__py=FAILS_EACH_TIME)
    finished = await atk("run", "--retries", "3", "-p", "no:cacheprovider", cwd=folder)

    assert finished.code == 1, finished.out
    assert "AssertionError: attempt 1 of the first" in finished.out
    assert "Run again alone, it found what it needs gone, which says nothing of this failure." in finished.out
    assert "AssertionError: attempt 1 of the second" in finished.out
    assert not re.search("attempt [23] of", finished.out)


@pytest.mark.parametrize("options", [(), ("--retries", "2"), ("--interference", "warn")], ids=" ".join)
async def test_a_skip_is_no_pass(project, atk, options):
    finished = await atk("run", *options, "-p", "no:cacheprovider", cwd=project(test_it__py=SKIPS_AGAIN))

    assert finished.code == 1, finished.out
    assert "1 failed, 1 passed" in finished.out
    assert "Run again alone, it was skipped, which says nothing of this failure." in finished.out
    assert "assert 1 == 2" in finished.out


async def test_an_expected_failure_is_no_pass(project, atk):
    root = project(test_it__py=EXPECTED_AGAIN, conftest__py=INCREMENTAL)
    finished = await atk("run", "-p", "no:cacheprovider", cwd=root)

    assert finished.code == 1, finished.out
    assert "FAILED test_it.py::TestSteps::test_create" in finished.out


async def test_a_skip_is_no_pass_in_pytests_lane(project, atk):
    sync = SKIPS_AGAIN.replace("async def", "def").replace("await asyncio.sleep", "str")
    finished = await atk("run", "--retries", "2", cwd=project(test_it__py=sync))

    assert finished.code == 1, finished.out
    assert "1 failed, 1 passed" in finished.out


async def test_a_tear_down_that_fails_beside_others_runs_again_alone(project, atk):
    root = project(test_it__py=TEAR_DOWN)
    finished = await atk("run", "-p", "no:cacheprovider", cwd=root)
    retried = await atk("run", "--retries", "1", "-p", "no:cacheprovider", cwd=root)

    assert finished.code == 1, finished.out
    assert "fails again beside test_it.py::test_holds" in " ".join(finished.out.split())
    assert retried.code == 0, retried.out
    assert "1 passed, 1 flaky" in retried.out


async def test_one_that_was_stopped_and_fails_says_so(project, atk):
    root = project(
        test_it__py="""
            import asyncio

            import app

            async def test_inserts():
                app.insert("user")
                app.configure()

            async def test_neighbour():
                await asyncio.sleep(0.05)
        """,
        app__py="""
            import os

            rows = []

            def insert(row):
                assert row not in rows
                rows.append(row)

            def configure():
                vars(os)["environ"]["APP"] = "on"
        """,
    )
    finished = await atk("run", "-p", "no:cacheprovider", cwd=root)

    assert finished.code == 1, finished.out
    assert "It was stopped beside others, for it touched os.environ at app.py:" in finished.out
    assert "was done twice." in finished.out


async def test_a_hung_test_on_trio_is_cancelled(project, atk):
    pytest.importorskip("trio")
    root = project(
        test_it__py="""
            import pytest
            import trio

            @pytest.fixture
            def anyio_backend():
                return "trio"

            @pytest.mark.anyio
            async def test_hangs():
                await trio.sleep_forever()

            @pytest.mark.anyio
            async def test_next():
                pass

            @pytest.mark.anyio
            async def test_has_a_limit_of_its_own():
                with trio.move_on_after(0.01) as scope:
                    await trio.sleep_forever()
                assert scope.cancelled_caught
        """
    )
    finished = await atk("run", "--timeout", "0.5", cwd=root)

    assert finished.code == 1, finished.out
    assert "1 failed, 2 passed" in finished.out
    assert "test_hangs: the call took longer than its time-out of 0.5 s" in finished.out


async def test_an_async_fixture_of_a_sync_test_that_hangs_is_cancelled(project, atk):
    root = project(
        test_it__py="""
            import asyncio

            import pytest

            @pytest.fixture
            async def hangs_at_first(anyio_backend):
                await asyncio.sleep(60)
                yield

            @pytest.fixture
            async def hangs_at_last(anyio_backend):
                yield
                await asyncio.sleep(60)

            @pytest.mark.anyio
            def test_first(hangs_at_first):
                pass

            @pytest.mark.anyio
            def test_last(hangs_at_last):
                pass
        """
    )
    finished = await atk("run", "--timeout", "0.5", "-p", "asyncio", "-p", "no:asyncio", cwd=root)

    assert finished.code == 1, finished.out
    assert "test_first: the set-up took longer than its time-out of 0.5 s" in finished.out
    assert "test_last: the tear-down took longer than its time-out of 0.5 s" in finished.out
