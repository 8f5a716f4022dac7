"""When a run began is when its program began."""

from __future__ import annotations

import subprocess
import sys

import pytest

_TELLS = """
from asynctest_kit.run.clock import process_start, program_start
print(program_start() - process_start() > 1.4)
"""


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ('sleep 1.5; exec "$@"', "True"),
        ('exec "$@"', "False"),
    ],
    ids=["after-another-program", "alone"],
)
def test_what_a_shell_did_before_is_not_its_time(command, told):
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-c", _TELLS], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == told
