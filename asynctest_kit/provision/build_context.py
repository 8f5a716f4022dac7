"""What of a folder is sent to the engine to build an image of it, and what decides whether it must be built again.

A ``.dockerignore`` means what it means to Docker: patterns from the context's root, ``*`` within a name, ``**`` across
folders, ``!`` for exceptions, the last that matches wins, and what matches a folder matches all in it. The Dockerfile
and the ``.dockerignore`` are sent in any case, sockets never.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctest_kit.container_options import Build

__all__ = ["bases", "digest", "pack"]

_IGNORE_FILE = ".dockerignore"

_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


def digest(build: Build, platform: str | None) -> str:
    """Of all that decides what the image will be, but the images that it begins with."""
    told = [build.dockerfile, build.target, platform, sorted(build.arguments.items())]
    found = hashlib.sha256(json.dumps(told).encode())
    for name, path in _members(build):
        status = path.lstat()
        found.update(f"\0{name}\0{status.st_mode}\0".encode())
        if path.is_symlink():
            found.update(os.fsencode(path.readlink()))
        elif path.is_file():
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def pack(build: Build, target: IO[bytes]) -> None:
    """Write the context as a tar archive."""
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, path in _members(build):
            member = archive.gettarinfo(path, name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as file:
                    archive.addfile(member, file)
            else:
                archive.addfile(member)


def bases(build: Build) -> set[str]:
    """The images that the Dockerfile begins with, its variables left as they are."""
    text = (Path(build.context) / build.dockerfile).read_text(encoding="utf-8", errors="replace")
    stages: set[str] = set()
    found = set()
    for image, stage in _FROM.findall(text):
        if image not in stages and image != "scratch":
            found.add(image)
        stages.add(stage)
    return found


def _members(build: Build) -> Iterator[tuple[str, Path]]:
    root = Path(build.context)
    rules = list(_rules(root / _IGNORE_FILE))
    always = {build.dockerfile, _IGNORE_FILE}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders.sort()
        for name in sorted((*folders, *files)):
            path = here / name
            relative = path.relative_to(root).as_posix()
            is_sent = relative in always or not _is_ignored(relative, rules)
            if is_sent and not stat.S_ISSOCK(path.lstat().st_mode):
                yield relative, path
        if not any(is_exception for _, is_exception in rules):
            kept = [name for name in folders if not _is_ignored((here / name).relative_to(root).as_posix(), rules)]
            folders[:] = [name for name in folders if name in kept or _leads_to(here / name, root, build.dockerfile)]


def _leads_to(folder: Path, root: Path, file: str) -> bool:
    return folder.relative_to(root) in (root / file).relative_to(root).parents


def _rules(file: Path) -> Iterator[tuple[re.Pattern[str], bool]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        is_exception = line.startswith("!")
        pattern = str(PurePosixPath(line.removeprefix("!").strip())).strip("/")
        if pattern != ".":
            yield re.compile(_expression(pattern)), is_exception


def _is_ignored(name: str, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    is_ignored = False
    for rule, is_exception in rules:
        if rule.fullmatch(name):
            is_ignored = not is_exception
    return is_ignored


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|\\.|.", re.DOTALL)


def _expression(pattern: str) -> str:
    meanings = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = []
    for token in _TOKENS.findall(pattern):
        if token.startswith("[") and len(token) > 1:
            parts.append(token)
        else:
            parts.append(meanings.get(token) or re.escape(token[-1:]))
    return "".join(parts) + r"(?:/.*)?"
