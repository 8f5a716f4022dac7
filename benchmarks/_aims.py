"""What a benchmark's figures should be: told in a line each, and with ``--check`` by the exit code."""

from __future__ import annotations

import argparse

__all__ = ["Aims", "parser"]

#: Of a run with ``--check`` that misses an aim.
_MISSED = 1


def parser(description: str | None) -> argparse.ArgumentParser:
    """A benchmark's options: ``--check``, and what is added."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument(
        "--check", action="store_true", help="end with 1 if an aim is missed, or none was measured; at the usual sizes"
    )
    return made


class Aims:
    """Those of one run."""

    def __init__(self) -> None:
        self._held: list[bool] = []

    def tell(self, text: str, reached: float, limit: float, *, is_least: bool = False) -> None:
        """Print what was reached, as ``text`` has it, and whether that holds."""
        holds = reached >= limit if is_least else reached <= limit
        self._held.append(holds)
        bound = "at least" if is_least else "at most"
        print(f"{text} (aim: {bound} {limit:.3g}) {'holds' if holds else 'MISSED'}")

    def end(self, options: argparse.Namespace) -> None:
        """Exit with 1 if the run was to check its aims, and one was missed or there was none."""
        if options.check and not (self._held and all(self._held)):
            raise SystemExit(_MISSED)
