"""Runs whose processes are killed at random moments leave nothing behind, and touch nothing of anybody else's.

A moment is a number of steps that are seen from outside (what the run, its supervisor and the engine have done so far)
and a part of a second, so that moments are spread over a run however long it takes on this machine. A moment that comes
too late, for the run has ended, is tried earlier: each kill hits. CHAOS is how many kills of each kind there are
(``nox -s chaos`` has thirty on each provider), CHAOS_SEED which moments; a failure shows the moment and the seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

import msgspec
import pytest
from provision_traces import IMAGES, LABEL, SESSION
from suites import ATK, outcome, running_apart, write_suite

from asynctest_kit.provision import snapshots
from asynctest_kit.provision.identity import Identity, this_process
from asynctest_kit.provision.providers import docker_snapshots
from asynctest_kit.provision.providers.engine import EngineError, NotFoundError
from asynctest_kit.provision.runtime import project_of

pytestmark = [pytest.mark.anyio, pytest.mark.once]

KILLS = int(os.environ.get("CHAOS", "3"))
SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 20))

#: Runs at once; each has a project, a supervisor and directories of its own.
AT_ONCE = 3

#: Seconds for everything to be gone.
PATIENCE = 10.0

#: Steps that a run takes from its start to its end.
STEPS = {"docker": 25, "embedded": 14}

#: Seconds that may pass between two steps.
STEP = 0.3

SUITE = """
    import os
    import pytest

    pytestmark = pytest.mark.anyio

    def step(name):
        with open("steps", "a") as file:
            file.write(f"{name}\\n")

    step("collected")

    @pytest.fixture(autouse=True)
    def steps(request):
        step("set up")
        yield
        step("torn down")

    async def test_postgres(pg):
        step("postgres")
        assert await pg.fetchval("SELECT 1") == 1

    async def test_database(pg_database):
        step("database")

    async def test_redis(redis):
        step("redis")
        await redis.set("key", "value")
        assert await redis.get("key") == b"value"
"""


#: Containers have a volume and a network, too; to a local program they would be no settings.
SETTINGS = {
    "docker": """
        [tool.asynctest_kit.services.redis.container]
        volumes = ["common:/common"]
        networks = ["back"]
    """,
    "embedded": "",
}

#: What cleans up after a run and its supervisor: any start of a service.
NEXT_START = (
    "-c",
    """
from pathlib import Path
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.service import ServiceSpec

client = Client.connect(Path.cwd())
print(client.ensure(ServiceSpec(name="redis", kind="redis", provider="embedded")).result(60).provider)
client.close()
""",
)


@dataclass(frozen=True)
class Moment:
    """When to kill whom."""

    victims: tuple[str, ...]
    provider: str
    steps: int
    delay: float


@dataclass
class Scene:
    """One run's surroundings, and all that is known to have come of it."""

    base: Path
    mark: str
    more: dict[str, str]
    pids: set[int] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    containers: int = 0

    @property
    def root(self):
        return self.base / "project"

    @property
    def environment(self):
        return {"CHAOS_MARK": self.mark, "XDG_RUNTIME_DIR": str(self.base), "TMPDIR": str(self.base)} | self.more

    def run(self, how=ATK):
        return running_apart(self.root, how, **self.environment)

    def processes(self):
        """The living processes of the run: those that inherited its mark, and those that work in its directories."""
        folders = tuple(map(str, self.directories()))
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        found = {pid for pid in pids if self._is_ours(pid, folders)}
        self.pids |= found
        return found

    def supervisors(self):
        return [pid for pid in self.processes() if "provision.supervisor" in _read(f"/proc/{pid}/cmdline")]

    def directories(self):
        """Directories and links in them, but for those that pytest and the test have made."""
        owned = [entry for entry in Path("/dev/shm").glob(f"asynctest_kit-{os.getuid()}-*") if self._owns(entry)]
        cache = Path(self.more["XDG_CACHE_HOME"]) / "asynctest_kit/snapshots"
        on_their_way = [entry for entry in cache.glob(".*") if self._owns(entry)]
        meeting = [entry for entry in self.base.glob("asynctest_kit*/*") if entry.name != "redis"]
        return owned + on_their_way + meeting + list(self.base.glob("asynctest_kit-*-*"))

    def steps(self):
        """What changes when the run has come further."""
        places = (self.root / "steps", *self.base.glob("asynctest_kit/*/*/log"))
        sizes = tuple(place.stat().st_size for place in places if place.exists())
        return sizes, self.containers, len(list(self.base.glob("asynctest_kit/*/*"))), len(self.pids)

    def _owns(self, entry):
        link = entry if entry.suffix == ".owner" else entry.with_name(f"{entry.name}.owner")
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(str(link.readlink()), type=Identity).pid in self.pids
        return False

    def _is_ours(self, pid, folders):
        if f"CHAOS_MARK={self.mark}" not in _read(f"/proc/{pid}/environ"):
            try:
                if not str(Path(f"/proc/{pid}/cwd").readlink()).startswith(folders):
                    return False
            except OSError:
                return False
        return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


