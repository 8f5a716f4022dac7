"""What is collected cheaply is what pytest collects, to the last name."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import pytest
from parity import SUITES, Bench

BESIDE = {
    "nobody": (),
    "items of a plugin's own": ("-pmakes_items",),
    "tests and ids of a plugin's own": ("-pmakes_tests",),
    "pytest-asyncio": ("-ppytest_asyncio.plugin",),
    "pytest-asyncio's auto mode": ("-ppytest_asyncio.plugin", "--asyncio-mode=auto"),
    "anyio's auto mode": ("-oanyio_mode=auto",),
    "a choice": ("-k", "too and not Inner", "north", "test_classes.py"),
}


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, SUITES / "collected")


@pytest.mark.parametrize("arguments", BESIDE.values(), ids=BESIDE)
def test_collected_is_pytests(arguments, bench, tmp_path):
    if "-ppytest_asyncio.plugin" in arguments and importlib.util.find_spec("pytest_asyncio") is None:
        pytest.skip("needs pytest-asyncio")
    arguments = ("--collect-only", "-q", *arguments)
    starts = {"plain": bench.start_plain, "engine": bench.start}
    runs = {
        name: start(*arguments, COLLECTED=str(tmp_path / name), PYTHONPATH=_path()) for name, start in starts.items()
    }
    outs = {name: run.finish().out for name, run in runs.items()}
    plain, engine = (json.loads((tmp_path / name).read_text()) for name in starts)
    assert len(plain) > 10, outs["plain"]
    assert [item["nodeid"] for item in engine] == [item["nodeid"] for item in plain]
    for ours, theirs in zip(engine, plain, strict=True):
        assert ours == theirs
    assert _names(outs["engine"]) == _names(outs["plain"])


@pytest.mark.parametrize("plugins", [(), ("-pasynctest_kit.plugin",)], ids=["engine", "with-our-fixtures"])
def test_one_of_each_kind_is_pytests_work(bench, tmp_path, plugins):
    run = bench.engine(
        *plugins,
        "--collect-only",
        "-q",
        "-pcounts_definitions",
        "north/test_place_north.py",
        COLLECTED=str(tmp_path / "items"),
        DEFINED=str(tmp_path / "definitions"),
        PYTHONPATH=_path(),
    )
    assert run.code == 0, run.out
    defined = Counter((tmp_path / "definitions").read_text().split())
    cheap = {"test_second", "test_uses_too", "test_skipped_too", "test_number_too", "test_inner", "test_asks_too"}
    assert not cheap & defined.keys()
    assert {"test_first", "test_named_too", "test_nothing_too", "test_default_too", "test_sync_too"} <= defined.keys()


def _path() -> str:
    return f"{SUITES.parent}:{SUITES / 'collected'}"


def _names(out: str) -> list[str]:
    return [line for line in out.splitlines() if "::" in line]
