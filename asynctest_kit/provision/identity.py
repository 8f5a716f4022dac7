"""Who owns a container or a directory, and when another process may call its owner dead.

Whatever a supervisor makes outside its own memory carries its identity: the machine, the boot, the process-id
namespace, the process id and the start time of that process. A process id alone proves nothing: ids are reused, and
the same number means another process inside a container or on another machine that shares the Docker engine.
So an owner is dead only where that can be proved from here; in doubt it lives, and what it owns is left alone.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from functools import cache
from pathlib import Path

import msgspec

__all__ = ["Identity", "identify", "proven_dead", "this_process"]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One process, told apart from every other one on any machine and in any boot.

    Attributes:
        machine: Digest of the machine's id and host name.
        boot: Random id that the kernel drew when it booted; empty where there is none.
        namespace: Process-id namespace, e.g. ``pid:[4026531836]``; empty where there is none.
        pid: Process id in that namespace.
        started: When the process started, in the system's own unit and form; empty if it is gone.
    """

    machine: str
    boot: str
    namespace: str
    pid: int
    started: str


@cache
def this_process() -> Identity:
    """Identity of the calling process."""
    return identify(os.getpid())


os.register_at_fork(after_in_child=this_process.cache_clear)


def identify(pid: int) -> Identity:
    """Identity of the process that has ``pid`` now."""
    return Identity(machine=_machine(), boot=_boot(), namespace=_namespace(), pid=pid, started=_started(pid))


def proven_dead(owner: Identity) -> bool:
    """Whether ``owner`` has certainly ended, judged from this process's machine, boot and namespace."""
    if owner.machine != _machine():
        return False

    if owner.boot != _boot():
        return True

    return owner.namespace == _namespace() and owner.started != _started(owner.pid)


@cache
def _machine() -> str:
    name = socket.gethostname()
    return hashlib.sha256(f"{_content('/etc/machine-id')} {name}".encode()).hexdigest()[:16]


@cache
def _boot() -> str:
    return _content("/proc/sys/kernel/random/boot_id")


@cache
def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    if not Path("/proc/self/stat").exists():
        return _started_by_ps(pid)

    # The second field is the program's name in parentheses, and may itself hold blanks and parentheses.
    after_name = _content(f"/proc/{pid}/stat").rpartition(")")[2].split()
    is_over = not after_name or after_name[0] in "ZX"
    return "" if is_over else after_name[19]


def _started_by_ps(pid: int) -> str:
    done = subprocess.run(  # noqa: S603 (a constant program and a number)
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    state, _, started = done.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()
