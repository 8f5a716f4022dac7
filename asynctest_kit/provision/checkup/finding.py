"""What one check found, and how sizes are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["GIB", "Finding", "Part", "Verdict", "size"]

Verdict = Literal["ok", "note", "fault"]

#: What is looked at, in this order.
Part = Literal["engine", "services", "machine"]

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        part: What it belongs to.
        subject: What was looked at.
        verdict: ``ok``; ``note``: it can't be had, or costs time, which matters only if nothing else can; ``fault``:
            tests will fail.
        text: What is so.
        mend: What to do about it; empty where there is nothing to do.
        is_choice: Whether it is the provider that a run would take.
    """

    part: Part
    subject: str
    verdict: Verdict
    text: str
    mend: str = ""
    is_choice: bool = False


def size(size: int) -> str:
    """``size`` bytes, for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB // 10 else f"{size >> 20} MiB"
