"""Helpers that change state for whoever calls them."""

import contextlib
import functools

import flags


@contextlib.contextmanager
def flag(value):
    before, flags.FLAG = flags.FLAG, value
    try:
        yield
    finally:
        flags.FLAG = before


def flagged(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        with flag("decorated"):
            return await function(*args, **kwargs)

    return wrapper
