"""``python -m asynctest_kit.isolation.run_alembic alembic.ini``: do with alembic what each line of stdin asks for.

A line is a JSON object, and so is each answer, on what was stdout; what env.py and the migrations print goes to stderr.
The migrations act on the database of DATABASE_URL.

env.py finds the URL where it looks: in the config's ``sqlalchemy.url``, with the driver that the ini file names, or as
it is in DATABASE_URL. Where no driver is named it is asyncpg if env.py makes an async engine, else psycopg or one that
is installed in its place.

An answer is ``{"done": ...}``, or, of what failed, ``{"failed": ...}``: which line of which revision, if one did; or
which file of the user's failed before it came to the migrations, so whatever was asked, and the driver that it lacks,
if that is why.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import traceback
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

__all__ = ["main"]

#: By the modules, what to install.
_DRIVERS = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "pg8000": "pg8000",
    "asyncpg": "asyncpg",
}

_SYNC_DRIVERS = ("psycopg", "psycopg2", "pg8000")


def main(ini: str) -> None:
    """Answer each line until there is none; the traceback of what fails goes to stderr."""
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in asked:
        try:
            answer = {"done": _answer(ini, **json.loads(line))}
        except (Exception, SystemExit) as error:  # noqa: BLE001  # of the user's code, shown to the user
            answer = {"failed": _failure(ini, error)}
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps(answer), file=answers, flush=True)  # the protocol


def _answer(ini: str, do: str, revision: str = "") -> Any:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(ini)
    environment = _environment(config).read_text(encoding="utf-8")
    url = _with_driver(os.environ["DATABASE_URL"], config.get_main_option("sqlalchemy.url") or "", environment)
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    match do:
        case "upgrade":
            command.upgrade(config, revision)
        case "up" | "down":
            _step(config, scripts, revision, up=do == "up")
        case "history":
            return _history(scripts)
        case "compare":
            return _compare(config, scripts)
        case "become":
            _become(config, scripts)
        case "table":
            return _version_table(config, scripts)
    return True


def _history(scripts: ScriptDirectory) -> list[dict[str, Any]]:
    """The revisions in an order in which they can be made; what has no successor is a head.

    A label is every revision's of its branch.
    """
    heads = set(scripts.get_heads())
    return [
        {
            "name": script.revision,
            "path": script.path,
            "is_head": script.revision in heads,
            "labels": sorted(script.branch_labels),
        }
        for script in reversed(list(scripts.walk_revisions()))
    ]


def _step(config: Config, scripts: ScriptDirectory, revision: str, *, up: bool) -> None:
    """Make or undo this revision alone, whatever branches there are."""
    from alembic.runtime.migration import MigrationStep

    make = MigrationStep.upgrade_from_script if up else MigrationStep.downgrade_from_script
    script = scripts.get_revision(revision)
    _run(config, scripts, lambda _rev, _context: [make(scripts.revision_map, script)], destination_rev=revision)


def _version_table(config: Config, scripts: ScriptDirectory) -> str:
    """Where alembic keeps the current revision, qualified."""
    found = []

    def note(_revision: Any, context: MigrationContext) -> list[Any]:
        found.append(f"{context.version_table_schema or 'public'}.{context.version_table}")
        return []

    _run(config, scripts, note)
    return found[-1]


def _compare(config: Config, scripts: ScriptDirectory) -> dict[str, Any]:
    """What alembic would write to make the database as the models are."""
    from alembic.autogenerate import render_python_code
    from alembic.runtime.migration import MigrationContext

    compared = {"has_models": False, "code": ""}

    def compare(revision: Any, context: MigrationContext) -> list[Any]:
        if context.opts.get("target_metadata") is not None:
            compared["has_models"] = True
            bare = MigrationContext.configure(dialect=context.dialect)
            options: dict[str, Any] = {key: context.opts.get(key) for key in ("render_item", "user_module_prefix")}
            code = [
                render_python_code(operations, migration_context=bare, **options)
                for operations in _generated(config, scripts, revision, context)
                if operations.as_diffs()
            ]
            lines = [line for text in code for line in text.splitlines() if not line.lstrip().startswith("# ###")]
            compared["code"] = textwrap.dedent("\n".join(f"    {line.lstrip()}" for line in lines))
        return []

    _run(config, scripts, compare)
    return compared


def _become(config: Config, scripts: ScriptDirectory) -> None:
    """Make the database as the models are."""
    from alembic.operations import Operations

    def become(revision: Any, context: MigrationContext) -> list[Any]:
        for operations in _generated(config, scripts, revision, context):
            _invoke(Operations(context), operations)
        return []

    _run(config, scripts, become)


def _invoke(operations: Any, operation: Any) -> None:
    if hasattr(operation, "ops"):
        for part in operation.ops:
            _invoke(operations, part)
    else:
        operations.invoke(operation)


def _generated(config: Config, scripts: ScriptDirectory, revision: Any, context: MigrationContext) -> list[Any]:
    from alembic.autogenerate import RevisionContext

    arguments = {
        "message": None, "autogenerate": True, "sql": False, "head": "head", "splice": False, "branch_label": None,
        "version_path": None, "rev_id": None, "depends_on": None,
    }  # fmt: skip
    revisions = RevisionContext(config, scripts, arguments)
    revisions.run_autogenerate(revision, context)
    return list(revisions.generated_revisions[-1].upgrade_ops_list)


def _run(config: Config, scripts: ScriptDirectory, steps: Callable[..., list[Any]], **options: Any) -> None:
    from alembic.runtime.environment import EnvironmentContext

    with EnvironmentContext(config, scripts, fn=steps, as_sql=False, **options):
        scripts.run_env()


def _environment(config: Config) -> Path:
    """Return where env.py is."""
    from alembic.script import ScriptDirectory

    return Path(ScriptDirectory.from_config(config).dir) / "env.py"


def _failure(ini: str, error: BaseException) -> dict[str, str]:
    """Print the traceback; return what to tell of it beside."""
    in_env = _frames_of_env(ini, error)
    traceback.print_exception(type(error), error, in_env or error.__traceback__)
    if in_env is None:
        return _line_of_revision(ini, error)
    told = {"env": str(Path(in_env.tb_frame.f_code.co_filename).resolve())}
    if isinstance(error, ModuleNotFoundError) and error.name in _DRIVERS:
        told |= {"lacks": error.name, "mend": _ways_to_connect(ini, error.name)}
    return told


def _line_of_revision(ini: str, error: BaseException) -> dict[str, str]:
    """Which line of a revision failed: SQLAlchemy's own frames below it are more than what is shown."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    try:
        revisions = {Path(one.path).resolve() for one in ScriptDirectory.from_config(Config(ini)).walk_revisions()}
    except Exception:  # noqa: BLE001  # that is the error, and its traceback is shown
        return {}
    lines = [(Path(frame.f_code.co_filename).resolve(), line) for frame, line in walk_tb(error.__traceback__)]
    path, line = next((one for one in reversed(lines) if one[0] in revisions), (None, 0))
    return {} if path is None else {"at": f"{path}, line {line}"}


