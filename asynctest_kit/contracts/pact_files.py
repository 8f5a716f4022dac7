"""Pact files: one for each consumer and provider, merged from what their tests say.

The file is a function of the tests, not of the order in which they ran. Its interactions are sorted by what they are
called and by the states that they are given; its keys are sorted; and beside each it notes the tests that say so, in
the metadata, where no verifier and no broker looks. By these notes a run knows what to take out:

- what a test that passed said earlier is replaced by what it says now;
- what a test said that is no longer there is taken out: its file is gone, or was collected and has no such test;
- everything else stays: of tests that were not run (``-k``, ``-m``, a path), were skipped, or failed.

So there is no mode to be chosen. ``merge``, as other implementations call theirs, keeps what nobody says any more, and
``overwrite`` loses what the tests say that were not run.

One process at a time writes in a folder, under a lock on the folder, and replaces each file at once: who is killed in
between leaves the old file or the new one. A file that would be as it was is left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asynctest_kit.contracts.errors import PactConflictError, PactError
from asynctest_kit.project_files import locked, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "SECTIONS",
    "Agreed",
    "Said",
    "Written",
    "check_agreement",
    "check_names",
    "named",
    "pact_of",
    "pair_of",
    "write_pacts",
]

#: Where interactions are in a pact, by the version of its specification.
SECTIONS: Final = ("interactions", "messages")

#: Our part of the metadata.
_OURS: Final = "asynctest_kit"

_MESSAGES: Final = ("Asynchronous/Messages", "Synchronous/Messages")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What one test says to one pair: a pact, as the library wrote it."""

    test: str
    document: Document

    @property
    def pair(self) -> tuple[str, str]:
        """The names of consumer and provider."""
        return pair_of(self.document)


@dataclass(slots=True)
class _Entry:
    """An interaction, where it stands, and the tests that say so."""

    section: str
    content: Document
    tests: set[str] = field(default_factory=set)


def named(interaction: Mapping[str, Any], section: str = "interactions") -> str:
    """What an interaction is called, and the states that it is given: no two in a pact are the same in that."""
    is_message = section == "messages" or interaction.get("type") in _MESSAGES
    text = f"{'message ' * is_message}{interaction.get('description', '')!r}"
    states = interaction.get("providerStates") or interaction.get("providerState") or ()
    if isinstance(states, str):
        states = [{"name": states}]
    return text + "".join(f", given {_state(state)}" for state in states)


def _state(state: Mapping[str, Any]) -> str:
    parameters = state.get("params")
    shown = json.dumps(parameters, sort_keys=True, ensure_ascii=False) if parameters else ""
    return f"{state.get('name', '')!r} {shown}".rstrip()


def pair_of(document: Mapping[str, Any]) -> tuple[str, str]:
    """The names of consumer and provider."""
    return document["consumer"]["name"], document["provider"]["name"]


