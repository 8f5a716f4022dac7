"""The kit's own tests of migrations; the rows that must survive are in ``round_trip``."""

from __future__ import annotations

import pytest
from asynctest_kit.migrations import test_data_survives_later_revisions, test_downgrade_leaves_no_trace

__all__ = ["test_data_survives_later_revisions", "test_downgrade_leaves_no_trace"]

pytestmark = pytest.mark.slow
