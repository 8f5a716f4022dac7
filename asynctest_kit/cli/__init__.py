"""The command line: one module for each command, imported when it is called."""

from __future__ import annotations

import os
import sys

__all__ = ["main", "run_command"]

_STREAMS = ("stdin", "stdout", "stderr")


def main() -> None:
    """Entry point of the console script ``atk``."""
    _open_streams()
    if sys.argv[1:2] == ["run"]:
        from asynctest_kit.cli.warm.handover import hand_over

        hand_over()
    run_command()


def run_command() -> None:
    """Do what the arguments say, in this process."""
    from asynctest_kit.cli.commands import USAGE_ERROR, UsageError, atk

    UsageError.exit_code = USAGE_ERROR
    atk()


def _open_streams() -> None:
    """Have a closed standard stream be ``/dev/null``, before a pipe or a socket gets its number."""
    if None not in {sys.__stdin__, sys.__stdout__, sys.__stderr__}:
        return
    while (number := os.open(os.devnull, os.O_RDWR)) < len(_STREAMS):
        os.set_inheritable(number, True)
        mode = "w" if number else "r"
        stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, _STREAMS[number], stream)
        setattr(sys, f"__{_STREAMS[number]}__", stream)
    os.close(number)
