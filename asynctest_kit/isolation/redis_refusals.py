"""What helps whoever is refused something by a leased database's server, short of a server of its own."""

from __future__ import annotations

import re

from asynctest_kit.isolation.redis_client import HINT

__all__ = ["mend", "way_out"]

_PREFIX = "must begin with what the fixture redis_prefix gives"

#: By what was refused: the command's name, or the reason that the server's log has.
_MENDS = {
    "FLUSHALL": "FLUSHDB empties the test's own database",
    "channel": f"channels {_PREFIX}",
    "key": f"keys {_PREFIX}",
}

#: As servers word it; Valkey gives the user's name, too.
_COMMAND = re.compile(r"permissions to run the '(\w+)")
_OTHERS = re.compile(r"\b(channel|key)s?\b", re.IGNORECASE)


def mend(reason: str, what: str) -> str:
    """With what to go on after a refusal in the server's log: ``: `` and the mend; empty if there is none."""
    found = _MENDS.get(what.upper() if reason == "command" else reason)
    return f": {found}" if found else ""


def way_out(message: str) -> str:
    """What to tell whoever met an error of the server's, from its message: the mend, and the rung that has it all."""
    command = _COMMAND.search(message)
    other = _OTHERS.search(message)
    found = mend("command", command[1]) if command else mend(other[1].lower(), "") if other else ""
    text = found.removeprefix(": ")
    return f"{text[:1].upper()}{text[1:]}. {HINT}" if text else HINT
