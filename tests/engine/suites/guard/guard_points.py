"""For each point of the guard: how a test gets there, how it undoes that, and what its neighbours could see of it.

Names are built, so that reading the code of a test doesn't show where it goes.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import io
import locale
import logging
import logging.config
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

os.environ["GUARD_THERE"] = "1"

FILE_CONFIG = "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nlevel=ERROR\nhandlers=\n"


class Owner:
    value = 1
    items: ClassVar = {"old": 1}


@dataclass
class Point:
    """One way to change state: ``touch`` gives what undoes it, ``seen`` what others see."""

    touch: Any
    seen: Any = lambda: None


def built(module, name):
    """An attribute by a name that no code holds."""
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


def method_of(value, words):
    return getattr(value, words.replace(" ", "_"))


def calls(module, name, *arguments, undo=None):
    def touch():
        built(module, name)(*arguments)
        return undo or (lambda: None)

    return touch


def swaps(module, name, new, read):
    """A function that sets what ``read`` gives."""

    def touch():
        before = read()
        built(module, name)(new)
        return lambda: built(module, name)(before)

    return touch


def environ_set():
    os.environ["GUARD_" + "SET"] = "1"
    return lambda: os.environ.pop("GUARD_SET")


def environ_del():
    del os.environ["GUARD_THERE"]
    return environ_back


def environ_back():
    os.environ["GUARD_THERE"] = "1"


def fchdir():
    before, there = os.getcwd(), os.open("/", os.O_RDONLY)  # noqa: PTH109
    try:
        built("os", "fchdir")(there)
    finally:
        os.close(there)
    return lambda: os.chdir(before)


def chdir():
    before = os.getcwd()  # noqa: PTH109
    built("os", "chdir")("/")
    return lambda: os.chdir(before)


def umask():
    before = built("os", "umask")(0o077)
    return lambda: os.umask(before)


def umask_seen():
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(line for line in status if line.startswith("Umask"))


def handles_signal():
    before = built("signal", "signal")(signal.SIGUSR1, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGUSR1, before)


def timer():
    built("signal", "setitimer")(signal.ITIMER_REAL, 1000)
    return lambda: signal.setitimer(signal.ITIMER_REAL, 0)


def alarm():
    built("signal", "alarm")(1000)
    return lambda: signal.alarm(0)


def timer_seen():
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def wakeup():
    before = built("signal", "set_wakeup_fd")(-1)
    return lambda: signal.set_wakeup_fd(before)


def sets_locale():
    before = locale.setlocale(locale.LC_NUMERIC)
    built("locale", "setlocale")(locale.LC_NUMERIC, "C")
    return lambda: locale.setlocale(locale.LC_NUMERIC, before)


def seeds():
    before = random.getstate()
    built("random", "seed")(1)
    return lambda: random.setstate(before)


def sets_random_state():
    before = random.getstate()
    built("random", "setstate")(random.Random(5).getstate())
    return lambda: random.setstate(before)


def seeds_faker():
    random_of_all = built("faker.generator", "random")
    before = random_of_all.getstate()
    built("faker", "Faker." + "seed")(5)
    return lambda: random_of_all.setstate(before)


def configures_by_file():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    built("logging.config", "fileConfig")(io.StringIO(FILE_CONFIG), None, False)

    def undo():
        root.handlers[:] = handlers
        root.setLevel(level)

    return undo


def configures_by_dict():
    before = logging.getLogger("guarded").level
    built("logging.config", "dictConfig")({"version": 1, "incremental": True, "loggers": {"guarded": {"level": 10}}})
    return lambda: logging.getLogger("guarded").setLevel(before)


def redirects():
    redirect = built("contextlib", "redirect_" + "stderr")(io.StringIO())
    redirect.__enter__()
    return lambda: redirect.__exit__(None, None, None)


def policy(module):
    def touch():
        before = asyncio.get_event_loop_policy()
        built(module, "set_event_loop_policy")(asyncio.DefaultEventLoopPolicy())
        return lambda: asyncio.set_event_loop_policy(before)

    return touch


def of_loop(name, read, make):
    def touch():
        loop = asyncio.get_running_loop()
        before, method = read(loop), method_of(loop, f"set_{name}")
        method(make())
        return (lambda: method(before)) if name != "default_executor" else (lambda: None)

    return Point(touch, lambda: read(asyncio.get_running_loop()))


def adds_signal_handler():
    loop = asyncio.get_running_loop()
    method_of(loop, "add signal handler")(signal.SIGUSR2, print)
    return lambda: loop.remove_signal_handler(signal.SIGUSR2)


def removes_signal_handler():
    method_of(asyncio.get_running_loop(), "remove signal handler")(signal.SIGUSR2)
    return lambda: None


def patches(module, *, of_dict=False):
    def touch():
        patch = built(module, "patch")
        patcher = patch.dict(Owner.items, {"new": 2}) if of_dict else patch.object(Owner, "value", 2)
        patcher.start()
        return patcher.stop

    return touch


def by_monkeypatch(name, *arguments):
    def touch():
        patch = built("pytest", "Monkey" + "Patch")()
        getattr(patch, name)(*arguments)
        return patch.undo

    return touch


def starts(module, name, *arguments):
    def touch():
        started = built(module, name)(*arguments)
        started.start()
        return started.stop

    return touch


def configures_structlog(module):
    def touch():
        structlog = importlib.import_module("structlog")
        before = structlog.get_config()
        built(module, "configure")(cache_logger_on_first_use=False)
        return lambda: structlog.configure(**before)

    return touch


def owner_seen():
    return Owner.value, dict(Owner.items), "value" in vars(Owner)


def environment_seen():
    return {name: value for name, value in os.environ.items() if name.startswith("GUARD_")}


def pid(*_):
    return None


POINTS = {
    ("os", "_Environ.__setitem__"): Point(environ_set, environment_seen),
    ("os", "_Environ.__delitem__"): Point(environ_del, environment_seen),
    ("os", "putenv"): Point(calls("os", "putenv", "GUARD_PUT", "1", undo=lambda: os.unsetenv("GUARD_PUT"))),
    ("os", "unsetenv"): Point(calls("os", "unsetenv", "GUARD_UNSET")),
    ("os", "chdir"): Point(chdir, os.getcwd),
    ("os", "fchdir"): Point(fchdir, os.getcwd),
    ("os", "umask"): Point(umask, umask_seen),
    ("sys", "settrace"): Point(swaps("sys", "settrace", pid, sys.gettrace), sys.gettrace),
    ("sys", "setprofile"): Point(swaps("sys", "setprofile", pid, sys.getprofile), sys.getprofile),
    ("sys", "setrecursionlimit"): Point(
        swaps("sys", "setrecursionlimit", 4321, sys.getrecursionlimit), sys.getrecursionlimit
    ),
    ("threading", "settrace"): Point(swaps("threading", "settrace", pid, threading.gettrace), threading.gettrace),
    ("threading", "setprofile"): Point(
        swaps("threading", "setprofile", pid, threading.getprofile), threading.getprofile
    ),
    ("time", "sleep"): Point(calls("time", "sleep", 0.005)),
    ("time", "tzset"): Point(calls("time", "tzset"), lambda: time.tzname),
    ("signal", "signal"): Point(handles_signal, lambda: signal.getsignal(signal.SIGUSR1)),
    ("signal", "setitimer"): Point(timer, timer_seen),
    ("signal", "alarm"): Point(alarm, timer_seen),
    ("signal", "set_wakeup_fd"): Point(wakeup),
    ("locale", "setlocale"): Point(sets_locale, lambda: locale.getlocale(locale.LC_NUMERIC)),
    ("random", "seed"): Point(seeds, random.getstate),
    ("random", "setstate"): Point(sets_random_state, random.getstate),
    ("socket", "setdefaulttimeout"): Point(
        swaps("socket", "setdefaulttimeout", 99, built("socket", "getdefaulttimeout")),
        built("socket", "getdefaulttimeout"),
    ),
    ("logging", "disable"): Point(
        swaps("logging", "disable", 10, lambda: logging.root.manager.disable), lambda: logging.root.manager.disable
    ),
    ("logging.config", "dictConfig"): Point(configures_by_dict, lambda: logging.getLogger("guarded").level),
    ("logging.config", "fileConfig"): Point(configures_by_file, lambda: logging.getLogger().level),
    ("contextlib", "_RedirectStream.__enter__"): Point(redirects, lambda: isinstance(sys.stderr, io.StringIO)),
    ("asyncio.events", "set_event_loop_policy"): Point(policy("asyncio.events"), asyncio.get_event_loop_policy),
    ("asyncio", "set_event_loop_policy"): Point(policy("asyncio"), asyncio.get_event_loop_policy),
    ("asyncio.base_events", "BaseEventLoop.set_exception_handler"): of_loop(
        "exception_handler", lambda loop: loop.get_exception_handler(), lambda: pid
    ),
    ("asyncio.base_events", "BaseEventLoop.set_task_factory"): of_loop(
        "task_factory", lambda loop: loop.get_task_factory(), lambda: asyncio.Task
    ),
    ("asyncio.base_events", "BaseEventLoop.set_default_executor"): of_loop(
        "default_executor", lambda loop: loop._default_executor, ThreadPoolExecutor
    ),
    ("asyncio.base_events", "BaseEventLoop.set_debug"): of_loop("debug", lambda loop: loop.get_debug(), lambda: True),
    ("asyncio.unix_events", "_UnixSelectorEventLoop.add_signal_handler"): Point(
        adds_signal_handler, lambda: signal.getsignal(signal.SIGUSR2)
    ),
    ("asyncio.unix_events", "_UnixSelectorEventLoop.remove_signal_handler"): Point(removes_signal_handler),
    ("unittest.mock", "_patch.__enter__"): Point(patches("unittest.mock"), owner_seen),
    ("unittest.mock", "_patch_dict._patch_dict"): Point(patches("unittest.mock", of_dict=True), owner_seen),
    ("mock.mock", "_patch.__enter__"): Point(patches("mock.mock"), owner_seen),
    ("mock.mock", "_patch_dict._patch_dict"): Point(patches("mock.mock", of_dict=True), owner_seen),
    ("pytest", "MonkeyPatch.setattr"): Point(by_monkeypatch("setattr", Owner, "value", 2), owner_seen),
    ("pytest", "MonkeyPatch.delattr"): Point(
        by_monkeypatch("delattr", Owner, "value"), lambda: hasattr(Owner, "value")
    ),
    ("pytest", "MonkeyPatch.setitem"): Point(by_monkeypatch("setitem", Owner.items, "new", 2), owner_seen),
    ("pytest", "MonkeyPatch.delitem"): Point(by_monkeypatch("delitem", Owner.items, "old"), owner_seen),
    ("pytest", "MonkeyPatch.setenv"): Point(by_monkeypatch("setenv", "GUARD_SET", "1"), environment_seen),
    ("pytest", "MonkeyPatch.delenv"): Point(by_monkeypatch("delenv", "GUARD_THERE"), environment_seen),
    ("pytest", "MonkeyPatch.syspath_prepend"): Point(
        by_monkeypatch("syspath_prepend", "/nowhere"), lambda: list(sys.path)
    ),
    ("pytest", "MonkeyPatch.chdir"): Point(by_monkeypatch("chdir", "/"), os.getcwd),
    ("freezegun.api", "_freeze_time.start"): Point(starts("freezegun", "freeze_time")),
    ("time_machine", "travel.start"): Point(starts("time_machine", "travel", 0)),
    ("faker.generator", "Generator.seed"): Point(seeds_faker, lambda: built("faker.generator", "random").getstate()),
    ("requests_mock.mocker", "MockerCore.start"): Point(starts("requests_mock", "Mocker")),
    ("responses", "RequestsMock.start"): Point(starts("responses", "RequestsMock")),
    ("structlog", "configure"): Point(configures_structlog("structlog")),
    ("structlog.testing", "configure"): Point(configures_structlog("structlog.testing")),
}


def is_installed(module):
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(module) is not None
    return False


HERE = [point for point in POINTS if is_installed(point[0])]
for module, _ in HERE:
    importlib.import_module(module)
