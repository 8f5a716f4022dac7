"""What this machine lets tests and embedded servers have."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import runtime
from asynctest_kit.provision.checkup.control_group import memory_limit, process_limit
from asynctest_kit.provision.checkup.finding import GIB, Finding, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctest_kit.provision.checkup.finding import Verdict

__all__ = ["examine_machine", "room"]

#: Bytes that a container, or a few servers' data, may want at the least; and files.
_DISK = 2 * GIB
_MEMORY = 1 * GIB
_INODES = 20_000

#: Open files that a run wants for itself, and for each test: connections on both sides, pipes, logs.
_OWN_FILES = 256
_FILES = 12

#: Processes that a run's servers want for themselves; PostgreSQL has one for each connection, too.
_OWN_PROCESSES = 64

#: Ports below which tests that connect anew may run out of them: each is kept for a minute after its use.
_PORTS = 5_000
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def examine_machine(concurrency: int) -> Iterator[Finding]:
    """Disk, memory, limits, ports and leftovers, for so many tests at once."""
    yield _disk()
    yield _data()
    yield from _memory()
    yield _files(concurrency)
    yield from _processes(concurrency)
    yield _ports()
    yield _leftovers()


def room(folder: Path) -> tuple[str, str]:
    """How much is free where ``folder`` is, and what is missing; empty if there is enough.

    Raises:
        OSError: There is no such folder, or we may not ask.
    """
    status = os.statvfs(folder)
    free, files = status.f_bavail * status.f_frsize, status.f_favail
    text = f"{size(free)} free in {folder}"
    if free < _DISK:
        return text, f"at least {size(_DISK)} are wanted"
    if status.f_files and files < _INODES:  # some file systems have as many files as there is room
        return f"{text}, but for {files} more files only", f"room for at least {_INODES} files is wanted"
    return text, ""


def _found(subject: str, verdict: Verdict, text: str, mend: str = "") -> Finding:
    return Finding("machine", subject, verdict, text, mend)


def _disk() -> Finding:
    text, missing = room(Path(tempfile.gettempdir()))
    if missing:
        return _found("disk", "fault", text, f"free some, or set TMPDIR elsewhere: {missing}")
    return _found("disk", "ok", text)


def _data() -> Finding:
    folder = runtime.MEMORY
    if not folder.is_dir():
        return _found("servers' data", "note", f"there is no {folder}: it will lie on disk, which is slower")
    free = shutil.disk_usage(folder).free
    text = f"{size(free)} free in {folder}"
    if free < _MEMORY:
        mend = f"enlarge {folder} (docker run --shm-size=2g, mount -o remount,size=2g {folder})"
        return _found("servers' data", "note", f"{text}: it will lie on disk, which is slower", mend)
    return _found("servers' data", "ok", text)


def _memory() -> Iterator[Finding]:
    """What the control group allows; without one that limits us the system's own figure is no limit of a run's."""
    limit = memory_limit()
    if limit is None:
        yield _found("memory", "ok", "no limit for this process")
        return
    text = f"this process and all that it starts may use {size(limit)}"
    if limit < _MEMORY:
        mend = "raise it (of a container: docker run --memory=2g; of a CI job: its resource class)"
        yield _found("memory", "fault", f"{text}, servers' data included: the system will kill them", mend)
    else:
        yield _found("memory", "ok", text)


def _files(concurrency: int) -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OWN_FILES + _FILES * concurrency
    if soft != resource.RLIM_INFINITY and soft < wanted:
        is_open = hard == resource.RLIM_INFINITY or hard >= wanted
        mend = f"ulimit -n {wanted}" if is_open else f"have the system's limit of {hard} raised"
        text = f"a process may have {soft} open, and {concurrency} tests at once may want {wanted}"
        return _found("open files", "fault", text, f"{mend}, or lower the concurrency")
    return _found("open files", "ok", f"a process may have {'any number' if soft < 0 else soft} open")


def _processes(concurrency: int) -> Iterator[Finding]:
    limit, wanted = process_limit(), _OWN_PROCESSES + concurrency
    if limit is None:
        return
    text = f"{limit} at once at most, threads included"
    if limit < wanted:
        mend = f"raise it to {wanted} (docker run --pids-limit={wanted}), or lower the concurrency"
        yield _found("processes", "note", f"{text}: too few for embedded servers and {concurrency} tests", mend)
    else:
        yield _found("processes", "ok", text)


def _ports() -> Finding:
    try:
        with socket.socket() as listening, socket.socket() as connecting:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            connecting.settimeout(5.0)
            connecting.connect(listening.getsockname())
    except OSError as error:
        text = f"no port of 127.0.0.1 can be had and reached: {error}"
        return _found("ports", "fault", text, "bring the loopback device up (ip link set lo up), or mend the firewall")
    first, last = _drawn_from()
    number = last - first + 1
    text = f"127.0.0.1 gives free ones, from {first} to {last}"
    if number < _PORTS:
        mend = f'sysctl -w net.ipv4.ip_local_port_range="32768 60999" has 28232 (now {number})'
        return _found("ports", "note", f"{text}: tests that connect anew may run out of them", mend)
    return _found("ports", "ok", text)


def _drawn_from() -> tuple[int, int]:
    """The first and the last port that the system draws."""
    if sys.platform != "linux":
        return 49152, 65535
    first, last = _PORT_RANGE.read_text().split()
    return int(first), int(last)


def _leftovers() -> Finding:
    try:
        left = runtime.abandoned()
    except ProvisionError as error:
        return _found("left behind", "fault", str(error))
    if left:
        return _found("left behind", "note", f"{len(left)} directories of runs that were killed", "atk gc")
    return _found("left behind", "ok", "nothing")
