"""A thread of its own for each test's thread-sensitive code under asgiref.

asgiref (Django, Channels) runs all such code of a process in one thread, one call after the other: a test whose call
blocks would hold up everyone's. asgiref has a context for this, which its server gives to each request; a test beside
others gets one too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["open_own_thread"]


def open_own_thread() -> Callable[[], None] | None:
    """Give the present context its own thread, when asgiref is in use; what is returned lets it go."""
    sync: Any = sys.modules.get("asgiref.sync")
    if sync is None or not hasattr(sync, "ThreadSensitiveContext"):
        return None
    context = sync.ThreadSensitiveContext()
    sync.SyncToAsync.thread_sensitive_context.set(context)

    def close() -> None:
        executor = sync.SyncToAsync.context_to_thread_executor.pop(context, None)
        if executor is not None:
            executor.shutdown(wait=False)

    return close
