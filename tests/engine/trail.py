"""What fixtures and tests of a suite leave behind: one line for each thing that happened, in order.

Suites import it; ``SUITE_TRAIL`` names the file. Lines are appended in one write, so threads and processes may mix.
"""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager

_numbers = itertools.count(1)


def note(*words):
    """Append one line."""
    file = os.open(os.environ["SUITE_TRAIL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


class Held(str):
    """The value of a traced fixture: a name that no other set-up of it has."""

    __slots__ = ()


@contextmanager
def held(name, *needs):
    """Note the set-up and the tear-down of a fixture that uses the values ``needs``."""
    value = Held(f"{name}#{next(_numbers)}")
    note("up", value, *needs)
    try:
        yield value
    finally:
        note("down", value)


@contextmanager
def used(test, *values):
    """Note the start and the end of a test that uses ``values``."""
    note("start", test, *values)
    try:
        yield
    finally:
        note("end", test)
