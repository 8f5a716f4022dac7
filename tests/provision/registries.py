"""A real image registry of a test's own, and images small enough to be pulled in a moment."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tarfile
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

USER, PASSWORD = "tester", "secret"
_HASH = "$2b$04$EdsEvf5aeIjS0P1qmiRmQONwzq0TRnz6fL.WKcjJQcMu9slasVCK6"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def program():
    """The registry's program, as ``.ci/testbed.py`` provides it."""
    usual = Path(tempfile.gettempdir()) / f"asynctest_kit-testbed-{os.getuid()}/registry/usr/bin/docker-registry"
    found = os.environ.get("TESTBED_REGISTRY") or shutil.which("docker-registry") or (usual if usual.exists() else None)
    if found is None:
        pytest.skip("no docker-registry: `python3 .ci/testbed.py` fetches it")
    return str(found)


@asynccontextmanager
async def registry(folder, *, users=False):
    """A registry on loopback, where the engine speaks plain HTTP to it; its ``host:port``."""
    access = {"auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}} if users else {}
    (folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
    config = {"version": 0.1, "storage": {"inmemory": {}}, "http": {"addr": "127.0.0.1:0", "secret": "any"}} | access
    (folder / "registry.yml").write_text(json.dumps(config))  # YAML's subset
    process = await asyncio.create_subprocess_exec(
        program(), "serve", str(folder / "registry.yml"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    log = asyncio.create_task(_port(process.stderr))
    try:
        yield await asyncio.wait_for(log, 20)
    finally:
        process.kill()
        await process.communicate()


async def _port(stderr):
    while line := (await stderr.readline()).decode():
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
            return found[1]
    raise AssertionError("the registry ended")


async def publish(host, name, *, size=64, architecture=None):
    """Put an image there with one layer of about ``size`` bytes, which no other one has; its full name."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        content = Random(name).randbytes(size)
        member = tarfile.TarInfo("content")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    packed = gzip.compress(layer.getvalue(), compresslevel=1, mtime=0)
    config = json.dumps(
        {
            "architecture": architecture or _MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
    ).encode()
    repository, _, tag = name.rpartition(":")
    async with httpx.AsyncClient(base_url=f"http://{host}", auth=(USER, PASSWORD)) as client:
        for blob in (packed, config):
            begun = await client.post(f"/v2/{repository}/blobs/uploads/")
            location = httpx.URL(begun.raise_for_status().headers["Location"]).copy_merge_params(
                {"digest": _digest(blob)}
            )
            (await client.put(location, content=blob)).raise_for_status()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _described("application/vnd.docker.container.image.v1+json", config),
            "layers": [_described("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
        }
        answer = await client.put(
            f"/v2/{repository}/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": _MANIFEST}
        )
        answer.raise_for_status()
    return f"{host}/{name}"


@asynccontextmanager
async def silent_registry():
    """One that takes connections and never says a word; its ``host:port``."""
    gone = asyncio.Event()

    async def keep(_reader, writer):
        try:
            await gone.wait()
        finally:
            writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gone.set()


def _digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _described(kind, data):
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}
