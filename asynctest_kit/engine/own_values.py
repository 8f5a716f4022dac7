"""Values that a plugin's fixture seeds for one test and hands to all: each test beside others has its own.

faker's ``faker`` gives every test the session's one Faker, seeded anew: under pytest each test draws the same values,
however many draw before it. Beside others each would draw from where the others are. So a test gets a copy, made
before anybody else can seed the original; one that can't be copied is for a test that runs alone.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

from asynctest_kit.engine.guard import stop_if_guarded

if TYPE_CHECKING:
    import pytest

__all__ = ["own_value"]

T = TypeVar("T")

#: Module and name of such fixtures.
_SEEDED = frozenset({("faker.contrib.pytest.plugin", "faker")})


def own_value(definition: pytest.FixtureDef[Any], value: T) -> T:
    """The value of a fixture as its test is to have it.

    Raises:
        StateTouched: It can't be copied, and others run.
    """
    __tracebackhide__ = True
    if (definition.func.__module__, definition.argname) not in _SEEDED:
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # providers of the suite may hold anything
        stop_if_guarded("the session's Faker, which can't be copied")
        return value
