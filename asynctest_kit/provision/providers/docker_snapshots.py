"""Images that hold a server's prepared data, so that ``initdb`` and migrations are not run in each container.

An image is made of the service's own image and a backup of the server's data, taken while it runs, in the moment before
it is removed. Its name and the password that the data knows are noted in the user's cache folder (see
:mod:`asynctest_kit.provision.snapshots`): an image without a note is used by nobody, and removed by ``atk gc``.

What has been prepared for all projects is known by the image and the settings it was made with; what a run has made in
it, by the project too.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import secrets
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from asynctest_kit import __version__
from asynctest_kit.provision import snapshots
from asynctest_kit.provision.copied_files import fingerprint
from asynctest_kit.provision.providers.docker_options import is_mounted
from asynctest_kit.provision.providers.engine import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynctest_kit.provision.catalog.kind import ContainerPlan
    from asynctest_kit.provision.providers import Order
    from asynctest_kit.provision.providers.engine import Engine

__all__ = ["LABEL", "PreparedImage", "PreparedImages", "remove_unknown"]

_log = logging.getLogger(__name__)

LABEL = "asynctest_kit.snapshot"

_REPOSITORY = "asynctest_kit/snapshot"


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What a container is made of.

    Attributes:
        name: The image.
        password: The one that its data knows; None if it has no data yet.
    """

    name: str
    password: str | None = None


class PreparedImages:
    """The snapshots that one order may use.

    Args:
        engine: Where the images are.
        image: The service's own.
        order: The order.
        labels: Of whatever is made in the engine, by which it is found if we are killed.
    """

    def __init__(self, engine: Engine, image: str, order: Order, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._engine = engine
        self._image = image
        self._order = order
        self._plan: ContainerPlan = order.kind.container(order.spec, order.login)
        self._plain = ""
        self._used = ""

    async def find(self) -> PreparedImage:
        """The project's own, or that of all projects, or the service's image as it is."""
        is_elsewhere = self._plan.data is None or is_mounted(self._order.spec.container, self._plan.data)
        if is_elsewhere or self._order.kind.rekey is None:
            return PreparedImage(self._image)
        try:
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

    async def discard(self) -> PreparedImage:
        """Forget the one that was found, for it is of no use; give the service's image as it is."""
        _log.warning("%s does not come up on the snapshot's data: it is made afresh", self._order.kind.title)
        for key in (self._own, self._plain):
            found = await asyncio.to_thread(snapshots.image_of, key)
            await asyncio.to_thread(snapshots.remove, key)
            if found is not None:
                with suppress(EngineError):  # `atk gc` removes it later
                    await self._engine.remove_image(found[0])
        self._used = ""
        return PreparedImage(self._image)

    async def keep(self, container: str) -> None:
        """Make an image of what a running server has, if there is none or tests have made more of it."""
        is_kept = self._used and not self._order.is_worth_keeping
        if not self._plain or is_kept or not self._order.may_keep:
            return
        key = self._own if self._order.is_worth_keeping else self._plain
        try:
            with self._order.phase("snapshot", "docker"):
                await self._make(container, key)
        except (EngineError, tarfile.TarError) as error:
            _log.warning("no snapshot of %s is kept: %s", self._order.spec.name, error)

    @property
    def _own(self) -> str:
        return f"{self._plain}-{self._order.project}"

    async def _make(self, container: str, key: str) -> None:
        backup = await self._engine.execute(container, self._plan.backup, self._plan.client_environment)
        archive = await asyncio.to_thread(_under, PurePosixPath(self._plan.data or "/"), backup)
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


def _under(folder: PurePosixPath, backup: bytes) -> bytes:
    """The archive of a folder's content as an archive of the folder, whose owner is that of what is in it."""
    result = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(backup)) as source, tarfile.open(fileobj=result, mode="w") as target:
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
    return result.getvalue()
