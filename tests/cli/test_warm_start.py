"""Runs that a waiting process becomes: the same as any other to all that a user, a shell or a test can see."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import fcntl
import importlib
import os
import re
import select
import signal
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import anyio
import asyncpg
import pytest

from asynctest_kit.cli.warm import meeting, next_databases, spare
from asynctest_kit.cli.warm.recipe import Recipe
from asynctest_kit.cli.warm.told_imports import ToldImports
from asynctest_kit.provision import runtime
from asynctest_kit.provision.service import Endpoint
from asynctest_kit.settings import Migrations, Preparation, ServiceSettings, Settings

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="warm starts take pidfds and /proc"),
]

PROJECT = """
    [tool.pytest.ini_options]
    filterwarnings = ["error", "ignore:The configuration option .asyncio:pytest.PytestDeprecationWarning"]

    [tool.asynctest_kit]
    provider = "embedded"

    [tool.asynctest_kit.services.redis]
"""

#: What a test sees of the process that it runs in; ``WHAT`` says what it does then.
SUITE = """
    import os
    import signal
    import sys
    import time
    from pathlib import Path

    import pytest

    pytestmark = pytest.mark.anyio

    async def test_what_is_seen_and_done(redis):
        await redis.set("key", "value")
        is_warm = "asynctest_kit.cli.warm.spare" in sys.modules
        main = sys.modules["__main__"]
        seen = {
            "arguments": sys.argv, "all": sys.orig_argv, "path": sys.path, "main": [main.__file__, main.__spec__.name],
            "where": os.getcwd(), "environ": dict(os.environ), "flags": sys.flags[:],
            "umask": os.umask(0o22), "interrupt": str(signal.getsignal(signal.SIGHUP)), "terminal": sys.stdout.isatty(),
            "null": [os.path.samefile(number, os.devnull) for number in range(3)],
            "input": sys.stdin and sys.stdin.read(), "given": os.path.realpath("/proc/self/fd/9"),
            "third": os.path.realpath("/proc/self/fd/3"),
        }
        Path("seen.txt").write_text(repr((is_warm, seen)))
        what = Path("what.txt").read_text()
        Path("process.txt").write_text(str(os.getpid()))
        if what == "fail":
            assert 1 == 2
        elif what == "exit":
            os._exit(77)
        elif what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "wait":
            import asyncio
            await asyncio.sleep(600)
