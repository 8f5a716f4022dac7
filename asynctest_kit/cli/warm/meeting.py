"""Where a run and the process that waits for it meet, and what they say.

Imported by every ``atk run`` before anything else, so it imports next to nothing.

A run's first line is a :func:`request`, as a Python literal in ASCII; it comes with its ``descriptors``. The answer is
``process <number>``, or ``refused <why>``. ``go`` lets it begin, and ``status <number>`` tells how it ended.
"""

from __future__ import annotations

import os
import stat
import sys

__all__ = ["directory", "is_private", "is_read_later", "is_traced", "is_unbuffered", "request", "socket_path"]

_STANDARD = (0, 1, 2)
_READ_LATER = frozenset({"_", "COLUMNS", "LINES", "OLDPWD", "PYTEST_ADDOPTS", "SHLVL"})


def is_read_later(variable: str) -> bool:
    """Whether a variable is of no matter to a module that is imported: ours, pytest's, and a terminal's."""
    return variable in _READ_LATER or variable.startswith("ATK_")


def directory() -> str:
    """The private folder of this user's; it may not be there."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return f"{runtime}/asynctest_kit/warm"
    return f"{os.environ.get('TMPDIR') or '/tmp'}/asynctest_kit-{os.getuid()}/warm"  # noqa: S108  # seen to be ours


def is_private(path: str) -> bool:
    """Whether ``path`` is a folder that only this user can enter, in another such."""
    return _is_ours(os.path.dirname(path)) and _is_ours(path)  # noqa: PTH120  # pathlib loads slowly


def _is_ours(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def socket_path() -> str:
    """The socket for runs from the current folder; its name is the folder's identity, however it is called."""
    here = os.stat(".")  # noqa: PTH116
    return f"{directory()}/{here.st_dev:x}-{here.st_ino:x}"


def request() -> dict[str, object]:
    """What this process is, as far as another process can't see it."""
    main = sys.modules["__main__"]
    return {
        "arguments": sys.argv,
        "all_arguments": sys.orig_argv,
        "descriptors": _given_descriptors(),
        "environ": dict(os.environ),
        "executable": sys.executable,
        "flags": [*sys.flags[:], *sys.warnoptions, *sorted(map(str, sys._xoptions.items())), is_unbuffered()],  # noqa: SLF001
        "path": sys.path,
        "program": [getattr(main, "__file__", None), getattr(getattr(main, "__spec__", None), "name", None)],
        "modules": list(sys.modules),
    }


def _given_descriptors() -> list[int]:
    """The standard ones, and what else our starter has left open for us, as a shell does for ``<(...)``."""
    others = (int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208  # pathlib loads slowly
    return [*_STANDARD, *sorted(number for number in others if number not in _STANDARD and _is_given(number))]


def _is_given(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # the listing's own
        return False


def is_unbuffered() -> bool:
    """Whether ``-u`` or its variable has our output written at once."""
    return not hasattr(getattr(sys.stdout, "buffer", None), "raw")


def is_traced() -> bool:
    """Whether a debugger, a profiler or coverage sees what this process does."""
    return sys.gettrace() is not None or sys.getprofile() is not None or _is_monitored()


def _is_monitored() -> bool:
    if sys.version_info < (3, 12):
        return False
    return any(sys.monitoring.get_tool(number) for number in range(6))
