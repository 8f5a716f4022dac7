"""State of the process that a test reaches by an import of its own, an item, ``global`` or ``setattr``."""

import asyncio
import logging
import sys

import pytest
import settings_of_all
from settings_of_all import FLAGS

pytestmark = pytest.mark.anyio

_current = None


async def test_imports_inside():
    import settings_of_all as settings
    from settings_of_all import FLAGS as flags  # noqa: N811

    settings.DEBUG = True
    flags["new"] = True
    await asyncio.sleep(0.05)
    settings.DEBUG = False
    flags["new"] = False


async def test_sets_an_item():
    FLAGS["new"] = True
    await asyncio.sleep(0.05)
    FLAGS["new"] = False


async def test_sets_by_name():
    setattr(settings_of_all, "DEBUG", True)  # noqa: B010
    await asyncio.sleep(0.05)
    setattr(settings_of_all, "DEBUG", False)  # noqa: B010


async def test_sets_a_global():
    global _current  # noqa: PLW0603
    _current = "me"
    await asyncio.sleep(0.05)
    _current = None


async def test_extends_the_path():
    sys.path.insert(0, "nowhere")
    await asyncio.sleep(0.05)
    sys.path.remove("nowhere")


async def test_silences_a_logger():
    logging.getLogger("app").setLevel(logging.CRITICAL)
    await asyncio.sleep(0.05)
    logging.getLogger("app").setLevel(logging.NOTSET)


@pytest.mark.parametrize("number", range(5))
async def test_neighbour_sees_nothing(number, caplog):
    await asyncio.sleep(0.01 * number)
    assert not settings_of_all.DEBUG
    assert not FLAGS["new"]
    assert _current is None
    assert "nowhere" not in sys.path
    logging.getLogger("app").error("heard")
    assert caplog.messages == ["heard"]


async def test_needs_what_another_sets():
    await asyncio.sleep(0.02)
    assert settings_of_all.DEBUG
