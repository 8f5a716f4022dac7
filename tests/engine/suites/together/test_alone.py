"""Tests that change process-global state: each must run with no other beside it."""

import asyncio
import os
import sys
import unittest.mock
from unittest import mock
from unittest.mock import patch

import pytest
from trail import used

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")


@pytest.fixture
def clean_environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


async def test_monkeypatch(monkeypatch):
    with used("alone-monkeypatch"):
        monkeypatch.setattr(sys, "argv", ["x"])
        await asyncio.sleep(0.01)
        assert sys.argv == ["x"]


async def test_monkeypatch_below(home):
    with used("alone-below"):
        await asyncio.sleep(0.01)
        assert os.path.expanduser("~") == "/nowhere"  # noqa: ASYNC240, PTH111


async def test_capsys(capsys):
    with used("alone-capsys"):
        print("one")
        await asyncio.sleep(0.01)
        print("two", file=sys.stderr)
        assert tuple(capsys.readouterr()) == ("one\n", "two\n")
        print("rest")


async def test_capfd(capfd):
    with used("alone-capfd"):
        os.write(1, b"raw\n")
        await asyncio.sleep(0.01)
        assert capfd.readouterr().out == "raw\n"


async def test_environment():
    with used("alone-environment"):
        os.environ["SUITE_MARK"] = "1"
        await asyncio.sleep(0.01)
        del os.environ["SUITE_MARK"]


async def test_environment_by_fixture(clean_environment):
    with used("alone-clean"):
        await asyncio.sleep(0.01)


async def test_patch_function():
    with used("alone-patch"), patch("os.getcwd", return_value="/patched"):
        await asyncio.sleep(0.01)
        assert os.getcwd() == "/patched"  # noqa: PTH109


async def test_patch_module():
    with used("alone-mock"), mock.patch.object(os, "getcwd", return_value="/mocked"):
        await asyncio.sleep(0.01)


async def test_patch_long_name():
    with used("alone-unittest"), unittest.mock.patch.dict(os.environ, {"A": "B"}):
        await asyncio.sleep(0.01)


@patch("os.getcwd")
async def test_patch_decorator(getcwd):
    with used("alone-decorator"):
        await asyncio.sleep(0.01)
        assert os.getcwd() is getcwd.return_value  # noqa: PTH109


class TestMethods:
    @mock.patch.object(os, "getcwd")
    async def test_patch_method(self, getcwd):
        with used("alone-method"):
            await asyncio.sleep(0.01)

    async def test_chdir(self, tmp_path, monkeypatch):
        with used("alone-chdir"):
            monkeypatch.chdir(tmp_path)
            await asyncio.sleep(0.01)


@pytest.mark.atk(exclusive=True)
async def test_marked():
    with used("alone-marked"):
        await asyncio.sleep(0.01)


def test_sync():
    with used("alone-sync"):
        pass


def test_sync_with_server(server):
    with used("alone-sync-server", server):
        pass
