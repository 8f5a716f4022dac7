"""The private directories: whose they are, who listens, and what is swept."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision import runtime
from asynctest_kit.provision.identity import identify, proven_dead, this_process


@pytest.fixture
def project(tmp_path):
    tmp_path.chmod(0o700)
    return runtime.Project(key="key", directory=tmp_path)


def test_only_one_listens_and_the_next_may_when_it_stops(project):
    lock = runtime.take_lock(project)
    assert runtime.take_lock(project) is None
    os.close(lock)
    again = runtime.take_lock(project)
    assert again is not None
    os.close(again)


def test_two_roots_have_two_meeting_places_and_one_root_has_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert runtime.project_of(tmp_path) != runtime.project_of(tmp_path / "other")
    assert runtime.project_of(tmp_path) == runtime.project_of(tmp_path / "link")


def test_a_place_too_deep_for_a_socket_is_refused(tmp_path, monkeypatch):
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(ProvisionError, match=r"is too long for a socket \(103 bytes at most\). Point XDG_RUNTIME_DIR"):
        runtime.project_of(tmp_path)


def test_looks_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime.existing_project_of(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    made = runtime.project_of(tmp_path)
    assert runtime.existing_project_of(tmp_path) == made
    made.directory.chmod(0o755)
    with pytest.raises(ProvisionError, match="only you can enter"):
        runtime.existing_project_of(tmp_path)


def test_a_directory_that_others_may_enter_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(ProvisionError, match="only you can enter"):
        runtime._private(tmp_path)


def test_a_link_is_no_private_directory(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ProvisionError, match="only you can enter"):
        runtime._private(tmp_path / "link")


def test_what_lives_and_what_has_no_owner_is_spared():
    living, unowned = runtime.data_directory(), runtime.data_directory()
    unowned.with_name(f"{unowned.name}.owner").unlink()
    os.utime(unowned, (0, 0))
    try:
        runtime.sweep()
        assert living.exists()
        assert unowned.exists()
    finally:
        runtime.remove(living)
        runtime.remove(unowned)


def test_what_the_dead_owned_is_swept():
    directory, unmade = runtime.data_directory(), runtime.data_directory()
    unmade.rmdir()
    links = [each.with_name(f"{each.name}.owner") for each in (directory, unmade)]
    dead = msgspec.structs.replace(this_process(), started="0")
    for link in links:
        link.unlink()
        link.symlink_to(msgspec.json.encode(dead).decode())
    assert {directory.name, unmade.name} <= set(runtime.sweep())
    assert not directory.exists()
    assert not any(link.is_symlink() for link in links)


def test_an_ended_process_that_nobody_waited_for_is_dead():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    owner = identify(pid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        assert not identify(pid).started
        assert proven_dead(owner) or not owner.started
    finally:
        os.waitpid(pid, 0)


def test_the_living_are_not_proven_dead():
    assert not proven_dead(this_process())
    assert Path("/proc").exists() is bool(this_process().boot)
