"""A Docker engine as the docker provider needs it: the one place that knows aiodocker and its faults.

Worked around here (seen in aiodocker 0.27):

- A response whose body is still streaming when its reader is cancelled keeps its connection for good; every response
  is therefore entered as a context manager of its own.
- An int is no time-out for it; all limits are ClientTimeout objects.
- Without an engine it raises a bare AssertionError, and its current context beats DOCKER_HOST: the engine's address
  is found here, in Docker's own order, and passed to it.
- It reads an error's message as JSON, which an answer to HEAD can't have.
- Importing it takes longer than asking an engine whether it lives, so it is imported when a socket answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from asynctest_kit.provision.providers import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping, Sequence

    from aiodocker import Docker
    from aiodocker.stream import Stream
    from aiohttp import ClientResponse

__all__ = ["Ended", "Engine", "EngineError", "NotFoundError", "address", "open_engine"]

#: Seconds for an engine to say its version, and for any other single request.
_GREETING = 5.0
_REQUEST = 60.0

#: Seconds for a registry to say whether it has an image.
_LOOK_UP = 10.0

#: Seconds without any news from the engine after which a pull is given up.
_PULL_STALL = 30.0

#: Seconds for a server's whole data to pass.
_TRANSFER = 60.0

_STDOUT, _STDERR = 1, 2

#: Where containers are that nothing else is said of.
_DEFAULT_NETWORK = "bridge"

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_NOT_FOUND = 404
_CONFLICT = 409


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

    Attributes:
        version: Its version.
        has_init: Whether it can run a container under an init of its own.
    """

    def __init__(self, docker: Docker, version: str, *, has_init: bool) -> None:
        self._docker = docker
        self.version = version
        self.has_init = has_init

    async def kernel(self) -> str:
        """The release of the kernel that it runs on."""
        return str((await self._json("GET", "version")).get("KernelVersion", ""))

    async def bridge_gateways(self) -> list[str]:
        """The host's own addresses in the network that containers are in by default."""
        bridge = await self._json("GET", "networks/bridge")
        return [config["Gateway"] for config in bridge["IPAM"]["Config"] or () if config.get("Gateway")]

    async def has_image(self, image: str) -> bool:
        """Whether the image is there already."""
        try:
            await self._json("GET", f"images/{image}/json")
        except NotFoundError:
            return False
        return True

    async def find_in_registry(self, image: str) -> None:
        """Ask the image's registry for it, through the engine, without fetching anything.

        Raises:
            EngineError: It isn't there, or the registry can't be reached.
        """
        await self._json("GET", f"distribution/{image}/json", limit=_LOOK_UP)

    async def pull(self, image: str) -> None:
        """Fetch an image from its registry.

        Raises:
            EngineError: It can't be had, or nothing was heard of it for too long.
        """
        name, tag = _name_and_tag(image)
        params = {"fromImage": name, "tag": tag}
        try:
            async with self._query("POST", "images/create", params=params, limit=None) as response:
                await _drain_pull(response)
        except TimeoutError:
            raise EngineError(f"no news from the registry for {_PULL_STALL:g} s") from None

    async def create(self, name: str, config: Mapping[str, Any]) -> None:
        """Create a container; the engine may be slow to, so don't cancel this: see ``to_its_end``."""
        await self._json("POST", "containers/create", params={"name": name}, data=config)

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
            for network, action in (("none", "disconnect"), (_DEFAULT_NETWORK, "connect")):
                async with self._query("POST", f"networks/{network}/{action}", data={"Container": name}):
                    pass
            networks = (await self.inspect(name))["NetworkSettings"]["Networks"]
        return str((networks.get(_DEFAULT_NETWORK) or {}).get("IPAddress", ""))

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
        variables = [f"{name}={value}" for name, value in environment.items()]
        asked = {"Cmd": list(argv), "Env": variables, "AttachStdout": True, "AttachStderr": True}
        number = (await self._json("POST", f"containers/{name}/exec", data=asked))["Id"]
        how = {"Detach": False, "Tty": False}
        async with self._query("POST", f"exec/{number}/start", data=how, limit=_TRANSFER) as response:
            streams: dict[int, list[bytes]] = {_STDOUT: [], _STDERR: []}
            for stream, text in _frames(await response.read()):
                streams.setdefault(stream, []).append(text)
        code = (await self._json("GET", f"exec/{number}/json"))["ExitCode"]
        return Ended(code, b"".join(streams[_STDOUT]), b"".join(streams[_STDERR]))

    async def unpack(self, name: str, archive: bytes) -> None:
        """Unpack a tar archive at the root of a container's file system, owners and modes included."""
        params = {"path": "/", "copyUIDGID": "1"}
        async with self._query("PUT", f"containers/{name}/archive", params=params, archive=archive, limit=_TRANSFER):
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

    async def labelled_images(self, label: str) -> list[str]:
        """The tags of every image that has ``label``."""
        params = {"filters": json.dumps({"label": [label]})}
        found = await self._json("GET", "images/json", params=params)
        return [tag for image in found for tag in image["RepoTags"] or ()]

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
            kind = NotFoundError if error.status == _NOT_FOUND else EngineError
            raise kind(error.message, error.status) from None
        except ClientError as error:
            raise EngineError(f"the engine can't be reached any more: {error}") from error

    @asynccontextmanager
    async def exit_of(self, name: str) -> AsyncIterator[Awaitable[int]]:
        """A container's exit code to come, at its next end after this is entered."""
        params = {"condition": "next-exit"}
        async with self._query("POST", f"containers/{name}/wait", params=params, limit=None) as response:
            yield _exit_code(response)

    async def log_tail(self, name: str, lines: int) -> str:
        """The last lines of a container's stdout and stderr."""
        params = {"stdout": "1", "stderr": "1", "tail": str(lines)}
        async with self._query("GET", f"containers/{name}/logs", params=params) as response:
            return b"".join(text for _, text in _frames(await response.read())).decode(errors="replace")

    async def follow_log(self, name: str) -> AsyncGenerator[tuple[int, str], None]:
        """Each line of a container's log, with its stream (1: stdout, 2: stderr), from its beginning to its end.

        Close the iterator (``contextlib.aclosing``) to stop earlier. A last line without a line end is not pushed.
        """
        params = {"stdout": "1", "stderr": "1", "follow": "1"}
        async with self._query("GET", f"containers/{name}/logs", params=params, limit=None) as response:
            begun = {_STDOUT: b"", _STDERR: b""}
            with suppress(asyncio.IncompleteReadError):
                while True:
                    stream, length = struct.unpack("!B3xI", await response.content.readexactly(8))
                    *lines, begun[stream] = (begun[stream] + await response.content.readexactly(length)).split(b"\n")
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
        params = {"all": "1", "filters": json.dumps({"label": [label]})}
        found = await self._json("GET", "containers/json", params=params)
        return [(container["Id"], container["Labels"]) for container in found]

    async def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        limit: float | None = _REQUEST,
    ) -> Any:
        async with self._query(method, path, params=params, data=data, limit=limit) as response:
            return await response.json()

    @asynccontextmanager
    async def _query(  # noqa: PLR0913  # what a request is made of
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Any] | None = None,
        archive: bytes | None = None,
        limit: float | None = _REQUEST,
    ) -> AsyncIterator[ClientResponse]:
        from aiodocker import DockerError
        from aiohttp import ClientError, ClientTimeout

        body = json.dumps(data) if data is not None else None if archive is None else io.BytesIO(archive)
        headers = {"Content-Type": "application/x-tar"} if archive is not None else None
        timeout = ClientTimeout(total=limit, sock_connect=_GREETING)
        try:
            async with (
                self._docker._query(  # noqa: SLF001
                    path, method, params=params, data=body, headers=headers, timeout=timeout
                ) as response,
                response,
            ):
                yield response
        except DockerError as error:
            kind = NotFoundError if error.status == _NOT_FOUND else EngineError
            raise kind(error.message, error.status) from None
        except TimeoutError:
            if limit is None:
                raise
            raise EngineError(f"the engine did not answer within {limit:g} s") from None
        except ClientError as error:
            raise EngineError(f"the engine can't be reached any more: {error}") from error


