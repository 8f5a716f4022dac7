"""``atk run``: settings, supervisor, pytest with the engine in it, budget and reports, in that order.

The supervisor is spawned before pytest is imported, and asked at once for what the last run needed, so that services
boot while this process still loads and collects.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from asynctest_kit.cli.warm.recipe import begin_anew_unless, leave_a_process
from asynctest_kit.engine.interrupts import TERMINATED, Terminated, raising
from asynctest_kit.errors import AtkError
from asynctest_kit.run.clock import program_start
from asynctest_kit.run.record import Record
from asynctest_kit.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from asynctest_kit.engine.events import Event
    from asynctest_kit.engine.runtestloop import Engine
    from asynctest_kit.fixtures.ahead import Ahead
    from asynctest_kit.provision.client import Client
    from asynctest_kit.provision.service import Endpoint

__all__ = ["run"]

#: pytest's own codes for output that nobody reads, a run cut off by Ctrl-C, an internal error, a wrong invocation.
_UNREAD = 1
_INTERRUPTED = 2
_INTERNAL_ERROR = 3
_USAGE_ERROR = 4


def run(arguments: Sequence[str], options: Mapping[str, str | None], *plugins: object) -> NoReturn:
    """Run the tests that ``arguments`` name, with ``plugins`` of pytest, and end the process with their exit code."""
    started = program_start()
    gc.disable()  # imports allocate much that stays; collecting meanwhile costs a tenth of the start-up
    try:
        here = Path.cwd()
        settings = load(paths=arguments, directory=here, environ=os.environ, options=options, is_complete=False)
        begin_anew_unless(settings)
        with raising():
            code = _Run(settings, here, arguments, started, plugins).run()
    except AtkError as error:
        _leave(_USAGE_ERROR, f"atk: {error}")
    except Terminated:
        _leave(TERMINATED, "atk: ended by SIGTERM")
    except KeyboardInterrupt:
        _leave(_INTERRUPTED, "atk: interrupted")
    except BrokenPipeError:  # `atk run | head`: nobody reads on, which pytest passes over in silence, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _leave(_UNREAD)
    _leave(code)


def _leave(code: int, message: str = "") -> NoReturn:
    """End at once: everything is torn down and flushed, and an interpreter's own tear-down is only waiting."""
    if message:
        print(message, file=sys.stderr)  # noqa: T201  # the command's own message
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Run:
    """One run, from loaded settings to exit code."""

    def __init__(
        self, settings: Settings, here: Path, arguments: Sequence[str], started: float, more: Sequence[object] = ()
    ) -> None:
        self.more = more
        self.settings = settings
        self.here = here
        self.arguments = arguments
        self.started = started
        self.record = Record(settings.root, tuple(arguments))
        self.events: list[Event] = []
        self.plugins: tuple[str, ...] = ()
        self.ahead: Ahead | None = None

    def run(self) -> int:
        """Run all, report, and give the exit code."""
        if self.settings.report_json is not None:
            from asynctest_kit.report.json import check_writable

            check_writable(self.settings.report_json)
        client = self._client_for_last_runs_services()
        from asynctest_kit.run.engine import engine_for

        engine = engine_for(self.settings, self.events.append)
        try:
            code = self._pytest(engine, client)
        finally:
            if self.ahead is not None:  # pytest has ended before it knew of that
                self.ahead.close()
        from asynctest_kit.run.reports import report

        code = report(self.events, self.settings, engine, code)
        leave_a_process(self.here, self.settings, self.plugins)
        return code

    def _client_for_last_runs_services(self) -> Client | None:
        """Start what the last run needed, if it needed anything; a run without services has no supervisor."""
        known = [name for name in self.record.services() if name in self.settings.services]
        if not known or self.settings.explain_plan:
            return None
        from asynctest_kit.errors import ProvisionError
        from asynctest_kit.fixtures.ahead import Ahead
        from asynctest_kit.provision.catalog import spec_for
        from asynctest_kit.provision.client import Client

        try:
            client, settings = Client.connect(self.settings.root), self.settings
        except ProvisionError:  # both are raised again where the service is used
            return None
        starting: dict[str, Future[Endpoint]] = {}
        for name in known:
            with suppress(ProvisionError):
                starting[name] = client.ensure(spec_for(name, settings))
        self.ahead = Ahead(settings, client)
        self.ahead.start(starting)
        return client

    def _pytest(self, engine: Engine, client: Client | None) -> int:
        from asynctest_kit.engine.events import RunStarted

        lag = time.monotonic() - self.started
        self.events.append(RunStarted(at=self.started, wall_clock=time.time() - lag, arguments=tuple(self.arguments)))
        import pytest

        from asynctest_kit.report.live import watched_run
        from asynctest_kit.run.installed import ReadOnce
        from asynctest_kit.run.wiring import Wiring

        more = list(self.more)
        if self.settings.warm_imports:
            from asynctest_kit.cli.warm.told_imports import ToldImports

            more.append(ToldImports(self.settings))
        wiring = Wiring(self.settings, client, self.events.append, self.record, self.ahead)
        installed = ReadOnce()
        gc.enable()
        try:
            own = ("-p", "asynctest_kit.engine.late_plugins", "-p", "asynctest_kit")
            with watched_run(lambda: wiring.connected, lambda: wiring.waits):
                return int(pytest.main([*own, *self.arguments], plugins=[installed, engine, wiring, *more]))
        except BrokenPipeError:
            raise
        except Exception:  # noqa: BLE001  # of a plugin, after pytest's summary: shown, and the run fails
            traceback.print_exc()
            return _INTERNAL_ERROR
        finally:
            installed.end()
            self.plugins = wiring.plugins
            gc.disable()  # what is left are reports, and the process's end
