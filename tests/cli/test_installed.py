"""What is installed is read once while pytest is configured, and by everybody anew afterwards."""

from __future__ import annotations

import importlib.metadata
import os
import zipfile

import pytest

from asynctest_kit.run.installed import ReadOnce, read_ahead


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The metadata of a distribution with a plugin, on the path."""
    folder = tmp_path / "of_theirs-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: of-theirs\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[pytest11]\nfirst = of_theirs\n")
    (folder / "RECORD").write_text("of_theirs.py,,\n")
    (tmp_path / "of_theirs.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.fixture
def once():
    reading = ReadOnce()
    yield reading
    reading.end()


def theirs() -> importlib.metadata.Distribution:
    return next(one for one in importlib.metadata.distributions() if one.metadata["Name"] == "of-theirs")


def told(one: importlib.metadata.Distribution) -> tuple[list[str], list[str]]:
    return [point.name for point in one.entry_points], [str(file) for file in one.files or ()]


def test_it_is_read_once(installed, once):
    read_ahead()
    first = theirs()
    assert told(first) == (["first"], ["of_theirs.py"])
    for file in ("entry_points.txt", "RECORD"):
        (installed / file).write_text("")
    assert theirs() is first
    assert told(theirs()) == (["first"], ["of_theirs.py"])
    once.pytest_configure()
    assert told(theirs()) == ([], [])
    once.end()
    assert importlib.metadata.distributions is not once._distributions


def test_what_is_written_meanwhile_is_seen_by_the_next_run(installed):
    read_ahead()
    (installed / "entry_points.txt").write_text("[pytest11]\nsecond = of_theirs\n")
    os.utime(installed / "entry_points.txt", ns=(1, 1))
    reading = ReadOnce()
    assert told(theirs())[0] == ["second"]
    reading.end()
    read_ahead()
    again = installed.with_name("of_theirs-2.dist-info")
    installed.rename(again)
    (again / "METADATA").write_text("Metadata-Version: 2.1\nName: of-theirs\nVersion: 2\n")
    reading = ReadOnce()
    assert theirs().version == "2"
    reading.end()


def test_another_that_changed_it_meanwhile_has_it(once, monkeypatch):
    def nothing():
        return ()

    monkeypatch.setattr(importlib.metadata, "distributions", nothing)
    once.end()
    assert importlib.metadata.distributions is nothing


def test_what_is_in_an_archive_is_read_as_ever(installed, once, monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(installed / "METADATA", "archived-1.dist-info/METADATA")
    monkeypatch.syspath_prepend(str(tmp_path / "all.zip"))
    assert [one.version for one in importlib.metadata.distributions(name="archived")] == ["1"]
