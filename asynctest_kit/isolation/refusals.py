"""What a test's one transaction can't give: why not, and which rung of the ladder gives it.

A statement is refused before it runs if it would break the isolation, or seem to work and do nothing. What PostgreSQL
itself refuses inside a transaction is explained, where code under test believes that it is outside of one. What works,
but is seen by nobody, is remarked on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import asyncpg

from asynctest_kit.isolation.statements import BEGINS, COMMITS, ROLLBACKS, heads, is_savepoint, without_texts

if TYPE_CHECKING:
    from asynctest_kit.isolation.statements import Head

__all__ = ["LISTENING", "NEEDS_NO_TRANSACTION", "OWN_DATABASE", "explained", "refusal", "remark", "shown"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

#: What to do when one transaction can't give what a test needs.
OWN_DATABASE = (
    'Give this test a database of its own: @pytest.mark.atk(isolation="database"), or the fixture pg_database.'
)
#: What to do when one database can't.
OWN_SERVER = 'Give this test a server of its own: @pytest.mark.atk(isolation="server").'

LISTENING = (
    "LISTEN would wait for ever: a notification is sent on COMMIT, and a test's transaction never commits. "
    f"{OWN_DATABASE}"
)

_NOTIFYING = (
    "A notification went nowhere: it is sent on COMMIT, and a test's transaction never commits. Does this test, or "
    f"something that it runs, wait for it? {OWN_DATABASE}"
)

#: What the server raises for what can't be done in a transaction, and works outside of one.
NEEDS_NO_TRANSACTION = (
    asyncpg.ActiveSQLTransactionError,
    asyncpg.InvalidTransactionTerminationError,
    asyncpg.UnsafeNewEnumValueUsageError,
)

#: What makes or changes what is the server's, and not one database's.
_OF_THE_SERVER = frozenset(product(("ALTER", "CREATE", "DROP"), ("DATABASE", "SUBSCRIPTION", "SYSTEM", "TABLESPACE")))

_READ_ONLY = re.compile(
    r"\bREAD\s+ONLY\b|\bdefault_transaction_read_only\s*(=|\bTO\b)\s*(?!\W*(off|false|no|0|default)\b)", re.IGNORECASE
)
_NOTIFIES = re.compile(r"\bpg_notify\s*\(", re.IGNORECASE)


def explained(query: str, error: asyncpg.PostgresError) -> str:
    """Why the server refused what works outside a transaction, and what to do; empty for what works nowhere."""
    found = heads(query)
    if len(found) != 1 or found[0][0] == "SET":
        return ""

    if isinstance(error, asyncpg.InvalidTransactionTerminationError):
        why = "It commits or rolls back by itself, and the test's own transaction is around it"
    elif isinstance(error, asyncpg.UnsafeNewEnumValueUsageError):
        why = "A new value of an enum can be used after COMMIT only, and a test's transaction never commits"
    else:
        why = "It can't run inside a transaction, and all statements of this test run in one"
    return f"{why}: {shown(query)} {OWN_SERVER if found[0][:2] in _OF_THE_SERVER else OWN_DATABASE}"


@lru_cache(maxsize=4096)
def remark(query: str) -> str:
    """What is to be known of a statement that works, if its test fails; empty for nearly all."""
    notifies = any(head[0] == "NOTIFY" for head in heads(query)) or _NOTIFIES.search(without_texts(query))
    return _NOTIFYING if notifies else ""


def shown(query: str) -> str:
    """A statement as messages show it: in one line, and not all of a long one."""
    text = " ".join(query.split())
    return f"{text[:117]}..." if len(text) > 120 else f"{text}."  # noqa: PLR2004  # a line


@lru_cache(maxsize=4096)
def refusal(query: str) -> str:
    """Why a statement is refused that would break the isolation, or silently do nothing, and what to do; or empty."""
    return next(filter(None, (_refusal_of(head, query) for head in heads(query))), "")


def _refusal_of(head: Head, query: str) -> str:
    first, second = head[0], head[1] if len(head) > 1 else ""
    if first == "LISTEN":
        return LISTENING

    if "PREPARED" in head[:2] or (first, second) == ("PREPARE", "TRANSACTION"):
        return f"Two-phase commit would outlive the test: {shown(query)} {OWN_DATABASE}"

    if first in BEGINS | COMMITS or (first in ROLLBACKS and not is_savepoint(head)):
        return (
            f"A transaction is begun or ended in the middle of a text: {shown(query)} "
            "The test's own transaction is around it. Execute BEGIN, COMMIT and ROLLBACK as statements of "
            f"their own, or use connection.transaction(). Otherwise: {OWN_DATABASE}"
        )

    if first == "SET" and second not in {"LOCAL", "TRANSACTION"} and _READ_ONLY.search(query):
        return (
            f"Later transactions can't be made read-only, for all of a test's are parts of one: {shown(query)} "
            f"{OWN_DATABASE}"
        )

    return ""
