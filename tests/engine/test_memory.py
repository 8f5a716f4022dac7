"""Which deadlines are not doubted, for they were met alone with ease, and until when."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from asynctest_kit.engine.code_places import Place
from asynctest_kit.engine.deadlines import Doubt
from asynctest_kit.engine.memory import Memory

KEY = "asynctest_kit/deadlines"


class Cache(dict):
    """What pytest's cache is to those who use it."""

    def set(self, key, value):
        self[key] = json.loads(json.dumps(value))


@pytest.fixture
def item(tmp_path):
    path = tmp_path / "test_it.py"
    path.write_text("a test")
    return SimpleNamespace(nodeid="test_it.py::test", path=path)


@pytest.fixture
def doubt(item):
    return Doubt(0.2, 0.3, Place(str(item.path), 7, "test"))


def known(cache, item, *doubts, learns=(), forgets=False):
    """Which of some deadlines are known to be met, in one run, that learns of others afterwards."""
    memory = Memory(SimpleNamespace(cache=cache))
    found = [memory.is_met(item, doubt) for doubt in doubts]
    memory.learn_met(item, learns)
    if forgets:
        memory.forget_met(item)
    memory.keep()
    return found


def test_a_deadline_is_known_by_its_line_and_length(item, doubt):
    cache = Cache()
    assert known(cache, item, doubt, learns=[doubt]) == [False]
    later = Doubt(0.2, 5, Place(str(item.path), 7, "test"))
    elsewhere = Doubt(0.2, 0.3, Place(str(item.path), 8, "test"))
    in_another_file = Doubt(0.2, 0.3, Place(str(item.path.parent / "app.py"), 7, "test"))
    longer, nowhere = Doubt(0.3, 0.4, doubt.place), Doubt(0.2, 0.3, None)
    doubts = [later, elsewhere, in_another_file, longer, nowhere]
    assert known(cache, item, *doubts) == [True, False, False, False, False]
    other = SimpleNamespace(nodeid="test_it.py::test_other", path=item.path)
    assert known(cache, other, doubt) == [False]


def test_it_is_known_for_twenty_runs(item, doubt):
    cache = Cache()
    known(cache, item, learns=[doubt])
    assert [known(cache, item, doubt, doubt) for _ in range(20)] == [[True, True]] * 20
    assert known(cache, item, doubt, learns=[doubt]) == [False]
    assert known(cache, item, doubt) == [True]


def test_another_is_known_beside_it(item, doubt):
    cache, other = Cache(), Doubt(0.5, 0.6, doubt.place)
    known(cache, item, learns=[doubt])
    known(cache, item, learns=[other, doubt])
    assert known(cache, item, doubt, other) == [True, True]
    assert len(cache[KEY][item.nodeid][-1]) == 2


def test_what_has_no_place_is_not_learnt(item):
    cache, nowhere = Cache(), Doubt(0.2, 0.3, None)
    known(cache, item, learns=[nowhere])
    assert cache == {}


def test_a_change_of_the_tests_file_forgets_it(item, doubt):
    cache = Cache()
    known(cache, item, learns=[doubt])
    item.path.write_text("another test")
    assert known(cache, item, doubt) == [False]


def test_all_are_forgotten_when_one_is_missed(item, doubt):
    cache = Cache()
    known(cache, item, learns=[doubt])
    known(cache, item, forgets=True)
    assert known(cache, item, doubt) == [False]


@pytest.mark.parametrize("broken", [7, [7], {"test_it.py::test": 7}, {"test_it.py::test": [1, 2, 3]}])
def test_a_broken_record_is_none(item, doubt, broken):
    assert known(Cache({KEY: broken}), item, doubt, learns=[doubt]) == [False]


def test_a_broken_entry_is_none(item, doubt):
    cache = Cache()
    known(cache, item, learns=[doubt])
    cache[KEY][item.nodeid][-1].insert(0, ["test_it.py", "7"])
    assert known(cache, item, doubt) == [True]
