"""What the statements of a query text begin with: enough SQL to see a BEGIN, a COMMIT or a CREATE coming.

Strings, quoted names, dollar-quoted bodies and comments are skipped, so a function body's ``BEGIN ... END`` is none.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["BEGINS", "COMMITS", "ROLLBACKS", "Head", "heads", "only_reads"]

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
_CALL = re.compile(r"([\w.]+)\s*\(")
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|INTO|CALL)\b", re.IGNORECASE)
#: What may stand before a parenthesis in a query that writes nothing.
_HARMLESS = frozenset({
    "all", "and", "any", "array", "array_agg", "as", "avg", "between", "bool_and", "bool_or", "by", "cast",
    "coalesce", "count", "date_trunc", "exists", "extract", "from", "greatest", "having", "in", "int", "join",
    "json_agg", "jsonb_agg", "lateral", "least", "length", "like", "lower", "max", "min", "not", "now", "nullif",
    "numeric", "on", "or", "over", "round", "row", "row_number", "select", "string_agg", "sum", "then", "trim",
    "unnest", "upper", "using", "values", "varchar", "when", "where",
})  # fmt: skip
_ATOMIC_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b.*?\bEND\b\s*(?=;|$)", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=4096)
def heads(query: str) -> tuple[Head, ...]:
    """Return the head of each statement in ``query``; empty statements are left out."""
    skeleton = _ATOMIC_BODY.sub(" ", _SKIPPED.sub(" ' ", query))
    found = (tuple(word.upper() for word in _WORD.findall(part)[:3]) for part in skeleton.split(";"))
    return tuple(head for head in found if head)


@lru_cache(maxsize=4096)
def only_reads(query: str) -> bool:
    """Whether ``query`` is one SELECT that calls nothing but well-known functions; False when in doubt.

    A lock that it takes (FOR UPDATE) is no write: outside a transaction it ends with the statement.
    """
    found = heads(query)
    if len(found) != 1 or found[0][0] not in {"SELECT", "WITH", "SHOW", "VALUES"}:
        return False

    skeleton = re.sub(r"\bFOR\s+(NO\s+KEY\s+)?UPDATE\b", " ", _SKIPPED.sub(" ' ", query), flags=re.IGNORECASE)
    called = {name.lower() for name in _CALL.findall(skeleton)}
    return called <= _HARMLESS and not _WRITES.search(skeleton) and '"' not in query
