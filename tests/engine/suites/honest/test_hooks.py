"""Hooks around a phase see it whole."""

import asyncio

import pytest

pytestmark = pytest.mark.anyio


async def test_leaves_statements(statements):
    await asyncio.sleep(0)
    statements.append("bad")


def test_sync_leaves_statements(statements):
    statements.append("bad")


async def test_refused_after_its_call():
    await asyncio.sleep(0)


async def test_forgiven_by_a_hook():
    raise AssertionError("a hook forgives this")


async def test_prepared_by_a_hook(request):
    assert request.node.prepared
