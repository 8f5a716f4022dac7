"""How times and shares are written wherever a person reads them."""

from __future__ import annotations

__all__ = ["duration", "percent", "several"]


def duration(seconds: float) -> str:
    """Write ``seconds`` with about three digits: ``45 ms``, ``2.31 s``, ``12.3 s``, ``2 min 05 s``."""
    if seconds < 0.0995:  # noqa: PLR2004  # what rounds to 0.10 s is written in seconds
        return f"{seconds * 1000:.0f} ms"

    if seconds < 9.995:  # noqa: PLR2004
        return f"{seconds:.2f} s"

    if seconds < 99.95:  # noqa: PLR2004
        return f"{seconds:.1f} s"

    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def percent(share: float) -> str:
    """Write a share of 1: ``8 %``, ``< 1 %``."""
    return "< 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"  # noqa: PLR2004  # what rounds to 0


def several(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 test``, ``500 tests``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
