"""A connection that serves two kinds of users with codecs of their own: ``pg``, and SQLAlchemy's dialect.

The problem. asyncpg's codecs belong to the connection, and a test's ``pg`` and its SQLAlchemy engine share one: JSON is
text for the first, unless the application's ``init`` says otherwise, and Python objects for the second.

The mechanism. Before a borrower's operation the connection *wears* that borrower's codecs, which costs no round trip,
and nothing if the one before wore the same. A statement takes its codecs when it is prepared, and what asyncpg caches
is kept apart by the class of its records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OF_CONNECTION", "Codec", "Codecs", "HeldConnection"]

#: The types that a borrower may have codecs of its own for, and the OIDs that PostgreSQL has given them for good.
_OIDS = {"json": 114, "jsonb": 3802, "cidr": 650, "inet": 869}

_SCHEMA = "pg_catalog"


@dataclass(frozen=True, slots=True)
class Codec:
    """See :meth:`asyncpg.Connection.set_type_codec`."""

    encoder: Callable[[Any], Any]
    decoder: Callable[[Any], Any]
    format: str = "text"


class Codecs:
    """The codecs of one kind of borrowers, by the names of types."""

    def __init__(self) -> None:
        self.by_type: dict[str, Codec] = {}
        self.record_class: type[Any] = type("Record", (asyncpg.Record,), {})

    def add(self, name: str, codec: Codec, schema: str) -> bool:
        """Add one, unless there is one; whether it can be had here."""
        if name not in _OIDS or schema != _SCHEMA:
            return False

        self.by_type.setdefault(name, codec)
        return True


#: For those who have none of their own.
OF_CONNECTION = Codecs()


class HeldConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is untyped
    """A connection whose own codecs are those that its ``set_type_codec`` is called with.

    Attributes:
        worn: Whose codecs it uses now.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._own: dict[str, Codec] = {}
        self._changed: set[str] = set()
        self.worn = OF_CONNECTION
        self._shared = False

    def share(self) -> None:
        """From now on tests use it; a codec that one of them sets is for whoever uses the connection in that test."""
        self._shared = True

    async def set_type_codec(
        self,
        typename: str,
        *,
        schema: str = "public",
        encoder: Callable[[Any], Any],
        decoder: Callable[[Any], Any],
        format: str = "text",  # noqa: A002
    ) -> None:
        """See :meth:`asyncpg.Connection.set_type_codec`."""
        await super().set_type_codec(typename, schema=schema, encoder=encoder, decoder=decoder, format=format)
        if typename in _OIDS and schema == _SCHEMA:
            self._own[typename] = Codec(encoder, decoder, format)
            if self._shared:
                self._changed.add(typename)

    async def reset_type_codec(self, typename: str, *, schema: str = "public") -> None:
        """See :meth:`asyncpg.Connection.reset_type_codec`."""
        await super().reset_type_codec(typename, schema=schema)
        self._own.pop(typename, None)
        self._changed.add(typename)

    def wear(self, codecs: Codecs) -> None:
        """Encode and decode by ``codecs`` from now on, and by the connection's own what they leave out."""
        if codecs is self.worn:
            return

        settings = self._protocol.get_settings()
        for name in (self.worn.by_type.keys() | codecs.by_type.keys()) - self._changed:
            codec = codecs.by_type.get(name) or self._own.get(name)
            if codec is None:
                settings.remove_python_codec(_OIDS[name], name, _SCHEMA)
            else:
                settings.add_python_codec(
                    _OIDS[name], name, _SCHEMA, [], "scalar", codec.encoder, codec.decoder, codec.format
                )
        self.worn = codecs

    async def _get_statement(
        self,
        query: str,
        timeout: float | None,  # noqa: ASYNC109  # asyncpg's
        *,
        record_class: type[Any] | None = None,
        **options: Any,
    ) -> Any:
        if record_class is None and self.worn is not OF_CONNECTION:
            record_class = self.worn.record_class
        statement = await super()._get_statement(query, timeout, record_class=record_class, **options)
        statement._init_codecs()  # noqa: SLF001  # else it would take those that are worn when it is first executed
        return statement
