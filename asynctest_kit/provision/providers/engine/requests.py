"""The requests that the docker provider makes of an engine, one method each.

Worked around here (seen in aiodocker 0.27):

- A response whose body is still streaming when its reader is cancelled keeps its connection for good; every response
  is therefore entered as a context manager of its own.
- An int is no time-out for it; all limits are ClientTimeout objects.
- Its pool of 100 connections hangs every call once it is used up, and followed logs, waits and commands hold one each:
  the pool here has no limit.
- It loses which of the two streams a log's line was written to, and the exit code of a command.
- An error's message is left as JSON unless the engine names its type exactly; and it is read as JSON where an answer to
  HEAD can't have any.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

from asynctest_kit.provision.providers.engine import auth, platforms
from asynctest_kit.provision.providers.engine.image_names import name_and_tag, registry_of
from asynctest_kit.provision.providers.engine.streams import Progress, news, outputs
from asynctest_kit.provision.service import Program

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Mapping,
        Sequence,
    )
    from typing import IO

    from aiodocker import Docker
    from aiodocker.stream import Stream as Attached
    from aiohttp import ClientResponse

    from asynctest_kit.provision.providers import Take
    from asynctest_kit.provision.providers.engine.location import Location
    from asynctest_kit.provision.service import Output, Stream

__all__ = ["DEFAULT_NETWORK", "Ended", "Engine", "EngineError", "NotFoundError"]

_log = logging.getLogger(__name__)

#: Seconds for an engine to take a connection, and to answer a single request.
_GREETING = 15.0
_REQUEST = 60.0

#: Seconds for a registry to say whether it has an image.
_LOOK_UP = 10.0

#: Seconds for a server's whole data to pass.
_TRANSFER = 60.0

#: Where containers are that nothing else is said of.
DEFAULT_NETWORK = "bridge"

_UNTAGGED = "<none>:<none>"

_NOT_FOUND = 404
_CONFLICT = 409
_FORBIDDEN = 403


class EngineError(Exception):
    """The engine refused a request; the message is its own, ``status`` its HTTP status, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(EngineError):
    """The engine does not have that image or container."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ran in a container: its exit code and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


class Engine:
    """One engine's requests, each to be awaited to its end or cancelled at will.

    Args:
        docker: Who speaks with it.
        version: What it says of its version.
        location: Where it is.
        environ: Where the user's Docker configuration is looked up.

    Attributes:
        version: Its version.
        has_init: Whether it can run a container under an init of its own.
        location: Where it is.
    """

    def __init__(
        self, docker: Docker, version: Mapping[str, Any], location: Location, environ: Mapping[str, str]
    ) -> None:
        self._docker = docker
        self._environ = environ
        self.version = str(version["Version"])
        # An engine names the parts that it found on its machine; Docker's init is called docker-init there.
        self.has_init = any(part["Name"].endswith("init") for part in version.get("Components") or ())
        self.location = location

    def on_behalf_of(self, environ: Mapping[str, str]) -> Self:
        """The same engine, asked with the credentials of a user whose environment is ``environ``."""
        same = copy(self)
        same._environ = environ  # noqa: SLF001 (of the same class)
        return same

    async def kernel(self) -> str:
        """The release of the kernel that it runs on."""
        return str((await self._json("GET", "version")).get("KernelVersion", ""))

    async def info(self) -> dict[str, Any]:
        """What it tells of itself and of its machine."""
        return cast("dict[str, Any]", await self._json("GET", "info"))

    async def disk_use(self) -> int:
        """Bytes that its images take."""
        return int((await self._json("GET", "system/df", limit=_LOOK_UP)).get("LayersSize") or 0)

    async def bridge_gateways(self) -> list[str]:
        """The host's own addresses in the network that containers are in by default."""
        bridge = await self._json("GET", "networks/bridge")
        return [config["Gateway"] for config in bridge["IPAM"]["Config"] or () if config.get("Gateway")]

    async def has_image(self, image: str, *, platform: str | None = None) -> bool:
        """Whether the image is there already; with ``platform``, as ``linux/arm64``, the one for that."""
        # Engines before 28 don't look at the parameter and tell of the one image that they have.
        params = {"platform": json.dumps(platforms.parts_of(platform))} if platform else None
        try:
            found = await self._json("GET", f"images/{image}/json", params=params)
        except NotFoundError:
            return False
        return platform is None or platforms.is_for(platform, found)

    async def find_in_registry(self, image: str) -> None:
        """Ask the image's registry for it, through the engine, without fetching anything.

        Raises:
            EngineError: It isn't there, or the registry can't be reached.
        """
        headers = await self._credentials(image)
        await self._json("GET", f"distribution/{image}/json", headers=headers, limit=_LOOK_UP)

    async def pull(
        self, image: str, *, platform: str | None = None, stall: float, note: Callable[[str], None] = lambda _: None
    ) -> None:
        """Fetch an image from its registry, as whom ``docker login`` has said.

        Args:
            image: Its name.
            platform: As ``linux/arm64``; None for the engine's own.
            stall: Seconds without progress after which it is given up.
            note: Called with how far it is, for people.

        Raises:
            EngineError: It can't be had, or made no progress for too long.
        """
        name, tag = name_and_tag(image)
        params = {"fromImage": name, "tag": tag} | ({"platform": platform} if platform else {})
        headers = await self._credentials(image)
        progress, loop = Progress(), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(stall) as limit:
                async with self._query("POST", "images/create", params=params, headers=headers, limit=None) as response:
                    async for told in news(response.content):
                        if error := told.get("error"):
                            raise EngineError(str(error))
                        if progress.take(told):
                            limit.reschedule(loop.time() + stall)
                            note(str(progress))
        except TimeoutError:
            raise EngineError(f"the registry {registry_of(image)} made no progress for {stall:g} s") from None

    async def build(
        self, context: IO[bytes], params: Mapping[str, str], *, bases: Collection[str], take: Callable[[str], None]
    ) -> None:
        """Build an image.

        Args:
            context: A tar archive with the Dockerfile in it.
            params: The request's own: see Docker's API.
            bases: Images that it begins with, for whose registries credentials are sent along.
            take: Called with each piece of output.

        Raises:
            EngineError: It failed.
        """
        try:
            config = await auth.header_for_build({registry_of(base) for base in bases}, self._environ)
        except auth.CredentialsError as error:
            raise EngineError(str(error)) from None
        headers = {"X-Registry-Config": config} if config else None
        async with self._query(
            "POST", "build", params=params, archive=context, headers=headers, limit=None
        ) as response:
            async for told in news(response.content):
                if problem := told.get("error"):
                    raise EngineError(str(problem))
                take(str(told.get("stream") or ""))

    async def create(self, name: str, config: Mapping[str, Any], *, platform: str | None = None) -> None:
        """Create a container; the engine may be slow to, so don't cancel this: see ``to_its_end``."""
        params = {"name": name} | ({"platform": platform} if platform else {})
        await self._json("POST", "containers/create", params=params, data=config)

    async def start(self, name: str) -> None:
        """Start a created container."""
        async with self._query("POST", f"containers/{name}/start"):
            pass

    async def inspect(self, name: str) -> dict[str, Any]:
        """All that the engine knows about a container."""
        return cast("dict[str, Any]", await self._json("GET", f"containers/{name}/json"))

    async def address_of(self, name: str) -> str:
        """A running container's address on the engine's default network; empty once it has ended.

        One that was started without any network joins it for this.
        """
        networks = (await self.inspect(name))["NetworkSettings"]["Networks"]
        if "none" in networks:
            for network, action in (("none", "disconnect"), (DEFAULT_NETWORK, "connect")):
                async with self._query("POST", f"networks/{network}/{action}", data={"Container": name}):
                    pass
            networks = (await self.inspect(name))["NetworkSettings"]["Networks"]
        return str((networks.get(DEFAULT_NETWORK) or {}).get("IPAddress", ""))

    async def image_config(self, image: str) -> dict[str, Any]:
        """What containers of an image inherit: ``Entrypoint``, ``Cmd`` and so on."""
        return cast("dict[str, Any]", (await self._json("GET", f"images/{image}/json"))["Config"] or {})

    async def image_id(self, image: str) -> str:
        """The digest of an image that is there."""
        return str((await self._json("GET", f"images/{image}/json"))["Id"])

    async def execute(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
    ) -> bytes:
        """Run a program in a container, with more variables than the container's; what it wrote to its stdout.

        Raises:
            EngineError: It failed; the message has its exit code and what it wrote to its stderr.
        """
        ended = await self.run(name, argv, environment)
        if ended.code:
            words = ended.stderr.decode(errors="replace").strip()
            raise EngineError(f"{argv[0]} ended with exit code {ended.code}: {words}")
        return ended.stdout

    async def run(self, name: str, argv: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})) -> Ended:
        """Run a program in a container to its end, whatever its exit code."""
        written: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}

        async def take(output: Output) -> None:
            written[output.stream].append(output.data)

        program = Program(argv=tuple(argv), environment=dict(environment))
        code = await self.stream(name, program, take, limit=_TRANSFER)
        return Ended(code, b"".join(written["stdout"]), b"".join(written["stderr"]))

    async def stream(self, name: str, program: Program, take: Take, *, limit: float | None = None) -> int:
        """Run a program in a container; its exit code. What it writes is taken as it comes."""
        asked = {
            "Cmd": list(program.argv),
            "Env": [f"{variable}={value}" for variable, value in program.environment.items()],
            "User": program.user or "",
            "WorkingDir": program.directory or "",
            "AttachStdout": True,
            "AttachStderr": True,
        }
        number = (await self._json("POST", f"containers/{name}/exec", data=asked))["Id"]
        how = {"Detach": False, "Tty": False}
        async with self._query("POST", f"exec/{number}/start", data=how, limit=limit) as response:
            async for output in outputs(response.content):
                await take(output)
        return int((await self._json("GET", f"exec/{number}/json"))["ExitCode"])

    async def unpack(self, name: str, archive: bytes | IO[bytes]) -> None:
        """Unpack a tar archive at the root of a container's file system, owners and modes included."""
        path = f"containers/{name}/archive"  # without copyUIDGID, which makes all belong to the container's user
        content = io.BytesIO(archive) if isinstance(archive, bytes) else archive
        async with self._query("PUT", path, params={"path": "/"}, archive=content, limit=_TRANSFER):
            pass

    async def commit(self, name: str, image: str, labels: Mapping[str, str]) -> None:
        """Make an image, ``name:tag``, of a container's file system; its configuration is the container's."""
        repository, _, tag = image.rpartition(":")
        params = {"container": name, "repo": repository, "tag": tag, "pause": "0"}
        await self._json("POST", "commit", params=params, data={"Labels": dict(labels)}, limit=_TRANSFER)

    async def remove_image(self, image: str) -> None:
        """Remove an image; one that is gone already, or that a container uses, is no error."""
        try:
            async with self._query("DELETE", f"images/{image}", params={"noprune": "0"}):
                pass
        except NotFoundError:
            return
        except EngineError as error:
            if error.status != _CONFLICT:
                raise

    async def remove_images(self, images: Iterable[str]) -> list[str]:
        """Remove each of them that the engine agrees to; give these."""
        removed = []
        for image in images:
            try:
                await self.remove_image(image)
            except EngineError as error:
                _log.warning("the image %s could not be removed: %s", image, error)
            else:
                removed.append(image)
        return removed

    async def labelled_images(self, label: str, *, before: float = inf) -> list[str]:
        """The tags of every image that has ``label``, if it was made before then (seconds since the epoch).

        One that has no tag any more is given by its id.
        """
        found = await self._json("GET", "images/json", params=_labelled(label))
        return [name for image in found if image["Created"] <= before for name in _names(image)]

    async def has_file(self, name: str, path: str) -> bool:
        """Whether there is something by that path in a container, started or not."""
        try:
            async with self._query("HEAD", f"containers/{name}/archive", params={"path": path}):
                return True
        except (NotFoundError, json.JSONDecodeError):
            return False

    @asynccontextmanager
    async def attach(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """What a container writes to its stdout and stderr from here on; its stdin is open as long as the block."""
        from aiodocker import DockerError
        from aiohttp import ClientError

        stream = self._docker.containers.container(name).attach(stdin=True, stdout=True, stderr=True)
        try:
            async with stream:
                yield _output(stream)
        except DockerError as error:
            refusal = NotFoundError if error.status == _NOT_FOUND else EngineError
            raise refusal(_message(error.message), error.status) from None
        except ClientError as error:
            raise EngineError(f"the engine can't be reached any more: {error}") from error
        finally:
            if stream._resp is None:  # noqa: SLF001  # aiodocker 0.25 takes one that was never opened for one left open
                stream._closed = True  # noqa: SLF001

    @asynccontextmanager
    async def exit_of(self, name: str) -> AsyncIterator[Awaitable[int]]:
        """A container's exit code to come, at its next end after this is entered."""
        params = {"condition": "next-exit"}
        async with self._query("POST", f"containers/{name}/wait", params=params, limit=None) as response:
            yield _exit_code(response)

    async def log(self, name: str, lines: int, take: Take, *, follow: bool = False, since: float = 0.0) -> None:
        """A container's log; followed, it ends with the container.

        Args:
            name: The container.
            lines: So many of the last ones first; 0 for all that were written ``since`` then.
            take: Gets it piece by piece.
            follow: Whether to go on with what is written from now on.
            since: By the engine's clock, in seconds since the epoch.
        """
        place = {"tail": str(lines)} if lines else {"since": f"{since:.6f}"}
        params = {"stdout": "1", "stderr": "1", "follow": str(int(follow))} | place
        limit = None if follow else _REQUEST
        async with self._query("GET", f"containers/{name}/logs", params=params, limit=limit) as response:
            async for output in outputs(response.content):
                await take(output)

    async def log_tail(self, name: str, lines: int) -> str:
        """The last lines of a container's stdout and stderr."""
        written: list[bytes] = []

        async def take(output: Output) -> None:
            written.append(output.data)

        await self.log(name, lines, take)
        return b"".join(written).decode(errors="replace")

    async def follow_log(self, name: str) -> AsyncGenerator[tuple[Stream, str], None]:
        """Each line of a container's log, with its stream, from its beginning to its end.

        Close the iterator (``contextlib.aclosing``) to stop earlier. A last line without a line end is not pushed.
        """
        params = {"stdout": "1", "stderr": "1", "follow": "1"}
        async with self._query("GET", f"containers/{name}/logs", params=params, limit=None) as response:
            begun: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
            async for stream, data in outputs(response.content):
                *lines, begun[stream] = (begun[stream] + data).split(b"\n")
                for line in lines:
                    yield stream, line.decode(errors="replace").rstrip("\r")

    async def health_changes(self, name: str) -> AsyncGenerator[None, None]:
        """A turn each time that the engine has judged a container's health anew, and one at once.

        Close the iterator (``contextlib.aclosing``) to stop.
        """
        params = {"filters": json.dumps({"container": [name], "event": ["health_status"]})}
        async with self._query("GET", "events", params=params, limit=None) as response:
            yield
            while await response.content.readline():
                yield

    async def remove(self, name: str) -> None:
        """Kill and remove a container with its anonymous volumes; one that is gone already is no error."""
        with suppress(NotFoundError):
            try:
                async with self._query("DELETE", f"containers/{name}", params={"force": "1", "v": "1"}):
                    return
            except EngineError as error:
                if error.status != _CONFLICT:
                    raise
            # Somebody else, or the engine itself, is removing it at this very moment.
            await self._json("POST", f"containers/{name}/wait", params={"condition": "removed"})

    async def labelled(self, label: str) -> list[tuple[str, dict[str, str]]]:
        """Id and labels of every container that has ``label``, running or not."""
        found = await self._json("GET", "containers/json", params={"all": "1"} | _labelled(label))
        return [(container["Id"], container["Labels"]) for container in found]

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a volume; one that is there already is left as it is."""
        await self._json("POST", "volumes/create", data={"Name": name, "Labels": dict(labels)})

    async def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone already, or that a container uses, is no error."""
        await self._remove(f"volumes/{name}")

    async def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a bridge network; two of one name would be possible, and are not made."""
        await self._json("POST", "networks/create", data={"Name": name, "CheckDuplicate": True, "Labels": dict(labels)})

    async def connect(self, network: str, name: str, aliases: Sequence[str]) -> None:
        """Have a container join a network, where it is known by ``aliases`` too."""
        data = {"Container": name, "EndpointConfig": {"Aliases": list(aliases)}}
        async with self._query("POST", f"networks/{network}/connect", data=data):
            pass

    async def remove_network(self, name: str) -> None:
        """Remove a network; one that is gone already, or that a container uses, is no error."""
        await self._remove(f"networks/{name}")

    async def labelled_volumes(self, label: str) -> list[tuple[str, dict[str, str]]]:
        """Name and labels of every volume that has ``label``."""
        found = await self._json("GET", "volumes", params=_labelled(label))
        return [(volume["Name"], volume["Labels"] or {}) for volume in found["Volumes"] or ()]

    async def labelled_networks(self, label: str) -> list[tuple[str, dict[str, str]]]:
        """Id and labels of every network that has ``label``."""
        found = await self._json("GET", "networks", params=_labelled(label))
        return [(network["Id"], network["Labels"] or {}) for network in found]

    async def _remove(self, path: str) -> None:
        try:
            async with self._query("DELETE", path):
                pass
        except NotFoundError:
            return
        except EngineError as error:
            if error.status not in (_CONFLICT, _FORBIDDEN):
                raise

    async def _credentials(self, image: str) -> dict[str, str] | None:
        try:
            header = await auth.header(registry_of(image), self._environ)
        except auth.CredentialsError as error:
            raise EngineError(str(error)) from None
        return {"X-Registry-Auth": header} if header else None

    async def _json(  # noqa: PLR0913  # what a request is made of
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: float | None = _REQUEST,
    ) -> Any:
        async with self._query(method, path, params=params, data=data, headers=headers, limit=limit) as response:
            return await response.json()

    @asynccontextmanager
    async def _query(  # noqa: PLR0913  # what a request is made of
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        archive: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: float | None = _REQUEST,
    ) -> AsyncIterator[ClientResponse]:
        from aiodocker import DockerError
        from aiohttp import ClientError, ClientTimeout

        body = archive if data is None else json.dumps(data)
        kind = {"Content-Type": "application/x-tar"} if archive is not None else {}
        timeout = ClientTimeout(total=limit, sock_connect=_GREETING)
        try:
            async with (
                self._docker._query(  # noqa: SLF001
                    path, method, params=params, data=body, headers=kind | dict(headers or {}), timeout=timeout
                ) as response,
                response,
            ):
                yield response
        except DockerError as error:
            refusal = NotFoundError if error.status == _NOT_FOUND else EngineError
            raise refusal(_message(error.message), error.status) from None
        except TimeoutError:
            if limit is None:
                raise
            raise EngineError(f"the engine did not answer within {limit:g} s") from None
        except ClientError as error:
            raise EngineError(f"the engine can't be reached any more: {error}") from error


def _labelled(label: str) -> dict[str, str]:
    return {"filters": json.dumps({"label": [label]})}


def _names(image: Mapping[str, Any]) -> list[str]:
    # Engines before 25 have a tag for what has none.
    return [tag for tag in image["RepoTags"] or () if tag != _UNTAGGED] or [image["Id"]]


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        return text.strip()


async def _output(stream: Attached) -> AsyncIterator[bytes]:
    while (message := await stream.read_out()) is not None:
        yield message.data


async def _exit_code(response: ClientResponse) -> int:
    return int((await response.json())["StatusCode"])
