"""Where the engine is, in Docker's own order: DOCKER_HOST, the context in use, the usual sockets.

An engine on another machine is reached by TLS or SSH, and the ports that it publishes at its host.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.engine import docker_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LOOPBACK", "Location", "Tls", "knock", "locate"]

LOOPBACK = "127.0.0.1"

#: Seconds for an engine's socket to take a connection.
_GREETING = 5.0

_USUAL = Path("/var/run/docker.sock")

_OWN_NAMES = (LOOPBACK, "localhost", "::1")
_PLAIN_PORT, _TLS_PORT = 2375, 2376


@dataclass(frozen=True, slots=True)
class Tls:
    """How an engine's connection is encrypted.

    Attributes:
        folder: Where ``ca.pem``, ``cert.pem`` and ``key.pem`` are.
        is_verified: Whether the engine's certificate must be one that ``ca.pem`` has signed, and for its name.
    """

    folder: Path
    is_verified: bool = True

    def context(self) -> ssl.SSLContext:
        """Load the material; blocking.

        Raises:
            Refusal: A file is missing or is no certificate.
        """
        authority, certificate, key = (self.folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        try:
            context = ssl.create_default_context(cafile=authority if self.is_verified else None)
            # Authorities made as Docker's manual says have no key usage, which Python asks for since 3.13.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not self.is_verified:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if certificate.exists() or key.exists():
                context.load_cert_chain(certificate, key)
        except OSError as error:  # SSLError is one
            raise Refusal(
                f"the TLS files of the Docker engine in {self.folder} can't be used: {error} "
                "(ca.pem, and if the engine wants them cert.pem and key.pem; DOCKER_CERT_PATH names another folder)"
            ) from None
        return context


@dataclass(frozen=True, slots=True)
class Location:
    """Where an engine is.

    Attributes:
        url: In Docker's words: ``unix://``, ``http://``, ``https://`` or ``ssh://``.
        host: Where the ports that it publishes are reached.
        tls: How it is encrypted; None if it is not, or by SSH.
        ssh: By which program, with whose configuration and agent it is reached; empty if it isn't by SSH.
    """

    url: str
    host: str = LOOPBACK
    tls: Tls | None = None
    ssh: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, so that paths and loopback addresses mean the same there."""
        return self.host == LOOPBACK

    @property
    def is_usual(self) -> bool:
        """Whether it is where everybody expects it."""
        return self.identity == Location(f"unix://{_USUAL}").identity

    @property
    def identity(self) -> str:
        """Equal for two that lead to one engine in the same way, whatever links there are on it."""
        path = self.url.removeprefix("unix://")
        url = self.url if path == self.url else f"unix://{os.path.realpath(path)}"
        return " ".join((url, *self.ssh, *((str(self.tls),) if self.tls else ())))

    def __str__(self) -> str:
        return self.url


def locate(environ: Mapping[str, str]) -> Location:
    """Find the engine that ``environ`` names.

    Raises:
        Refusal: There is none, or its address can't be used.
    """
    if explicit := environ.get("DOCKER_HOST"):
        return _location(explicit, _environment_tls(environ), "DOCKER_HOST", environ)

    if found := docker_config.context_endpoint(environ):
        endpoint, folder = found
        is_verified = not endpoint.get("SkipTLSVerify")
        tls = Tls(folder, is_verified=is_verified) if _is_there(folder) or not is_verified else None
        return _location(str(endpoint["Host"]), tls, "the Docker context in use", environ)

    return Location(f"unix://{_answering_socket(environ)}")


def knock(location: Location) -> None:
    """Find out at once whether anybody answers at a socket; blocking.

    Raises:
        Refusal: Nobody does, or we may not.
    """
    if location.url.startswith("unix://"):
        path = location.url.removeprefix("unix://")
        if reason := _closed(path):
            raise Refusal(f"no Docker engine answers at {path}: {reason}")


def _is_there(folder: Path) -> bool:
    """Whether there is such a folder; one that can't be looked at must not make an engine be asked without TLS."""
    try:
        return stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Refusal(f"the TLS files of the Docker context in use can't be read: {error}") from None


def _location(url: str, tls: Tls | None, source: str, environ: Mapping[str, str]) -> Location:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refusal(f"{source} is no address of a Docker engine: its port is no number") from None

    if parts.scheme == "unix":
        return Location(url)
    if parts.scheme not in ("tcp", "http", "https", "ssh") or not parts.hostname:
        raise Refusal(
            f"{source} is {_shown(parts)}, and that is no address of a Docker engine that can be used "
            "(unix:///path, tcp://host:port, https://host:port or ssh://user@host)"
        )
    host = LOOPBACK if parts.hostname in _OWN_NAMES else parts.hostname
    if parts.scheme == "ssh":
        if parts.password is not None:
            raise Refusal(
                f"{source} has a password for ssh://{parts.hostname} in it, and ssh takes none there: "
                "use a key or an agent (ssh://user@host)"
            )
        return Location(url, host, ssh=_ssh(environ))

    is_encrypted = tls is not None or parts.scheme == "https"
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = port or (_TLS_PORT if is_encrypted else _PLAIN_PORT)
    return Location(f"{'https' if is_encrypted else 'http'}://{name}:{port}", host, tls)


def _ssh(environ: Mapping[str, str]) -> tuple[str, ...]:
    program = shutil.which("ssh", path=environ.get("PATH")) or ""
    return (program, *(f"{name}={environ.get(name, '')}" for name in ("HOME", "SSH_AUTH_SOCK")))


def _shown(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.hostname or ''}" if parts.scheme else "without a scheme"


def _environment_tls(environ: Mapping[str, str]) -> Tls | None:
    is_verified = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not is_verified and not environ.get("DOCKER_TLS"):
        return None

    return Tls(Path(environ.get("DOCKER_CERT_PATH") or docker_config.folder(environ)), is_verified=is_verified)


def _answering_socket(environ: Mapping[str, str]) -> Path:
    candidates = tuple(dict.fromkeys(_usual_sockets(environ)))
    reasons = {}
    for candidate in candidates:
        reasons[candidate] = _closed(str(candidate))
        if not reasons[candidate]:
            return candidate

    there = {path: reason for path, reason in reasons.items() if os.path.lexists(path)}
    if there:
        raise Refusal("no Docker engine answers: " + "; ".join(f"{path}: {reason}" for path, reason in there.items()))
    raise Refusal(f"no Docker engine: DOCKER_HOST is not set and there is no {' or '.join(map(str, candidates))}")


def _closed(path: str) -> str:
    """Why nobody can be reached at a socket; empty if somebody can."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_GREETING)
        try:
            probe.connect(path)
        except PermissionError:
            return "you may not use it (join the group `docker`?)"
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _usual_sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    """Docker's, then rootless Docker's and those of its desktop editions, then Podman's."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    home = Path(environ.get("HOME", "/"))
    yield _USUAL
    yield runtime / "docker.sock"
    yield from (
        home / ".docker/run/docker.sock",
        home / ".docker/desktop/docker.sock",
        home / ".colima/default/docker.sock",
        home / ".orbstack/run/docker.sock",
        home / ".rd/docker.sock",
    )
    yield runtime / "podman/podman.sock"
    if os.getuid() == 0:
        yield Path("/run/podman/podman.sock")
