"""Tests of your app against its OpenAPI document: import them into a test file, and they run with the others.

    from asynctest_kit.openapi import *

Each operation is one test, which sends it the cases that schemathesis makes, several at once: so a test has a database
of its own, and not a transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asynctest_kit.fixtures.session import told_plainly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["test_operation"]


@pytest.mark.atk(timeout=600, isolation="database")
@pytest.mark.anyio
async def test_operation(openapi_cases: Callable[[str | None], Awaitable[None]], openapi_operation: str | None) -> None:
    """What the operation answers is as documented, whatever is sent."""
    with told_plainly():
        await openapi_cases(openapi_operation)
