"""Images that hold a server's prepared data, so that ``initdb`` and migrations are not run in each container.

An image is made of the service's own image and a backup of the server's data, taken while it runs and before a test
has it. Tests wait for that, so the backup stays in the container: to fetch it takes longer than to make it. It is
fetched, and the image made of it, when the server is not needed any more. The image's name and the password that the
data knows are noted in the user's cache folder (see :mod:`asynctest_kit.provision.snapshots`): an image without a note
is used by nobody, and removed by ``atk gc``.

What has been prepared for all projects is known by the image and the settings it was made with; what migrations made in
it, by the project and their digest too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import tarfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple

from asynctest_kit import __version__
from asynctest_kit.provision import snapshots
from asynctest_kit.provision.copied_files import fingerprint
from asynctest_kit.provision.providers.docker_options import is_mounted, is_under
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.service import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctest_kit.provision.catalog.kind import ContainerPlan
    from asynctest_kit.provision.providers import Order
    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.provision.service import Output

__all__ = ["LABEL", "PreparedImage", "PreparedImages", "remove_unknown"]

_log = logging.getLogger(__name__)

LABEL = "asynctest_kit.snapshot"

_REPOSITORY = "asynctest_kit/snapshot"

#: Bytes of data beyond which none is kept: to copy it would take longer than to make it again.
_LARGEST = 1 << 30

#: Seconds that a backup may take, and fetching it.
_PATIENCE = 60.0

#: Exit code of a program that was killed by SIGXFSZ, and what others say then.
_KILLED_FOR_ITS_SIZE, _TOO_LARGE = 153, "File too large"


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What a container is made of.

    Attributes:
        name: The image.
        password: The one that its data knows; None if it has no data yet.
    """

    name: str
    password: str | None = None


class _Backup(NamedTuple):
    """A backup in the container whose server it is of."""

    container: str
    folder: str


class PreparedImages:
    """The snapshots that one order may use.

    Args:
        engine: Where the images are.
        image: The service's own.
        order: The order.
        labels: Of whatever is made in the engine, by which it is found if we are killed.
        being_taken: What is taken from servers that are up, for all projects: of several at once, from the first.
    """

    def __init__(
        self, engine: Engine, image: str, order: Order, labels: Mapping[str, str], being_taken: set[str]
    ) -> None:
        self._labels = labels
        self._being_taken = being_taken
        self._engine = engine
        self._image = image
        self._order = order
        self._plan: ContainerPlan = order.kind.container(order.spec, order.login)
        self._plain = ""
        self._used = ""
        self._taken: set[str] = set()
        self._backups: dict[str, _Backup] = {}
        self._files = ExitStack()

    async def find(self) -> PreparedImage:
        """The project's own, or that of all projects, or the service's image as it is."""
        is_elsewhere = self._plan.data is None or is_mounted(self._order.spec.container, self._plan.data)
        if is_elsewhere or self._order.kind.rekey is None or not self._order.spec.snapshots:
            return PreparedImage(self._image)
        try:
            if volume := await self._volume():
                _log.warning(
                    "no snapshot of %s is kept: its data folder %s is in the image's volume %s, and no image holds "
                    "what is in a volume. Leave PGDATA out of its environment",
                    self._order.spec.name,
                    self._plan.data,
                    volume,
                )
                return PreparedImage(self._image)
            self._plain = await self._key()
            for key in (self._own, self._plain):
                found = await asyncio.to_thread(snapshots.image_of, key)
                if found is None:
                    continue
                if await self._engine.has_image(found[0]):
                    self._used = key
                    return PreparedImage(*found)
                await asyncio.to_thread(snapshots.remove, key)
        except EngineError as error:
            _log.warning("no snapshot of %s is looked for: %s", self._order.spec.name, error)
        return PreparedImage(self._image)

    async def discard(self) -> None:
        """Forget the one that was found, for it is of no use."""
        _log.warning("the snapshot %s is of no use", self._used)
        await self._forget(self._used)
        self._used = ""

    async def take(self, container: str) -> None:
        """Back up what a server has that nobody has used yet, for all projects, if it was made afresh."""
        if self._plain and not self._used and self._plain not in self._being_taken:
            self._being_taken.add(self._plain)
            await self._back_up(container, self._plain)

    async def preserve(self, container: str, migrations: str) -> None:
        """Back up what it has now for this project, unless it was there before these migrations were."""
        is_asked = migrations == self._order.spec.migrations
        if self._plain and is_asked and self._own not in self._taken:
            await self._back_up(container, self._own)

    async def keep(self) -> None:
        """Make images of the backups, and forget outdated ones."""
        with self._files:
            if self._backups and self._order.may_keep:
                await self._keep_all()
        if self._plain in self._taken:
            self._being_taken.discard(self._plain)

    async def _keep_all(self) -> None:
        self._order.note("keeping a snapshot for the next runs")
        with self._order.phase("snapshot", "docker"):
            await asyncio.gather(*(self._keep(key, backup) for key, backup in self._backups.items()))
            for key in await asyncio.to_thread(snapshots.outdated, self._family):
                await self._forget(key)

    @property
    def _family(self) -> str:
        return f"{self._plain}-{self._order.project}-"

    @property
    def _own(self) -> str:
        return f"{self._family}{self._order.spec.migrations}"

    async def _back_up(self, container: str, key: str) -> None:
        self._taken.add(key)
        try:
            with self._order.phase("snapshot", "docker"):
                backup = _Backup(container, f"/tmp/asynctest_kit-{secrets.token_hex(6)}")  # noqa: S108  # in there
                await _back_up(self._engine, backup, self._plan)
                self._backups[key] = backup
        except (EngineError, OSError) as error:
            _log.warning("no snapshot of %s is kept: %s", self._order.spec.name, self._order.redact(str(error)))

    async def _keep(self, key: str, backup: _Backup) -> None:
        try:
            await self._make(key, backup)
        except (EngineError, OSError, tarfile.TarError) as error:
            _log.warning("no snapshot of %s is kept: %s", self._order.spec.name, error)

    async def _make(self, key: str, backup: _Backup) -> None:
        fetched, archive = [self._files.enter_context(await asyncio.to_thread(TemporaryFile)) for _ in range(2)]
        await _fetch(self._engine, backup, fetched)
        await asyncio.to_thread(_put_under, PurePosixPath(self._plan.data or "/"), fetched, archive)
        name = f"{_REPOSITORY}:{key}-{secrets.token_hex(3)}"
        shell = f"asynctest_kit-snapshot-{secrets.token_hex(6)}"
        await self._engine.create(shell, {"Image": self._image, "Labels": dict(self._labels)})
        try:
            await self._engine.unpack(shell, archive)
            await self._engine.commit(shell, name, {LABEL: snapshots.cache_id()})
        finally:
            await self._engine.remove(shell)
        before = await asyncio.to_thread(snapshots.image_of, key)
        if not await asyncio.to_thread(snapshots.keep_image, key, name, self._order.login.password):
            await self._engine.remove_image(name)
        elif before is not None:
            await self._engine.remove_image(before[0])

    async def _volume(self) -> str | None:
        """The volume of the image that the data is in; where the kit keeps it, there is none."""
        data = self._plan.data or "/"
        if is_under(data, self._plan.memory):
            return None
        volumes = (await self._engine.image_config(self._image)).get("Volumes") or ()
        return next((volume for volume in volumes if is_under(data, (volume,))), None)

    async def _forget(self, key: str) -> None:
        found = await asyncio.to_thread(snapshots.image_of, key)
        await asyncio.to_thread(snapshots.remove, key)
        if found is not None:
            with suppress(EngineError):  # `atk gc` removes it later
                await self._engine.remove_image(found[0])

    async def _key(self) -> str:
        """What decides how prepared data looks: the image, and all it is started with but the password."""
        secret, plan = self._order.login.password, self._plan
        parts = [__version__, await self._engine.image_id(self._image), plan.data or "", *plan.command]
        parts += [fingerprint(self._order.spec.container)]
        parts += [f"{name}={value.replace(secret, '')}" for name, value in sorted(plan.environment.items())]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return f"docker-{self._order.kind.name}-{digest}"


