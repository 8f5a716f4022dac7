"""Which messages tell of the same failure."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta

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
        ("refused by ('::1', 40123, 0, 0)", "refused by ('::1', 51999, 0, 0)"),
        ("can't connect to [::1]:40123", "can't connect to [::1]:51999"),
        ("assert 'http://[::1]:40123/a' in []", "assert 'http://[::1]:51999/a' in []"),
        ("pid 4711 has ended", "pid 31337 has ended"),
        ("<Order at 0x7f3a>", "<Order at 0x7f3bff>"),
        ("no user 6f1c2c1e-9d0b-4d57-9c8e-0a1b2c3d4e5f", "no user 00000000-9d0b-4d57-9c8e-0a1b2c3d4e5f"),
        ("no user a3f09bc1d2", "no user ffeedd0011"),
        ("took 3 s", "took 4.25 s"),
        ("took 120ms", "took 97ms"),
        ("GET /orders/17 was not answered", "GET /orders/1204 was not answered"),
        (f"{FOLDER}/pytest-of-me/pytest-1/a0/x.json", f"{FOLDER}/pytest-of-me/pytest-2/a1/x.json"),
        (f"no {FOLDER}/shop_k2_3zq9w", f"no {FOLDER}/shop_abcd1234"),
        (f"no {FOLDER}/a/tmpk2_3zq9w.sql", f"no {FOLDER}/b/tmpabcd1234.sql"),
    ],
)
def test_the_same_but_for_what_differs_each_time(one, other):
    assert one != other
    assert likeness(one) == likeness(other)


@pytest.mark.parametrize("form", ["{:%Y-%m-%dT%H:%M:%SZ}", "{:%Y-%m-%d %H:%M:%S,%f}", "{}"])
def test_times_about_now(form):
    one, other = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=2)
    assert likeness(f"not at {form.format(one)}") == likeness(f"not at {form.format(other)}") == "not at "
    assert likeness(f"assert '{form.format(one)}' in []") == "assert '' in []"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("assert 3 == 1", "assert 2 == 1"),
        ("assert 404 == 200", "assert 500 == 200"),
        ("assert 10000 == 20000", "assert 10001 == 20000"),
        ("assert 10000000 == 20000000", "assert 10000001 == 20000000"),
        ("the total is 10000000 cents", "the total is 10000001 cents"),
        ("assert 1.5 == 2.0", "assert 9.75 == 2.0"),
        ("assert '2024-01-31' == '2024-02-29'", "assert '2024-02-01' == '2024-02-29'"),
        ("not at 2025-11-26T10:00:00Z", "not at 2025-11-26T10:00:01.125+00:00"),
        ("not at 2025-13-26T10:00:00Z", "not at 2025-14-26T10:00:00Z"),
        ("assert '10:30:00' == '10:45:00'", "assert '10:30:01' == '10:45:00'"),
        ("assert '5 s' == '6 s'", "assert '7 s' == '6 s'"),
        ("AssertionError: assert '/orders/17' == '/orders/1'", "AssertionError: assert '/orders/18' == '/orders/1'"),
        ("got status:404", "got status:500"),
        ("opens at 10:30", "opens at 10:45"),
        ("3/4 came", "3/5 came"),
        ("http://a.test:8080/ has failed", "http://b.test:8080/ has failed"),
        ("error 0x80004005", "error 0x80070005"),
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
