"""What a terminal, and what is none, is shown of services that start."""

from __future__ import annotations

import codecs
import io
import os
import pty
import re
import socket
import termios
import time
from concurrent.futures import Future

import preloaded
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.client import Asked
from asynctest_kit.provision.service import Endpoint, ServicePhase, ServiceSpec
from asynctest_kit.report.live import Screen, Watch

COLUMNS, ROWS = 60, 12


class Terminal(io.StringIO):
    """As much of one as is needed to see what stands on it; nothing scrolls."""

    @property
    def seen(self):
        lines, row, column = [""], 0, 0
        for up, right, control, char in re.findall(r"\x1b\[(\d+)A|\x1b\[(\d+)C|(\x1b\[J)|([^\x1b])", self.getvalue()):
            if up:
                row -= int(up)
                assert row >= 0
            elif right:
                column += int(right)
            elif control:
                lines[row] = lines[row][:column]
                del lines[row + 1 :]
            elif char == "\r":
                column = 0
            else:
                if char == "\n" or column == COLUMNS:
                    row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
                if char != "\n":
                    lines[row] = f"{lines[row][:column]:{column}}{char}{lines[row][column + 1 :]}"
                    column += 1
        return "\n".join(line.rstrip() for line in lines).rstrip()


def screen_on(terminal):
    return Screen(terminal, lambda: (COLUMNS, ROWS))


@pytest.mark.parametrize("printed", ["", "whole\n", "begun", "in\r", "more than a line of a terminal can hold" * 2])
def test_lines_stand_below_what_is_printed_and_leave_no_trace(printed):
    terminal = Terminal()
    screen = screen_on(terminal)
    screen.write(printed)
    before = terminal.seen
    screen.show(["one", "two"])
    assert terminal.seen == (f"{before}\n" if before else "") + "one\ntwo"
    screen.show([])
    assert terminal.seen == before


pieces = st.lists(st.one_of(st.text("ab \r\n", max_size=80), st.lists(st.text("xy", min_size=1), max_size=4)))


@given(pieces)
def test_whatever_comes_between_what_was_printed_is_there_as_if_nothing_had(steps):
    shown, plain = Terminal(), Terminal()
    screen = screen_on(shown)
    for step in steps:
        if isinstance(step, str):
            plain.write(step)
            screen.write(step)
        else:
            screen.show(step)
    screen.show([])
    assert shown.seen == plain.seen


def test_more_lines_than_the_terminal_has_and_longer_ones_are_cut():
    terminal = Terminal()
    screen_on(terminal).show([f"{number:{2 * COLUMNS}}" for number in range(2 * ROWS)] + ["x"])
    assert len(terminal.getvalue().split("\n")) == ROWS - 2
    assert max(map(len, terminal.seen.splitlines()), default=0) < COLUMNS


def test_what_is_said_stands_on_lines_of_its_own():
    terminal = Terminal()
    screen = screen_on(terminal)
    screen.show(["one"])
    screen.write("begun")
    screen.say("said")
    screen.write("more")
    assert terminal.seen == "begun\nsaid\nmore\none"


class Asking:
    """What a client knows of services that start, without any."""

    def __init__(self):
        self.asked = []
        self.phases = []
        self.notes = {}
        self.endpoints = {}
        self.is_closed = False

    def ask(self, name, since=0.0):
        one = Asked(len(self.asked), ServiceSpec(name=name, kind="redis"), time.monotonic() - since, Future())
        self.asked.append(one)
        return one.future

    def went_through(self, name, phase, provider="docker"):
        self.phases.append(ServicePhase(service=name, phase=phase, start=0.0, end=1.0, provider=provider))


ENDPOINT = Endpoint(
    service="redis", kind="redis", provider="docker", scheme="redis", host="127.0.0.1", port=6379, detail="an image"
)


def test_each_has_its_phase_until_it_is_up_and_a_failure_stays():
    terminal, client = Terminal(), Asking()
    watch = Watch(lambda: client, screen_on(terminal), tells_all=False)
    redis, _ = client.ask("redis"), client.ask("postgres")
    client.went_through("postgres", "resolve")
    client.went_through("postgres", "create")
    assert [one.name for one in watch.look()] == ["redis", "postgres"]
    assert re.fullmatch(r"redis     looking for who .*s\npostgres  booting  .* m?s", terminal.seen)
    redis.set_exception(ProvisionError("It has no luck. Its last words:\n  | alas"))
    assert [one.name for one in watch.look()] == ["postgres"]
    assert re.fullmatch(
        r"redis     FAILED after .*\nIt has no luck. Its last words:\n  \| alas\npostgres  booting  .*", terminal.seen
    )
    client.went_through("postgres", "boot")
    client.went_through("postgres", "ready")  # the wait is over, which may have been in vain
    watch.look()
    assert re.search(r"\npostgres  finishing its start  .*$", terminal.seen)
    client.asked[1].future.set_result(ENDPOINT)
    assert watch.look() == []
    assert terminal.seen.endswith("alas")
    assert watch.failed == 1