def address(environ: Mapping[str, str]) -> str:
    """Where the engine should be, in Docker's own order: DOCKER_HOST, context, the usual sockets.

    Raises:
        Refusal: Nowhere, or on another machine, whose loopback ports can't be reached from here.
    """
    explicit = environ.get("DOCKER_HOST") or _context_host(environ)
    if not explicit:
        return f"unix://{_existing_socket(environ)}"

    parts = urlsplit(explicit)
    if parts.scheme == "unix" or (parts.scheme in ("tcp", "http", "https") and parts.hostname in _LOCAL_HOSTS):
        return explicit

    raise Refusal(f"the Docker engine {parts.scheme}://{parts.hostname} is not on this machine")


@asynccontextmanager
async def open_engine(environ: Mapping[str, str]) -> AsyncIterator[Engine]:
    """The engine that ``environ`` names.

    Raises:
        Refusal: There is none, or it does not answer, or we may not ask it.
    """
    url = address(environ)
    await asyncio.to_thread(_knock, url)
    aiodocker = await asyncio.to_thread(import_module, "aiodocker")  # requests are read meanwhile
    async with aiodocker.Docker(url=url) as docker:
        version = await _version(docker, url)
        # An engine names the parts that it found on its machine; Docker's init is called docker-init there.
        has_init = any(part["Name"].endswith("init") for part in version.get("Components") or ())
        yield Engine(docker, str(version["Version"]), has_init=has_init)