async def remove_unknown(engine: Engine) -> list[str]:
    """Remove those images of this user's that no note tells of; give their names."""
    known = await asyncio.to_thread(snapshots.images)
    made = await engine.labelled_images(f"{LABEL}={snapshots.cache_id()}")
    return await engine.remove_images(image for image in made if image not in known)


async def _back_up(engine: Engine, backup: _Backup, plan: ContainerPlan) -> None:
    """Make a backup of a server that runs in a container, unless it is too large."""
    blocks = _LARGEST >> 9  # of 512 bytes
    argv = (backup.folder if word == "{folder}" else word for word in plan.backup)
    limited = ("sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *argv)
    code, words = await _run(engine, backup, Program(argv=limited, environment=plan.client_environment))
    if code == _KILLED_FOR_ITS_SIZE or (code and _TOO_LARGE in words):
        raise EngineError(f"its data is larger than {_LARGEST >> 20} MiB")
    if code:
        raise EngineError(f"{plan.backup[0]} ended with exit code {code}: {words}")


async def _fetch(engine: Engine, backup: _Backup, target: IO[bytes]) -> None:
    """Write it, as tar, to a file of ours."""
    code, words = await _run(engine, backup, Program(argv=("cat", f"{backup.folder}/base.tar")), target)
    if code:
        raise EngineError(f"the backup can't be read: {words}")


async def _run(engine: Engine, backup: _Backup, program: Program, target: IO[bytes] | None = None) -> tuple[int, str]:
    """Run a program where the backup is; its exit code and what it complains of. Its output goes to ``target``."""
    errors = bytearray()

    async def take(output: Output) -> None:
        if output.stream == "stderr":
            errors.extend(output.data)
        elif target is not None:
            target.write(output.data)

    code = await engine.stream(backup.container, program, take, limit=_PATIENCE)
    return code, errors.decode(errors="replace").strip()


def _put_under(folder: PurePosixPath, backup: IO[bytes], result: IO[bytes]) -> None:
    """Make of the archive of a folder's content one of the folder, whose owner is that of what is in it."""
    backup.seek(0)
    with tarfile.open(fileobj=backup) as source, tarfile.open(fileobj=result, mode="w") as target:
        members = [member for member in source if member.name.strip("./")]
        if not members:
            raise EngineError("the backup is empty")
        root = tarfile.TarInfo(str(folder).lstrip("/"))
        root.type, root.mode = tarfile.DIRTYPE, 0o700
        root.uid, root.gid = members[0].uid, members[0].gid
        target.addfile(root)
        for member in members:
            content = source.extractfile(member) if member.isreg() else None
            member.name = f"{root.name}/{member.name.removeprefix('./')}"
            target.addfile(member, content)
    result.seek(0)
