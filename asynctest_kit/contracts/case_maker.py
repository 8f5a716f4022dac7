"""A process in which schemathesis makes cases and judges answers; it sends nothing itself.

hypothesis, on which it stands, seeds the process's random numbers for each case and raises its recursion limit, and
making cases is work for a processor: beside running tests all of that would be felt.
"""

from __future__ import annotations

import sys
import traceback
import zlib
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

from asynctest_kit.contracts.case_messages import (
    Answer,
    Broken,
    Case,
    Fault,
    FromMaker,
    Judge,
    Judged,
    Made,
    Make,
    Read,
    Send,
    Smaller,
    Smallest,
    ToMaker,
)
from asynctest_kit.setting_errors import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Order", "main"]

#: Checks that send requests by themselves.
_NOT_OURS: Final = ("ignored_auth", "object_level_authorization")

#: Headers that say nothing about a case.
_USUAL: Final = ("accept", "accept-encoding", "connection", "content-length", "user-agent", "x-schemathesis-testcaseid")

_OF_REQUESTS: Final = ("method", "url", "headers", "files", "data", "json", "params", "cookies", "auth")

#: How often a case may be made smaller.
_MOST_SMALLER: Final = 200


class Order(msgspec.Struct, frozen=True):
    """What the process is for: its first line."""

    examples: int
    seed: int
    phases: tuple[str, ...]
    without_checks: tuple[str, ...]


class _UnknownCheck(Exception):  # noqa: N818  # the word for it
    pass


class _SameFault(Exception):  # noqa: N818  # it says that a case shows what is looked for
    pass


class _Maker:
    """Makes the cases of one document.

    Args:
        order: What is asked for.
        ask: Says something to whoever asked, and gives the answer.

    Raises:
        _UnknownCheck: A check that is to be left out doesn't exist.
    """

    def __init__(self, order: Order, ask: Callable[[FromMaker], Any]) -> None:
        import schemathesis.config

        known = [name for name in schemathesis.config.ChecksConfig.__annotations__ if not name.startswith("_")]
        for name in order.without_checks:
            if name not in known:
                raise _UnknownCheck(f'there is no check "{name}".{suggestion(name, known)}')
        self._order = order
        self._ask = ask
        self._left_out = (*_NOT_OURS, *order.without_checks)
        self._operations: dict[str, Any] = {}
        self._cases: dict[int, tuple[Any, Case, Make]] = {}
        self._faults: dict[tuple[str, object], tuple[Fault, ...]] = {}

    def answer(self, asked: ToMaker) -> FromMaker:
        """Do what is asked."""
        if isinstance(asked, Read):
            return self._read(asked)
        if isinstance(asked, Make):
            return self._make(asked)
        if isinstance(asked, Judge):
            return Judged({number: self._judge(number, answer) for number, answer in asked.answers.items()})
        if isinstance(asked, Smaller):
            return self._smaller(asked)
        raise TypeError(asked)

    def _read(self, asked: Read) -> Made:
        import schemathesis

        config = schemathesis.Config.from_dict({"checks": {name: {"enabled": False} for name in self._left_out}})
        schema = schemathesis.openapi.from_dict(asked.document, config=config)
        self._operations = {one.label: one for one in map(_valid, schema.get_all_operations())}
        return Made(())

    def _make(self, make: Make) -> Made:
        made: list[Case] = []
        self._draw(make, self._order.phases, lambda case: made.append(self._known(case, make)))
        return Made(tuple(made))

    def _judge(self, number: int, answer: Answer) -> tuple[Fault, ...]:
        case, told, make = self._cases[number]
        if answer.fault:
            found = [answer.fault] if answer.fault.check not in self._left_out else []
        else:
            found = _faults(case, told, answer, make.headers, self._left_out)
        faults = tuple(found)
        self._faults[make.operation, told.sent] = faults
        return faults

    def _smaller(self, asked: Smaller) -> Smallest:
        """Hypothesis makes all again, and goes on from the first that shows the fault."""
        _, first, make = self._cases[asked.number]
        found = [Smallest(first, asked.fault)]
        tries = 0

        def look(case: Any) -> None:
            nonlocal tries
            told = self._known(case, make)
            faults = self._faults.get((make.operation, told.sent))
            if faults is None:
                tries += 1
                faults = () if tries > _MOST_SMALLER else self._judge(told.number, self._ask(Send(told)))
            for fault in faults:
                if fault.key == asked.fault.key:
                    found.append(Smallest(told, fault))
                    raise _SameFault

        from hypothesis.errors import Flaky

        with suppress(_SameFault, Flaky):
            self._draw(make, ["fuzzing"], look, shrinks=True)
        return found[-1]

    def _draw(self, make: Make, phases: Sequence[str], each: Callable[[Any], None], *, shrinks: bool = False) -> None:
        from hypothesis import HealthCheck, Phase, Verbosity, settings
        from hypothesis.errors import Unsatisfiable
        from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test

        operation = self._operations[make.operation]
        how = settings(
            max_examples=max(1, self._order.examples),
            deadline=None,
            database=None,
            derandomize=False,
            verbosity=Verbosity.quiet,
            phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if shrinks else [])],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        config = HypothesisTestConfig(
            project=operation.schema.config,
            modes=[HypothesisTestMode(phase) for phase in phases if phase != "fuzzing" or self._order.examples],
            settings=how,
            explicit_settings=how,
            seed=zlib.crc32(f"{self._order.seed} {make.operation}".encode()),
            apply_ci_profile=False,
        )
        with suppress(Unsatisfiable):
            create_test(operation=operation, test_func=each, config=config)()

    def _known(self, case: Any, make: Make) -> Case:
        """A case, numbered."""
        import requests

        given = case.as_transport_kwargs(base_url=make.base, headers=dict(make.headers))
        prepared = requests.Request(**{key: given[key] for key in _OF_REQUESTS if key in given}).prepare()
        body: Any = prepared.body or b""
        headers = [(_text(name), _text(value)) for name, value in prepared.headers.items()]
        told = Case(
            number=len(self._cases),
            phase=str(case.meta.phase.name.value).lower() if case.meta else "fuzzing",
            method=str(prepared.method),
            url=str(prepared.url),
            headers=tuple(pair for pair in headers if pair[0].lower() not in _USUAL),
            body=body.encode() if isinstance(body, str) else bytes(body),
        )
        self._cases[told.number] = (case, told, make)
        return told


