"""Tests that do their worst, many at once on one server, change nothing for anybody else.

A state machine starts them, looks while they run, cancels some and ends their connections. Each has a neighbour that
behaves well, and must see what it sees on a database of its own. ADVERSARIES is how many bodies there are on each
provider (``nox -s adversaries`` has 2,000), ADVERSARIES_SEED which; a failure shows the seed. A run of a suite of them
is audited.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import re
from functools import partial

import crowd
import preloaded
import pytest
from adversaries import adversaries
from anyio import to_thread
from arena import Arena
from conduct import SCHEMA, conducts
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from asynctest_kit.settings import Migrations

#: What bodies leave open is closed for them, and the warnings are theirs.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

BODIES = int(os.environ.get("ADVERSARIES", "60"))
SEED = int(os.environ.get("ADVERSARIES_SEED") or random.SystemRandom().randrange(1 << 20))

#: For the run; Docker's is a second one of the same tests.
PROVIDERS = ("embedded", "docker") if BODIES > 60 else ("embedded",)

PAIRS = st.lists(st.tuples(adversaries(), conducts(2)), min_size=1, max_size=48)


class Crowd(RuleBasedStateMachine):
    """Tests come, run and go; the servers stay."""

    def __init__(self, runner: asyncio.Runner, arena: Arena) -> None:
        super().__init__()
        self._runner, self._arena = runner, arena

    @initialize(pairs=PAIRS)
    def begin(self, pairs):
        self.launch(pairs)

    @rule(pairs=PAIRS)
    def launch(self, pairs):
        self._runner.run(self._arena.launch(pairs))

    @rule(share=st.sampled_from([0.1, 0.5, 1.0]))
    def cancel(self, share):
        self._runner.run(self._arena.cancel_some(share))

    @rule(most=st.integers(1, 20))
    def kill_idle(self, most):
        self._runner.run(self._arena.kill_idle(most))

    @rule()
    def look(self):
        self._runner.run(self._arena.look())

    @rule()
    def settle(self):
        self._runner.run(self._arena.settle())

    def teardown(self):
        self._runner.run(self._arena.settle())


def attack(endpoints, migrations):
    """As many adversaries as are asked for, on a loop of their own."""
    arena = Arena()
    with asyncio.Runner() as runner:
        runner.run(arena.open(*endpoints, migrations))
        try:
            for number in itertools.count():
                if arena.bodies >= BODIES:
                    break
                run_state_machine_as_test(
                    seed(SEED + number)(partial(Crowd, runner, arena)),
                    settings=settings(
                        max_examples=min(5, max(1, BODIES // 12)),
                        stateful_step_count=6,
                        deadline=None,
                        database=None,
                        phases=[Phase.generate],
                        suppress_health_check=list(HealthCheck),
                    ),
                )
        except BaseException as error:
            error.add_note(
                f"{arena.bodies} bodies; run again with {BODIES=} as ADVERSARIES, {SEED=} as ADVERSARIES_SEED"
            )
            raise
        finally:
            runner.run(arena.close())
            gc.collect()


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "1.sql").write_text(SCHEMA)
    return Migrations(sql=tmp_path)


@pytest.mark.parametrize("redis_endpoint", ["embedded"], indirect=True)
async def test_nobody_is_harmed(server, redis_endpoint, shop):
    await to_thread.run_sync(attack, (server, redis_endpoint), shop)


@pytest.mark.parametrize("redis_endpoint", ["docker"], indirect=True)
async def test_nobody_is_harmed_in_containers(contained_server, redis_endpoint, shop):
    await to_thread.run_sync(attack, (contained_server, redis_endpoint), shop)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_run_of_them_fails_those_that_it_should_and_harms_nobody(tmp_path, provider):
    pairs = await to_thread.run_sync(crowd.draw, BODIES, SEED)
    crowd.write(tmp_path, provider, pairs)
    reports = ("--report-json", "r.json", "--junitxml", "j.xml")
    command = ("run", "--concurrency", "64", "--shuffle", str(SEED), "--audit-isolation", *reports)
    images = {name: value for name, value in os.environ.items() if re.fullmatch("ATK_(POSTGRES|REDIS)_IMAGE", name)}
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ATK_") and name != "PYTEST_CURRENT_TEST"
    }
    run = await preloaded.finished(["-m", "asynctest_kit", *command], cwd=tmp_path, env=clean | images)
    assert run.returncode == 1, run.stdout + run.stderr
    assert list(crowd.faults(tmp_path, pairs)) == [], f"run again with {BODIES=} as ADVERSARIES, {SEED=}"
