"""The command line: one module for each command, imported when it is called."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script ``atk``."""
    from asynctest_kit.cli.commands import USAGE_ERROR, UsageError, atk

    UsageError.exit_code = USAGE_ERROR
    atk()