@pytest.fixture
async def cache(engine, monkeypatch):
    """A user's cache of snapshots, empty at first, so that some runs are killed while they fill it."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder
    for image in await engine.labelled_images(f"{docker_snapshots.LABEL}={snapshots.cache_id()}"):
        await engine.remove_image(image)
    shutil.rmtree(folder)


@pytest.fixture
async def bystanders(engine):
    """What looks like ours and is somebody else's; all of it must be there at the end."""
    living = {f"asynctest_kit.{name}": str(value) for name, value in msgspec.structs.asdict(this_process()).items()}
    living |= {SESSION: "somebody", LABEL: "else"}
    elsewhere = living | {"asynctest_kit.machine": "another", "asynctest_kit.started": "0"}
    names = [f"asynctest_kit-redis-{token_hex(6)}" for _ in range(3)]
    folder = Path("/dev/shm") / f"asynctest_kit-{os.getuid()}-bystander-{token_hex(3)}"
    folder.mkdir()
    async with AsyncExitStack() as stack:
        stack.callback(folder.rmdir)
        for name, labels in zip(names, ({}, living, elsewhere), strict=True):
            await engine.create(name, {"Image": IMAGES["redis"], "Labels": labels, "Cmd": ["redis-server"]})
            stack.push_async_callback(engine.remove, name)
        await engine.start(names[1])
        yield
        states = [(await engine.inspect(name))["State"]["Status"] for name in names]
        assert states == ["created", "running", "created"]
        assert folder.is_dir()


@pytest.mark.usefixtures("bystanders")
@pytest.mark.parametrize("victims", [("runner",), ("supervisor",), ("runner", "supervisor")], ids="+".join)
async def test_who_is_killed_leaves_nothing(engine, cache, victims):
    turns = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for moment in _moments(victims):
            tasks.create_task(_in_turn(turns, engine, cache, moment))


def _moments(victims):
    """One in each equal part of a run, at random there, on one provider after the other."""
    chance = random.Random(f"{SEED} {victims}")
    for number in range(KILLS):
        provider = ("docker", "embedded")[number % 2]
        share = (number + chance.random()) / KILLS
        yield Moment(victims, provider, int(share * STEPS[provider]), chance.random() * STEP)


async def _in_turn(turns, engine, cache, moment):
    async with turns:
        has_hit = False
        while not has_hit:
            try:
                async with _scene(engine, cache, moment.provider) as scene:
                    has_hit = await _kill_and_look(engine, scene, moment)
                assert has_hit or moment.steps, "the first step comes too late"
            except BaseException as error:
                error.add_note(f"{moment}; run again with {KILLS=} as CHAOS and {SEED=} as CHAOS_SEED")
                raise
            moment = replace(moment, steps=moment.steps * 2 // 3)


async def _kill_and_look(engine, scene, moment):
    """Whether all victims lived when they were hit."""
    hits = []
    async with scene.run() as run:
        reading = asyncio.ensure_future(run.stdout.read())
        await _reach(scene, run, moment)
        if "supervisor" in moment.victims:
            found = await _some_supervisors(scene, run)
            hits.append(len([pid for pid in found if _kill(pid)]) > 0)
        if "runner" in moment.victims:
            scene.processes()
            _kill(run.pid)
        async with asyncio.timeout(60):
            await reading
            await run.wait()
        if "runner" in moment.victims:
            hits.append(run.returncode == -signal.SIGKILL)
    if len(moment.victims) > 1:
        async with scene.run(NEXT_START) as following:
            out, code = await outcome(following)
            assert (out, code) == ("embedded\n", 0)
    await _all_gone(engine, scene)
    return all(hits)


async def _reach(scene, run, moment):
    seen, steps = None, -1
    while steps < moment.steps and run.returncode is None:
        if (now := scene.steps()) != seen:
            seen, steps = now, steps + 1
        await asyncio.sleep(0.005)
    await asyncio.sleep(moment.delay)


async def _some_supervisors(scene, run):
    """Those that are there, waited for if the run is too young to have any."""
    found = scene.supervisors()
    while not found and run.returncode is None:
        await asyncio.sleep(0.01)
        found = scene.supervisors()
    return found


async def _all_gone(engine, scene):
    deadline = time.monotonic() + PATIENCE
    while left := [*scene.processes(), *scene.directories(), *await _in_engine(engine, scene)]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.1)


async def _in_engine(engine, scene):
    label = f"{LABEL}={_project(scene)}"
    volumes = (await engine._json("GET", "volumes"))["Volumes"] or []
    unnamed = [volume["Name"] for volume in volumes if volume["Name"] in scene.volumes]
    named = [*await engine.labelled_volumes(label), *await engine.labelled_networks(label)]
    return [*await engine.labelled(label), *named, *unnamed]


def _project(scene):
    return project_of(scene.root).key


@asynccontextmanager
async def _scene(engine, cache, provider):
    base = Path(tempfile.mkdtemp(prefix="chaos-"))
    more = {"ATK_PROVIDER": provider, "XDG_CACHE_HOME": str(cache)}
    scene = Scene(base=base, mark=token_hex(8), more=more)
    scene.root.mkdir()
    write_suite(scene.root, SUITE, SETTINGS[provider])
    watching = asyncio.ensure_future(_watch(engine, scene))
    try:
        yield scene
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        shutil.rmtree(base)


async def _watch(engine, scene):
    """Count what happens to the run's containers, and note their volumes."""
    wanted = json.dumps({"type": ["container"], "label": [f"{LABEL}={_project(scene)}"]})
    async with engine._query("GET", "events", params={"filters": wanted}, limit=None) as response:
        async for line in response.content:
            scene.containers += 1
            with suppress(NotFoundError, EngineError):
                inspected = await engine.inspect(json.loads(line)["Actor"]["ID"])
                scene.volumes |= {mount["Name"] for mount in inspected["Mounts"] if mount["Type"] == "volume"}


def _kill(pid):
    """Whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _read(path):
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
