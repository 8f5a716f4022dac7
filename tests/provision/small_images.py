"""A Redis server and nothing else, as an image of a few megabytes: with a shell, or without."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

from asynctest_kit.provision.catalog.redis import REDIS
from asynctest_kit.provision.providers.embedded import Search


def root_of_redis(*, shell: bool):
    """The image's file system as a tar archive."""
    programs = {"usr/local/bin/redis-server": Search().server(REDIS.embedded)}
    if shell:
        programs["bin/sh"] = Path(shutil.which("sh")).resolve()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, program in programs.items():
            tar.add(program, name)
        for library in sorted({library for program in programs.values() for library in _libraries(program)}):
            tar.add(Path(library).resolve(), library.lstrip("/"))
    return archive.getvalue()


@asynccontextmanager
async def imported(engine, archive):
    """The archive as an image of the engine, for the block."""
    repository, tag = "asynctest-kit/small", token_hex(6)
    params = {"fromSrc": "-", "repo": repository, "tag": tag}
    async with engine._query("POST", "images/create", params=params, archive=io.BytesIO(archive)):
        pass
    try:
        yield f"{repository}:{tag}"
    finally:
        await engine.remove_image(f"{repository}:{tag}")


def _libraries(program):
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)
