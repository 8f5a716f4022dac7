"""The flags of ``atk run`` and ``pytest --atk`` from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import anyio
import pytest

pytestmark = pytest.mark.anyio

TESTS = """
    import anyio, pytest

    tries = []

    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(3))
    async def test_passes(number):
        await anyio.sleep(0.01)

    @pytest.mark.anyio
    async def test_flaky():
        tries.append(1)
        assert len(tries) > 1, "the first time"

    def test_sync():
        pass
"""

PASSING = """
    import anyio, pytest

    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(3))
    async def test_passes(number):
        await anyio.sleep(0.01)
"""


async def test_retries_repeat_and_shuffle(project, atk):
    root = project(test_it__py=TESTS)
    finished = await atk(
        "run", "--retries", "1", "--repeat", "2", "--shuffle", "5", "-p", "no:cacheprovider", ".", cwd=root
    )

    assert finished.code == 0, finished.out + finished.err
    assert "asynctest_kit: random order; --shuffle 5 gives the same one" in finished.out
    assert "9 passed, 1 flaky in" in finished.out


async def test_a_seed_may_be_left_out(project, atk):
    finished = await atk("run", "--shuffle", ".", cwd=project(test_it__py=PASSING))

    assert finished.code == 0, finished.out + finished.err
    assert "asynctest_kit: random order; --shuffle " in finished.out
    assert "3 passed" in finished.out


async def test_fail_slow(project, atk):
    finished = await atk("run", "--fail-slow", "1ms", ".", cwd=project(test_it__py=PASSING))

    assert finished.code == 1
    assert "--fail-slow allows 0.001 s" in finished.out


async def test_the_plan_is_shown_and_nothing_runs(project, atk):
    finished = await atk("run", "--explain-plan", ".", cwd=project(test_it__py=TESTS))

    assert finished.code == 0, finished.out + finished.err
    assert "5 tests, at most 64 at once\n      4 beside each other on one loop\n" in finished.out
    assert "alone, by pytest's own protocol: not a coroutine function\n  test_it.py::test_sync\n" in finished.out
    assert "budget" not in finished.out


async def test_groups_and_overrides_of_the_file(project, atk):
    root = project(test_it__py=PASSING)
    (root / "pyproject.toml").write_text(
        "[tool.asynctest_kit]\n"
        '[[tool.asynctest_kit.overrides]]\ntests = "*::test_passes[[]1]"\nexclusive = true\n'
        '[[tool.asynctest_kit.overrides]]\ntests = "*"\ngroup = "all"\n'
        "[tool.asynctest_kit.groups]\nall = 2\n"
    )
    finished = await atk("run", "--explain-plan", ".", cwd=root)

    assert "group all: 2 tests, at most 2 at once\n" in finished.out
    assert "alone on that loop: asked for by a mark or the settings\n  test_it.py::test_passes[1]\n" in finished.out


async def test_an_override_that_matches_no_test_is_a_finding_where_all_that_it_may_match_was_collected(project, atk):
    lacks = "import pytest\n\npytest.importorskip('lacking')\n\ndef test_it():\n    pass\n"
    root = project(test_it__py=PASSING, test_lacks__py=lacks, other__py="")
    (root / "slow").mkdir()
    (root / "slow" / "test_slow.py").write_text("def test_it():\n    pass\n")
    with (root / "conftest.py").open("a") as conftest:
        conftest.write("\ncollect_ignore = ['other.py']\n")
    patterns = (
        *("*test_gone.py::*", "test_it.py::test_gone*", "tests/legacy/*", "*test_passes*0]"),
        *("slow/*", "other.py::*", "test_lacks.py::test_it"),
    )
    overrides = [f'[[tool.asynctest_kit.overrides]]\ntests = "{pattern}"\nretries = 1\n' for pattern in patterns]
    (root / "pyproject.toml").write_text("[tool.asynctest_kit]\n" + "".join(overrides))

    async def told(*arguments):
        finished = await atk("run", *arguments, cwd=root)
        assert finished.code == 0, finished.out
        return re.findall(r'overrides, tests = "(.*)"\n +matches no test, so it changes nothing', finished.out)

    assert await told("--deselect", "test_it.py::test_passes[0]", ".") == list(patterns[:3])
    assert await told("--ignore-glob", "slo?", "-k", "passes", ".") == list(patterns[1:3])
    assert await told("-o", "testpaths=slow test_it.py") == list(patterns[:3])
    assert await told("test_it.py") == [patterns[1]]
    assert await told("test_it.py::test_passes[0]") == []


async def test_the_engine_in_plain_pytest(project, run_pytest):
    root = project(test_it__py=TESTS)
    without, with_engine = await run_pytest("-q", cwd=root), await run_pytest("-q", "--atk", cwd=root)

    assert without[0] == with_engine[0] == 1
    assert "1 failed, 4 passed" in without[1] and "budget" not in without[1]
    # Beside others the flaky test failed, and passed alone: that fails the run, but says so.
    assert "1 failed, 4 passed" in with_engine[1] and "budget 30 s" in with_engine[1]
    assert "passes alone" in with_engine[1]


async def test_settings_count_in_plain_pytest(project, run_pytest):
    code, out = await run_pytest("--atk", cwd=project(test_it__py=TESTS), ATK_RETRIES="1", ATK_REPORT_JSON="it.json")

    assert code == 0, out
    assert "4 passed, 1 flaky in" in out


async def test_a_bad_setting_is_a_usage_error_in_plain_pytest(project, run_pytest):
    code, out = await run_pytest("--atk", cwd=project(test_it__py=PASSING), ATK_CONCURRENCY="many")

    assert code == 4
    assert 'ERROR: environment variable ATK_CONCURRENCY: "many" is not a count. Allowed: a whole number from 1.' in out
    assert "passed" not in out


async def test_a_strict_budget_counts_in_plain_pytest(project, run_pytest):
    root = project(test_it__py=PASSING)
    code, out = await run_pytest("--atk", cwd=root, ATK_BUDGET="1ms", ATK_BUDGET_STRICT="1")

    assert code == 6, out
    assert "3 passed" in out


async def test_workers_of_xdist_run_one_by_one(project, run_pytest):
    pytest.importorskip("xdist")
    code, out = await run_pytest("--atk", "-n", "2", cwd=project(test_it__py=PASSING))

    assert code == 0, out
    assert "3 passed" in out
    assert "budget" not in out


async def test_the_engine_is_asked_for_twice(project, atk):
    root = project(test_it__py=PASSING, pytest__ini="[pytest]\naddopts = --atk")
    finished = await atk("run", cwd=root)

    assert finished.code == 0, finished.out
    assert "3 passed" in finished.out


async def test_a_wrong_setting_is_a_usage_error_in_plain_pytest_without_the_engine(project, run_pytest):
    root = project(
        test_it__py="import pytest\n\n@pytest.mark.anyio\nasync def test_row(pg):\n    pass",
        pyproject__toml='[tool.asynctest_kit]\nbudget = "5x"',
    )
    code, out = await run_pytest(cwd=root)

    assert code == 4, out
    assert '"5x" is not a duration' in out
    assert "INTERNALERROR" not in out


async def test_a_wrong_option_is_4(project, atk):
    for arguments in (("run", "--timeout"), ("no-such-command",), ("up", "--nope")):
        finished = await atk(*arguments, cwd=project())
        assert finished.code == 4, finished.err


async def test_a_reader_that_reads_no_further_gets_no_traceback(project):
    folder = project(test_many__py=PASSING)
    read, write = os.pipe()
    atk = await anyio.open_process(
        [sys.executable, "-m", "asynctest_kit", "run", "-v"], cwd=folder, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    os.close(read)  # as `| head` does, only sooner
    async with atk:
        assert atk.stderr is not None
        said = b"".join([chunk async for chunk in atk.stderr])

    assert (atk.returncode, said) == (1, b"")
