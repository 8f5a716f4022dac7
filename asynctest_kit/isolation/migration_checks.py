"""What migrations must be able to do, each tried on an empty database of its own on the real server.

A check ends with a sentence about what it found, or raises: :class:`MigrationError` for a fault, with the difference
that shows it, and :class:`NotApplicable` where there is nothing to check. Each opens its own database and, for alembic,
its own process, so checks may run at once.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctest_kit.errors import MigrationError
from asynctest_kit.isolation.migration_steps import AlembicSteps, Steps, open_steps
from asynctest_kit.isolation.migrations import apply
from asynctest_kit.isolation.postgres import connect
from asynctest_kit.isolation.schema import describe, difference
from asynctest_kit.isolation.scripts import execute
from asynctest_kit.isolation.table_state import TableState, state_difference
from asynctest_kit.isolation.templates import ensure_template, open_clone
from asynctest_kit.settings import Preparation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from asynctest_kit.isolation.migration_steps import Revision
    from asynctest_kit.provision.service import Endpoint
    from asynctest_kit.settings import Migrations

    Filling = str | Callable[[asyncpg.Connection], Awaitable[object]]

__all__ = ["CHECKS", "Checked", "NotApplicable"]

#: A failure is told in its own words; our frames add nothing.
__tracebackhide__ = True


class NotApplicable(Exception):  # noqa: N818  # nothing is wrong
    """These migrations have nothing that the check could look at; the message says what it would take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is checked, and where.

    Attributes:
        server: An endpoint whose user may create databases.
        migrations: What is checked.
        root: Where a migration command runs.
        preparation: What the database has before them.
        data: What is put in at a revision, beside the scripts of ``migrations.round_trip``: SQL, or a function that is
            given a connection.
    """

    server: Endpoint
    migrations: Migrations
    root: Path
    preparation: Preparation = field(default_factory=Preparation)
    data: Mapping[str, Filling] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        """Of the service."""
        return self.server.service


async def single_head(checked: Checked) -> str:
    """The history has one end, and one order."""
    async with _walk_of(checked) as (steps, _):
        if not isinstance(steps, AlembicSteps):
            _check_places(steps.revisions)
            return f"{len(steps.revisions)} script(s), the last is {steps.revisions[-1].path.name}"
        heads = _heads(steps.revisions)
        named = ", ".join(f"{head.name} ({', '.join(head.labels)})" if head.labels else head.name for head in heads)
        verb = "heads are" if len(heads) > 1 else "head is"
        return f"{len(steps.revisions)} revision(s), the {verb} {named}"


async def upgrade(checked: Checked) -> str:
    """An empty database can be brought up to date."""
    async with _empty(checked) as database:
        await apply(checked.migrations, database, root=checked.root, approve=_heads)
    return "an empty database comes up to date"


async def up_and_down(checked: Checked) -> str:
    """Each revision, undone, leaves the schema as it was before, and made again, as it was after."""
    async with _walk_of(checked) as (steps, connection):
        undone = await _make_kept(checked, steps)

        async def schema() -> tuple[str, ...]:
            return await describe(connection, without=steps.own_tables)

        before = await schema()
        for revision in undone:
            await steps.up(revision)
            there = await schema()
            await steps.down(revision)
            if traces := difference(before, await schema(), names=(f"before {revision.name}", "after it was undone")):
                raise MigrationError(
                    f"Undoing {revision.name} doesn't lead back to the schema before it:\n{traces}\n"
                    f"{_at(revision, 'undo')} must remove what + shows, and bring back what - shows."
                )
            await steps.up(revision)
            before = await schema()
            if again := difference(there, before, names=(f"{revision.name}", "made again after it was undone")):
                raise MigrationError(
                    f"{revision.name} makes another schema the second time, after it was undone:\n{again}\n"
                    f"{_at(revision, 'path')} finds something that its undoing leaves."
                )
    return f"{len(undone)} revision(s), each undone and made again"


async def base_is_empty(checked: Checked) -> str:
    """Undoing everything leaves nothing behind."""
    async with _walk_of(checked) as (steps, connection):
        undone = await _make_kept(checked, steps)
        before = await describe(connection, without=steps.own_tables)
        for revision in undone:
            await steps.up(revision)
        for revision in reversed(undone):
            await steps.down(revision)
        after = await describe(connection, without=steps.own_tables)
        base = checked.migrations.downgrade_to or "base"
        if left := difference(before, after, names=(f"at {base}", f"back at {base}")):
            raise MigrationError(
                f"Undoing all revisions does not leave the database as it was:\n{left}\n"
                "Remove in a downgrade what + shows: types, sequences, functions and extensions outlive their tables."
            )
    return f"{len(undone)} revision(s) undone, and nothing is left"


async def models_match(checked: Checked) -> str:
    """Alembic finds nothing to generate: the models of env.py are what the migrations make."""
    async with _walk_of(checked) as (steps, connection):
        if not isinstance(steps, AlembicSteps):
            raise NotApplicable("only alembic knows of models")
        await steps.up_all()
        compared = await steps.alembic.do("compare")
        if not compared["has_models"]:
            raise NotApplicable("env.py gives no target_metadata to compare with")
        if compared["code"]:
            head = ", ".join(revision.name for revision in steps.revisions if revision.is_head)
            raise MigrationError(
                f"The models are not what the migrations make up to {head}. Alembic would write:\n"
                f"{compared['code']}\n{await _models_schema(steps, connection)}"
                "Write that revision (alembic revision --autogenerate), or mend the models."
            )
    return "alembic finds nothing to generate for the models"


async def data_survives(checked: Checked) -> str:
    """Rows that are put in at a revision are still there when each revision after it was made and undone."""
    data = _data(checked)
    if not data:
        raise NotApplicable(
            "no rows are given: put REVISION.sql files into a folder and name it in the migrations' key round-trip, "
            "or override the fixture migration_data"
        )
    async with _walk_of(checked) as (steps, connection):
        _check_known(data, steps.revisions, "Rows are given for")
        if data.keys() <= {steps.revisions[-1].name}:
            raise NotApplicable("rows are given at the last revision only, so no later one has to keep them")
        undone = _undone(checked, steps)
        filled: list[str] = []
        for revision in steps.revisions:
            before = await _contents(connection, steps)
            await steps.up(revision)
            if filled and revision in undone:
                await steps.down(revision)
                if lost := state_difference(before, await _contents(connection, steps)):
                    raise MigrationError(
                        f"Rows don't survive {revision.name}, made and undone; they were put in at "
                        f"{', '.join(filled)}:\n{lost}\n{_at(revision, 'path')} must carry them over, both ways. "
                        "If the loss is meant, put them in at that revision or later."
                    )
                await steps.up(revision)
            if revision.name in data:
                await _fill(connection, data[revision.name], revision.name)
                filled.append(revision.name)
    return f"rows of {', '.join(filled)} are there after every later revision was made and undone"


#: In the order in which they are told.
CHECKS: Mapping[str, Callable[[Checked], Awaitable[str]]] = MappingProxyType(
    {
        "single head": single_head,
        "upgrade": upgrade,
        "up and down": up_and_down,
        "base is empty": base_is_empty,
        "models match": models_match,
        "data survives": data_survives,
    }
)


@asynccontextmanager
async def _empty(checked: Checked) -> AsyncIterator[Endpoint]:
    """A database that has what it has before its migrations."""
    template = await ensure_template(checked.server, None, root=checked.root, preparation=checked.preparation)
    async with open_clone(template) as database:
        yield database


@asynccontextmanager
async def _walk_of(checked: Checked) -> AsyncIterator[tuple[Steps, asyncpg.Connection]]:
    """The history, on an empty database of its own."""
    async with (
        _empty(checked) as database,
        open_steps(checked.migrations, database) as steps,
    ):
        if steps is None:
            raise NotApplicable("migrations by a command have no steps to look at")
        connection = await connect(database)
        try:
            yield steps, connection
        finally:
            connection.terminate()


def _heads(revisions: Sequence[Revision]) -> Sequence[Revision]:
    """What `alembic upgrade head` leads to; several only if each is of a branch with a label of its own, so meant."""
    heads = sorted((revision for revision in revisions if revision.is_head), key=lambda head: head.name)
    shared = Counter(label for head in heads for label in head.labels)
    if len(heads) > 1 and not all(any(shared[label] == 1 for label in head.labels) for head in heads):
        files = "\n".join(f"    {head.name}  {head.path}" for head in heads)
        raise MigrationError(
            f"{len(heads)} revisions have no successor, so `alembic upgrade head` fails:\n{files}\n"
            "Join them: alembic merge heads; or set down_revision of one to the other. Branches that are to be kept "
            "need a label each (branch_labels), and an upgrade to heads."
        )
    return heads


def _check_places(revisions: Sequence[Revision]) -> None:
    """Check that scripts with numbers run in the order of their numbers, one for each."""
    places = [(int(found[0]), revision.path.name) for revision in revisions if (found := _number(revision.name))]
    by_number = defaultdict(list)
    for number, name in places:
        by_number[number].append(name)
    for number, names in by_number.items():
        if len(names) > 1:
            raise MigrationError(f"Several scripts have the number {number}: {', '.join(names)}. Renumber one.")
    for (number, name), (following, other) in pairwise(places):
        if following < number:
            raise MigrationError(
                f"{name} runs before {other}, for scripts run in the order of their names, not of their numbers. "
                f"Give all numbers as many digits: {following:0{len(str(number))}}."
            )


def _number(name: str) -> re.Match[str] | None:
    return re.search(r"\d+", name) if re.match(r"[vV]?\d", name) else None


async def _make_kept(checked: Checked, steps: Steps) -> Sequence[Revision]:
    """Make what is not to be undone; return what comes after it."""
    undone = _undone(checked, steps)
    for revision in steps.revisions[: len(steps.revisions) - len(undone)]:
        await steps.up(revision)
    return undone


def _undone(checked: Checked, steps: Steps) -> Sequence[Revision]:
    """The revisions that must be undone: all, or those after ``downgrade_to``."""
    kept = checked.migrations.downgrade_to
    revisions = steps.revisions
    if kept is not None:
        _check_known([kept], revisions, "downgrade-to names")
        revisions = revisions[[revision.name for revision in revisions].index(kept) + 1 :]
    lacking = [revision for revision in revisions if revision.undo is None]
    if not revisions:
        raise NotApplicable(f"nothing comes after {kept}, which need not be undone (downgrade-to)")
    if len(lacking) == len(revisions):
        raise NotApplicable("no script has another beside it that undoes it (NAME.down.sql)")
    if lacking:
        names = ", ".join(revision.path.name for revision in lacking)
        raise MigrationError(f"Nothing undoes {names}: put {lacking[0].name}.down.sql beside it.")
    return revisions


def _at(revision: Revision, which: str) -> str:
    return str(revision.undo if which == "undo" else revision.path)


async def _models_schema(steps: AlembicSteps, connection: asyncpg.Connection) -> str:
    """What would change in the database; empty if alembic can't do what it would write."""
    before = await describe(connection)
    try:
        await steps.alembic.do("become")
    except MigrationError:
        return ""
    changes = difference(before, await describe(connection), names=("migrations", "models"))
    return f"{changes}\n" if changes else ""


def _data(checked: Checked) -> dict[str, Filling]:
    folder = checked.migrations.round_trip
    scripts: dict[str, Filling] = {}
    if folder is not None:
        scripts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))}
    return {**scripts, **checked.data}


def _check_known(names: Iterable[str], revisions: Sequence[Revision], what: str) -> None:
    known = [revision.name for revision in revisions]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f' Did you mean "{close[0]}"?' if close else ""
            raise MigrationError(
                f'{what} the revision "{name}", which is not there.{meant} There are: {", ".join(known)}.'
            )


async def _contents(connection: asyncpg.Connection, steps: Steps) -> dict[str, list[dict[str, Any]]]:
    contents = await TableState(connection).tables()
    own = {table.removeprefix("public.") for table in steps.own_tables}
    return {table: rows for table, rows in contents.items() if table not in own}


async def _fill(connection: asyncpg.Connection, filling: Filling, revision: str) -> None:
    try:
        await (execute(filling, connection) if isinstance(filling, str) else filling(connection))
    except asyncpg.PostgresError as error:
        raise MigrationError(f"The rows of {revision} can't be put in: {error}") from error
