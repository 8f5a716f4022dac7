"""A test of your app's GraphQL schema: import it into a test file, and it runs with the others.

    from asynctest_kit.graphql import *

The schema is compared with the snapshot that ``[tool.asynctest_kit.graphql] schema`` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asynctest_kit.fixtures.session import told_plainly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["test_schema_breaks_no_client"]


@pytest.mark.anyio
async def test_schema_breaks_no_client(graphql_schema_check: Callable[[], Awaitable[None]]) -> None:
    """Whatever was right by the snapshot is right still."""
    with told_plainly():
        await graphql_schema_check()