def pact_of(file: Path) -> Document | None:
    """The pact in a file; None if it is something else in JSON.

    Raises:
        PactError: It can't be read, or holds no JSON.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PactError(f"{file} can't be read as a pact: {error}. Remove it, or have it written again.") from None
    try:
        is_pact = all(isinstance(name, str) for name in pair_of(document))
        is_pact = is_pact and any(isinstance(document.get(section), list) for section in SECTIONS)
    except (TypeError, KeyError, AttributeError):
        return None
    return document if is_pact else None


def check_names(consumer: str, provider: str) -> None:
    """Raise PactError if there can be no file of such a pair."""
    for name in (consumer, provider):
        if not name.strip() or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise PactError(f"{name!r} can't be the name of a consumer or a provider, for files are named by it.")


def merged(
    existing: Document | None, said: Sequence[Said], *, passed: Collection[str], is_gone: Callable[[str], bool]
) -> Document | None:
    """The pact of a pair after a run; None if nobody says anything to it any more.

    Args:
        existing: What it was.
        said: What the tests say that passed.
        passed: Those tests, and others that passed and say nothing to it.
        is_gone: Whether a test is no longer there.

    Raises:
        PactConflictError: Two tests say different things of one interaction.
        PactError: Some are in another version of the specification than others.
    """
    entries = _still_said(existing or {}, passed, is_gone)
    is_left = bool(entries)
    for one in sorted(said, key=lambda one: one.test):
        for section, interaction in _interactions(one.document):
            _add(entries, section, interaction, one)
    if not entries:
        return None
    metadata = dict((existing or {}).get("metadata", {}))
    for one in said:
        _check_version(metadata if is_left else {}, one)
        metadata |= one.document.get("metadata", {})
        is_left = True
    metadata[_OURS] = {"tests": {name: sorted(entry.tests) for name, entry in entries.items() if entry.tests}}
    head = said[0].document if said else existing or {}
    document = {key: value for key, value in head.items() if key not in SECTIONS} | {"metadata": metadata}
    for name in sorted(entries):
        document.setdefault(entries[name].section, []).append(entries[name].content)
    return document


def _still_said(existing: Document, passed: Collection[str], is_gone: Callable[[str], bool]) -> dict[str, _Entry]:
    tests = _tests_in(existing)
    entries = {}
    for section, interaction in _interactions(existing):
        name = named(interaction, section)
        owners = tests.get(name, [])
        left = {test for test in owners if test not in passed and not is_gone(test)}
        if left or not owners:
            entries[name] = _Entry(section, interaction, left)
    return entries


def _tests_in(document: Mapping[str, Any]) -> dict[str, list[str]]:
    ours = document.get("metadata", {}).get(_OURS, {})
    tests = ours.get("tests", {}) if isinstance(ours, dict) else {}
    return {name: found for name, found in tests.items() if isinstance(found, list)}


def _interactions(document: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    for section in SECTIONS:
        for interaction in document.get(section) or ():
            yield section, interaction


def _add(entries: dict[str, _Entry], section: str, interaction: Document, said: Said) -> None:
    name = named(interaction, section)
    entry = entries.setdefault(name, _Entry(section, interaction))
    if entry.content != interaction:
        others = ", ".join(sorted(entry.tests)) or "a file that no test of this project wrote"
        raise _conflict(said, name, others, _stale(entry))
    entry.tests.add(said.test)


def _stale(entry: _Entry) -> str:
    return " If the other is out of date, run it again, too." if entry.tests else " If it is out of date, remove it."


def _check_version(metadata: Mapping[str, Any], said: Said) -> None:
    known, new = (each.get("pactSpecification", {}).get("version") for each in (metadata, said.document["metadata"]))
    if known is not None and known != new:
        consumer, provider = said.pair
        raise PactError(
            f"The pact of {consumer} with {provider} is written in version {known} of the specification, and "
            f"{said.test} writes it in {new}. Let all tests of a pair use the same."
        )


#: Of which interaction which test said what.
Agreed = dict[tuple[tuple[str, str], str], tuple[Document, str]]


def check_agreement(said: Iterable[Said], agreed: Agreed, counts: Callable[[str], bool] = bool) -> None:
    """Add to ``agreed`` what is said.

    Args:
        said: What tests say.
        agreed: What was said before.
        counts: Whether what a test said there still counts.

    Raises:
        PactConflictError: Something else was said of an interaction.
    """
    for one in said:
        for section, interaction in _interactions(one.document):
            name = named(interaction, section)
            content, test = agreed.get((one.pair, name), (interaction, one.test))
            if content != interaction and counts(test):
                raise _conflict(one, name, test)
            agreed[one.pair, name] = interaction, one.test


def _conflict(said: Said, name: str, others: str, more: str = "") -> PactConflictError:
    consumer, provider = said.pair
    which = "itself" if others == said.test else others
    return PactConflictError(
        f"The pact of {consumer} with {provider} says two things of {name}: one {said.test} says, the other {which}. "
        "An interaction is known by its description and its states, so give one of them another description, or let "
        f"both say the same.{more}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file that was written or removed: whether it was there before, and is now."""

    file: Path
    was_there: bool
    is_there: bool


def write_pacts(
    folder: Path, said: Iterable[Said], *, passed: Collection[str], is_gone: Callable[[str], bool]
) -> tuple[list[str], list[Written]]:
    """Bring the pact files in ``folder`` up to date; what kept one from it, in words, and those that were not so.

    Args:
        folder: Made if there is something to write.
        said: What tests say that passed.
        passed: All tests that passed.
        is_gone: Whether a test is no longer there.
    """
    by_pair: dict[tuple[str, str], list[Said]] = {}
    for one in said:
        by_pair.setdefault(one.pair, []).append(one)
    if not by_pair and not folder.is_dir():
        return [], []
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for left in folder.glob(".*.json.new"):  # by one who was killed: whoever writes holds the lock
            left.unlink(missing_ok=True)
        return _update(folder, by_pair, passed, is_gone)


def _update(
    folder: Path,
    by_pair: dict[tuple[str, str], list[Said]],
    passed: Collection[str],
    is_gone: Callable[[str], bool],
) -> tuple[list[str], list[Written]]:
    problems, written = [], []
    files = {folder / f"{'-'.join(pair)}.json": pair for pair in by_pair}
    for file in sorted({*files, *folder.glob("*.json")}):
        pair = files.get(file)
        try:
            existing = _existing(file, pair)
            if pair is None and not _tests_in(existing or {}):
                continue  # another's
            document = merged(existing, by_pair[pair] if pair else [], passed=passed, is_gone=is_gone)
            was_there = file.exists()
            if _replace(file, document):
                written.append(Written(file=file, was_there=was_there, is_there=document is not None))
        except PactError as error:
            if pair is not None:
                problems.append(str(error))
    return problems, written


def _existing(file: Path, pair: tuple[str, str] | None) -> Document | None:
    if not file.exists():
        return None
    existing = pact_of(file)
    if pair is not None and existing is None:
        raise PactError(f"{file} holds no pact, so none is written there. Remove it, or choose another folder.")
    if pair is not None and existing is not None and pair_of(existing) != pair:
        other, own = (" and ".join(map(repr, each)) for each in (pair_of(existing), pair))
        raise PactError(f"{file} is the pact of {other}, and that of {own} would have the same name. Rename one.")
    return existing


def _replace(file: Path, document: Document | None) -> bool:
    """Whether the file was another one."""
    if document is None:
        file.unlink(missing_ok=True)
        return True
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return replace_file(file, text)
