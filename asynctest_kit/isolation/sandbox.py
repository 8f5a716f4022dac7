"""One test's transaction, shared by everyone who works for that test; its statements, one at a time.

The problem. A test's work must vanish at its end, so it all happens in one transaction on one connection. But code
under test acquires connections from a pool, several at once, begins, commits, nests and fails, and expects that a
failed statement harms nothing but itself.

The invariants.

1. One *unit* runs at a time: a bare statement, or a borrower's explicit transaction. The *base* is the state before the
   unit: a savepoint, or the beginning of the transaction while nothing was kept yet. A unit that succeeds is ahead of
   the base; one that fails, is rolled back or is interrupted goes back to it.
2. The base is moved, or gone back to, before the next unit, never after the last: a failure and a cancellation need no
   work at all where they happen, so nothing can interrupt that work. Only an explicit rollback goes back at once, to
   free its locks.
3. Two savepoint names take turns. If moving the base is itself interrupted, going back to the new name succeeds when
   the server had moved it and fails loudly when it had not: nothing kept is lost in silence. Whether it was moved is
   not waited for: where it was not, the transaction has failed and refuses the unit.
4. Every statement holds the lock, for asyncpg refuses two at once. Another borrower's bare statement inside an explicit
   transaction is a *guest*: it gets a savepoint of its own. Another borrower's transaction is refused: it can't be
   nested, for the two may end in any order, and if it waited the two might wait for each other.
5. The first unit brings BEGIN along, in its text or ahead of its message, such that it can't run without: what a test
   writes outside a transaction would stay. Before the first unit there is no transaction, so ``now()`` is the test's.
6. When the test ends, so does the sandbox: whoever comes later is told, and what the test left open is its failure.
   ROLLBACK is waited for only if it has something to tell. Who leases the connection next comes after it in any case.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import asyncpg

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation import ahead
from asynctest_kit.isolation.advisory import session_locks
from asynctest_kit.isolation.functions import Effects
from asynctest_kit.isolation.refusals import OWN_DATABASE, refusal, remark, shown
from asynctest_kit.isolation.statements import heads, is_plain, is_savepoint, makes_code, only_reads, sets_custom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asynctest_kit.isolation.codecs import Codecs, HeldConnection

__all__ = ["Borrower", "Opening", "Operation", "Sandbox", "Schema"]

#: A failure is shown where the code under test called us; our own frames say nothing about it.
__tracebackhide__ = True

T = TypeVar("T")


#: Runs one statement on the connection.
Operation: TypeAlias = "Callable[[asyncpg.Connection], Awaitable[T]]"

# What asyncpg raises for a connection that the server has ended; the second last while the news is half read.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.InternalClientError,
    OSError,
)
_BEGIN = "BEGIN;"
_READS = frozenset({"SELECT", "SHOW", "VALUES", "TABLE", "EXPLAIN", "FETCH"})
_CHANGES_SCHEMA = frozenset({"CREATE", "ALTER", "DROP", "DO", "CALL"})
_OUTLIVES_ROLLBACK = frozenset({"PREPARE", "DEALLOCATE", "DISCARD", "LOAD"})


class Opening(Enum):
    """How BEGIN can be sent with an operation that is a test's first."""

    ALONE = auto()  # not at all: before it
    TEXT = auto()  # in its text: it is a simple query, and gives its status
    AHEAD = auto()  # ahead of its messages, of which the first has a Sync


class Borrower(Protocol):
    """Who runs statements in a sandbox."""

    @property
    def commits(self) -> bool:
        """Whether its bare statements are committed each, as far as it knows."""

    @property
    def codecs(self) -> Codecs:
        """How its values are encoded and decoded."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What of a database's schema the end of a transaction depends on.

    Attributes:
        deferred: The constraints that are initially deferred, quoted, as ``SET CONSTRAINTS`` wants them.
        deferrable: Whether any constraint can be deferred.
        locks: Whether any function takes advisory locks.
        effects: What its functions do that statements don't tell.
    """

    deferred: tuple[str, ...] = ()
    deferrable: bool = False
    locks: bool = False
    effects: Effects = field(default_factory=Effects)

    @property
    def check(self) -> str:
        """What COMMIT does: check all that is deferred, then go back to the initial modes."""
        return f"SET CONSTRAINTS ALL IMMEDIATE{self.again}"

    @property
    def again(self) -> str:
        """Added to a statement: what was deferred initially is so again."""
        return f"; SET CONSTRAINTS {', '.join(self.deferred)} DEFERRED" if self.deferred else ""


def _ignore(*_: object) -> None:
    pass


