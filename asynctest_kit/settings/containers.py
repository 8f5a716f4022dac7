"""The table ``container`` of a service's settings: how its container is made, beyond what its kind says.

Every value is checked here, so that a mistake is told when the settings are read and not by the engine much later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from asynctest_kit.container_options import Build, ContainerOptions, CopiedFile, PullPolicy, Ulimit, Volume
from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import shown, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["container_options", "image_name", "pull_policy"]

_SIZES: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmg]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.ASCII | re.IGNORECASE)
_IMAGE: Final = re.compile(r"(?!.*//)[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?", re.ASCII | re.IGNORECASE)
_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?", re.ASCII)
_OWNER: Final = re.compile(r"(\d+)(?::(\d+))?", re.ASCII)
_MODE: Final = re.compile(r"0?[0-7]{3,4}", re.ASCII)

#: Docker's own least.
_LEAST_MEMORY: Final = 6 << 20

_BUILD_KEYS: Final = ("args", "context", "dockerfile", "target", "timeout")
_FILE_KEYS: Final = ("content", "mode", "owner", "source")
_ACCESS: Final = ("ro", "rw")


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, where it stands, for errors, and the folder that its paths start from."""

    value: object
    place: str
    folder: Path

    def inner(self, key: str, value: object) -> _Given:
        return _Given(value, f"{self.place}.{key}", self.folder)

    def error(self, what: str) -> SettingsError:
        return SettingsError(f"{self.place}: {shown(self.value)} {what}.")


def container_options(
    value: object, *, place: str, folder: Path, duration: Callable[[object, str], float]
) -> ContainerOptions:
    """The options that a table ``container`` asks for.

    Args:
        value: The table, as TOML has it.
        place: Where it stands, for errors.
        folder: That of the file, from which relative paths start.
        duration: Reads a time, given the value and its place.

    Raises:
        SettingsError: A key is unknown, or a value is not allowed.
    """
    readers = _READERS | {"build": lambda given: _build(given, duration)}
    table = _table(_Given(value, place, folder))
    options: dict[str, Any] = {}
    for key, entry in table.items():
        if key not in readers:
            raise SettingsError(f'{place}: unknown key "{key}".{suggestion(key, readers)}')

        options[key.replace("-", "_")] = readers[key](_Given(entry, f"{place}.{key}", folder))
    if options.get("aliases") and not options.get("networks"):
        raise SettingsError(f'{place}.aliases: the key "networks" is needed too, for names hold on networks alone.')

    return ContainerOptions(**options)


def pull_policy(value: object, place: str) -> PullPolicy:
    """``missing``, ``always`` or ``never``; SettingsError for anything else."""
    if value in get_args(PullPolicy):
        return cast("PullPolicy", value)

    raise SettingsError(f"{place}: {shown(value)} is unknown.{suggestion(str(value), get_args(PullPolicy))}")


def image_name(value: object, place: str) -> str:
    """The name of an image, or the beginning of one; SettingsError for anything else."""
    if isinstance(value, str) and _IMAGE.fullmatch(value):
        return value

    raise SettingsError(f'{place}: {shown(value)} is no name of an image. Allowed: e.g. "registry.example:5000/team".')


def _build(given: _Given, duration: Callable[[object, str], float]) -> Build:
    table = _table(given) if isinstance(given.value, dict) else {"context": given.value}
    _check_keys(given, table, _BUILD_KEYS)
    if "context" not in table:
        raise SettingsError(f'{given.place}: the key "context" is needed, the folder that has the Dockerfile.')

    context = _path(given.inner("context", table["context"]))
    if not context.is_dir():
        raise given.inner("context", table["context"]).error(f"is not a folder: {context} was looked for")

    dockerfile = _text(given.inner("dockerfile", table.get("dockerfile", "Dockerfile")))
    if not (context / dockerfile).is_file() or ".." in PurePosixPath(dockerfile).parts:
        raise given.inner("dockerfile", dockerfile).error(f"is not a file in the context {context}")

    target = table.get("target")
    return Build(
        context=str(context),
        dockerfile=str(PurePosixPath(dockerfile)),
        arguments=_texts(given.inner("args", table.get("args", {}))),
        target=None if target is None else _text(given.inner("target", target)),
        timeout=duration(table.get("timeout", 600.0), f"{given.place}.timeout"),
    )