async def _version(docker: Docker, url: str) -> dict[str, Any]:
    from aiodocker import DockerError
    from aiohttp import ClientError

    try:
        async with asyncio.timeout(_GREETING):
            return await docker.version()
    except TimeoutError:
        raise Refusal(f"the Docker engine at {url} did not answer within {_GREETING:g} s") from None
    except (DockerError, ClientError) as error:
        raise Refusal(f"the Docker engine at {url} refused: {error}") from None


def _knock(url: str) -> None:
    if not url.startswith("unix://"):
        return

    path = url.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_GREETING)
        try:
            probe.connect(path)
        except PermissionError:
            raise Refusal(f"you may not use the Docker engine's socket {path} (join the group `docker`?)") from None
        except OSError as error:
            raise Refusal(f"no Docker engine answers at {path} ({error.strerror or error})") from None


def _existing_socket(environ: Mapping[str, str]) -> Path:
    candidates = tuple(_usual_sockets(environ))
    for candidate in candidates:
        with suppress(OSError):
            if candidate.is_socket():
                return candidate

    raise Refusal(f"no Docker engine: DOCKER_HOST is not set and there is no {' or '.join(map(str, candidates))}")


def _usual_sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path("/var/run/docker.sock")
    home = Path(environ.get("HOME", "/"))
    yield from (
        home / ".docker/run/docker.sock",
        home / ".colima/default/docker.sock",
        home / ".orbstack/run/docker.sock",
    )
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield from (Path(runtime) / "docker.sock", Path(runtime) / "podman/podman.sock")


def _context_host(environ: Mapping[str, str]) -> str | None:
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/")) / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _json_file(folder / "config.json").get("currentContext")
    if not name or name == "default":
        return None

    meta = folder / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    host = _json_file(meta).get("Endpoints", {}).get("docker", {}).get("Host")
    return str(host) if host else None


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _name_and_tag(image: str) -> tuple[str, str]:
    if "@" in image:
        return image, ""

    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


async def _output(stream: Stream) -> AsyncIterator[bytes]:
    while (message := await stream.read_out()) is not None:
        yield message.data


async def _exit_code(response: ClientResponse) -> int:
    return int((await response.json())["StatusCode"])


async def _drain_pull(response: ClientResponse) -> None:
    while True:
        async with asyncio.timeout(_PULL_STALL):
            news = await response.content.readline()
        if not news:
            return

        if error := json.loads(news).get("error"):
            raise EngineError(error)


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    # Docker multiplexes both streams: a byte of identity, three of padding, four of length, then the text.
    place = 0
    while place < len(data):
        stream, length = struct.unpack_from("!B3xI", data, place)
        place += 8
        yield stream, data[place : place + length]
        place += length
