"""What is expected of a value, and where the value differs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctest_kit.errors import AtkError
from asynctest_kit.http.matching import MISSING, differences, each, exactly, shown, some

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def places(expected, received):
    return [one.place for one in differences(expected, received)]


@given(JSON)
def test_a_value_matches_itself_and_anything(value):
    assert places(value, value) == []
    assert places(exactly(value), value) == []
    assert places(..., value) == []


def test_a_function_that_raises_says_at_which_place():
    expected = {"a": [1, lambda value: value > "x"], "b": lambda value: value["c"], "d": some(lambda value: value > 1)}
    found = list(differences(expected, {"a": [1, 2], "b": {}, "d": ["x", 2]}))

    assert [(one.place, one.received, repr(one.error)) for one in found] == [
        ("$.a[1]", 2, """TypeError("'>' not supported between instances of 'int' and 'str'")"""),
        ("$.b", {}, "KeyError('c')"),
    ]


@given(st.dictionaries(st.text(), JSON, min_size=1), st.data())
def test_a_part_matches_but_not_exactly(value, data):
    key = data.draw(st.sampled_from(sorted(value)))
    part = {name: one for name, one in value.items() if name != key}
    assert places(part, value) == []
    assert len(places(exactly(part), value)) == 1
    assert len(places(value, part)) == 1


@pytest.mark.parametrize(
    ("expected", "received"),
    [
        (int, 3),
        (float, 3),
        (bool, True),
        (str, ""),
        (dict, {}),
        (object, True),
        (type(None), None),
        (re.compile("^a"), "ab"),
        (lambda value: value > 2, 3),
        (pytest.approx(0.3), 0.1 + 0.2),
        ({"a": {"b": int}}, {"a": {"b": 1, "c": 2}, "d": 3}),
        ([int, ..., "x"], [1, None, "x"]),
        (each({"id": int}), [{"id": 1}, {"id": 2, "more": 3}]),
        (each(int, least=0), []),
        (some({"id": 2}), [{"id": 1}, {"id": 2}]),
        ({"a": exactly({"b": some(1)})}, {"a": {"b": [1]}, "c": 2}),
    ],
    ids=str,
)
def test_what_matches(expected, received):
    assert places(expected, received) == []


@pytest.mark.parametrize(
    ("expected", "received", "found"),
    [
        (int, True, ["$"]),
        (1, True, ["$"]),
        (False, 0, ["$"]),
        (int, "3", ["$"]),
        (bool, 1, ["$"]),
        (None, 0, ["$"]),
        (re.compile("^b"), "ab", ["$"]),
        (re.compile("3"), 3, ["$"]),
        ({"a": 1, "b": ...}, {"a": 2}, ["$.a", "$.b"]),
        ({"a": 1}, [], ["$"]),
        ([1, 2], [1], ["$[1]"]),
        ([1], [1, 2], ["$[1]"]),
        ([1], {"0": 1}, ["$"]),
        (each(int), [], ["$"]),
        (each(int), {"a": 1}, ["$"]),
        (each(int), [1, "2", None], ["$[1]", "$[2]"]),
        (some(1), [], ["$"]),
        (some({"id": 2, "a": 1}), [{"id": 1}, {"id": 2}], ["$", "$[1].a"]),
        (exactly({"a": each({"b": 1})}), {"a": [{"b": 1, "c": 2}]}, ["$.a[0].c"]),
        ({"odd key": {"1": 1}}, {"odd key": {"1": 2}}, ["$['odd key']['1']"]),
    ],
    ids=str,
)
def test_where_it_differs(expected, received, found):
    assert places(expected, received) == found


async def is_right(value):
    return False


def test_an_async_function_is_refused_for_it_would_hold_for_all():
    with pytest.raises(AtkError, match="what is_right holds for: an async function can't say what is expected"):
        places({"a": is_right}, {"a": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (..., "anything"),
        (int, "int"),
        (re.compile("a+"), "/a+/"),
        (each(some(int)), "each(some(int))"),
        (exactly({"a": 1}), "exactly({'a': 1})"),
        (MISSING, "nothing"),
        (str.isupper, "what isupper holds for"),
        (lambda _: True, "what the lambda holds for"),
        ("x" * 500, "'" + "x" * 199 + "… (502 characters)"),
    ],
)
def test_how_it_is_shown(value, text):
    assert shown(value) == text
