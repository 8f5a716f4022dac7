"""A sync test that takes too long fails at the line that blocks, and nobody else's alarm is touched.

``SIGALRM`` belongs to the process; these tests are sync ones, which run alone.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

from asynctest_kit.engine.sync_limit import is_available, sync_limit

MESSAGE = "test_x: the call took longer than its time-out of 0.02 s"
LONG = 20


@pytest.fixture(autouse=True)
def alarm():
    """As it is in a fresh process, whoever limits this test."""
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def is_untouched():
    return (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (signal.SIG_DFL, (0.0, 0.0))


def test_what_blocks_fails_where_it_does():
    def helper():
        time.sleep(LONG)

    with pytest.raises(pytest.fail.Exception) as caught, sync_limit(0.02, "test_x: the call"):
        helper()
    assert str(caught.value) == MESSAGE
    shown = caught.traceback.filter(caught)
    assert (shown[-1].name, str(shown[-1].statement).strip()) == ("helper", "time.sleep(LONG)")
    assert is_untouched()


def test_what_computes_fails_too():
    with pytest.raises(pytest.fail.Exception, match=MESSAGE), sync_limit(0.02, "test_x: the call"):
        while True:
            pass


def test_a_lock_that_nobody_releases():
    lock = threading.Lock()
    lock.acquire()
    with pytest.raises(pytest.fail.Exception, match=MESSAGE), sync_limit(0.02, "test_x: the call"):
        lock.acquire(timeout=LONG)


def test_what_ends_in_time_leaves_nothing_behind():
    with sync_limit(LONG, "test_x: the call"):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= LONG
    assert is_untouched()


def test_no_limit():
    with sync_limit(0, "test_x: the call"):
        assert is_untouched()


def test_an_error_of_its_own_is_raised():
    with pytest.raises(LookupError), sync_limit(LONG, "test_x: the call"):
        raise LookupError
    assert is_untouched()


def test_who_has_the_alarm_keeps_it():
    def theirs(signum, frame):
        raise AssertionError

    signal.signal(signal.SIGALRM, theirs)
    with sync_limit(0.001, "test_x: the call"):
        assert signal.getsignal(signal.SIGALRM) is theirs
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is theirs


def test_who_has_the_timer_keeps_it():
    signal.setitimer(signal.ITIMER_REAL, LONG)
    with sync_limit(0.001, "test_x: the call"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 1
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 1


def test_who_takes_the_alarm_meanwhile_keeps_it():
    def theirs(signum, frame):
        raise AssertionError

    with sync_limit(LONG, "test_x: the call"):
        signal.signal(signal.SIGALRM, theirs)
        signal.setitimer(signal.ITIMER_REAL, LONG + 1)
    assert signal.getsignal(signal.SIGALRM) is theirs
    assert signal.getitimer(signal.ITIMER_REAL)[0] > LONG


@pytest.mark.parametrize("line", ["signal.alarm(5)", "signal.signal(signal.SIGALRM, h)", "setitimer(ITIMER_REAL, 1)"])
def test_a_module_that_uses_the_alarm_is_not_limited(tmp_path, line):
    module = tmp_path / "test_alarm.py"
    module.write_text(f"def test():\n    {line}\n")
    with sync_limit(0.001, "test_x: the call", module):
        assert is_untouched()


def test_other_modules_are(tmp_path):
    module = tmp_path / "test_calm.py"
    module.write_text("def test():\n    false_alarms()\n")
    with sync_limit(LONG, "test_x: the call", module):
        assert not is_untouched()


def test_nothing_is_raised_where_it_may_not_be():
    calls = []

    def is_elsewhere():
        calls.append(True)
        return len(calls) < 3

    with pytest.raises(pytest.fail.Exception), sync_limit(0.02, "test_x: the call", is_elsewhere=is_elsewhere):
        time.sleep(LONG)
    assert len(calls) == 3


def test_in_another_thread_there_is_none():
    seen = []

    def run():
        with sync_limit(0.001, "test_x: the call"):
            seen.append(is_available())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
    assert is_untouched()
