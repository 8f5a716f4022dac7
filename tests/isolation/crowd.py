"""A suite of adversaries, and of tests that behave well, for a run of its own; and what may come of each of them."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from adversaries import DEEDS, ENDS, Adversary
from conduct import SCHEMA, Conduct, conducts
from hypothesis import HealthCheck, Phase, given, seed, settings

#: For so many adversaries there is one test that behaves well.
_ADVERSARIES_TO_ONE = 4

_TIME_OUT = r"took longer than its time-out of 0\.3 s"
_OPEN = "it left a transaction open: neither committed nor rolled back"
_RUNNING = (
    r"it ended while a statement was running in a task created at \S*adversaries\.py:\d+ in "
    r"_(leave_statement|kill_mid_statement).*: SELECT pg_sleep\(3\)"
)

#: What is told of those that fail, by the deed or the end that it comes of. No other test fails.
TOLD = {
    "raise": r"adversaries\.Outrage",
    "hang": _TIME_OUT,
    "hang in a statement": _TIME_OUT,
    "hang in Redis": _TIME_OUT,
    "leave a transaction": _OPEN,
    "leave a failed transaction": _OPEN,
    "leave a connection": rf"(?:{_OPEN}; )?it never gave \d+ connection\(s\) back",
    "leave a constraint violated": "it left a deferred constraint violated",
    "leave a statement": _RUNNING,
    "be killed in mid-statement": _RUNNING,  # where its time was over before
    "leave a MULTI": "it left a MULTI open",
    "stay blocked": r"it ended while BLPOP was waiting in a task created at \S*adversaries\.py:\d+ in _block_on",
}

#: These ends can't be kept from it, whatever was done before.
_SURE = ("raise", "hang", "leave a connection")

_CONFTEST = """
import asyncio

import asyncpg
import pytest
from arena import alone
from conduct import SCHEMA

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="session")
async def servers_pool(postgres):
    async with asyncpg.create_pool(postgres.url, database="postgres", min_size=1, max_size=4) as pool:
        yield pool

@pytest.fixture(scope="session")
def kill(servers_pool):
    return lambda pid: servers_pool.execute("SELECT pg_terminate_backend($1)", pid)

@pytest.fixture(scope="session")
async def expect(postgres, servers_pool):
    await servers_pool.execute("CREATE DATABASE alone")
    lock = asyncio.Lock()
    async with asyncpg.create_pool(postgres.url, database="alone", min_size=1, max_size=1) as pool:
        await pool.execute(SCHEMA)

        async def act(neighbour, number):
            async with lock:
                return await alone(neighbour, number, pool)

        yield act
    await servers_pool.execute("DROP DATABASE alone WITH (FORCE)")
"""

#: Apart from the tests, for pytest reads the whole of a test's file for each failure.
_BODIES = """
import pytest
from adversaries import Adversary
from conduct import Block, Conduct, Step

NEIGHBOURS = [
{neighbours}
]
ADVERSARIES = [
{adversaries}
]
"""

_SUITE = """
import pytest
from adversaries import Given, misbehave
from arena import behave
from bodies import ADVERSARIES, NEIGHBOURS

@pytest.mark.parametrize("number, neighbour", NEIGHBOURS)
async def test_neighbour(number, neighbour, pg_pool, redis, expect):
    await behave(neighbour, number, pg_pool, redis, await expect(neighbour, number))

@pytest.mark.parametrize("number, adversary", ADVERSARIES)
async def test_adversary(number, adversary, pg, pg_pool, redis, kill):
    await misbehave(adversary, Given(number, pg, pg_pool, redis, kill))
