"""A run's events in a file, one JSON object a line, so that any report can be made later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from asynctest_kit.engine import events as ev
from asynctest_kit.errors import AtkError
from asynctest_kit.report.files import replacing
from asynctest_kit.report.redaction import without_passwords

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["read", "write"]

_AnyEvent = (
    ev.RunStarted
    | ev.CollectionFinished
    | ev.LoopStarted
    | ev.CaseStarted
    | ev.CaseFinished
    | ev.AttemptFinished
    | ev.CaseCutOff
    | ev.FindingMade
    | ev.WaitFinished
    | ev.AuditFinished
    | ev.CallsFinished
    | ev.TimedOut
    | ev.FixtureFinished
    | ev.ServicePhase
    | ev.ServiceReady
    | ev.ServiceFailed
    | ev.LoopFinished
    | ev.RunFinished
)

_DECODER: Final = msgspec.json.Decoder(_AnyEvent)


def write(events: Iterable[ev.Event], path: Path) -> None:
    """Write ``events`` to ``path``, at once or not at all, without passwords.

    Raises:
        SettingsError: The file can't be written.
    """
    encoder = msgspec.json.Encoder()
    with replacing(path) as file:
        for event in events:
            file.write(without_passwords(encoder.encode(event).decode()).encode() + b"\n")


def read(path: Path) -> tuple[ev.Event, ...]:
    """Read what :func:`write` wrote. A last line that was cut off is left out.

    Raises:
        AtkError: The file can't be read, or a line is no event that this version knows.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise AtkError(f"the recorded events in {path} can't be read: {error.strerror}.") from error

    return tuple(_event(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], start=1) if line)


def _event(line: bytes, place: str) -> ev.Event:
    try:
        event: ev.Event = _DECODER.decode(line)
    except msgspec.DecodeError as error:
        raise AtkError(f"{place} is no event: {error}. Was it recorded by another version?") from error

    return event
