"""What ends a benchmark: an aim that is missed, if that is asked for."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def aims():
    spec = spec_from_file_location("_aims", BENCHMARKS / "_aims.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("reached", "verdicts", "code"),
    [((0.9, 3.0), ["holds", "holds"], 0), ((1.1, 3.0), ["MISSED", "holds"], 1), ((0.9, 2.9), ["holds", "MISSED"], 1)],
)
def test_a_missed_aim_is_1_if_it_is_checked(aims, capsys, reached, verdicts, code):
    most, least = reached
    run = aims.Aims()
    run.tell("of the peer", most, 1.0)
    run.tell("faster", least, 3.0, is_least=True)
    assert capsys.readouterr().out == (
        f"of the peer (aim: at most 1) {verdicts[0]}\nfaster (aim: at least 3) {verdicts[1]}\n"
    )
    run.end(argparse.Namespace(check=False))
    if code:
        with pytest.raises(SystemExit) as ended:
            run.end(argparse.Namespace(check=True))
        assert ended.value.code == code
    else:
        run.end(argparse.Namespace(check=True))


def test_where_nothing_could_be_measured_no_aim_is_checked(aims):
    with pytest.raises(SystemExit):
        aims.Aims().end(argparse.Namespace(check=True))


def test_every_benchmark_can_be_checked():
    scripts = sorted(BENCHMARKS.glob("[!_]*.py"))
    assert scripts
    assert [script.name for script in scripts if "_aims.parser(__doc__)" not in script.read_text()] == []


@pytest.mark.once
def test_a_benchmark_ends_as_it_says():
    command = [sys.executable, str(BENCHMARKS / "startup.py"), "--rounds", "1", "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "(aim: at most 5) " in done.stdout, done
    assert done.returncode == int("MISSED" in done.stdout), done