def _frames_of_env(ini: str, error: BaseException) -> TracebackType | None:
    """The traceback from env.py on; None if it isn't there, or came to the migrations."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    try:
        env = _environment(Config(ini)).resolve()
    except Exception:  # noqa: BLE001  # that is the error, or the next one to be told
        return None
    frames = []
    frame = error.__traceback__
    while frame is not None:
        frames.append(frame)
        frame = frame.tb_next
    if any(frame.tb_frame.f_code is EnvironmentContext.run_migrations.__code__ for frame in frames):
        return None
    return next((frame for frame in frames if Path(frame.tb_frame.f_code.co_filename).resolve() == env), None)


def _ways_to_connect(ini: str, lacking: str) -> str:
    """Who asks for a driver that isn't installed, and what to install or to write instead."""
    from alembic.config import Config

    config = Config(ini)
    configured = (config.get_main_option("sqlalchemy.url") or "").partition("://")[0]
    given = _scheme(configured, _environment(config).read_text(encoding="utf-8"))
    installed = [name for name in _SYNC_DRIVERS if name != lacking and find_spec(name)]
    if configured.endswith(f"+{lacking}"):
        ways = [f"It is named by sqlalchemy.url in {ini}: {configured}://"]
    elif given.endswith(f"+{lacking}"):
        ways = [f"No URL names a driver, and none of these is installed: {', '.join(_SYNC_DRIVERS)}."]
    else:
        ways = [f"env.py makes its URL itself; sqlalchemy.url of its config is {given}://"]
    ways.append(f"Install it: {sys.executable} -m pip install {_DRIVERS[lacking]}")
    if installed:
        ways.append(f"Or name one that is installed: postgresql+{installed[0]}://")
    if lacking != "asyncpg" and find_spec("asyncpg"):
        ways.append(
            "Or make an async engine in env.py, with asyncpg, which is installed (alembic init -t async has one)."
        )
    return "\n".join(ways)


def _with_driver(url: str, configured: str, environment: str) -> str:
    return f"{_scheme(configured.partition('://')[0], environment)}://{url.partition('://')[2]}"


def _scheme(configured: str, environment: str) -> str:
    if re.fullmatch(r"postgres(ql)?\+\w+", configured):
        return configured
    is_async = re.search(r"async_engine|AsyncEngine", environment)
    installed = next((name for name in _SYNC_DRIVERS if find_spec(name)), "psycopg")
    return f"postgresql+{'asyncpg' if is_async else installed}"


if __name__ == "__main__":
    main(sys.argv[1])
