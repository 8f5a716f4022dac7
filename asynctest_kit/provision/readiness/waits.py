"""From what a user says to wait for to what waits, bound to a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit import containers
from asynctest_kit.provision.readiness import Address, Greeting, Handshake
from asynctest_kit.provision.readiness.command import ExitCode
from asynctest_kit.provision.readiness.health import Healthy
from asynctest_kit.provision.readiness.http import HttpAnswer
from asynctest_kit.provision.readiness.listening import OpenPort
from asynctest_kit.provision.readiness.log import LogLine
from asynctest_kit.provision.readiness.together import All, Any

if TYPE_CHECKING:
    from asynctest_kit.provision.readiness import Waiting
    from asynctest_kit.provision.readiness.candidate import Candidate

__all__ = ["bound"]


def bound(wait: containers.Wait | None, candidate: Candidate) -> Waiting:  # noqa: C901, PLR0911 (a case each)
    """What waits for ``candidate``, whose ports the settings have checked to be there."""
    match wait:
        case None:
            return _together(tuple(_port(name, candidate) for name in candidate.ports))
        case containers.Listening(port=None):
            return bound(None, candidate)
        case containers.Listening(port=name):
            return _port(name or "", candidate)
        case containers.Log():
            return LogLine(candidate, wait.pattern, wait.times, wait.stream)
        case containers.Http():
            return _http(wait, _address(wait.port, candidate))
        case containers.Command():
            return ExitCode(candidate, wait.argv)
        case containers.Health():
            return Healthy(candidate)
        case containers.Handshake():
            return _greeting(wait, _address(wait.port, candidate))
        case containers.AllOf():
            return _together(tuple(bound(part, candidate) for part in wait.waits))
        case containers.AnyOf():
            return Any(tuple(bound(part, candidate) for part in wait.waits))


def _together(parts: tuple[Waiting, ...]) -> Waiting:
    return parts[0] if len(parts) == 1 else All(parts)


def _address(port: str | None, candidate: Candidate) -> Address:
    return candidate.ports[port] if port is not None else next(iter(candidate.ports.values()))


def _port(name: str, candidate: Candidate) -> OpenPort:
    return OpenPort(name, candidate.ports[name], candidate.direct.get(name))


def _http(wait: containers.Http, address: Address) -> HttpAnswer:
    return HttpAnswer(
        address=address,
        path=wait.path,
        method=wait.method,
        headers=wait.headers,
        tls=wait.tls,
        status=(wait.status,) if isinstance(wait.status, int) else wait.status,
        body=wait.body,
    )


def _greeting(wait: containers.Handshake, address: Address) -> Greeting:
    login = Address(
        host=address.host,
        port=address.port,
        username=wait.username,
        password=wait.password,
        database=wait.database,
    )
    return Greeting(_handshake(wait.kind), login)


def _handshake(kind: containers.HandshakeKind) -> Handshake:
    match kind:
        case "postgres":
            from asynctest_kit.provision.readiness.postgres import PostgresHandshake

            return PostgresHandshake()
        case "redis":
            from asynctest_kit.provision.readiness.redis import RedisHandshake

            return RedisHandshake()
