"""What the statements of a query text begin with: enough SQL to see a BEGIN, a COMMIT or a CREATE coming.

Strings, quoted names, dollar-quoted bodies and comments are skipped, so a function body's ``BEGIN ... END`` is none.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = [
    "BEGINS",
    "COMMITS",
    "HARMLESS",
    "ROLLBACKS",
    "Head",
    "heads",
    "is_plain",
    "is_savepoint",
    "locks_rows",
    "makes_code",
    "only_reads",
    "sets_custom",
    "settings_of",
    "without_level",
    "without_texts",
]

#: The first words of one statement, in upper case; at most three.
Head = tuple[str, ...]

BEGINS = frozenset({"BEGIN", "START"})
COMMITS = frozenset({"COMMIT", "END"})
ROLLBACKS = frozenset({"ROLLBACK", "ABORT"})

_PLAIN = frozenset({"DELETE", "INSERT", "MERGE", "SELECT", "UPDATE", "VALUES", "WITH"})
_SKIPPED = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$((?:[A-Za-z_]\w*)?)\$.*?\$\1\$
    | --[^\n]*
    | /\*(?:(?!/\*|\*/).|/\*(?:(?!/\*|\*/).|/\*(?:(?!/\*|\*/).)*\*/)*\*/)*\*/  # comments nest, so far
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z_]\w*")
#: A quoted name before a parenthesis, or a string, is a call of who knows what.
_CALL = re.compile(r"([\w.]+|')\s*\(")
_LEVEL = re.compile(r"\bISOLATION\s+LEVEL\b", re.IGNORECASE)
_READ_ONLY = re.compile(r"\bREAD\s+ONLY\b", re.IGNORECASE)
_LOCKS = re.compile(r"\bFOR\s+((NO\s+KEY\s+)?UPDATE|(KEY\s+)?SHARE)\b", re.IGNORECASE)
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|INTO|CALL)\b", re.IGNORECASE)
#: What may stand before a parenthesis in a query that writes nothing.
HARMLESS = frozenset({
    "abs", "all", "and", "any", "array", "array_agg", "array_length", "as", "avg", "between", "bool_and", "bool_or",
    "by", "cast", "ceil", "char", "coalesce", "concat", "count", "date_part", "date_trunc", "decimal", "dense_rank",
    "distinct", "else", "except", "exists", "extract", "filter", "floor", "from", "gen_random_uuid", "generate_series",
    "greatest", "group", "having", "in", "int", "intersect", "join", "json_agg", "json_build_object", "jsonb_agg",
    "jsonb_build_object", "lag", "lateral", "lead", "least", "left", "length", "like", "lower", "materialized", "max",
    "min", "not", "now", "nullif", "numeric", "on", "or", "over", "rank", "replace", "right", "round", "row",
    "row_number", "row_to_json", "select", "some", "string_agg", "substring", "sum", "then", "timestamp", "to_char",
    "trim", "union", "unnest", "upper", "using", "values", "varchar", "when", "where",
})  # fmt: skip
#: ``SET app.tenant``, and set_config but for a string without a dot. Nobody asks for our own, ``atk.level``.
_SETS_CUSTOM = re.compile(
    r"""\bset\s+(?:(?:local|session)\s+)?(?!atk\.)"?\w+"?\s*\.|\bset_config\b(?!"?\s*\(\s*'\w+')""", re.IGNORECASE
)
#: What a session keeps of SET: the name, or the ' that stands for a quoted one.
_SETS = re.compile(
    r"""
    (?:^|;) \s* SET \s+ (?:SESSION\s+)?
    (?! (?:LOCAL|TRANSACTION|CONSTRAINTS|ROLE|SESSION|AUTHORIZATION|CHARACTERISTICS) \b )
    (TIME\s+ZONE\b | [\w.]+ | ')
    """,
    re.IGNORECASE | re.VERBOSE,
)
#: What it keeps of set_config, unless that is for the transaction: the name, if it is there as text.
_SETS_BY_CALL = re.compile(
    r"""\bset_config\s*\(\s*(?:'([\w.]+)'|[^,]*?)\s*,(?:'(?:[^']|'')*'|[^,'])*,(?!\s*(?:true\b|'t))""", re.IGNORECASE
)
_OTHER_NAMES = {"TIME ZONE": "timezone", "NAMES": "client_encoding", "SCHEMA": "search_path"}
_STORES = frozenset({"INDEX", "SEQUENCE", "TABLE"})
_SORTS_OF_STORES = frozenset({"TEMP", "TEMPORARY", "UNIQUE", "UNLOGGED"})
_ATOMIC_BODY = re.compile(r"\bBEGIN\s+ATOMIC\b.*?\bEND\b\s*(?=;|$)", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=4096)
def heads(query: str) -> tuple[Head, ...]:
    """Return the head of each statement in ``query``; empty statements are left out."""
    skeleton = _ATOMIC_BODY.sub(" ", without_texts(query))
    found = (tuple(word.upper() for word in _WORD.findall(part)[:3]) for part in skeleton.split(";"))
    return tuple(head for head in found if head)


