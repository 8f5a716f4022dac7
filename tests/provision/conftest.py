"""Real engines and servers for the tests of provisioning."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from secrets import token_hex

import pytest
from provision_traces import BUSYBOX, HEALTHCHECK, IMAGES

from asynctest_kit.provision.client import Client
from asynctest_kit.provision.providers import Refusal
from asynctest_kit.provision.providers.engine import open_engine


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def engine():
    """The machine's Docker engine, with the images that the tests need."""
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(open_engine(os.environ))
        except Refusal as reason:
            pytest.skip(f"no Docker: {reason}")
        missing = [image for image in (*IMAGES.values(), BUSYBOX, HEALTHCHECK) if not await engine.has_image(image)]
        if missing:
            pytest.skip(f"no Docker image {', '.join(missing)}")
        yield engine


@pytest.fixture
def root(tmp_path):
    """A project of this test's own."""
    project = tmp_path / token_hex(4)
    project.mkdir()
    return project


@pytest.fixture
def client(root):
    client = Client.connect(root)
    yield client
    client.close()
