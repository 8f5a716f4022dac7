"""pytest's records and reports of a test's phases."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from _pytest import skipping
from _pytest.runner import check_interactive_exception
from _pytest.tmpdir import tmppath_result_key

__all__ = [
    "PassedReports",
    "call_info",
    "skipped_at_test",
    "wants_interaction",
]


def call_info(
    when: Literal["setup", "call", "teardown"],
    error: BaseException | None,
    *,
    start: float,
    duration: float,
) -> pytest.CallInfo[None]:
    """Pytest's record of one phase; ``start`` in seconds since the Unix epoch, ``duration`` in seconds."""
    excinfo = None if error is None else _visible(error)
    return pytest.CallInfo(
        None,
        excinfo,
        start=start,
        stop=start + duration,
        duration=duration,
        when=when,
        _ispytest=True,
    )


def _own_keywords(node: Any) -> int:
    """How many it has, beside those of what it is in."""
    return len(node.keywords._markers)


_ABOVE = pytest.StashKey[tuple[int, dict[str, Literal[1]]]]()


def _keywords(item: Any) -> dict[str, Literal[1]]:
    """Those of an item's report. What its module has is looked up once, until it has more."""
    count, node = 0, item.parent
    while node is not None:
        count += len(node.keywords._markers)
        node = node.parent
    known = item.parent.stash.get(_ABOVE, None)
    if known is None or known[0] != count:
        known = item.parent.stash[_ABOVE] = (count, dict.fromkeys(item.parent.keywords, 1))
    return {**known[1], **dict.fromkeys(item.keywords._markers, 1)}


class PassedReports:
    """Makes what pytest's own hooks would make of the phases of one test that pass, for a third of what that costs."""

    __slots__ = ("_first", "_item", "_own_keywords")

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._own_keywords = 0
        self._first: pytest.TestReport | None = None

    def report(
        self, when: Literal["setup", "call", "teardown"], *, start: float, duration: float
    ) -> pytest.TestReport | None:
        """The report; None where an xfail mark has a say."""
        item = self._item
        if skipping.xfailed_key in item.stash and item.stash[skipping.xfailed_key] is not None:
            return None
        item.stash.setdefault(tmppath_result_key, {})[when] = True
        captured = item._report_sections
        sections = [(f"Captured {key} {phase}", text) for phase, key, text in captured] if captured else []
        if self._first is None:
            self._own_keywords = _own_keywords(item)
            self._first = pytest.TestReport(
                getattr(item, "id", item.nodeid),  # an object from pytest 9.2 on
                item.location,
                _keywords(item),
                "passed",
                None,
                when,
                sections,
                duration,
                start,
                start + duration,
                user_properties=item.user_properties,
            )
            return self._first
        # Marks may have come since.
        has_grown = _own_keywords(item) != self._own_keywords
        report = object.__new__(pytest.TestReport)
        report.__dict__ = {
            **vars(self._first),
            "keywords": _keywords(item) if has_grown else dict(self._first.keywords),
            "when": when,
            "sections": sections,
            "user_properties": list(item.user_properties),
            "duration": duration,
            "start": start,
            "stop": start + duration,
        }
        return report


def wants_interaction(call: pytest.CallInfo[None], report: pytest.TestReport) -> bool:
    """Tell whether pytest would let debuggers and others see the failure."""
    return check_interactive_exception(call, report)


def _visible(error: BaseException) -> pytest.ExceptionInfo[BaseException]:
    """Give an error that has no frames, or hidden ones only, one to be shown with: pytest can't print it without."""
    if error.__traceback__ is not None:
        excinfo = pytest.ExceptionInfo.from_exception(error)
        if excinfo.traceback.filter(excinfo):
            return excinfo
    try:
        raise error  # noqa: TRY301  # for the frame
    except BaseException as shown:  # noqa: BLE001  # the same error
        return pytest.ExceptionInfo.from_exception(shown)


def skipped_at_test(skipped: BaseException) -> BaseException:
    """Say that the test is what was skipped, not the fixture that said so."""
    if isinstance(skipped, pytest.skip.Exception):
        skipped._use_item_location = True
    return skipped