def test_what_is_prepared_is_shown_until_it_is():
    terminal, client = Terminal(), Asking()
    watch = Watch(lambda: client, screen_on(terminal), tells_all=False)
    client.ask("redis").set_result(ENDPOINT)
    client.endpoints["redis"], client.notes["redis"] = ENDPOINT, "migrating"
    assert watch.look() == []
    assert terminal.seen == "redis  migrating"
    client.notes.clear()
    watch.look()
    assert terminal.seen == ""


def test_an_end_that_takes_long_says_what_it_waits_for():
    terminal, client = Terminal(), Asking()
    watch = Watch(lambda: client, screen_on(terminal), tells_all=False)
    client.is_closed, client.notes["redis"] = True, "keeping a snapshot"
    watch.look()
    assert terminal.seen == ""
    watch._closed_at -= 2.0
    watch.look()
    assert re.fullmatch(r"redis: keeping a snapshot  .* s; Ctrl-C doesn't wait for", terminal.seen)  # 60 columns wide
    client.notes.clear()
    watch.look()
    assert terminal.seen == ""


def test_what_nobody_wants_any_more_has_not_failed():
    terminal, client = Terminal(), Asking()
    watch = Watch(lambda: client, screen_on(terminal), tells_all=False)
    pending = client.ask("redis")
    watch.look()
    client.is_closed = True
    pending.set_exception(ProvisionError("It was not ready when its client was closed."))
    assert watch.look() == []
    assert (terminal.seen, watch.failed) == ("", 0)


def test_who_asks_for_it_is_told_of_all():
    terminal, client = Terminal(), Asking()
    watch = Watch(lambda: client, screen_on(terminal), tells_all=True)
    client.ask("redis").set_result(ENDPOINT)
    assert not watch.look_and_wait()
    assert re.fullmatch(r"redis  ready in .* redis://127.0.0.1:6379\n +an image\n", terminal.getvalue())


def test_a_log_is_told_of_what_takes_long_ever_less_often_and_not_of_a_failure_that_the_report_has():
    log, client = io.StringIO(), Asking()
    watch = Watch(lambda: client, Screen(log, None), tells_all=False)
    client.ask("quick")
    slow = client.ask("slow", since=6.0)
    for _ in range(3):
        watch.look()
    assert re.fullmatch(r"slow   looking for who can give it  6.00 s\n", log.getvalue())
    client.asked[1] = client.asked[1]._replace(at=time.monotonic() - 11.0)
    watch.look()
    assert len(log.getvalue().splitlines()) == 2
    slow.set_exception(ProvisionError("too slow"))
    watch.look()
    assert "too slow" not in log.getvalue()


def test_who_waits_for_whom_is_shown_while_it_lasts_and_told_to_a_log_when_it_is_long():
    terminal, log, client, waits = Terminal(), io.StringIO(), Asking(), []
    shown = Watch(lambda: client, screen_on(terminal), tells_all=False, waits=lambda: waits)
    told = Watch(lambda: client, Screen(log, None), tells_all=False, waits=lambda: waits)
    waits.append(("b::two waits for a row, held by a::one", time.monotonic() - 2.0))
    shown.look()
    told.look()
    assert re.fullmatch(r"lock wait 2.\d\d s  b::two waits for a row, held by a::one", terminal.seen)
    assert log.getvalue() == ""
    waits[0] = (waits[0][0], time.monotonic() - 6.0)
    told.look()
    told.look()
    assert re.fullmatch(r"lock wait 6.\d\d s  b::two waits for a row, held by a::one\n", log.getvalue())
    waits.clear()
    shown.look()
    assert terminal.seen == ""


def test_before_there_is_a_client_nothing_is_shown():
    terminal = Terminal()
    assert Watch(lambda: None, screen_on(terminal), tells_all=False).look() == []
    assert terminal.getvalue() == ""


def test_a_server_of_the_users_own_is_not_created():
    terminal, client = Terminal(), Asking()
    client.ask("redis")
    client.went_through("redis", "resolve", provider="external")
    Watch(lambda: client, screen_on(terminal), tells_all=False).look()
    assert re.fullmatch(r"redis  waiting for its answer  .*", terminal.seen)


