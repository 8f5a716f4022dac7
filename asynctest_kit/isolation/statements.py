"""What the statements of a query text begin with: enough SQL to see a BEGIN, a COMMIT or a CREATE coming.

Strings, quoted names, dollar-quoted bodies and comments are skipped, so a function body's ``BEGIN ... END`` is none.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["BEGINS", "COMMITS", "ROLLBACKS", "Head", "heads"]

#: The first words of one statement, in upper case; at most three.
Head = tuple[str, ...]

BEGINS = frozenset({"BEGIN", "START"})
COMMITS = frozenset({"COMMIT", "END"})
ROLLBACKS = frozenset({"ROLLBACK", "ABORT"})

_SKIPPED = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$((?:[A-Za-z_]\w*)?)\$.*?\$\1\$
    | --[^\n]*
    | /\*.*?\*/
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_ATOMIC_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b.*?\bEND\b\s*(?=;|$)", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=4096)
def heads(query: str) -> tuple[Head, ...]:
    """Return the head of each statement in ``query``; empty statements are left out."""
    skeleton = _ATOMIC_BODY.sub(" ", _SKIPPED.sub(" ' ", query))
    found = (tuple(word.upper() for word in _WORD.findall(part)[:3]) for part in skeleton.split(";"))
    return tuple(head for head in found if head)
