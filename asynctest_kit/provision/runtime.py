"""Where clients and supervisors of one user meet, and what dead ones left behind.

    <base>/                          $XDG_RUNTIME_DIR/asynctest_kit, else <temp dir>/asynctest_kit-<uid>
      <project>/                     one a project root (and release of this package)
        lock                         flock: who holds it listens
        socket                       where it listens
        <session>.owner              a link that leads nowhere: its target is the supervisor's identity
        <session>/                   one a supervisor
          log                        its stderr
    /dev/shm or <temp dir>/
      asynctest_kit-<uid>-<random>.owner
      asynctest_kit-<uid>-<random>/  data of one embedded server: server.json, ...

Every directory is 0700 and checked to be ours before it is used, because the temp dir is open to other users.
A directory's owner is written down before it is made, in one step that is either done or not (a link comes with its
target), so that its maker may be killed at any moment. What is found without its owner being proven dead, or without
an owner at all, is left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit import __version__
from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.identity import Identity, identify, proven_dead, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MEMORY",
    "Project",
    "abandoned",
    "abandoned_in",
    "base_directory",
    "base_path",
    "claimed",
    "data_directory",
    "existing_project_of",
    "leave",
    "new_session",
    "own_server",
    "project_of",
    "remove",
    "sweep",
    "take_lock",
]

_OWNER = ".owner"
_SERVER = "server.json"
_KEY_LENGTH = 16

#: Bytes of a socket's path: 107 on Linux, and fewer elsewhere.
_LONGEST_SOCKET = 103

#: How often a directory is made that others remove meanwhile.
_TRIES = 20

#: Free bytes that a memory file system must have before a server's data goes there.
_ROOM = 1 << 30

#: Where data lies in memory, if there is room.
MEMORY = Path("/dev/shm")  # noqa: S108 (a private directory is made in it)


@dataclass(frozen=True, slots=True)
class Project:
    """The meeting place of one project root's clients and supervisors."""

    key: str
    directory: Path

    @property
    def lock(self) -> Path:
        """Locked by the supervisor that listens."""
        return self.directory / "lock"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "socket"


def base_directory() -> Path:
    """This user's private directory for all projects, made if missing.

    Raises:
        ProvisionError: It belongs to someone else or can't be made.
    """
    return _private(base_path())


def project_of(root: Path) -> Project:
    """The meeting place for ``root``; its directory is made if missing.

    Raises:
        ProvisionError: It belongs to someone else or can't be made, or no socket can have so long a path.
    """
    base_directory()
    project = _place_of(root)
    _private(project.directory)
    return project


def existing_project_of(root: Path) -> Project | None:
    """The meeting place for ``root`` if there is one; nothing is made.

    Raises:
        ProvisionError: It belongs to someone else, or no socket can have so long a path.
    """
    project = _place_of(root)
    return project if _is_there(project.directory.parent) and _is_there(project.directory) else None


def base_path() -> Path:
    """Where :func:`base_directory` is; nothing is made or looked at."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "asynctest_kit" if runtime else Path(tempfile.gettempdir()) / f"asynctest_kit-{os.getuid()}"


def _place_of(root: Path) -> Project:
    key = hashlib.sha256(f"{__version__}\0{root.resolve()}".encode()).hexdigest()[:_KEY_LENGTH]
    project = Project(key=key, directory=base_path() / key)
    if len(os.fsencode(project.socket)) > _LONGEST_SOCKET:
        raise ProvisionError(
            f"The path {project.socket} is too long for a socket ({_LONGEST_SOCKET} bytes at most). Point "
            "XDG_RUNTIME_DIR or TMPDIR elsewhere."
        )
    return project


def new_session(project: Project) -> Path:
    """A directory for this process as the project's supervisor; it must hold the lock."""
    return claimed(project.directory / secrets.token_hex(6))


def data_directory() -> Path:
    """A directory of this process for one server's data: in memory if there is room, else in the temp dir."""
    return claimed(_data_parent() / f"{_data_prefix()}{secrets.token_hex(6)}")


def claimed(directory: Path) -> Path:
    """Make a directory that belongs to this process."""
    _owner_link(directory).symlink_to(msgspec.json.encode(this_process()).decode())
    directory.mkdir(mode=0o700)
    return directory


def own_server(directory: Path, pid: int) -> None:
    """Say in ``directory`` that process ``pid`` works on it, to be ended with it."""
    (directory / _SERVER).write_bytes(msgspec.json.encode(identify(pid)))