@pytest.fixture
def slow(project):
    """A suite whose one service never answers, and what names it."""
    with socket.socket() as nobody:  # bound, so that it is nobody else's, and not listening
        nobody.bind(("127.0.0.1", 0))
        root = project(
            pyproject__toml="""
                [tool.pytest.ini_options]
                [tool.asynctest_kit]
                [tool.asynctest_kit.services.redis]
                startup-timeout = "0.5s"
            """,
            test_it__py="""
                from asyncio import sleep
                import pytest

                pytestmark = pytest.mark.anyio

                async def test_ping(redis):
                    assert await redis.ping()

                async def test_that_lasts_longer_than_the_start():
                    await sleep(0.8)
            """,
        )
        yield root, {"ATK_REDIS_URL": f"redis://127.0.0.1:{nobody.getsockname()[1]}"}


SHOWN = re.compile(r"redis  (looking for who can give it|waiting for its answer)  \d")


@pytest.mark.parametrize("program", [("asynctest_kit", "run"), ("pytest",), ("pytest", "--atk")], ids=" ".join)
def test_a_run_on_a_terminal_shows_its_services_while_they_start(slow, program):
    root, environment = slow
    shown = run_on_a_terminal(*program, "test_it.py", cwd=root, **environment)
    assert SHOWN.search(shown)
    assert 0 < shown.index("redis  FAILED after") < shown.index("was not ready within 0.5 s") < shown.index("= ERRORS")
    assert not SHOWN.search(shown.partition("redis  FAILED after")[2])
    assert "1 passed, 1 error" in re.sub(r"\x1b\[[\d;]*m", "", shown)


@pytest.mark.parametrize(
    ("options", "environment"),
    [(("-q",), {}), (("-s",), {}), ((), {"CI": "1"})],
    ids=["quiet", "uncaptured", "CI"],
)
def test_pytest_shows_none_where_nobody_wants_or_sees_it(slow, options, environment):
    root, url = slow
    shown = run_on_a_terminal("pytest", "-k", "ping", *options, "test_it.py", cwd=root, **url | environment)
    assert not SHOWN.search(shown)
    assert "FAILED after" not in shown
    assert re.search(r"(^|\W)1 error", re.sub(r"\x1b\[[\d;]*m", "", shown))


#: The first test goes on when the wait has been seen on the terminal.
WAITING = """
import anyio
import pytest
from pathlib import Path

pytestmark = pytest.mark.anyio
inserted = anyio.Event()

async def test_has_it(pg):
    await pg.execute("INSERT INTO users (email) VALUES ('eve@example.com')")
    inserted.set()
    while not Path("seen").exists():
        await anyio.sleep(0.02)

async def test_wants_it(pg):
    await inserted.wait()
    await pg.execute("INSERT INTO users (email) VALUES ('eve@example.com')")
"""


def test_a_run_on_a_terminal_shows_who_waits_for_whose_lock_while_it_does(project):
    root = project(
        pyproject__toml="""
            [tool.asynctest_kit]
            timeout = "50s"
            [tool.asynctest_kit.services.postgres]
            provider = "embedded"
            migrations = { sql = "sql" }
        """,
        test_it__py=WAITING,
    )
    (root / "sql").mkdir()
    (root / "sql" / "01.sql").write_text("CREATE TABLE users (email text PRIMARY KEY)")
    line = re.compile(
        r"lock wait \d[\d.]* m?s  test_it.py::test_wants_it waits for the unique key users_pkey of users, "
        r"email = 'eve@example.com', held by test_it.py::test_has_it"
    )

    def look(shown):
        if line.search(shown):
            (root / "seen").touch()

    shown = run_on_a_terminal("asynctest_kit", "run", "test_it.py", cwd=root, look=look)
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert "2 passed" in plain, plain
    assert "1 wait for locks of others" in plain


def run_on_a_terminal(module, *arguments, cwd, look=lambda _: None, **environment):
    """Everything that a terminal was sent by a Python module with these arguments; ``look`` sees it while it comes."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 240))
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ATK_") and name not in ("CI", "PYTEST_CURRENT_TEST")
    }
    variables = clean | {"TERM": "xterm"} | environment
    with os.fdopen(theirs, "wb") as end:
        process = preloaded.start(["-m", module, *arguments], cwd=cwd, env=variables, out=end, err=end)
    with os.fdopen(ours, "rb") as terminal:
        shown = ""
        for piece in codecs.iterdecode(pieces_of(terminal), "utf-8"):
            shown += piece
            look(shown)
    assert process.wait(60) is not None
    return shown


def pieces_of(terminal):
    while True:
        try:
            piece = terminal.read1()
        except OSError:  # a terminal that nobody has open any more
            return
        if not piece:
            return
        yield piece
