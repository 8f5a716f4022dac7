"""Which messages tell of the same failure."""

from __future__ import annotations

import tempfile

import pytest

from asynctest_kit.engine.same_failure import likeness

FOLDER = tempfile.gettempdir()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ConnectError: http://127.0.0.1:40123/a", "ConnectError: http://127.0.0.1:51999/a"),
        ("refused by ('127.0.0.1', 8081)", "refused by ('127.0.0.1', 9090)"),
        ("OSError: port 8080 is in use", "OSError: port 9123 is in use"),
        ("no such key localhost:80", "no such key localhost:8080"),
        ("<Order at 0x7f3a>", "<Order at 0x7f3bff>"),
        ("no user 6f1c2c1e-9d0b-4d57-9c8e-0a1b2c3d4e5f", "no user 00000000-9d0b-4d57-9c8e-0a1b2c3d4e5f"),
        ("no user a3f09bc1d2", "no user ffeedd0011"),
        ("not at 2025-11-26T10:00:00Z", "not at 2025-11-26T10:00:01.125+00:00"),
        ("took 3 s", "took 4.25 s"),
        ("took 120ms", "took 97ms"),
        ("assert 0.25 < 0.1", "assert 0.375 < 0.1"),
        ("GET /orders/17 was not answered", "GET /orders/1204 was not answered"),
        (f"{FOLDER}/pytest-of-me/pytest-1/a0/x.json", f"{FOLDER}/pytest-of-me/pytest-2/a1/x.json"),
        (f"no {FOLDER}/shop_k2_3zq9w", f"no {FOLDER}/shop_abcd1234"),
        (f"no {FOLDER}/a/tmpk2_3zq9w.sql", f"no {FOLDER}/b/tmpabcd1234.sql"),
    ],
)
def test_the_same_but_for_what_differs_each_time(one, other):
    assert one != other
    assert likeness(one) == likeness(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("assert 3 == 1", "assert 2 == 1"),
        ("assert 404 == 200", "assert 500 == 200"),
        ("LookupError: a", "KeyError: a"),
        ("broken in attempt 1", "broken in attempt 2"),
        ("KeyError: 'facade'", "KeyError: 'accede'"),
        ("the feedbacks", "the backfeeds"),
        (f"no {FOLDER}/a/orders.json", f"no {FOLDER}/b/users.json"),
        ("GET /orders/17 was not answered", "GET /users/17 was not answered"),
        ("status: 3 of 4 came", "status: 2 of 4 came"),
    ],
)
def test_others(one, other):
    assert likeness(one) != likeness(other)
