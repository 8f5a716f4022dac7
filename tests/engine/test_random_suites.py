"""Whatever fixtures do: each is torn down once, after its last user and before what it depends on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from parity import Bench, Finished, faults_of
from random_suites import Suite, suites


def run(suite: Suite) -> tuple[Finished | None, Finished]:
    """Run it under the engine, and beside it under plain pytest if that can stand it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "suite"
        folder.mkdir()
        for file, text in suite.files().items():
            (folder / file).write_text(text)
        bench = Bench(Path(name) / "runs", folder)
        plain = None if suite.is_deadly else bench.start_plain()
        engine = bench.start(concurrency=4, timeout=0.7)
        return plain and plain.finish(), engine.finish()


def before_tear_down(finished: Finished) -> dict[str, list[str]]:
    """Outcomes without those of tear-downs: which test is the last user of a fixture depends on the order."""
    return {
        nodeid: [f"{phase.when} {phase.outcome}" for phase in phases if phase.when != "teardown"]
        for nodeid, phases in finished.phases.items()
    }


@given(suites())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_fixtures_live_rightly(suite):
    plain, engine = run(suite)
    assert faults_of(engine.trail) == [], engine.out
    assert engine.code in {0, 1}, engine.out
    assert "INTERNALERROR" not in engine.out
    finished = [event["nodeid"] for event in engine.events if event["type"] == "CaseFinished"]
    assert sorted(finished) == sorted(engine.phases)
    if plain is not None:
        assert before_tear_down(engine) == before_tear_down(plain), engine.out
        assert engine.code == plain.code, engine.out
