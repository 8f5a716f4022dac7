from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sample_runs

from asynctest_kit.budget import ledger
from asynctest_kit.errors import AtkError
from asynctest_kit.report import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asynctest_kit.engine import events as ev


@pytest.mark.parametrize("run", sample_runs.ALL, ids=lambda run: run.__name__)
def test_events_read_back(tmp_path: Path, run: Callable[[], list[ev.Event]]) -> None:
    record.write(run(), tmp_path / "run.jsonl")
    assert record.read(tmp_path / "run.jsonl") == tuple(run())


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record.write(sample_runs.small(), path)
    path.write_bytes(path.read_bytes()[:-10])
    assert record.read(path) == tuple(sample_runs.small()[:-1])
    assert not ledger(record.read(path)).complete


def test_no_password_is_recorded(tmp_path: Path) -> None:
    run = sample_runs.Recorder()
    run.ready("redis", "external", "redis://:s3cret@host/0", 0.1)
    record.write(run.events, tmp_path / "run.jsonl")
    assert "s3cret" not in (tmp_path / "run.jsonl").read_text()


@pytest.mark.parametrize("line", ['{"type": "Unheard"}', "no JSON", '{"type": "LoopStarted", "at": "soon"}'])
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"type": "LoopFinished", "at": 1.0}}\n{line}\n')
    with pytest.raises(AtkError, match=r"run\.jsonl, line 2 is no event"):
        record.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AtkError, match=r"run\.jsonl can't be read: No such file"):
        record.read(tmp_path / "run.jsonl")