def main() -> None:
    """Read lines, and answer each with one, until there is none."""
    from schemathesis.errors import SchemathesisError

    read = msgspec.json.Decoder(ToMaker)
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr

    def say(said: FromMaker) -> None:
        out.write(msgspec.json.encode(said) + b"\n")
        out.flush()

    def ask(said: FromMaker) -> Any:
        say(said)
        line = lines.readline()
        if not line:
            sys.exit()
        return read.decode(line)

    try:
        maker = _Maker(msgspec.json.decode(lines.readline(), type=Order), ask)
        say(Made(()))
        while line := lines.readline():
            say(maker.answer(read.decode(line)))
    except _UnknownCheck as error:
        say(Broken("check", str(error)))
    except SchemathesisError as error:
        say(Broken("document", str(error)))
    except Exception:  # noqa: BLE001  # it is told where the command was given
        say(Broken("document", traceback.format_exc()))


def _faults(case: Any, told: Case, answer: Answer, headers: dict[str, str], left_out: Sequence[str]) -> list[Fault]:
    request = httpx.Request(told.method, told.url, headers=list(told.headers), content=told.body)
    response = httpx.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)
    response.elapsed = timedelta(seconds=answer.seconds)
    found = _found(case, response, headers)
    return [Fault(_check(one, case, response, left_out), one.title, one.message.strip()) for one in found]


def _found(case: Any, response: httpx.Response, headers: dict[str, str], **checks: Any) -> Sequence[Any]:
    from schemathesis.core.failures import FailureGroup

    try:
        case.validate_response(response, headers=headers or None, **checks)
    except FailureGroup as group:
        found: Sequence[Any] = group.exceptions
        return found
    return ()


def _check(failure: Any, case: Any, response: httpx.Response, left_out: Sequence[str]) -> str:
    """By which check it was found, where several report such failures."""
    from schemathesis.checks import CHECKS

    names = [name for name in failure.checks if name not in left_out]
    for name in names if len(names) > 1 else ():
        if failure in _found(case, response, {}, checks=[CHECKS.get_one(name)]):
            return str(name)
    return names[0] if names else type(failure).__name__


def _valid(found: Any) -> Any:
    """An operation; raises what is wrong with it."""
    from schemathesis.core.result import Ok

    if isinstance(found, Ok):
        return found.ok()
    raise found.err()


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main()
