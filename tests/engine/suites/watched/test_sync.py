"""Pytest's own protocol runs them."""

import time

import pytest


@pytest.mark.timeout(0.2)
def test_sleeps():
    time.sleep(20)


def test_neighbour():
    pass
