"""How a wrong setting is told: what was given, what is allowed, and what was probably meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["listing", "shown", "suggestion"]


def shown(value: object) -> str:
    """A value as it may stand in the settings."""
    return json.dumps(value, default=str, ensure_ascii=False)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """What is allowed, and what of it was probably meant, as sentences."""
    from difflib import get_close_matches

    known = sorted(allowed)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return (f" Did you mean {close[0]}?" if close else "") + f" Allowed: {listing(known)}."


def listing(names: Iterable[str]) -> str:
    """The names in order, for a sentence."""
    return ", ".join(sorted(names))