"""

_SETTINGS = """
[tool.pytest.ini_options]
pythonpath = ["{folder}"]
addopts = "-p no:cacheprovider"
filterwarnings = ["ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"]
[tool.asynctest_kit]
provider = "{provider}"
[tool.asynctest_kit.services.postgres]
migrations = {{ sql = "sql" }}
"""


def draw(count: int, number: int) -> list[tuple[Adversary, Conduct]]:
    """Bodies, the same for the same seed."""
    chance = random.Random(number)
    conducts_drawn: list[Conduct] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(conducts(2))
    def note(conduct):
        conducts_drawn.append(conduct)

    note()
    return [(_adversary(chance), conduct) for conduct in conducts_drawn]


def _adversary(chance: random.Random) -> Adversary:
    """Of one that is drawn alone; what hypothesis draws in a row is alike."""
    deeds = chance.choices(sorted(DEEDS), k=chance.randint(1, 5))
    return Adversary(tuple(deeds), chance.choice(sorted(ENDS)))


def write(folder: Path, provider: str, pairs: Sequence[tuple[Adversary, Conduct]]) -> None:
    """Write a project whose tests they are; its run writes ``r.json`` and ``j.xml``."""
    (folder / "sql").mkdir()
    (folder / "sql" / "1.sql").write_text(SCHEMA)
    (folder / "pyproject.toml").write_text(_SETTINGS.format(folder=Path(__file__).parent, provider=provider))
    (folder / "conftest.py").write_text(_CONFTEST)
    numbered = _numbered(pairs)
    bodies = _BODIES.format(
        adversaries="\n".join(_parameters(number + 1, adversary, adversary.end) for number, adversary, _ in numbered),
        neighbours="\n".join(
            _parameters(number, neighbour, "neighbour") for number, _, neighbour in numbered[::_ADVERSARIES_TO_ONE]
        ),
    )
    (folder / "bodies.py").write_text(bodies)
    (folder / "test_crowd.py").write_text(_SUITE)


def faults(folder: Path, pairs: Sequence[tuple[Adversary, Conduct]]) -> Iterator[str]:
    """What is otherwise than it must be when such a project has been run: outcomes, and what the audit has found."""
    report = json.loads((folder / "r.json").read_text())
    yield from (f"{audit['service']}: {audit['differences']}" for audit in report["audits"] if not audit["same"])
    if [audit["service"] for audit in report["audits"]] != ["postgres", "redis"]:
        yield f"audited: {report['audits']}"
    told = _told(folder / "j.xml")
    numbered = _numbered(pairs)
    for number, adversary, _ in numbered:
        yield from _faults_of(adversary, told.pop(number + 1, "it did not run"))
    for number, _, neighbour in numbered[::_ADVERSARIES_TO_ONE]:
        if found := told.pop(number, "it did not run"):
            yield f"{neighbour}: {found}"
    if told:
        yield f"of nobody: {told}"


def _faults_of(adversary: Adversary, found: str) -> Iterator[str]:
    names = (*adversary.deeds, adversary.end)
    expected = {TOLD[name] for name in names if name in TOLD}
    left = re.sub("|".join(expected), "", found) if expected else found
    if (adversary.end in _SURE and not re.search(TOLD[adversary.end], found)) or (found and left == found):
        yield f"{adversary}: {found or 'it passed'}"
    if other := [text for text in TOLD.values() if re.search(text, left)]:
        yield f"{adversary} was told {other}: {found}"


def _told(junit: Path) -> dict[int, str]:
    """What is told of each test, by its number; nothing if it passed. One that fails twice is there twice."""
    told: defaultdict[int, str] = defaultdict(str)
    for case in ET.parse(junit).iter("testcase"):
        told[_number(case.get("name", ""))] += "\n".join(_failures(case))
    return told


def _number(name: str) -> int:
    return int(name.partition("[")[2].partition("-")[0])


def _failures(case: ET.Element) -> list[str]:
    return [f"{one.get('message')}\n{one.text}" for one in case if one.tag in {"failure", "error"}]


def _numbered(pairs: Sequence[tuple[Adversary, Conduct]]) -> list[tuple[int, Adversary, Conduct]]:
    return [(1000 + 10 * index, *pair) for index, pair in enumerate(pairs)]


def _parameters(number: int, body: Adversary | Conduct, name: str) -> str:
    marks = ", marks=pytest.mark.atk(timeout=0.3)" if name.startswith("hang") else ""
    return f"    pytest.param({number}, {body!r}, id='{number}-{name.replace(' ', '_')}'{marks}),"
