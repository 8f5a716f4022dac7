"""Prepared data of servers, kept in the user's cache folder: made once for each change, and not in each run.

    <cache>/                         $XDG_CACHE_HOME/asynctest_kit, else ~/.cache/asynctest_kit
      snapshots/
        <key>.lock                   shared while it is copied, exclusive while it is replaced or removed
        <key>/                       one snapshot: whatever there is by this name is complete
          data/                      the server's data, as it was when the server had ended in good order; or
          image                      the name of a container image that has it
          password                   its superuser's; each run gives the copy that it works on another
        .<random>/                   on its way in or out, and .<random>.owner: whose (see runtime)

A snapshot is a short cut and never the only copy: it may be removed at any time, and where the folder can't be written
or is full there is none. Who copies or replaces one is killed at any moment without harm: it is published by a rename,
and what was on its way then is removed by the next :func:`sweep`.

Everything here blocks; call it in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from asynctest_kit.provision import runtime
from asynctest_kit.provision.identity import this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["cache_id", "image_of", "images", "keep", "keep_image", "outdated", "prune", "remove", "restore", "sweep"]

_log = logging.getLogger(__name__)

#: Snapshots of one project's states that stay: who changes branches finds them.
_NEWEST = 3

#: Snapshots of one user that stay, of whichever project: checkouts and their folders come and go.
_MOST = 30

#: Bytes that are copied at once.
_PIECE = 1 << 20


def restore(key: str, target: Path) -> str | None:
    """Copy a snapshot's data to ``target``, which must not exist yet.

    Returns:
        The password of the data's superuser; None if there is no such snapshot, and nothing at ``target`` then.
    """
    try:
        with _locked(key, fcntl.LOCK_SH) as snapshot:
            password = (snapshot / "password").read_text(encoding="ascii")
            _copy(snapshot / "data", target)
            os.utime(snapshot)
    except FileNotFoundError:
        shutil.rmtree(target, ignore_errors=True)
        return None
    except OSError as error:
        _log.warning("the snapshot %s can't be used: %s", key, error)
        shutil.rmtree(target, ignore_errors=True)
        return None
    return password


def image_of(key: str) -> tuple[str, str] | None:
    """The image of a snapshot, and the password of its superuser; None if there is no such snapshot."""
    try:
        with _locked(key, fcntl.LOCK_SH) as snapshot:
            found = (
                (snapshot / "image").read_text(encoding="ascii"),
                (snapshot / "password").read_text(encoding="ascii"),
            )
            os.utime(snapshot)
    except OSError:
        return None
    return found


def cache_id() -> str:
    """Tells this user's cache folder from every other that may use the same container engine."""
    where = f"{this_process().machine} {os.getuid()} {os.environ.get('XDG_CACHE_HOME', '')} {Path.home()}"
    return hashlib.sha256(where.encode()).hexdigest()[:16]


def images() -> set[str]:
    """The images of all snapshots."""
    try:
        return {file.read_text(encoding="ascii") for file in _folder().glob("*/image")}
    except OSError:
        return set()


def keep(key: str, data: Path, password: str) -> None:
    """Make a copy of ``data``, on which no server works, the snapshot of that key."""
    _keep(key, password, lambda fresh: _copy(data, fresh / "data"))


def keep_image(key: str, image: str, password: str) -> bool:
    """Make ``image`` the snapshot of that key; whether it could be noted."""
    return _keep(key, password, lambda fresh: (fresh / "image").write_text(image, encoding="ascii"))


def _keep(key: str, password: str, fill: Callable[[Path], object]) -> bool:
    try:
        fresh = runtime.claimed(_on_its_way(_folder()))
        try:
            descriptor = os.open(fresh / "password", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(password)
            fill(fresh)
            with _locked(key, fcntl.LOCK_EX) as snapshot:
                _put_away(snapshot)
                fresh.rename(snapshot)
        finally:
            runtime.remove(fresh)
    except OSError as error:
        _log.warning("no snapshot is kept: %s", error)
        return False
    return True


def remove(key: str) -> None:
    """Forget a snapshot, for it is of no use."""
    with suppress(OSError), _locked(key, fcntl.LOCK_EX) as snapshot:
        _put_away(snapshot)


def outdated(family: str) -> list[str]:
    """The keys that begin with ``family`` but for the few that were used last, and of all others the same."""
    return list(dict.fromkeys((*_used_last(f"{family}*")[_NEWEST:], *_used_last("*")[_MOST:])))


def _used_last(pattern: str) -> list[str]:
    """The keys of snapshots, those that were used last first."""
    try:
        entries = [entry for entry in _folder().glob(pattern) if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []
    used = {}
    for entry in entries:
        with suppress(OSError):  # removed meanwhile
            used[entry.name] = entry.stat().st_mtime
    return sorted(used, key=used.__getitem__, reverse=True)


def prune(unused: float) -> list[str]:
    """Remove the snapshots that nobody has used for ``unused`` seconds, and the oldest of too many; give their keys."""
    removed: list[str] = []
    now = time.time()
    for place, key in enumerate(_used_last("*")):
        with suppress(OSError):
            if place >= _MOST or now - (_folder() / key).stat().st_mtime >= unused:
                remove(key)
                removed.append(key)
    return removed


def sweep() -> list[str]:
    """Remove what never arrived because its maker was killed; give the names."""
    try:
        left = runtime.abandoned_in(_folder(), ".*")
    except OSError:
        return []
    for directory in left:
        runtime.remove(directory)
    return [directory.name for directory in left]


def _copy(source: str | Path, target: str | Path) -> None:
    """Copy a folder for nobody but us, in half the time of :func:`shutil.copytree`, which keeps its attributes."""
    os.mkdir(target, 0o700)  # noqa: PTH102  # a thousand small files: pathlib would take as long as the copying
    with os.scandir(source) as entries:
        for entry in entries:
            copy = f"{target}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)  # noqa: PTH115, PTH211
            elif entry.is_dir():
                _copy(entry.path, copy)
            else:
                _copy_file(entry.path, copy)


def _copy_file(source: str, target: str) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while piece := os.read(reading, _PIECE):
                while piece := piece[os.write(writing, piece) :]:
                    pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "asynctest_kit" / "snapshots"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} should be a directory that only you can enter (mode 0700)")
    return folder


@contextmanager
def _locked(key: str, how: int) -> Iterator[Path]:
    folder = _folder()
    descriptor = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield folder / key
    finally:
        os.close(descriptor)


def _put_away(snapshot: Path) -> None:
    if snapshot.exists():
        old = runtime.claimed(_on_its_way(snapshot.parent))
        snapshot.rename(old / "old")
        runtime.remove(old)


def _on_its_way(folder: Path) -> Path:
    return folder / f".{secrets.token_hex(6)}"
