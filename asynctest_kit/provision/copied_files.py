"""Files that are copied into a container before it starts, and what tells that they have changed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import build_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asynctest_kit.container_options import ContainerOptions, CopiedFile

__all__ = ["archive", "fingerprint", "placed", "with_digests"]

_TEXT_MODE, _FOLDER_MODE = 0o644, 0o755


def with_digests(options: ContainerOptions, service: str) -> ContainerOptions:
    """The options with the digests of what they name, so that a changed file makes another spec.

    Raises:
        ProvisionError: Something can't be read.
    """
    try:
        build = options.build
        return msgspec.structs.replace(
            options,
            files=tuple(map(_with_digest, options.files)),
            init_scripts=tuple(map(_with_digest, options.init_scripts)),
            build=build and msgspec.structs.replace(build, digest=build_context.digest(build, options.platform)),
        )
    except OSError as error:
        raise ProvisionError(
            f"What goes into the container of the service {service!r} can't be read: {error}"
        ) from None


def fingerprint(options: ContainerOptions) -> str:
    """Of all that may decide how the data looks that a server makes: contents, and not where they lie."""
    nowhere = tuple(msgspec.structs.replace(file, source=None) for file in options.files)
    scripts = tuple(msgspec.structs.replace(file, source=None) for file in options.init_scripts)
    plain = msgspec.structs.replace(options, files=nowhere, init_scripts=scripts, build=None, pull=None)
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()[:16]


def placed(scripts: Iterable[CopiedFile], folder: str) -> Iterator[CopiedFile]:
    """Initial scripts at their place in the container: what is in a folder lies in ``folder`` itself."""
    for script in scripts:
        source = Path(script.source or "")
        for path in sorted(source.iterdir()) if source.is_dir() else [source]:
            yield msgspec.structs.replace(script, source=str(path), target=f"{folder}/{path.name}")


def archive(files: Iterable[CopiedFile]) -> bytes:
    """A tar archive to be unpacked at the root of a container's file system; blocking."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w") as target:
        for file in files:
            if file.content is not None:
                content = file.content.encode()
                target.addfile(_member(file, file.target, file.mode or _TEXT_MODE, len(content)), io.BytesIO(content))
                continue
            for path in _tree(Path(file.source or "")):
                _add(target, file, path)
    return result.getvalue()


def _add(target: tarfile.TarFile, file: CopiedFile, path: Path) -> None:
    relative = path.relative_to(file.source or "")
    name = f"{file.target}/{relative}" if relative.parts else file.target
    if path.is_dir():
        member = _member(file, name, _FOLDER_MODE, 0)
        member.type = tarfile.DIRTYPE
        target.addfile(member)
        return
    content = path.read_bytes()
    mode = _FOLDER_MODE if path.stat().st_mode & 0o111 else _TEXT_MODE
    target.addfile(_member(file, name, file.mode or mode, len(content)), io.BytesIO(content))


def _member(file: CopiedFile, name: str, mode: int, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name.lstrip("/"))
    member.mode, member.size = mode, size
    member.uid, member.gid = file.owner
    return member


def _with_digest(file: CopiedFile) -> CopiedFile:
    if file.source is None:
        return file
    found = hashlib.sha256()
    source = Path(file.source)
    for path in _tree(source):
        found.update(f"\0{source.name}/{path.relative_to(source)}\0{path.stat().st_mode}\0".encode())
        if path.is_file():
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return msgspec.structs.replace(file, digest=found.hexdigest()[:16])


def _tree(path: Path) -> Iterator[Path]:
    """A file, or a folder and all in it, in an order that is always the same; links are followed."""
    yield path
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            yield from _tree(entry)