def _size(given: _Given) -> int:
    value = given.value
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value

    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = int(float(match[1]) * _SIZES[match[2].lower()])
        if size > 0:
            return size

    raise given.error('is no size. Allowed: bytes as a number, or e.g. "512m" or "2g"')


def _memory(given: _Given) -> int:
    size = _size(given)
    if size < _LEAST_MEMORY:
        raise given.error('is too little. Allowed: at least "6m"')

    return size


def _cpus(given: _Given) -> float:
    value = given.value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)

    raise given.error("is no number of processors. Allowed: more than 0, e.g. 1.5")


def _count(given: _Given) -> int:
    value = given.value
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value

    raise given.error("is not a count. Allowed: a whole number from 1")


def _ulimits(given: _Given) -> tuple[Ulimit, ...]:
    return tuple(_ulimit(given.inner(name, value), name) for name, value in _table(given).items())


def _ulimit(given: _Given, name: str) -> Ulimit:
    limits = given.value if isinstance(given.value, list) else [given.value, given.value]
    match limits:
        case [int() as soft, int() as hard] if soft >= -1 and (soft <= hard or hard == -1):
            return Ulimit(name=name, soft=soft, hard=hard)
        case _:
            raise given.error("is no limit. Allowed: a whole number, or a list of the soft and the hard one")


def _volumes(given: _Given) -> tuple[Volume, ...]:
    return tuple(_volume(given.inner(str(place), value)) for place, value in enumerate(_list(given), 1))


def _volume(given: _Given) -> Volume:
    parts = _text(given).split(":")
    match parts:
        case [source, target, access] if access in _ACCESS and source:
            is_read_only = access == "ro"
        case [source, target] if source:
            is_read_only = False
        case _:
            raise given.error('is no volume. Allowed: "name:/path", "./here:/path", each with ":ro" for reading only')

    target = _container_path(given, target)
    if _NAME.fullmatch(source):
        return Volume(source=source, target=target, is_read_only=is_read_only)

    path = _path(_Given(source, given.place, given.folder))
    if not path.exists():
        raise given.error(f"can't be mounted: {path} was looked for, and is not there")

    return Volume(source=str(path), target=target, is_read_only=is_read_only)


def _tmpfs(given: _Given) -> dict[str, str]:
    mounts = {}
    for place, value in enumerate(_list(given), 1):
        inner = given.inner(str(place), value)
        path, _, options = _text(inner).partition(":")
        mounts[_container_path(inner, path)] = options
    return mounts


def _files(given: _Given) -> tuple[CopiedFile, ...]:
    files = []
    for target, value in _table(given).items():
        inner = given.inner(target, value)
        files.append(_file(inner, _container_path(inner, target)))
    return tuple(files)


def _file(given: _Given, target: str) -> CopiedFile:
    table = _table(given) if isinstance(given.value, dict) else {"source": given.value}
    _check_keys(given, table, _FILE_KEYS)
    if ("source" in table) == ("content" in table):
        raise SettingsError(f'{given.place}: one of the keys "source" and "content" is needed, and not both.')

    content = table.get("content")
    if content is not None and not isinstance(content, str):
        raise given.inner("content", content).error("must be a text")

    return CopiedFile(
        target=target,
        source=str(_existing(given.inner("source", table["source"]))) if "source" in table else None,
        content=content,
        mode=_mode(given.inner("mode", table["mode"])) if "mode" in table else None,
        owner=_owner(given.inner("owner", table["owner"])) if "owner" in table else (0, 0),
    )


def _mode(given: _Given) -> int:
    if isinstance(given.value, str) and _MODE.fullmatch(given.value):
        return int(given.value, 8)

    raise given.error('is no mode. Allowed: permission bits as a text, e.g. "0640"')


