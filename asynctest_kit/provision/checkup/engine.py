"""What the Docker engine and its machine let containers have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from asynctest_kit.provision.checkup.finding import GIB, Finding, size
from asynctest_kit.provision.checkup.machine import room
from asynctest_kit.provision.providers.docker_reach import is_on_this_machine, is_within_reach
from asynctest_kit.provision.providers.engine import EngineError
from asynctest_kit.provision.runtime import base_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from asynctest_kit.provision.checkup.finding import Verdict
    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.settings import ServiceSettings

__all__ = ["examine_engine"]

#: Bytes of memory that a few servers in containers want: their data lies there.
_MEMORY = 1 * GIB


#: What of the kernel each option of a container needs, in the engine's words.
_LIMITS = {"memory": "MemoryLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}


async def examine_engine(engine: Engine, services: Mapping[str, ServiceSettings]) -> AsyncIterator[Finding]:
    """How containers are reached, and the engine's disk, memory and limits, for the services that it may have to give.

    A finding that the engine does not let us make is a note that says so.
    """
    try:
        yield await _reach(engine)
        info = await engine.info()
        yield await _disk(engine, info)
    except EngineError as error:
        yield _found("engine", "note", f"the engine refuses to tell of itself: {error}")
        return
    yield _memory(info, services)
    for finding in _limits(info, services):
        yield finding


def _found(subject: str, verdict: Verdict, text: str, mend: str = "") -> Finding:
    return Finding("engine", subject, verdict, text, mend)


async def _reach(engine: Engine) -> Finding:
    location = engine.location
    if not location.is_local:
        text = (
            f"on another machine: ports are published on all of its addresses and reached at {location.host}; "
            f"a firewall there must let this machine in"
        )
        return _found("ports", "ok", text)
    if await is_within_reach(engine, location.url, base_path()):
        text = "PostgreSQL and Redis by unix sockets, others by ports published on 127.0.0.1"
    else:
        text = "published on 127.0.0.1 (the engine is in a virtual machine, a container or a user's namespace)"
    return _found("ports", "ok", text)


async def _disk(engine: Engine, info: Mapping[str, Any]) -> Finding:
    folder = Path(str(info.get("DockerRootDir", "")))
    if await is_on_this_machine(engine, engine.location.url):
        try:
            text, missing = room(folder)
        except OSError:  # it may be where we may not look
            pass
        else:
            mend = f"docker system prune, or free some otherwise: {missing}"
            return _found("disk", "fault" if missing else "ok", text, mend if missing else "")
    used = await engine.disk_use()
    text = f"images take {size(used)} in {folder}; how much is free there the engine does not tell"
    return _found("disk", "ok", text)


def _memory(info: Mapping[str, Any], services: Mapping[str, ServiceSettings]) -> Finding:
    has = int(info.get("MemTotal") or 0)
    asked = {name: service.container.memory or 0 for name, service in services.items()}
    text = f"{size(has)} for containers"
    if has and sum(asked.values()) > has:
        limits = ", ".join(f"{name} {size(memory)}" for name, memory in sorted(asked.items()) if memory)
        return _found("memory", "note", f"{text}, and the services may use more: {limits}", "lower their `memory`")
    if has and has < _MEMORY:
        mend = "give the engine's machine more (Docker Desktop: Settings, Resources)"
        return _found("memory", "note", f"{text}: servers keep their data there, and may be killed", mend)
    return _found("memory", "ok", text if has else "as much as there is")


def _limits(info: Mapping[str, Any], services: Mapping[str, ServiceSettings]) -> Iterator[Finding]:
    """What is in the way of the options of containers, and of ports."""
    processors = int(info.get("NCPU") or 0)
    for name, service in sorted(services.items()):
        options = service.container
        if processors and options.cpus and options.cpus > processors:
            text = f"{name} is to have cpus = {options.cpus:g}, and the engine's machine has {processors}: it refuses"
            yield _found("limits", "fault", text, f"cpus = {processors}, or less")
        for option, word in _LIMITS.items():
            if getattr(options, option) and info.get(word) is False:
                text = f"{name} is to have `{option}`, and the engine can't limit that here: it is ignored"
                yield _found("limits", "note", text, "mount that control group for the engine")
    if info.get("IPv4Forwarding") is False:
        text = "the engine's machine forwards nothing, so published ports and other containers are not reached"
        yield _found("ports", "fault", text, "sysctl -w net.ipv4.ip_forward=1 there")