@lru_cache(maxsize=4096)
def is_plain(query: str) -> bool:
    """Whether ``query`` only reads and writes rows: nothing of transactions, sessions, the schema or advisory locks."""
    found = heads(query)
    return bool(found) and all(head[0] in _PLAIN for head in found) and "advisory" not in query.lower()


@lru_cache(maxsize=4096)
def only_reads(query: str) -> bool:
    """Whether ``query`` is one SELECT that calls nothing but well-known functions; False when in doubt.

    What a view calls is not seen here, see :mod:`asynctest_kit.isolation.functions`.
    A lock that it takes (FOR UPDATE) is no write: outside a transaction it ends with the statement.
    """
    found = heads(query)
    if len(found) != 1 or found[0][0] not in {"SELECT", "WITH", "SHOW", "VALUES"}:
        return False

    skeleton = _LOCKS.sub(" ", without_texts(query))
    called = {name.lower() for name in _CALL.findall(skeleton)}
    return called <= HARMLESS and not _WRITES.search(skeleton)


@lru_cache(maxsize=4096)
def locks_rows(query: str) -> bool:
    """Whether ``query`` holds rows (FOR UPDATE, FOR SHARE) until its transaction ends."""
    return _LOCKS.search(without_texts(query)) is not None


@lru_cache(maxsize=4096)
def sets_custom(text: str) -> bool:
    """Whether a query, or a function's body, may set a custom setting (``app.tenant``); True when in doubt."""
    return _SETS_CUSTOM.search(text) is not None


@lru_cache(maxsize=4096)
def settings_of(query: str) -> frozenset[str]:
    """What a session keeps set when it has run ``query``, as RESET wants it: quoted names, ``ALL`` for hidden ones."""
    if "set" not in query.lower():
        return frozenset()
    skeleton = without_texts(query)
    names = {_OTHER_NAMES.get(" ".join(name.upper().split()), name) for name in _SETS.findall(skeleton)}
    if "set_config" in skeleton.lower():
        names.update(_SETS_BY_CALL.findall(query))
    return frozenset("ALL" if name in {"", "'"} else '"' + name.replace(".", '"."') + '"' for name in names)


def makes_code(head: Head) -> bool:
    """Whether a statement with this head may make a function, or what calls one unseen."""
    if head[0] in {"CREATE", "ALTER"}:
        return not next((word in _STORES for word in head[1:] if word not in _SORTS_OF_STORES), False)

    return head[0] in {"CALL", "DO"}


def without_level(query: str) -> str:
    """Return a SET TRANSACTION without its isolation level, and any other query as it is.

    PostgreSQL takes a level before a transaction's first query only, and a test's transaction has had that.
    """
    found = heads(query)
    if len(found) != 1 or found[0][:2] != ("SET", "TRANSACTION") or not _LEVEL.search(query):
        return query

    return "SET TRANSACTION READ ONLY" if _READ_ONLY.search(query) else "SET LOCAL atk.level TO DEFAULT"


def is_savepoint(head: Head) -> bool:
    """Whether a statement with this head is about a savepoint."""
    return head[0] in {"SAVEPOINT", "RELEASE"} or (head[0] in ROLLBACKS and "TO" in head)


def without_texts(query: str) -> str:
    """Return ``query`` with a ``'`` for each string, quoted name and comment."""
    return _SKIPPED.sub(" ' ", query)
