"""The engine as the settings want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctest_kit.engine.runtestloop import Engine
from asynctest_kit.engine.treatment import Options, Rule, Treatment

if TYPE_CHECKING:
    from asynctest_kit.engine.events import Sink
    from asynctest_kit.settings import Settings

__all__ = ["engine_for"]


def engine_for(settings: Settings, sink: Sink) -> Engine:
    """Make the pytest plugin that runs the tests."""
    rules = tuple(
        Rule(rule.tests, Treatment(rule.exclusive, rule.group, rule.timeout, rule.retries))
        for rule in settings.overrides
    )
    options = Options(
        concurrency=settings.concurrency,
        timeout=settings.timeout,
        retries=settings.retries,
        fail_slow=settings.fail_slow,
        block_threshold=settings.block_threshold,
        interference_fails=settings.interference == "fail",
        repeat=settings.repeat,
        shuffle=settings.shuffle,
        explain_plan=settings.explain_plan,
        groups=settings.groups,
        rules=rules,
    )
    return Engine(options, sink)