def take_lock(project: Project) -> int | None:
    """Become the one who listens for ``project``.

    Returns:
        A descriptor that holds the lock until it is closed, or None if another process holds it.
    """
    while True:
        _private(project.directory)  # who was the last to leave may have removed it
        try:
            descriptor = os.open(project.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None

        if _is_at(descriptor, project.lock):
            return descriptor

        os.close(descriptor)  # the file was removed between opening and locking it: that lock locks nobody out


def leave(project: Project, session: Path) -> None:
    """Remove a session, and the project's directory if it was the last one in it."""
    remove(session)
    with suppress(OSError):
        _remove_if_empty(project)


def remove(directory: Path) -> None:
    """Remove ``directory`` with all in it, whoever else is at it."""
    shutil.rmtree(directory, ignore_errors=True)
    if not directory.exists():
        with suppress(OSError):
            _owner_link(directory).unlink()


def sweep() -> list[str]:
    """End the servers and remove the directories of this user's dead supervisors; blocking.

    Returns:
        The names of the directories removed.
    """
    removed = []
    for directory in abandoned():
        _end_server(directory)
        remove(directory)
        removed.append(directory.name)
    for project in _projects():
        with suppress(OSError):
            _remove_if_empty(project)
    return removed


def abandoned() -> list[Path]:
    """The directories of this user's dead supervisors; some may only have been about to be made."""
    return [directory for directory in _candidates() if _is_abandoned(directory)]


def abandoned_in(parent: Path, pattern: str) -> list[Path]:
    """Those claimed directories of dead processes in ``parent`` whose names match."""
    return [directory for directory in _claimed_in(parent, pattern) if _is_abandoned(directory)]


def _candidates() -> Iterator[Path]:
    for parent in {MEMORY, Path(tempfile.gettempdir())}:
        yield from _claimed_in(parent, f"{_data_prefix()}*")

    for project in _projects():
        yield from _claimed_in(project.directory, "*")


def _claimed_in(parent: Path, pattern: str) -> set[Path]:
    found = [entry for entry in parent.glob(pattern) if _is_ours(entry)]
    return {entry.with_suffix("") if entry.suffix == _OWNER else entry for entry in found if not _is_meeting(entry)}


def _is_meeting(entry: Path) -> bool:
    return entry.name in ("lock", "socket")


def _projects() -> Iterator[Project]:
    base = base_path()
    if not _is_there(base):
        return
    for directory in filter(_is_ours, base.glob("[0-9a-f]" * _KEY_LENGTH)):
        yield Project(key=directory.name, directory=directory)


def _remove_if_empty(project: Project) -> None:
    lock = take_lock(project)
    if lock is None:
        return

    try:
        if all(map(_is_meeting, project.directory.iterdir())):
            project.socket.unlink(missing_ok=True)
            project.lock.unlink()
            project.directory.rmdir()
    finally:
        os.close(lock)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_abandoned(directory: Path) -> bool:
    owner = _owner_of(directory)
    return owner is not None and proven_dead(owner)


def _end_server(directory: Path) -> None:
    server = _identity_in(directory / _SERVER)
    if server is None or not server.started or server != identify(server.pid):
        return

    with suppress(ProcessLookupError, PermissionError):
        os.kill(server.pid, signal.SIGKILL)


def _owner_link(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}{_OWNER}")


def _owner_of(directory: Path) -> Identity | None:
    try:
        return msgspec.json.decode(os.readlink(_owner_link(directory)), type=Identity)  # noqa: PTH115 (JSON, no path)
    except (OSError, msgspec.MsgspecError):
        return None


def _identity_in(path: Path) -> Identity | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (OSError, msgspec.MsgspecError):
        return None


def _is_ours(entry: Path) -> bool:
    """Whether it is a directory of this user's, or the link of one."""
    try:
        status = entry.lstat()
    except OSError:
        return False
    is_link = stat.S_ISLNK(status.st_mode) and entry.suffix == _OWNER
    return (stat.S_ISDIR(status.st_mode) or is_link) and status.st_uid == os.getuid()


def _private(directory: Path) -> Path:
    try:
        status = _made(directory)
    except OSError as error:
        raise ProvisionError(
            f"The private directory {directory} can't be made: {error}. Point XDG_RUNTIME_DIR or TMPDIR elsewhere."
        ) from error

    _check_private(directory, status)
    return directory


def _is_there(directory: Path) -> bool:
    """Whether there is such a directory; raises ProvisionError if it is somebody else's."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    _check_private(directory, status)
    return True


def _check_private(directory: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ProvisionError(
            f"{directory} should be a directory that only you can enter (mode 0700), but it is not: remove it, "
            "or point XDG_RUNTIME_DIR or TMPDIR elsewhere."
        )


def _made(directory: Path) -> os.stat_result:
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):  # who was the last to leave has removed it, or what it is in, in between
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return directory.lstat()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory.lstat()


def _data_prefix() -> str:
    return f"asynctest_kit-{os.getuid()}-"


def _data_parent() -> Path:
    with suppress(OSError):
        room = os.statvfs(MEMORY)
        if os.access(MEMORY, os.W_OK | os.X_OK) and room.f_bavail * room.f_frsize >= _ROOM:
            return MEMORY
    return Path(tempfile.gettempdir())
