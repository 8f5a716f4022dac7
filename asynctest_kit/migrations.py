"""Tests of your migrations: import them into a test file, and they run with the others.

    from asynctest_kit.migrations import *

Each is run for every service that has migrations, on an empty database of its own on the real server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Check = Callable[[str, str | None], Awaitable[None]]

__all__ = [
    "test_data_survives_later_revisions",
    "test_downgrade_leaves_no_trace",
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]

#: A long history is walked three times, and checks wait for each other.
_of_a_history = pytest.mark.atk(timeout=600)


@_of_a_history
@pytest.mark.anyio
async def test_single_head_revision(migration_check: Check, migrated_service: str | None) -> None:
    """The history has one end, and one order."""
    await migration_check("single head", migrated_service)


@_of_a_history
@pytest.mark.anyio
async def test_upgrade(migration_check: Check, migrated_service: str | None) -> None:
    """An empty database can be brought up to date, and its seeds loaded."""
    await migration_check("upgrade", migrated_service)


@_of_a_history
@pytest.mark.anyio
async def test_up_down_consistency(migration_check: Check, migrated_service: str | None) -> None:
    """Each revision, undone, leaves the schema as it was before, and made again, as it was after."""
    await migration_check("up and down", migrated_service)


@_of_a_history
@pytest.mark.anyio
async def test_downgrade_leaves_no_trace(migration_check: Check, migrated_service: str | None) -> None:
    """Undoing everything leaves nothing behind."""
    await migration_check("base is empty", migrated_service)


@_of_a_history
@pytest.mark.anyio
async def test_model_definitions_match_ddl(migration_check: Check, migrated_service: str | None) -> None:
    """The models of alembic's env.py are what the migrations make."""
    await migration_check("models match", migrated_service)


@_of_a_history
@pytest.mark.anyio
async def test_data_survives_later_revisions(migration_check: Check, migrated_service: str | None) -> None:
    """Rows of ``migration_data``, or of the settings' ``round-trip``, outlive each later revision, made and undone."""
    await migration_check("data survives", migrated_service)
