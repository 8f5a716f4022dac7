"""Pact files: what becomes of them, whoever writes them in whatever order, and is killed meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctest_kit.contracts.errors import PactConflictError, PactError
from asynctest_kit.contracts.pact_files import Said, check_agreement, merged, named, pact_of, write_pacts


def interaction(description, status=200, *states):
    request = {"method": "GET", "path": f"/{description}"}
    given_states = {"providerStates": [{"name": state, "params": {"n": 1}} for state in states]} if states else {}
    return {
        "type": "Synchronous/HTTP",
        "description": description,
        "request": request,
        "response": {"status": status},
    } | given_states


def said(test, *interactions, provider="bank", version="4.0"):
    document = {
        "consumer": {"name": "shop"},
        "provider": {"name": provider},
        "interactions": list(interactions),
        "metadata": {"pactSpecification": {"version": version}},
    }
    return Said(test, document)


def write(folder, *words, passed=(), gone=()):
    everyone = {one.test for one in words} | set(passed)
    return write_pacts(folder, words, passed=everyone, is_gone=lambda test: test in gone)[0]


def descriptions(folder, name="shop-bank"):
    return [each["description"] for each in json.loads((folder / f"{name}.json").read_text())["interactions"]]


WORDS = [said(f"t.py::test_{n}", interaction(f"d{n % 7}", 200, *"ab"[: n % 3])) for n in range(12)]


@given(st.permutations(WORDS), st.sets(st.integers(1, 11), max_size=4))
@settings(deadline=None, max_examples=60)
def test_the_order_of_tests_and_of_runs_makes_no_difference(order, cuts):
    at_once = merged(None, WORDS, passed={one.test for one in WORDS}, is_gone=lambda test: False)
    pact = None
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(order)], strict=True):
        run = order[start:end]
        pact = merged(pact, run, passed={one.test for one in run}, is_gone=lambda test: False)
    assert json.dumps(pact, sort_keys=True) == json.dumps(at_once, sort_keys=True)


def test_a_test_that_passed_replaces_what_it_said(tmp_path):
    write(tmp_path, said("t.py::a", interaction("old"), interaction("kept")), said("t.py::b", interaction("other")))
    write(tmp_path, said("t.py::a", interaction("kept", 201), interaction("new")))
    assert descriptions(tmp_path) == ["kept", "new", "other"]
    write(tmp_path, passed=["t.py::a"])
    assert descriptions(tmp_path) == ["other"]


def test_what_nobody_says_any_more_is_taken_out_and_what_was_not_run_stays(tmp_path):
    write(tmp_path, said("t.py::a", interaction("one")), said("t.py::b", interaction("two")))
    write(tmp_path, gone=["t.py::a"])
    assert descriptions(tmp_path) == ["two"]
    write(tmp_path, gone=["t.py::b"])
    assert list(tmp_path.iterdir()) == []


def test_what_two_tests_say_stays_as_long_as_one_does(tmp_path):
    write(tmp_path, said("t.py::a", interaction("one")), said("t.py::b", interaction("one")))
    write(tmp_path, gone=["t.py::a"])
    assert descriptions(tmp_path) == ["one"]


def test_what_is_as_it_was_is_not_written(tmp_path):
    write(tmp_path, said("t.py::a", interaction("one")))
    before = (tmp_path / "shop-bank.json").stat()
    write(tmp_path, said("t.py::a", interaction("one")))
    after = (tmp_path / "shop-bank.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_others_files_are_left_alone(tmp_path):
    theirs = said("?", interaction("theirs"), provider="post").document
    (tmp_path / "shop-post.json").write_text(json.dumps(theirs))
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    assert write(tmp_path, said("t.py::a", interaction("one")), gone=["?"]) == []
    assert json.loads((tmp_path / "shop-post.json").read_text()) == theirs


def test_interactions_of_no_known_test_stay_and_may_be_taken_over(tmp_path):
    (tmp_path / "shop-bank.json").write_text(json.dumps(said("?", interaction("a"), interaction("b")).document))
    write(tmp_path, said("t.py::a", interaction("a")))
    assert descriptions(tmp_path) == ["a", "b"]
    write(tmp_path, gone=["t.py::a"])
    assert descriptions(tmp_path) == ["b"]


def test_two_tests_that_say_different_things_are_both_named(tmp_path):
    first = said("t.py::a", interaction("one", 200, "open"))
    second = said("t.py::b", interaction("one", 404, "open"))
    with pytest.raises(PactConflictError) as caught:
        check_agreement([first, second], {})
    text = "The pact of shop with bank says two things of 'one', given 'open' {\"n\": 1}"
    assert str(caught.value).startswith(f"{text}: one t.py::b says, the other t.py::a.")
    write(tmp_path, first)
    before = (tmp_path / "shop-bank.json").read_bytes()
    problems = write(tmp_path, second)
    assert [text in problem and "run it again" in problem for problem in problems] == [True]
    assert (tmp_path / "shop-bank.json").read_bytes() == before


def test_other_states_are_another_interaction():
    check_agreement([said("a", interaction("one", 200)), said("b", interaction("one", 404, "gone"))], {})
    assert named({"description": "m", "type": "Asynchronous/Messages"}) == "message 'm'"
    assert named({"description": "m", "providerState": "old"}) == "'m', given 'old'"


def test_versions_of_the_specification_are_not_mixed(tmp_path):
    write(tmp_path, said("t.py::a", interaction("one")))
    (problem,) = write(tmp_path, said("t.py::b", interaction("two"), version="3.0.0"))
    assert "in version 4.0 of the specification, and t.py::b writes it in 3.0.0" in problem
    assert write(tmp_path, said("t.py::a", interaction("one"), version="3.0.0")) == []


def test_a_file_that_is_anothers_is_not_overwritten(tmp_path):
    (tmp_path / "shop-bank.json").write_text("[]")
    (problem,) = write(tmp_path, said("t.py::a", interaction("one")))
    assert "holds no pact" in problem
    other = said("?", interaction("a"))
    other.document["consumer"]["name"], other.document["provider"]["name"] = "shop-bank", "x"
    (tmp_path / "shop-bank-x.json").write_text(json.dumps(other.document))
    (problem,) = write(tmp_path, said("t.py::a", interaction("one"), provider="bank-x"))
    assert "is the pact of 'shop-bank' and 'x'" in problem
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(PactError, match="can't be read as a pact"):
        pact_of(tmp_path / "no.json")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_pact_files import interaction, said, write
folder, n = Path(sys.argv[1]), int(sys.argv[3])
for turn in range(10_000 if n == 0 else 20):
    texts = [interaction(f"of {n}, number {i}", 200 + turn % 2) for i in range(30)]
    write(folder, said(f"t.py::test_{n}", *texts))
    print(turn, flush=True)
write(folder, said(f"t.py::test_{n}", interaction(f"last of {n}")))
"""


def test_processes_that_write_at_once_and_one_that_is_killed(tmp_path):
    """Each keeps the others' words; whoever is killed leaves a whole file, and nothing beside it in the end."""
    folder = tmp_path / "pacts"
    command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    for _ in range(5):
        assert writers[0].stdout.readline()
    writers[0].send_signal(signal.SIGKILL)
    while any(writer.poll() is None for writer in writers[1:]):
        for writer in writers[1:]:
            writer.stdout.readline()
            pact = pact_of(folder / "shop-bank.json")
            assert pact is not None
    codes = [writer.wait() for writer in writers]
    for writer in writers:
        writer.stdout.close()
    assert codes == [-signal.SIGKILL, 0, 0]
    write(folder, gone=["t.py::test_0"])
    assert descriptions(folder) == ["last of 1", "last of 2"]
    assert [file.name for file in folder.iterdir()] == ["shop-bank.json"]
