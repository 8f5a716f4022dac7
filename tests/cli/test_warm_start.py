"""Runs that a waiting process becomes: the same as any other to all that a user, a shell or a test can see."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from asynctest_kit.cli.warm import meeting, spare
from asynctest_kit.cli.warm.recipe import Recipe

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
            "where": os.getcwd(), "environ": dict(os.environ), "input": sys.stdin.read(), "flags": sys.flags[:],
            "umask": os.umask(0o22), "interrupt": str(signal.getsignal(signal.SIGHUP)), "terminal": sys.stdout.isatty(),
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
        """A user's."""
        ours = ("ATK_", "COVERAGE_", "COV_", "PYTEST_")
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
            env=self.environ | {"ATK_WARM": "tell"} | environ,
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


async def test_a_warm_run_is_as_a_cold_one(kept):
    cold = await kept.atk(ATK_WARM="0")
    is_warm, seen_cold = kept.seen
    assert cold.code == 0, cold
    assert not is_warm
    await kept.has_process()
    await kept.atk()  # it leaves one that has imported what a run has
    await kept.has_process()
    warm = await kept.atk()
    is_warm, seen_warm = kept.seen
    assert is_warm, warm
    for name, value in seen_cold["environ"].items():
        if not meeting.is_read_later(name) and name != "PYTEST_VERSION":
            assert seen_warm["environ"][name] == value
    del seen_cold["environ"], seen_warm["environ"]
    assert seen_warm == seen_cold
    assert seen_warm["input"] == "typed"
    assert warm.code == 0
    assert warm.err == cold.err == ""
    assert told(warm) == told(cold) == [".", "1 passed"]  # not a warning more


async def test_the_end_is_the_runs(kept):
    for what, code in (("fail", 1), ("exit", 77), ("die", -signal.SIGKILL)):
        await kept.has_process()
        ended = await kept.atk(what=what)
        assert kept.seen[0], ended
        assert ended.code == code, ended
        if what != "fail":  # it could leave nobody
            await kept.atk(ATK_WARM="0")
    assert "assert 1 == 2" not in ended.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
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


async def test_of_two_runs_at_once_one_is_warm(kept):
    await kept.has_process()
    both = await asyncio.gather(kept.atk(), kept.atk())
    assert [run.code for run in both] == [0, 0], both


async def test_it_ends_with_the_services(kept):
    await kept.has_process()
    await kept.atk("down")
    await until(lambda: not kept.socket.exists())
    after = await kept.atk()
    assert after.code == 0
    assert not kept.seen[0]
    assert not kept.socket.exists()


def test_only_a_private_folder_is_used(tmp_path):
    folder = tmp_path / "warm"
    assert not meeting.is_private(str(folder))
    folder.mkdir(mode=0o700)
    assert meeting.is_private(str(folder))
    folder.chmod(0o750)
    assert not meeting.is_private(str(folder))
    (tmp_path / "link").symlink_to(tmp_path)
    assert not meeting.is_private(str(tmp_path / "link"))


async def test_reasons_to_refuse(monkeypatch):
    waiting = spare._Spare(dict(os.environ), frozenset(sys.modules), dict(spare._written()))
    request = meeting.request() | {"is_traced": False}
    monkeypatch.setattr(meeting, "request", lambda: request)
    me = os.getpid()
    assert waiting.refusal(request, me) == ""
    for change, reason in (
        ({"executable": "/other/python"}, "another executable"),
        ({"flags": ["other"]}, "another flags"),
        ({"is_traced": True}, "a debugger, profiler or coverage is at it"),
        ({"environ": {**os.environ, "B": "1", "A": "1"}}, "another environment: A, B"),
        ({"modules": [*sys.modules, "pydevd"]}, "modules of its own: pydevd"),
    ):
        assert waiting.refusal(request | change, me) == reason
    assert waiting.refusal(request, 1) != ""  # another process's limits, control group or user
    monkeypatch.setattr(spare, "_changed", lambda _: 1)
    assert waiting.refusal(request, me) == "files of what is imported have changed"


def test_recipes(tmp_path):
    recipe = Recipe.of_this_run(tmp_path, ["some_plugin.of_ours"])
    assert "asyncpg" in recipe.modules or "asyncpg" not in sys.modules
    assert "pytest" in recipe.modules
    assert not any(
        name.partition(".")[0] in {"test_warm_start", "conftest", "coverage", "__main__"} for name in recipe.modules
    )
    file = tmp_path / "recipe"
    recipe.keep(file)
    assert Recipe.kept(file) == recipe
    for text in ("", "{}", '{"root": 1}', "[]"):
        file.write_text(text)
        assert Recipe.kept(file) is None
