"""The command line: one module for each command, imported when it is called."""

from __future__ import annotations

import sys

__all__ = ["main", "run_command"]


def main() -> None:
    """Entry point of the console script ``atk``."""
    if sys.argv[1:2] == ["run"]:
        from asynctest_kit.cli.warm.handover import hand_over

        hand_over()
    run_command()


def run_command() -> None:
    """Do what the arguments say, in this process."""
    from asynctest_kit.cli.commands import USAGE_ERROR, UsageError, atk

    UsageError.exit_code = USAGE_ERROR
    atk()
