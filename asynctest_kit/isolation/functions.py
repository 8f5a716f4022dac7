"""What a database's own functions do that statements don't tell, as far as the functions' sources tell.

The problem. A statement is judged by its text, and a text doesn't show what is called by a view, a policy, an operator,
a cast, a domain, a trigger or a default, nor what a function that it names calls.

So all functions are looked at, once per database. One that writes, or sets a custom setting, passes that on to all that
mention its name. Where such a function can be reached unseen, every statement is taken for one that calls it.
Functions in C, as those of most extensions, are taken for harmless.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynctest_kit.isolation.statements import HARMLESS, sets_custom

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["FUNCTIONS", "Effects", "effects_of"]

FUNCTIONS = r"""
    WITH callers AS (
        SELECT
            refobjid AS function,
            bool_or(
                classid IN (
                    'pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass
                )
                OR contypid <> 0
            ) AS read
        FROM pg_depend LEFT JOIN pg_constraint ON classid = 'pg_constraint'::regclass AND pg_constraint.oid = objid
        WHERE refclassid = 'pg_proc'::regclass AND classid <> 'pg_proc'::regclass
        GROUP BY refobjid
    )
    SELECT
        lower(proname) AS name,
        CASE
            WHEN lanname = 'sql' AND prosrc = ''
            THEN substring(pg_get_functiondef(pg_proc.oid) FROM '\n(?:BEGIN ATOMIC|RETURN ).*')
            ELSE prosrc
        END AS source,
        coalesce(array_to_string(proconfig, ' '), '') LIKE '%.%=%' AS sets,
        provolatile = 'v' AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_free_to_write,
        lanname IN ('sql', 'plpgsql') AS is_legible,
        function IS NOT NULL AS is_unseen,
        coalesce(read, false) AS is_unseen_in_reads
    FROM pg_proc
    JOIN pg_namespace ON pg_namespace.oid = pronamespace
    JOIN pg_language ON pg_language.oid = prolang
    LEFT JOIN callers ON function = pg_proc.oid
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND lanname NOT IN ('internal', 'c')
"""

_WORD = re.compile(r"\w+")
_WRITING = frozenset({
    "alter", "call", "copy", "create", "delete", "do", "drop", "execute", "insert", "merge", "refresh", "set_config",
    "truncate", "update",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Effects:
    """What functions do that statements don't tell.

    Attributes:
        reads_may_write: Whether a query may write that names no function of the database's own.
        all_set: Whether any statement may set a custom setting.
        setters: The names, in lower case, of the functions that may set one.
    """

    reads_may_write: bool = False
    all_set: bool = False
    setters: tuple[str, ...] = ()


def effects_of(functions: Iterable[Mapping[str, Any]]) -> Effects:
    """Judge a database's functions, the rows of :data:`FUNCTIONS`."""
    words: defaultdict[str, set[str]] = defaultdict(set)
    writers, setters, unseen, unseen_in_reads = set[str](), set[str](), set[str](), set[str]()
    for function in functions:
        name, source = function["name"], function["source"]
        mentioned = set(_WORD.findall(source.lower()))
        words[name] |= mentioned
        may_write = not function["is_legible"] or not _WRITING.isdisjoint(mentioned)
        for is_one, ones in (
            (function["is_free_to_write"] and may_write, writers),
            (function["sets"] or sets_custom(source), setters),
            (function["is_unseen"], unseen),
            (function["is_unseen_in_reads"], unseen_in_reads),
        ):
            if is_one:
                ones.add(name)
    writers, setters = _with_callers(writers, words), _with_callers(setters, words)
    return Effects(
        reads_may_write=not writers.isdisjoint(unseen_in_reads | HARMLESS),
        all_set=not setters.isdisjoint(unseen),
        setters=tuple(sorted(setters)),
    )


def _with_callers(names: set[str], words: Mapping[str, set[str]]) -> set[str]:
    """Add whose source mentions one of the names, and whose mentions those."""
    found = set(names)
    while more := {name for name, mentioned in words.items() if name not in found and not found.isdisjoint(mentioned)}:
        found |= more
    return found