"""


async def until(condition):
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 (another process's doing)
            await anyio.sleep(0.05)


@dataclass(frozen=True)
class Ended:
    """What came of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Kept:
    """A project whose services are kept."""

    root: Path

    @property
    def environ(self) -> dict[str, str]:
        """A user's; plugins that these tests aren't about stay away, for each process would import them."""
        ours = ("ATK_", "COVERAGE_", "COV_", "PYTEST_C", "PYTEST_V", "PYTEST_X")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    async def begin(self, *arguments: str, what: str = "", start: tuple[str, ...] = (), **environ: str):
        """Start a command as a shell would."""
        (self.root / "what.txt").write_text(what)
        return await asyncio.create_subprocess_exec(
            *start,
            sys.executable,
            "-m",
            "asynctest_kit",
            *(arguments or ("run", "-q", "-s")),
            cwd=self.root,
            env=self.environ | {"ATK_WARM": "tell", "PWD": str(self.root)} | environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def atk(self, *arguments: str, **options: str) -> Ended:
        """Run a command to its end."""
        process = await self.begin(*arguments, **options)
        out, err = await process.communicate(b"typed")
        return Ended(process.returncode, out.decode(), err.decode())

    @property
    def seen(self):
        """Whether the last run was a warm one, and what its test saw."""
        return eval((self.root / "seen.txt").read_text(), {"inf": float("inf")})

    async def has_process(self) -> None:
        """Wait until a process waits for a run."""
        await until(self.socket.exists)

    @property
    def socket(self) -> Path:
        """Where it waits."""
        here = self.root.stat()
        return Path(f"{meeting.directory()}/{here.st_dev:x}-{here.st_ino:x}")

    async def process(self) -> int:
        """The process that runs the tests, once they have begun."""
        file = self.root / "process.txt"
        await until(lambda: file.exists() and file.read_text())
        return int(file.read_text())


@pytest.fixture
async def kept(project):
    root = project(pyproject__toml=PROJECT, test_seen__py=SUITE)
    kept = Kept(root)
    up = await kept.atk("up")
    assert up.code == 0, up
    try:
        yield kept
    finally:
        await kept.atk("down")


def state_of(process: int) -> str:
    """As proc(5) has it; Z for one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def told(run: Ended) -> list[str]:
    """What pytest says of a test, without the seconds."""
    return [line.partition(" in ")[0] for line in run.out.splitlines()[:2]]


def as_of_shell(line: str) -> tuple[str, ...]:
    """What starts a command with something that a shell can do to it."""
    return ("sh", "-c", f'{line} "$@"', "sh")


async def test_a_warm_run_is_as_a_cold_one(kept):
    start = as_of_shell("exec 3<what.txt 9<&3; exec")
    cold = await kept.atk(ATK_WARM="0", start=start)
    is_warm, seen_cold = kept.seen
    assert cold.code == 0, cold
    assert not is_warm
    await kept.has_process()
    await kept.atk()  # it leaves one that has imported what a run has
    await kept.has_process()
    warm = await kept.atk(start=start)
    is_warm, seen_warm = kept.seen
    assert is_warm, warm
    for name, value in seen_cold["environ"].items():
        if not meeting.is_read_later(name) and name != "PYTEST_VERSION":
            assert seen_warm["environ"][name] == value
    del seen_cold["environ"], seen_warm["environ"]
    assert seen_warm == seen_cold
    assert seen_warm["input"] == "typed"
    assert seen_warm["given"] == seen_warm["third"] == str(kept.root / "what.txt")
    assert warm.code == 0
    assert warm.err == cold.err == ""
    assert told(warm) == told(cold) == [".", "1 passed"]  # not a warning more


@pytest.mark.once
async def test_a_closed_stream_is_the_null_device(kept):
    for closed, warm, null in (("<&- >&- 2>&-", "0", [True] * 3), ("<&- 2>&-", "1", [True, False, True])):
        await kept.has_process()
        run = await kept.atk(start=as_of_shell(f"exec {closed}; exec"), ATK_WARM=warm)
        assert run.code == 0, run
        is_warm, seen = kept.seen
        assert is_warm == (warm == "1"), run
        assert seen["null"] == null
        assert seen["input"] == ""


@pytest.mark.once
async def test_the_end_is_the_runs(kept):
    for what, code in (("fail", 1), ("exit", 77), ("die", -signal.SIGKILL)):
        await kept.has_process()
        ended = await kept.atk(what=what)
        assert kept.seen[0], ended
        assert ended.code == code, ended
        if what != "fail":  # it could leave nobody
            await kept.atk(ATK_WARM="0", start=as_of_shell("trap '' CHLD; exec"))
    assert "assert 1 == 2" not in ended.out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 2), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.once)]
)
async def test_signals_reach_the_tests(kept, number, code):
    await kept.has_process()
    run = await kept.begin(what="wait")
    run.stdin.close()
    process = await kept.process()
    assert kept.seen[0]
    run.send_signal(number)
    out, _ = await run.communicate()
    assert run.returncode == code, out.decode()
    await until(lambda: state_of(process) == "Z")


@pytest.mark.once
async def test_a_run_that_is_stopped_and_killed_takes_the_tests_along(kept):
    await kept.has_process()
    run = await kept.begin(what="wait")
    run.stdin.close()
    process = await kept.process()
    run.send_signal(signal.SIGTSTP)
    await until(lambda: state_of(process) == "T")
    run.send_signal(signal.SIGCONT)
    await until(lambda: state_of(process) != "T")
    run.kill()
    await run.wait()
    await until(lambda: state_of(process) == "Z")


@pytest.mark.once
async def test_what_differs_is_a_cold_run_that_leaves_one_like_it(kept):
    await kept.has_process()
    first = await kept.atk(NEW="1")
    assert first.err.startswith("atk: not a warm start: another environment: NEW")
    assert first.code == 0
    assert not kept.seen[0]
    assert kept.seen[1]["environ"]["NEW"] == "1"
    await kept.has_process()
    second = await kept.atk(NEW="1", ATK_CONCURRENCY="7", COLUMNS="91")
    assert second.err == ""
    assert kept.seen[0]
    assert kept.seen[1]["environ"]["COLUMNS"] == "91"
    assert kept.seen[1]["environ"]["ATK_CONCURRENCY"] == "7"


@pytest.mark.once
async def test_of_two_runs_at_once_one_is_warm(kept):
    await kept.has_process()
    both = await asyncio.gather(kept.atk(), kept.atk())
    assert [run.code for run in both] == [0, 0], both


@pytest.mark.once
async def test_it_ends_with_the_services(kept):
    await kept.has_process()
    await kept.atk("down")
    await until(lambda: not kept.socket.exists())
    after = await kept.atk()
    assert after.code == 0
    assert not kept.seen[0]
    assert after.err == "atk: not a warm start: no process waits for runs from this folder (yet)\n"
    assert not kept.socket.exists()


@pytest.mark.once
async def test_services_that_are_kept_again_at_once_have_a_process_too(kept):
    """The one before is still leaving: it imports, and holds its lock, until it sees that its services are gone."""
    await kept.has_process()
    await kept.atk("down")
    await until(lambda: not kept.socket.exists())
    lock = os.open(f"{kept.socket}.lock", os.O_RDWR)
    await until(lambda: is_taken(lock))
    os.pwrite(lock, b"1".ljust(20), 0)  # as one that waits for another supervisor
    up = await kept.atk("up")
    assert up.code == 0, up
    assert not kept.socket.exists()
    os.close(lock)
    await kept.has_process()
    assert (await kept.atk()).err == ""
    assert kept.seen[0]
    await kept.has_process()
    again = await kept.atk("up")  # there is one already, so none is left
    assert again.code == 0
    lock = os.open(f"{kept.socket}.lock", os.O_RDWR)
    assert not is_taken(lock)
    os.close(lock)


def is_taken(lock):
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


#: Modules whose import is seen, from a test that leaves its folder.
OWN = """
    import os
    import sys
    from pathlib import Path

    import sre_parse
    import statistics

    def test_imports():
        assert statistics.IS_OURS
        Path("seen.txt").write_text(repr(("asynctest_kit.cli.warm.spare" in sys.modules, {})))
        os.chdir("/")
"""


@pytest.mark.once
async def test_what_a_suite_imports_it_imports_in_every_run(kept, project):
    (kept.root / "test_seen.py").unlink()
    project(pyproject__toml=PROJECT.replace("error", "default"), test_own__py=OWN, statistics__py="IS_OURS = True")
    cold = await kept.atk(ATK_WARM="0")
    assert "1 passed, 1 warning" in cold.out
    await kept.has_process()
    await kept.atk()
    await kept.has_process()
    warm = await kept.atk()
    assert kept.seen[0], warm.err
    assert told(warm)[0] == told(cold)[0] == "."
    assert "1 passed, 1 warning" in warm.out


WITH_DATABASE = """
    [tool.pytest.ini_options]

    [tool.asynctest_kit]
    provider = "embedded"

    [tool.asynctest_kit.services.postgres]
    migrations = { sql = "sql" }
"""

ON_DATABASE = """
    import sys
    from pathlib import Path

    async def test_is_on_one(pg):
        await pg.execute("INSERT INTO users VALUES (1)")
        number = await pg.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()")
        Path("seen.txt").write_text(repr(("asynctest_kit.cli.warm.spare" in sys.modules, number)))
"""


@pytest.mark.once
async def test_the_next_runs_database_is_made_while_nobody_waits(project):
    (root := project(pyproject__toml=WITH_DATABASE, test_own__py=ON_DATABASE)).joinpath("sql").mkdir()
    (root / "sql" / "1.sql").write_text("CREATE TABLE users (id int PRIMARY KEY)")
    kept = Kept(root)
    assert (await kept.atk("up")).code == 0
    try:
        await kept.has_process()
        doctor = await kept.atk("doctor")
        text = "its database is not made ahead: its template for these migrations is not there yet"
        assert f"postgres, next run note {text}" in " ".join(doctor.out.split())
        assert (await kept.atk()).code == 0
        await kept.has_process()
        doctor = await kept.atk("doctor")
        assert "postgres, next run ok its database is there" in " ".join(doctor.out.split())
        connection = await asyncpg.connect((await kept.atk("url", "postgres")).out.strip())
        made = await connection.fetch(r"SELECT oid FROM pg_database WHERE datname LIKE 'atk\_next\_%'")
        assert not await connection.fetch(r"SELECT datname FROM pg_database WHERE datname LIKE 'atk\_run\_%'")
        await connection.close()
        warm = await kept.atk()
        assert warm.code == 0, warm
        assert [(True, number) for (number,) in made] == [kept.seen]
    finally:
        await kept.atk("down")


async def test_a_database_that_can_not_be_made_has_its_reason_told(tmp_path):
    (tmp_path / "1.sql").touch()
    service = ServiceSettings(name="orders", kind="postgres", migrations=Migrations(sql=tmp_path))
    endpoint = Endpoint(
        service="orders", kind="postgres", provider="embedded", scheme="postgresql", host="127.0.0.1", port=1
    )
    roles = replace(service, name="roles", preparation=Preparation(roles=("app",)))
    told: dict[str, str] = {}
    await next_databases._make_all([(service, endpoint), (roles, endpoint)], tmp_path, told)
    assert "127.0.0.1" in told["orders"] and "refuse" in told["orders"].lower()
    assert told["roles"] == "it has roles, which the run makes sure of first"


PLUGIN = """
    import os
    import threading
    import time

    import pytest

    pytest.register_assert_rewrite("checks_of_theirs")
    if "PLUGIN_STARTS_A_THREAD" in os.environ:
        threading.Thread(target=time.sleep, args=(3600,)).start()
"""


def processes_in(folder: Path) -> list[str]:
    """What runs there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


async def test_plugins_are_as_in_a_cold_run(kept, project):
    project(
        plugin__py=PLUGIN, checks_of_theirs__py="def check(value): assert value == 2",
        slow_of_theirs__py="import sys; AT = sys.argv[0]", other_of_theirs__py="import sys; AT = sys.argv[0]",
        late_of_theirs__py="import sys; assert sys.argv[0] != '-c', 'nothing is set'",
        test_seen__py=SUITE
        + "        import checks_of_theirs, late_of_theirs, other_of_theirs, slow_of_theirs\n"
        + "        print('slow', slow_of_theirs.AT, 'other', other_of_theirs.AT)\n"
        + "        checks_of_theirs.check(len('abc'))",
    )  # fmt: skip
    installed = kept.root / "installed"
    (installed / "plugin-1.dist-info").mkdir(parents=True)
    (installed / "plugin-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (installed / "plugin-1.dist-info" / "entry_points.txt").write_text("[pytest11]\nplugin = plugin\n")
    for name in ("plugin.py", *(f"{what}_of_theirs.py" for what in ("checks", "late", "slow", "other"))):
        (kept.root / name).rename(installed / name)
    path = os.pathsep.join((str(installed), *filter(None, [os.environ.get("PYTHONPATH")])))
    await kept.has_process()
    cold = await kept.atk(PYTHONPATH=path, ATK_WARM_IMPORTS="slow_of_theirs,late_of_theirs")
    assert "warm-imports" not in cold.out, cold
    await kept.has_process()
    warm = await kept.atk(PYTHONPATH=path, ATK_WARM_IMPORTS="slow_of_theirs,late_of_theirs,slow_of_their")
    assert kept.seen[0], warm.err
    assert "slow -c other /" in warm.out, warm
    assert "assert 3 == 2" in warm.out, warm
    assert [line for line in warm.out.splitlines() if "warm-imports" in line] == [
        f"asynctest_kit: warm-imports (environment ATK_WARM_IMPORTS): {what}"
        for what in (
            '"late_of_theirs" can\'t be imported before a run: AssertionError: nothing is set. Take it out.',
            'no module is called "slow_of_their". Did you mean slow_of_theirs?',
        )
    ]
    await kept.has_process()
    changed = await kept.atk(PYTHONPATH=path)  # which says no more that it may be imported
    assert not kept.seen[0], changed
    assert changed.code == warm.code
    assert "slow / other /" in re.sub(r"/\S*", "/", changed.out), changed
    await kept.has_process()
    with_thread = await kept.atk(PYTHONPATH=path, PLUGIN_STARTS_A_THREAD="1")
    assert not kept.seen[0], with_thread
    with anyio.fail_after(120):
        await until(lambda: not any("warm.spare" in command for command in processes_in(kept.root)))


def test_what_is_told_of_a_module_imports_no_package(tmp_path, monkeypatch):
    (tmp_path / "package_of_theirs").mkdir()
    (tmp_path / "package_of_theirs" / "__init__.py").write_text("raise RuntimeError('not in tests')")
    monkeypatch.syspath_prepend(tmp_path)
    told = ToldImports(Settings(root=tmp_path, warm_imports=("package_of_theirs.part", "json.decode")))
    lines = []
    told.pytest_terminal_summary(SimpleNamespace(write_line=lambda line, **_: lines.append(line)))
    assert len(lines) == 1
    assert 'no module is called "json.decode"' in lines[0]


def end_before_it_begins(listener: socket.socket) -> list[str]:
    """Be a process that waits, and ends with a run's word that it should go unread; give the run's arguments."""
    connection, _ = listener.accept()
    with connection:
        line = b""
        while not line.endswith(b"\n"):
            line += connection.recv(1 << 16)
        connection.sendall(b"process %d\n" % os.getpid())
        select.select([connection], [], [])
    return ast.literal_eval(line.decode())["arguments"]


async def test_one_that_ends_before_the_run_begins_is_none(project):
    kept = Kept(project(test_own__py=SUITE.replace("redis", "").replace('await .set("key", "value")', "")))
    runtime.base_directory()
    kept.socket.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(kept.socket))
        listener.listen()
        ending = asyncio.create_task(asyncio.to_thread(end_before_it_begins, listener))
        run = await kept.atk()
        assert (await ending)[1:] == ["run", "-q", "-s"]
    kept.socket.unlink()
    assert run.err.startswith("atk: not a warm start: the process that waited has ended")
    assert run.code == 0, run
    assert not kept.seen[0]


def test_only_a_private_folder_is_used(tmp_path):
    folder = tmp_path / "warm"
    assert not meeting.is_private(str(folder))
    folder.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    assert meeting.is_private(str(folder))
    folder.chmod(0o750)
    assert not meeting.is_private(str(folder))
    (tmp_path / "link").symlink_to(tmp_path)
    assert not meeting.is_private(str(tmp_path / "link"))
    folder.chmod(0o700)
    tmp_path.chmod(0o755)
    assert not meeting.is_private(str(folder))


async def test_reasons_to_refuse(monkeypatch, tmp_path):
    monkeypatch.setattr(meeting, "is_traced", lambda: False)
    files = dict(spare._written())
    written = max(files.values())
    waiting = spare._Spare(dict(os.environ), frozenset(), files, written + 1, (str(tmp_path),))
    request = meeting.request()
    monkeypatch.setattr(meeting, "request", lambda: request)
    me = os.getpid()
    assert waiting.refusal(request, me) == ""
    for change, reason in (
        ({"executable": "/other/python"}, "another executable"),
        ({"flags": ["other"]}, "another flags"),
        ({"environ": {**os.environ, "B": "1", "A": "1"}}, "another environment: A, B"),
        ({"modules": [*sys.modules, "pydevd", "runpy"]}, "modules of its own: pydevd"),
        ({"descriptors": [0, 1, 2, 7, 8]}, "a descriptor that is in use: 7"),
    ):
        assert waiting.refusal(request | change, me, frozenset({0, 7})) == reason
    assert waiting.refusal(request, 1) != ""  # another process's limits, control group or user
    for name in ("anyio", "conftest", "unheard"):
        (tmp_path / name).mkdir()
    assert waiting.refusal(request, me) == ""  # no modules
    (tmp_path / "anyio" / "__init__.py").touch()
    (tmp_path / "pytest.py").touch()
    hidden = f"a library's name for a module of its own: {tmp_path}/anyio, {tmp_path}/pytest"
    edited = replace(waiting, folders=(), began=written)  # while it imported, so nobody knows which it has
    assert waiting.refusal(request, me) == hidden
    assert edited.refusal(request, me) == "files of what is imported have changed"
    monkeypatch.setattr(meeting, "is_traced", lambda: True)
    assert edited.refusal(request, me) == "a debugger, profiler or coverage is at what waited"
    monkeypatch.setattr(meeting, "is_traced", lambda: False)
    monkeypatch.setattr(spare, "_changed", lambda _: 1)
    assert replace(waiting, folders=()).refusal(request, me) == "files of what is imported have changed"


def test_recipes(tmp_path, monkeypatch):
    importlib.import_module("calendar")
    monkeypatch.syspath_prepend(str(tmp_path / "of_tests"))
    recipe = Recipe.of_this_run(Settings(root=tmp_path), ["some_plugin.of_ours"])
    assert "asyncpg" in recipe.modules or "asyncpg" not in sys.modules
    assert "pytest" in recipe.modules
    assert not any(
        name.partition(".")[0] in {"test_warm_start", "conftest", "coverage", "__main__"} for name in recipe.modules
    )
    assert recipe.folders == (str(tmp_path / "of_tests"),)
    near = Recipe.of_this_run(Settings(root=tmp_path), None).folders
    assert str(tmp_path) in near
    file = tmp_path / "recipe"
    recipe.keep(file)
    assert Recipe.kept(file) == recipe
    assert "calendar" not in recipe.modules  # what a test imports, it imports
    for text in ("", "{}", '{"root": 1}', "[]"):
        file.write_text(text)
        assert Recipe.kept(file) is None
