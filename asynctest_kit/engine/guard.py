"""Keeps a test beside others from changing what the whole process shares.

What a test's code shows is read before the run (:mod:`asynctest_kit.engine.process_state`). The rest is caught when it
happens: while the loop runs, the usual ways to change process-global state are wrapped. A test that uses one beside
others is stopped *before* the change, so its neighbours never see it: :class:`StateTouched` is raised in it, whatever
it makes of that is thrown away, and it runs again alone. So the guard can make a run slower and can't make it wrong.

Who is guarded is told by a context variable, which child tasks and ``asyncio.to_thread`` inherit. Code of a module that
is being imported isn't stopped: it runs once in a process, under every runner.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from asyncio import events
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["POINTS", "Guard", "StateTouched", "Ward", "guarded_by", "stop_if_guarded"]


class StateTouched(BaseException):
    """Process-global state was about to be changed beside others, or the loop to be stopped under them.

    Not an Exception: no ``except Exception`` of a test may catch it.

    Attributes:
        what: The state and the place of the code.
    """

    def __init__(self, state: str, place: str) -> None:
        super().__init__(f"{state} belongs to the whole process: what touches it beside others is run again, alone")
        self.what = f"{state} at {place}"


class Ward:
    """Who is guarded: one attempt of a test, or a fixture that tests beside others share.

    Attributes:
        is_shared: Whether it is a fixture.
        touched: What it was about to change and where, once it tried.
    """

    __slots__ = ("__weakref__", "is_shared", "touched")

    def __init__(self, *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.touched: str | None = None


#: Who runs in the present context, if it is to be guarded.
guarded_by: ContextVar[Ward | None] = ContextVar("asynctest_kit_guarded_by", default=None)

#: Module, attribute, and what a person calls it. A module counts from when it is loaded.
POINTS: Final = (
    ("os", "_Environ.__setitem__", "os.environ"),
    ("os", "_Environ.__delitem__", "os.environ"),
    ("os", "putenv", "os.putenv"),
    ("os", "unsetenv", "os.unsetenv"),
    ("os", "chdir", "os.chdir"),
    ("os", "fchdir", "os.fchdir"),
    ("os", "umask", "os.umask"),
    ("sys", "settrace", "sys.settrace"),
    ("sys", "setprofile", "sys.setprofile"),
    ("sys", "setrecursionlimit", "sys.setrecursionlimit"),
    ("threading", "settrace", "threading.settrace"),
    ("threading", "setprofile", "threading.setprofile"),
    ("time", "sleep", "time.sleep"),
    ("time", "tzset", "time.tzset"),
    ("signal", "signal", "signal.signal"),
    ("signal", "setitimer", "signal.setitimer"),
    ("signal", "alarm", "signal.alarm"),
    ("signal", "set_wakeup_fd", "signal.set_wakeup_fd"),
    ("locale", "setlocale", "locale.setlocale"),
    ("random", "seed", "random.seed"),
    ("random", "setstate", "random.setstate"),
    ("socket", "setdefaulttimeout", "socket.setdefaulttimeout"),
    ("logging", "disable", "logging.disable"),
    ("logging.config", "dictConfig", "logging.config.dictConfig"),
    ("logging.config", "fileConfig", "logging.config.fileConfig"),
    ("contextlib", "_RedirectStream.__enter__", "contextlib.redirect_stdout or redirect_stderr"),
    ("asyncio.events", "set_event_loop_policy", "asyncio.set_event_loop_policy"),
    ("asyncio", "set_event_loop_policy", "asyncio.set_event_loop_policy"),
    ("asyncio.base_events", "BaseEventLoop.set_exception_handler", "the loop's exception handler"),
    ("asyncio.base_events", "BaseEventLoop.set_task_factory", "the loop's task factory"),
    ("asyncio.base_events", "BaseEventLoop.set_default_executor", "the loop's default executor"),
    ("asyncio.base_events", "BaseEventLoop.set_debug", "the loop's debug mode"),
    ("asyncio.unix_events", "_UnixSelectorEventLoop.add_signal_handler", "the loop's signal handlers"),
    ("asyncio.unix_events", "_UnixSelectorEventLoop.remove_signal_handler", "the loop's signal handlers"),
    ("unittest.mock", "_patch.__enter__", "mock.patch"),
    ("unittest.mock", "_patch_dict._patch_dict", "mock.patch.dict"),
    ("mock.mock", "_patch.__enter__", "mock.patch"),
    ("mock.mock", "_patch_dict._patch_dict", "mock.patch.dict"),
    ("pytest", "MonkeyPatch.setattr", "monkeypatch"),
    ("pytest", "MonkeyPatch.delattr", "monkeypatch"),
    ("pytest", "MonkeyPatch.setitem", "monkeypatch"),
    ("pytest", "MonkeyPatch.delitem", "monkeypatch"),
    ("pytest", "MonkeyPatch.setenv", "monkeypatch"),
    ("pytest", "MonkeyPatch.delenv", "monkeypatch"),
    ("pytest", "MonkeyPatch.syspath_prepend", "monkeypatch"),
    ("pytest", "MonkeyPatch.chdir", "monkeypatch"),
    ("freezegun.api", "_freeze_time.start", "freezegun"),
    ("time_machine", "travel.start", "time_machine"),
    ("faker.generator", "Generator.seed", "Faker.seed"),
    ("requests_mock.mocker", "MockerCore.start", "requests_mock"),
    ("responses", "RequestsMock.start", "responses"),
    ("structlog", "configure", "structlog.configure"),
    ("structlog.testing", "configure", "structlog.testing.capture_logs"),
)

#: Seconds for which a test may stop the loop on purpose.
_SHORT: Final = 0.005


class Guard:
    """Wraps every point while it is installed, also in modules that are loaded meanwhile.

    Args:
        loop: The tests' loop.
        on_modules: Called when modules have been loaded.
    """

    def __init__(self, loop: object, on_modules: Callable[[], None] = lambda: None) -> None:
        self._on_modules = on_modules
        self._loop = loop
        self._thread = threading.get_ident()
        self._pending = list(POINTS)
        self._modules = 0
        self._saved: list[tuple[Any, str, Any]] = []
        _start_folder()

    @contextmanager
    def installed(self) -> Iterator[Guard]:
        """Guard as long as the block runs."""
        self.look_again()
        try:
            yield self
        finally:
            for owner, name, original in reversed(self._saved):
                setattr(owner, name, original)

    def look_again(self) -> None:
        """Wrap what has been loaded since; cheap when nothing has."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        self._pending = [point for point in self._pending if not self._wrap(*point)]
        self._on_modules()

    def _wrap(self, module: str, path: str, what: str) -> bool:
        """Tell whether there is nothing left to do."""
        owner: Any = sys.modules.get(module)
        if owner is None:
            return False
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part, None)
        original = vars(owner).get(name) if owner is not None else None
        if isinstance(original, classmethod):
            self._saved.append((owner, name, original))
            setattr(owner, name, classmethod(self._wrapped(original.__func__, what)))
        elif callable(original):
            self._saved.append((owner, name, original))
            setattr(owner, name, self._wrapped(original, what))
        return True

    def _wrapped(self, original: Callable[..., Any], what: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def guard(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if (ward := guarded_by.get()) is not None and self._matters(what, args):
                _stop(ward, what)
            return original(*args, **kwargs)

        return guard

    def _matters(self, what: str, args: tuple[Any, ...]) -> bool:
        if what.startswith("the loop's"):
            return args[0] is self._loop  # a thread may have a loop of its own
        if what == "time.sleep":
            return bool(args) and args[0] >= _SHORT and threading.get_ident() == self._thread
        return not _changes_nothing(args)


def _changes_nothing(args: tuple[Any, ...]) -> bool:
    """Whether an environment variable is being set to what it is: by ``os.environ``, which calls ``os.putenv``."""
    match args:
        case (environment, str(name), value) if environment is os.environ:
            return bool(os.environ.get(name) == value)
        case (bytes(name), bytes(value)):
            return os.environ.get(os.fsdecode(name)) == os.fsdecode(value)
        case _:
            return False


def stop_if_guarded(what: str) -> None:
    """Stop who runs in the present context from changing ``what``, if that is guarded.

    Raises:
        StateTouched: It is.
    """
    __tracebackhide__ = True
    if (ward := guarded_by.get()) is not None:
        _stop(ward, what)


def _stop(ward: Ward, what: str) -> None:
    __tracebackhide__ = True
    place = _place_in_users_code(sys._getframe(2))  # noqa: SLF001  # the only way to a frame without a traceback's cost
    if place is None:
        return
    touched = StateTouched(what, place)
    ward.touched = ward.touched or touched.what
    raise touched


def _place_in_users_code(frame: FrameType | None) -> str | None:
    """File and line of the innermost frame outside of libraries; None while a module is being imported."""
    place = ""
    while frame is not None and frame.f_code is not _TURN:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return None
        if not place and not file.startswith(_libraries()) and not file.startswith("<"):
            place = f"{os.path.relpath(file, _start_folder())}:{frame.f_lineno}"
        frame = frame.f_back
    return place or "a library's code"


#: What calls a task's step: the frames outside of it are the runner's.
_TURN: Final = events.Handle._run.__code__  # noqa: SLF001  # its name isn't public, and has been the same since 3.4


@functools.cache
def _start_folder() -> str:
    """Where the run was started, for a test may have left it since: it is looked up once, by the guard itself."""
    return os.getcwd()  # noqa: PTH109  # as relpath wants it


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Folders of code that isn't the user's; those of a virtual environment lie beside the standard library."""
    import site
    import sysconfig

    paths = sysconfig.get_paths()
    ours = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    return (ours, *site.getsitepackages(), paths["purelib"], paths["platlib"], paths["stdlib"])
