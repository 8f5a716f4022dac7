"""Numbered copies of every test, for ``--repeat``."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

__all__ = ["Repetition"]

_NAME = "atk_repetition"


@dataclass(eq=False, slots=True)
class Repetition:
    """The pytest plugin of a run that repeats its tests ``times`` times."""

    times: int

    @pytest.hookimpl
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the copies; their ids end in ``run1``, ``run2``, and so on."""
        numbers = range(1, self.times + 1)
        metafunc.fixturenames.append(_NAME)
        metafunc.parametrize(_NAME, numbers, indirect=True, ids=[f"run{number}" for number in numbers])

    @pytest.fixture(name=_NAME)
    def repetition(self, request: pytest.FixtureRequest) -> object:
        """Which copy of its test this is, from 1."""
        return request.param
