"""The board of tests that wait for each other: what it makes of what it is told."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from asynctest_kit.engine import clock
from asynctest_kit.engine.events import WaitFinished
from asynctest_kit.engine.waits import Wait, Waits

ONE, TWO, THREE = "a::one", "b::two", "c::three"
ROW = "the row of users with id = 1"


class Kept:
    """What a memory was told."""

    def __init__(self):
        self.pairs = {}

    def keep_apart(self, item, other, reason):
        self.pairs[item.nodeid, other.nodeid] = reason


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def events():
    return []


@pytest.fixture
def board(kept, events):
    cases = {name: SimpleNamespace(case=SimpleNamespace(item=SimpleNamespace(nodeid=name))) for name in (ONE, TWO)}
    return Waits(events.append, kept, cases)


def test_a_wait_is_told_when_it_is_over_and_its_pair_kept_apart(board, kept, events):
    board.tell("db", [(Wait(TWO, ONE, ROW), 0.5)])
    assert [str(one.wait) for one in board.now] == [f"b::two waits for {ROW}, held by a::one"]
    board.tell("other db", [])
    assert not events
    board.tell("db", [(Wait(TWO, ONE, "said otherwise"), 0.7)])
    board.tell("db", [])
    assert board.now == ()
    (event,) = events
    assert isinstance(event, WaitFinished)
    assert (event.nodeid, event.holder, event.what) == (TWO, ONE, ROW)
    assert event.end - event.start >= 0.5
    assert kept.pairs.keys() == {(TWO, ONE)}
    assert kept.pairs[TWO, ONE].endswith(f" s for {ROW}")


def test_who_is_no_test_of_the_shared_lane_is_kept_apart_from_nobody(board, kept, events):
    waits = [
        Wait(TWO, THREE, ROW),
        Wait(TWO, "a session", ROW, holder_is_test=False),
        Wait("a session", ONE, ROW, waiter_is_test=False),
        Wait(ONE, ONE, ROW),
    ]
    board.tell("db", [(wait, 0.5) for wait in waits])
    board.tell("db", [])
    assert len(events) == len(waits)
    assert kept.pairs == {}


def test_a_time_out_names_the_longest_wait_if_it_was_long(board):
    begun = clock.monotonic() - 1000.0
    assert board.cause(TWO, begun) == ""
    board.tell("db", [(Wait(TWO, ONE, ROW, holder_statement="UPDATE users"), 100.0)])
    assert board.cause(TWO, begun) == ""  # a tenth of its time
    board.tell("other db", [(Wait(TWO, "a session", "a row of notes", holder_is_test=False), 600.0)])
    said = board.cause(TWO, begun)
    assert re.fullmatch(r", of which it waited \d+\.\d s for a row of notes, held by a session", said)
    assert board.cause(ONE, begun) == ""


@pytest.mark.parametrize(
    ("owners", "waits", "others"),
    [
        ((TWO,), (), ()),  # two connections of its own
        ((), (), ()),
        ((TWO, ONE), (), (ONE,)),
        ((TWO, ONE, THREE), (ONE,), (ONE,)),  # a session that is another test's by now
        ((TWO, THREE), (ONE,), (THREE,)),
    ],
)
def test_a_deadlock_is_with_whom_the_victim_waited_for(board, kept, owners, waits, others):
    board.tell("db", [(Wait(TWO, holder, ROW), 0.5) for holder in waits])
    assert board.deadlocked(TWO, owners) == others
    assert kept.pairs.keys() == {(TWO, other) for other in others if other != THREE}