def _owner(given: _Given) -> tuple[int, int]:
    value = str(given.value) if isinstance(given.value, int) and not isinstance(given.value, bool) else given.value
    if isinstance(value, str) and (match := _OWNER.fullmatch(value)):
        return int(match[1]), int(match[2] or match[1])

    raise given.error('is no owner. Allowed: numbers, for names mean nothing outside of the image: e.g. "999:999"')


def _init_scripts(given: _Given) -> tuple[CopiedFile, ...]:
    values = [given.value] if isinstance(given.value, str) else _list(given)
    paths = [_existing(given.inner(str(place), value)) for place, value in enumerate(values, 1)]
    return tuple(CopiedFile(target="", source=str(path)) for path in paths)


def _names(given: _Given) -> tuple[str, ...]:
    names = tuple(_text(given.inner(str(place), value)) for place, value in enumerate(_list(given), 1))
    for name in names:
        if not _NAME.fullmatch(name):
            raise _Given(name, given.place, given.folder).error(
                "is no name. Allowed: letters, digits, and _ . - inside"
            )

    return names


def _texts(given: _Given) -> dict[str, str]:
    table = _table(given)
    for key, value in table.items():
        if not isinstance(value, str):
            raise SettingsError(f"{given.place}.{key}: must be a text; put it in quotes.")

    return cast("dict[str, str]", dict(table))


def _platform(given: _Given) -> str:
    if isinstance(given.value, str) and _PLATFORM.fullmatch(given.value):
        return given.value

    raise given.error('is no platform. Allowed: system and architecture, e.g. "linux/arm64"')


def _user(given: _Given) -> str:
    return str(given.value) if type(given.value) is int else _text(given)


def _words(given: _Given) -> tuple[str, ...]:
    value = given.value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)

    raise given.error('must be a list of words, e.g. ["/entry.sh", "--fast"]')


def _directory(given: _Given) -> str:
    return _container_path(given, _text(given))


def _container_path(given: _Given, path: str) -> str:
    if path.startswith("/") and path.strip("/") and ".." not in PurePosixPath(path).parts:
        return str(PurePosixPath(path))

    raise SettingsError(f"{given.place}: {shown(path)} is no place in a container. Allowed: an absolute path.")


def _existing(given: _Given) -> Path:
    path = _path(given)
    if not path.exists():
        raise given.error(f"is not there: {path} was looked for")

    return path


def _path(given: _Given) -> Path:
    return Path(given.folder / Path(_text(given)).expanduser()).absolute().resolve()


def _text(given: _Given) -> str:
    if isinstance(given.value, str) and given.value.strip():
        return given.value

    raise given.error("must be a text that is not empty")


def _list(given: _Given) -> list[object]:
    if isinstance(given.value, list):
        return given.value

    raise given.error("must be a list")


def _table(given: _Given) -> Mapping[str, object]:
    if isinstance(given.value, dict):
        return given.value

    raise SettingsError(f"{given.place}: must be a table of keys, not a value of type {type(given.value).__name__}.")


def _check_keys(given: _Given, table: Mapping[str, object], allowed: tuple[str, ...]) -> None:
    for key in table:
        if key not in allowed:
            raise SettingsError(f'{given.place}: unknown key "{key}".{suggestion(key, allowed)}')


_READERS: Final[dict[str, Callable[[_Given], Any]]] = {
    "aliases": _names,
    "cpus": _cpus,
    "entrypoint": _words,
    "extra-hosts": _texts,
    "files": _files,
    "init-scripts": _init_scripts,
    "memory": _memory,
    "networks": _names,
    "pids": _count,
    "platform": _platform,
    "pull": lambda given: pull_policy(given.value, given.place),
    "shm-size": _size,
    "tmpfs": _tmpfs,
    "ulimits": _ulimits,
    "user": _user,
    "volumes": _volumes,
    "working-dir": _directory,
}
