"""Passwords don't leave the process by a report, wherever in its text they stand."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["without_passwords"]

#: ``scheme://user:password@host``. The password may hold an ``@`` that should have been quoted, and ends at the last.
_IN_URL: Final = re.compile(r'(://[^:@/\s"\\]*:)[^/\s"\\]+@')

#: ``password=...`` of a connection string, of a query and of a keyword argument.
_IN_KEYWORD: Final = re.compile(r"(password|passwd|pwd)=(?!\*\*\*)('[^'\"\\]*'|[^\s'\"\\&;,)]+)", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Star out the passwords in ``text``, which may be JSON and stays it."""
    return _IN_KEYWORD.sub(r"\1=***", _IN_URL.sub(r"\1***@", text))
