"""Failures that the engine itself finds, rather than a test or a fixture."""

from __future__ import annotations

import pytest

__all__ = ["DEADLOCK", "FINAL", "failure"]

#: An attribute of a failed report, set by whichever hook knows that what the test needs is gone for good. There is no
#: attempt after it, and it does not take the place of a failure before it.
FINAL = "atk_final"

#: Another: with which other tests, by their node ids, the test was in a deadlock that it was the victim of.
DEADLOCK = "atk_deadlock"


def failure(message: str, cause: BaseException | None = None) -> BaseException:
    """A failure to be raised or kept, shown as ``message`` alone.

    It comes with a frame of its own: pytest can't print an error all of whose frames are hidden.
    """
    try:
        pytest.fail(message, pytrace=False)
    except pytest.fail.Exception as error:
        error.__cause__ = cause
        return error
