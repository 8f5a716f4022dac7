"""The image that a container is made of: there already, pulled, or built from a Dockerfile.

What is built is tagged by all that it was made of, so it is built once for each change. Its label says whose cache
folder it belongs to, by which ``atk gc`` finds what has grown old.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import build_context, snapshots
from asynctest_kit.provision.providers import TAIL, ImageRefusal, Order, quoted
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.providers.engine.image_names import registry_of
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from typing import IO

    from asynctest_kit.container_options import Build
    from asynctest_kit.provision.providers.engine import Engine

__all__ = ["Images", "remove_old_builds"]

_LABEL = "asynctest_kit.build"
_REPOSITORY = "asynctest_kit/build"

#: Bytes of a context that are kept in memory; a larger one goes to a file.
_IN_MEMORY = 16 << 20


class Images:
    """The images of one engine, none of them built twice at once."""

    def __init__(self) -> None:
        self._building: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def provide(self, engine: Engine, order: Order) -> str:
        """Have an order's image there; its name.

        Raises:
            ImageRefusal: It isn't there and can't be pulled, or may not be.
            ProvisionError: It can't be built.
        """
        order.resolved("docker")
        with order.excused():
            build = order.spec.container.build
            if build is None:
                await _pulled(engine, order)
                return order.image

            name = f"{_REPOSITORY}:{build.digest}"
            async with self._building[name]:
                await _built(engine, order, build, name)
            return name


async def remove_old_builds(engine: Engine, unused: float) -> list[str]:
    """Remove images that this user built more than ``unused`` seconds ago; give their names."""
    made = await engine.labelled_images(f"{_LABEL}={snapshots.cache_id()}", before=time.time() - unused)
    return await engine.remove_images(made)


async def _pulled(engine: Engine, order: Order) -> None:
    options, source, image = order.spec.container, order.spec.images, order.image
    policy = options.pull or source.pull
    lack = "is not there and"
    subject = f"the image {image} for {options.platform}" if options.platform else f"the image {image}"
    try:
        if await engine.has_image(image, platform=options.platform):
            if policy != "always":
                return
            lack = 'is to be pulled always (pull = "always"), and'
        elif policy == "never":
            raise ImageRefusal(f'{subject} is not there, and may not be pulled (pull = "never")')

        with order.phase("pull", "docker"):
            await engine.pull(image, platform=options.platform, stall=source.stall, note=order.note)
    except EngineError as error:
        raise ImageRefusal(f"{subject} {lack} can't be pulled from {registry_of(image)}: {error}") from None


async def _built(engine: Engine, order: Order, build: Build, name: str) -> None:
    policy = order.spec.container.pull or order.spec.images.pull
    output: deque[str] = deque(maxlen=TAIL)

    def take(text: str) -> None:
        output.extend(text.splitlines())
        if text.startswith("Step "):
            order.note(f"building, {text.strip()}")

    problem = ""
    try:
        if policy != "always" and await engine.has_image(name):
            return
        with order.phase("pull", "docker"), tempfile.SpooledTemporaryFile(_IN_MEMORY) as context:
            bases = await to_its_end(asyncio.to_thread(_packed, build, context))
            params = _parameters(build, order, name) | ({"pull": "1"} if policy == "always" else {})
            async with asyncio.timeout(build.timeout):
                await engine.build(context, params, bases=bases, take=take)
            return
    except EngineError as error:
        problem = f"{error}."
    except TimeoutError:
        problem = f"it did not end within {build.timeout:g} s."
    except OSError as error:
        problem = f"its context can't be read: {error}."
    words = quoted("\n".join(output), "The end of the build's output") if output else ""
    raise ProvisionError(
        order.redact(
            f"The image of the service {order.spec.name!r} could not be built from {build.context}/{build.dockerfile}: "
            f"{problem}{words}"
        )
    )


def _packed(build: Build, context: IO[bytes]) -> set[str]:
    build_context.pack(build, context)
    context.seek(0)
    return build_context.bases(build)


def _parameters(build: Build, order: Order, name: str) -> dict[str, str]:
    platform = order.spec.container.platform
    return (
        {
            "t": name,
            "dockerfile": build.dockerfile,
            "buildargs": json.dumps(build.arguments),
            "labels": json.dumps({_LABEL: snapshots.cache_id()}),
            "rm": "1",
            "forcerm": "1",
        }
        | ({"target": build.target} if build.target else {})
        | ({"platform": platform} if platform else {})
    )