def _nowhere(_task: asyncio.Task[Any]) -> str:
    return ""


class _State(Enum):
    """Where the connection is, seen from the base."""

    NEW = auto()  # no transaction yet
    AT_BASE = auto()
    AHEAD = auto()  # a unit succeeded: move the base here
    ASTRAY = auto()  # a unit failed or was interrupted: go back


class Sandbox:
    """A test's transaction on its leased connection; the only one who talks to that connection.

    Args:
        connection: A connection outside a transaction.
        reconnect: Opens another, for a connection that turns out to be dead before the test used it.
        schema: What the database's schema asks for.

    Attributes:
        on_remark: Called with what is to be known if the test fails.
        on_refusal: Called with an error that says what one transaction can't give, before it is raised.
        on_begun: Called when a borrower's explicit transaction is open.
        whereabouts: Tells of a task that is left in a statement where it is, to be added to a sentence.
        left_locks: After :meth:`end`: the session's advisory locks that the test took and didn't free, by their keys.
            Not known where functions of the schema take such locks: all tests would have to be asked.
    """

    def __init__(
        self,
        connection: HeldConnection,
        *,
        reconnect: Callable[[], Awaitable[HeldConnection]],
        schema: Schema,
    ) -> None:
        self._connection = connection
        self._reconnect = reconnect
        self._schema = schema
        self._lock = asyncio.Lock()
        self._state = _State.NEW
        self._base = 0
        self._owner: Borrower | None = None
        self._guest_astray = False
        self._guest_writes: list[str] = []
        self._borrowed: set[Borrower] = set()
        self._running = ""
        self._runner: asyncio.Task[Any] | None = None
        self._operation: Callable[..., object] | None = None
        self._problems: list[str] = []
        self._ended = False
        self._schema_changed = False
        self._session_changed = False
        self._modes_changed = False
        self._leaves_settings = False
        self._reads_may_write = schema.effects.reads_may_write
        self._locks = schema.locks
        self.on_remark: Callable[[str], None] = _ignore
        self.on_refusal: Callable[[IsolationError], None] = _ignore
        self.on_begun: Callable[[], None] = _ignore
        self.whereabouts: Callable[[asyncio.Task[Any]], str] = _nowhere
        self.left_locks: tuple[str, ...] = ()

    @property
    def connection(self) -> HeldConnection:
        """The connection in use: the leased one, or what replaced it."""
        return self._connection

    @property
    def reusable(self) -> bool:
        """After :meth:`end`: whether another test may lease the connection."""
        return not (
            self._session_changed or self._leaves_settings or self._lock.locked() or self._connection.is_closed()
        )

    @property
    def busy(self) -> bool:
        """Whether a statement is running."""
        return self._lock.locked()

    @property
    def has_ended(self) -> bool:
        """Whether the test is over."""
        return self._ended

    @property
    def running(self) -> str:
        """The statement that is running, or ran last."""
        return self._running

    @property
    def operation(self) -> object:
        """What stands for the statement that is running: another one for each."""
        return self._operation

    @property
    def arguments(self) -> tuple[object, ...]:
        """The arguments of the statement that is running, or ran last, as far as its closure tells."""
        code = getattr(self._operation, "__code__", None)
        names = () if code is None else code.co_freevars
        cells = getattr(self._operation, "__closure__", None) or ()
        return tuple(cells[names.index("args")].cell_contents) if "args" in names else ()

    def check_open(self) -> None:
        """Raise an IsolationError if the test has ended: its connection may be another one's by now."""
        if self._ended:
            raise IsolationError(
                "A connection of a test that has ended was used: something that the test started goes on after it. "
                "Stop it in the test, or in the tear-down of the fixture that started it."
            )

    def refused(self, why: str) -> IsolationError:
        """The error to raise for what one transaction can't give."""
        error = IsolationError(why)
        self.on_refusal(error)
        return error

    def charge(self, problems: Iterable[str]) -> None:
        """Have the test fail at its end for what it did wrong, in words."""
        self._problems += problems

    def lend(self, borrower: Borrower) -> None:
        """Count a borrower that must come back before the test ends."""
        self._borrowed.add(borrower)

    @property
    def lent(self) -> int:
        """How many borrowers have not come back."""
        return len(self._borrowed)

    def take_back(self, borrower: Borrower) -> None:
        """The borrower is done."""
        self._borrowed.discard(borrower)

    def change_session(self) -> None:
        """The connection's own state was changed: no other test may get it."""
        self._session_changed = True

    def owned_by(self, borrower: Borrower) -> bool:
        """Whether the borrower has an explicit transaction open."""
        return self._owner is borrower

    def only_reads(self, query: str) -> bool:
        """Whether a statement writes nothing; False when in doubt."""
        return not self._reads_may_write and only_reads(query)

    async def run(
        self, borrower: Borrower, query: str, operation: Operation[T], *, opening: Opening = Opening.ALONE
    ) -> T:
        """Run one statement for a borrower.

        Args:
            borrower: Who runs it.
            query: What is run, as far as it is known.
            operation: Runs it.
            opening: What the operation can open the test's transaction with.

        Raises:
            IsolationError: The statement can't be had inside another transaction.
        """
        plain = is_plain(query)
        if not plain:
            self._refuse(borrower, query)
        async with self._lock:
            self._begins(query)
            self._operation = operation
            if said := remark(query):
                self.on_remark(said)
            if not plain:
                self._note(query)
            self._leaves_settings |= self._may_set_custom(query)
            await self._enter()
            self._connection.wear(borrower.codecs)
            if self._owner is borrower:
                result = await operation(self._connection)
            elif self._owner is not None:
                result = await self._run_guest(query, operation)
            else:
                if not (self._may_send_ahead and (plain or heads(query))):
                    opening = Opening.ALONE
                result = await self._run_bare(borrower, query, operation, opening, reads=self.only_reads(query))
            self._check_inside(query)
            return result

    async def begin(self, borrower: Borrower, *, readonly: bool) -> None:
        """Open a borrower's explicit transaction.

        Raises:
            IsolationError: Another borrower's is open.
        """
        async with self._lock:
            self._begins("BEGIN")
            await self._enter()
            if self._owner is not None:
                raise self.refused(
                    "Two transactions at once in one test: a connection began one while another connection of the same "
                    "test had one open. All connections of pg, pg_pool and pg_engine share the test's single "
                    "transaction, so a second one can't be independent of the first. End the first before the second "
                    f"begins. Otherwise: {OWN_DATABASE}"
                )

            await self._settle()
            if readonly:
                await self._begin_readonly()
            self._owner = borrower
            self.on_begun()

    async def commit(self) -> bool:
        """Keep the open transaction; as PostgreSQL does, one that failed is rolled back instead.

        Returns:
            Whether it is kept.

        Raises:
            asyncpg.PostgresError: A deferred constraint is violated.
        """
        async with self._lock:
            self._begins("COMMIT")
            await self._enter()
            self._owner = None
            self._state = _State.ASTRAY
            try:
                await self._connection.execute(self._schema.check)
            except asyncpg.InFailedSQLTransactionError:
                self._lose_guests()
                await self._settle()
                return False
            except asyncpg.PostgresError:
                self._lose_guests()
                raise
            else:
                self._state = _State.AHEAD
                self._guest_writes.clear()
                return True

    async def roll_back(self) -> None:
        """Drop the open transaction, and its locks at once."""
        async with self._lock:
            self._begins("ROLLBACK")
            self._guest_astray = False
            await self._enter()
            self._lose_guests()
            self._owner = None
            self._state = _State.ASTRAY
            await self._settle()

    async def end(self) -> tuple[str, ...]:
        """Roll everything back; whoever comes later is refused.

        Returns:
            What the test did wrong, in words; empty if nothing.
        """
        self._ended = True
        if self._lock.locked():
            where = "" if self._runner is None else self.whereabouts(self._runner)
            return (*self._problems, f"it ended while a statement was running{where}: {shown(self._running)}")

        self._note_leaks()
        if self._state is not _State.NEW and not self._connection.is_closed():
            await self._roll_back_all()
        if self._locks and not self._schema.locks and not self._connection.is_closed():
            await self._free_locks()
        if self._schema_changed and not self._connection.is_closed():
            # Statements prepared for tables that no longer exist would fail in the next test.
            await self._connection.reload_schema_state()
        return tuple(self._problems)

    def _begins(self, query: str) -> None:
        self._running, self._runner = query, asyncio.current_task()

    async def _enter(self) -> None:
        """Called with the lock: see that the sandbox is open, and clear up after an interrupted guest."""
        self.check_open()
        if self._state is not _State.NEW and self._connection.is_closed():
            raise IsolationError(
                "The server closed the connection that held this test's transaction, and the test's data with it. "
                f"A test that ends connections needs its own. {OWN_DATABASE}"
            )

        if self._guest_astray:
            await self._connection.execute("ROLLBACK TO atk_guest")
            self._guest_astray = False

    async def _settle(self) -> None:
        """Called with the lock: bring the connection to the base of the next unit."""
        if self._state is _State.AT_BASE:
            return

        if self._state is _State.NEW:
            self._state = _State.ASTRAY  # should it be interrupted, the server may have begun
            await self._begin_all()
        elif self._state is _State.AHEAD:
            await self._move_base()
        else:
            await self._go_back()
        self._state = _State.AT_BASE

    async def _begin_all(self) -> None:
        try:
            await self._connection.execute("BEGIN")
        except _LOST:
            # It died while it was idle, and this test has lost nothing by it.
            await self._replace()
            self._state = _State.ASTRAY
            await self._connection.execute("BEGIN")

    async def _replace(self) -> None:
        self._connection.terminate()
        self._state = _State.NEW
        connection = await self._reconnect()
        if self._ended:
            connection.terminate()
        self.check_open()
        connection.wear(self._connection.worn)
        self._connection = connection

    async def _move_base(self) -> None:
        release = f"RELEASE {self._name}; " if self._base else ""
        self._base += 1
        self._state = _State.ASTRAY
        text = f"{release}SAVEPOINT {self._name}"
        if self._may_send_ahead:
            ahead.tell(self._connection, text)
        else:
            await self._connection.execute(text)

    async def _go_back(self) -> None:
        if not self._base:
            await self._connection.execute("ROLLBACK; BEGIN")
            return

        # PostgreSQL forgets the modes of constraints of which it has released a savepoint.
        again = self._schema.again if self._modes_changed else ""
        try:
            await self._connection.execute(f"ROLLBACK TO {self._name}{again}")
            self._modes_changed = False
        except asyncpg.InvalidSavepointSpecificationError as error:
            raise IsolationError(
                "A statement was cancelled between two savepoints, and what the test had written is lost. "
                "Run the test again."
            ) from error

    @property
    def _may_send_ahead(self) -> bool:
        """Whether nobody talks to the connection past the lock, and sees what is sent."""
        return not self._session_changed

    @property
    def _name(self) -> str:
        return f"atk_base_{self._base % 2}"

    async def _begin_readonly(self) -> None:
        if not self._base:
            # Read-only ends with its savepoint; without one it would hold for the whole test.
            await self._move_base()
            self._state = _State.AT_BASE
        await self._connection.execute("SET TRANSACTION READ ONLY")

    async def _run_bare(
        self, borrower: Borrower, query: str, operation: Operation[T], opening: Opening, *, reads: bool
    ) -> T:
        try:
            result = await self._run_unit(query, operation, opening)
        except asyncpg.InvalidCachedStatementError:
            # Outside a transaction asyncpg would try again, and code under test believes that it is outside of one.
            result = await self._run_unit(query, operation, opening)
        if reads:
            # Nothing to keep: the base stays good, and the next unit needs no round trip to move it.
            self._state = _State.AT_BASE
            return result

        if borrower.commits and self._schema.deferred:
            await self._connection.execute(self._schema.check)
        self._state = _State.AHEAD
        return result

    async def _run_unit(self, query: str, operation: Operation[T], opening: Opening) -> T:
        if self._state is _State.NEW and opening is not Opening.ALONE:
            return await self._run_first(query, operation, opening)

        await self._settle()
        self._state = _State.ASTRAY
        return await operation(self._connection)

    async def _run_first(self, query: str, operation: Operation[T], opening: Opening) -> T:
        """Run the first unit, which brings BEGIN along."""
        self._state = _State.ASTRAY
        try:
            return await self._run_opening(query, operation, opening)
        except _LOST as error:
            if self._ended or (isinstance(error, asyncpg.InterfaceError) and not self._connection.is_closed()):
                raise

            # It died while it was idle, and this test has lost nothing by it.
            await self._replace()
            self._state = _State.ASTRAY
            return await self._run_opening(query, operation, opening)

    async def _run_opening(self, query: str, operation: Operation[T], opening: Opening) -> T:
        connection = self._connection
        if opening is Opening.AHEAD:
            ahead.begin(connection)
            try:
                return await operation(connection)
            except Exception:
                if not (connection.is_closed() or ahead.is_answered(connection)):
                    # asyncpg found fault with the arguments and sent nothing.
                    ahead.synchronize(connection)
                raise

        try:
            return await connection.execute(_BEGIN + query)  # type: ignore[no-any-return]
        except asyncpg.PostgresError as error:
            _hide(_BEGIN, error)
            if not (connection.is_closed() or connection.is_in_transaction()):
                # A text that can't be parsed: nothing of it was run.
                self._state = _State.NEW
            raise

    async def _run_guest(self, query: str, operation: Operation[T]) -> T:
        try:
            await self._connection.execute("SAVEPOINT atk_guest")
        except asyncpg.InFailedSQLTransactionError as error:
            raise self.refused(
                "A connection was used while another connection of the same test had a failed transaction open. "
                "All connections of pg, pg_pool and pg_engine share the test's single transaction. "
                f"Roll the failed one back first, or: {OWN_DATABASE}"
            ) from error

        self._guest_astray = True
        result = await operation(self._connection)
        # The savepoint stays: had its release been interrupted, nobody knew whether it is still there to go back to.
        self._guest_astray = False
        if not all(head[0] in _READS for head in heads(query)):
            self._guest_writes.append(query)
        return result

    def _check_inside(self, query: str) -> None:
        """After a statement that worked: see that it has not ended the test's transaction, unseen by us."""
        if self._connection.is_closed() or self._connection.is_in_transaction():
            return

        self._connection.terminate()
        problem = (
            "a statement ended the test's transaction, and what the test had written may be there to stay: "
            f"{shown(query)}"
        )
        self._problems.append(problem)
        raise IsolationError(f"In the test's database {problem} {OWN_DATABASE}")

    def _lose_guests(self) -> None:
        for query in self._guest_writes:
            self._problems.append(
                "one of its connections rolled a transaction back, and with it what another connection had written "
                f"meanwhile: {shown(query)} All connections of pg, pg_pool and pg_engine share one transaction. "
                f"{OWN_DATABASE}"
            )
        self._guest_writes.clear()

    def _refuse(self, borrower: Borrower, query: str) -> None:
        if found := refusal(query):
            raise self.refused(found)
        if self._owner is not borrower and any(is_savepoint(head) for head in heads(query)):
            raise asyncpg.NoActiveSQLTransactionError(
                "savepoints can only be used in transaction blocks: open one with connection.transaction() or BEGIN"
            )

    def _note(self, query: str) -> None:
        self._locks |= "advisory" in query.lower()
        for head in heads(query):
            self._schema_changed |= head[0] in _CHANGES_SCHEMA
            self._modes_changed |= head[:2] == ("SET", "CONSTRAINTS")
            self._session_changed |= head[0] in _OUTLIVES_ROLLBACK
            self._reads_may_write |= makes_code(head)

    def _may_set_custom(self, query: str) -> bool:
        """Whether a statement may set a custom setting, which a rollback leaves there, but empty."""
        effects = self._schema.effects
        return effects.all_set or sets_custom(query) or any(name in query.lower() for name in effects.setters)

    def _note_leaks(self) -> None:
        if self._owner is not None:
            self._problems.append("it left a transaction open: neither committed nor rolled back")
        if self._borrowed:
            self._problems.append(f"it never gave {len(self._borrowed)} connection(s) back to pg_pool or pg_engine")

    async def _roll_back_all(self) -> None:
        """End the transaction, deferred constraints checked if it is whole; one round trip."""
        whole = self._owner is None and not self._guest_astray
        has_kept = self._base > 0 or self._state is _State.AHEAD
        end = "ROLLBACK; SELECT pg_advisory_unlock_all()" if self._schema.locks else "ROLLBACK"
        try:
            if whole and has_kept and (self._schema.deferrable or self._schema_changed):
                if self._state is _State.ASTRAY:
                    await self._settle()
                await self._connection.execute(f"SET CONSTRAINTS ALL IMMEDIATE; {end}")
            elif self._schema.locks or self._state is _State.ASTRAY or not (whole and self.reusable):
                await self._connection.execute(end)
            else:
                ahead.tell(self._connection, end, is_last=True)
        except asyncpg.IntegrityConstraintViolationError as error:
            self._problems.append(f"it left a deferred constraint violated, a COMMIT would have failed: {error}")
            await self._connection.execute(end)
        except _LOST:
            # Its transaction died with it. reusable tells.
            self._connection.terminate()

    async def _free_locks(self) -> None:
        """Free the advisory locks that a rollback doesn't free, and note which they were.

        A session that was changed ends now, and its locks with it; the test's own codecs might not let us read them.
        """
        if self._session_changed:
            return

        try:
            self.left_locks = await session_locks(self._connection)
            if self.left_locks:
                await self._connection.execute("SELECT pg_advisory_unlock_all()")
        except _LOST:
            self._connection.terminate()


def _hide(before: str, error: asyncpg.PostgresError) -> None:
    """Make the error one of the text as it was asked for."""
    if query := getattr(error, "query", None):
        error.query = query.removeprefix(before)
    if error.position is not None:
        error.position = str(int(error.position) - len(before))
