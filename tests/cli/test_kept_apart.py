"""Pairs of tests that are kept apart: never beside each other, and nobody waits for ever."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from types import SimpleNamespace

import pytest

from asynctest_kit.engine.memory import Memory

SUITE = """
    import asyncio

    import pytest

    running = set()
    beside = set()

    @pytest.fixture(scope="module")
    async def slow():
        await asyncio.sleep(0.05)

    async def alone(name):
        for _ in range(5):
            assert running <= {name}
            running.add(name)
            await asyncio.sleep(0)
        running.discard(name)

    @pytest.mark.parametrize("number", range(20))
    async def test_plain(number):
        await alone(f"plain{number}")

    @pytest.mark.parametrize("number", range(5))
    async def test_with_fixture(slow, number):
        await alone(f"fixture{number}")

    @pytest.mark.atk(group="one")
    @pytest.mark.parametrize("number", range(5))
    async def test_in_group(number):
        await alone(f"group{number}")

    @pytest.mark.atk(group="one")
    @pytest.mark.parametrize("number", range(2))
    async def test_in_group_with_fixture(slow, number):
        await alone(f"both{number}")

    async def test_free():
        while not running:
            await asyncio.sleep(0)
"""

NAMES = [
    *(f"test_suite.py::test_plain[{number}]" for number in range(20)),
    *(f"test_suite.py::test_with_fixture[{number}]" for number in range(5)),
    *(f"test_suite.py::test_in_group[{number}]" for number in range(5)),
    *(f"test_suite.py::test_in_group_with_fixture[{number}]" for number in range(2)),
]


@pytest.mark.anyio
async def test_hundreds_of_pairs_over_several_fixtures_and_groups(project, atk):
    folder = project(test_suite__py=SUITE)
    mark = zlib.crc32((folder / "test_suite.py").read_bytes())
    pairs = [[*pair, "waited", mark, mark, 0] for pair in itertools.combinations(NAMES, 2)]
    known = folder / ".pytest_cache" / "v" / "asynctest_kit"
    known.mkdir(parents=True)
    (known / "apart").write_text(json.dumps(pairs))
    run = await atk("run", "--report-json", "r.json", cwd=folder)
    assert run.code == 0, run.out
    report = json.loads((folder / "r.json").read_text())
    told = re.search(
        r"; (\S+) waited for (\S+?)(,| and \d+ more likewise,) for they are kept apart", str(report["bounds"])
    )
    assert told and {*told.groups()[:2]} <= {*NAMES}, report["bounds"]
    tests = report["tests"]
    assert {test["lane"] for test in tests} == {"shared"}
    assert [test["verdict"] for test in tests] == [""] * (len(NAMES) + 1)
    kept = json.loads((known / "apart").read_text())
    assert {entry[5] for entry in kept} == {1}
    assert len(kept) == len(pairs)


class Cache(dict):
    """What pytest's cache is to those who use it."""

    def set(self, key, value):
        self[key] = json.loads(json.dumps(value))


@pytest.fixture
def items(tmp_path):
    found = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.py"
        path.write_text(name)
        found.append(SimpleNamespace(nodeid=f"{name}.py::test", path=path))
    return found


def kept(cache, items, *learnt):
    memory = Memory(SimpleNamespace(cache=cache))
    found = memory.apart(items)
    for pair in learnt:
        memory.keep_apart(*pair, "waited for the lock")
    memory.keep()
    return found


PAIR = {("one.py::test", "two.py::test"): "waited for the lock"}


def test_a_pair_is_remembered_once_and_for_twenty_runs(items):
    cache, (one, two) = Cache(), items
    assert kept(cache, items, (one, two), (two, one)) == {}
    assert [kept(cache, items) for _ in range(20)] == [PAIR] * 20
    assert kept(cache, items) == {}
    assert cache == {"asynctest_kit/apart": []}


def test_a_run_without_one_of_both_counts_for_nothing(items):
    cache = Cache()
    kept(cache, items, items)
    assert [kept(cache, items[:1]) for _ in range(30)] == [{}] * 30
    assert kept(cache, items) == PAIR


@pytest.mark.parametrize("changed", [0, 1])
def test_a_change_of_either_file_forgets_it(items, changed):
    cache = Cache()
    kept(cache, items, items)
    items[changed].path.write_text("another text")
    assert kept(cache, items) == {}
    assert kept(cache, items) == {}


@pytest.mark.parametrize("broken", [7, [7], [["one", "two", "waited"]], {"one": "two"}])
def test_a_broken_record_is_none(items, broken):
    assert kept(Cache({"asynctest_kit/apart": broken}), items) == {}
