"""Random suites: fixtures of every scope over one another, and tests over them, some of which go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent

from hypothesis import strategies as st

SCOPES = ("session", "package", "module", "class", "function")

CONFTEST = """\
import asyncio

import pytest
from trail import held, used


async def cut_off():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def hang():
    await asyncio.Event().wait()


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""


@dataclass(frozen=True, slots=True)
class Fixture:
    """A generated fixture; ``needs`` are numbers of fixtures of the same or a wider scope.

    One that ``asks`` is sync, and has the last of them by ``request.getfixturevalue``.
    """

    number: int
    scope: str
    is_async: bool
    needs: tuple[int, ...]
    parameters: int
    autouse: bool
    set_up: str
    tear_down: str
    asks: bool

    def source(self) -> str:
        arguments = ["request", *(f"f{need}" for need in self.needs)]
        if self.is_async:
            arguments.append("anyio_backend")
        asked = ""
        if self.asks:
            name = arguments.pop()
            asked = f"{name} = request.getfixturevalue({name!r})\n"
        prefix, wait = ("async ", "await asyncio.sleep(0)\n") if self.is_async else ("", "")
        options = f"scope={self.scope!r}, autouse={self.autouse}"
        if self.parameters:
            options += f", params={list(range(self.parameters))}"
        values = "".join(f", f{need}" for need in self.needs)
        hangs = self.is_async and self.scope == "function"  # shared ones may take minutes, for they may boot services
        body = f"{asked}{wait}{_misfortune(self.set_up, is_async=self.is_async, hangs=hangs)}"
        body += f"with held('f{self.number}'{values}) as value:\n"
        tear_down = _misfortune(self.tear_down, is_async=self.is_async, hangs=hangs)
        body += indent(f"{wait}yield value\n{wait}{tear_down}", " " * 4)
        return (
            f"\n\n@pytest.fixture({options})\n{prefix}def f{self.number}({', '.join(arguments)}):\n"
            f"{indent(body, ' ' * 4)}"
        )


@dataclass(frozen=True, slots=True)
class Test:
    """A generated test."""

    __test__ = False

    number: int
    is_async: bool
    needs: tuple[int, ...]
    outcome: str
    in_class: bool

    def source(self) -> str:
        arguments = ", ".join(["request", *(f"f{need}" for need in self.needs), *(["anyio_backend"])])
        values = "".join(f", f{need}" for need in self.needs)
        body = f"with used(request.node.nodeid.replace(' ', ''){values}):\n"
        body += "    await asyncio.sleep(0)\n" if self.is_async else "    pass\n"
        body += indent(_misfortune(self.outcome, is_async=self.is_async, hangs=self.is_async), " " * 4)
        own = "self, " if self.in_class else ""
        prefix = "async " if self.is_async else ""
        function = f"{prefix}def test_{self.number}({own}{arguments}):\n{indent(body, ' ' * 4)}"
        if self.in_class:
            function = f"class TestOf{self.number % 2}x{self.number}:\n{indent(function, ' ' * 4)}"
        return f"\n\n{function}"


@dataclass(frozen=True, slots=True)
class Suite:
    """A generated suite; its tests are spread over modules."""

    fixtures: tuple[Fixture, ...]
    modules: tuple[tuple[Test, ...], ...]

    @property
    def is_deadly(self) -> bool:
        """Whether anything cancels itself or hangs, which plain pytest with anyio does not survive."""
        parts = [*self.fixtures, *(test for module in self.modules for test in module)]
        return any(misfortune in repr(part) for part in parts for misfortune in ("cancel", "hang"))

    def files(self) -> dict[str, str]:
        """Its files by name."""
        files = {"pytest.ini": "[pytest]\n", "conftest.py": CONFTEST + "".join(one.source() for one in self.fixtures)}
        header = "import asyncio\n\nimport pytest\nfrom conftest import cut_off, hang\nfrom trail import used\n\n"
        header += "pytestmark = pytest.mark.anyio\n"
        for number, tests in enumerate(self.modules):
            files[f"test_module{number}.py"] = header + "".join(test.source() for test in tests)
        return files


def _misfortune(kind: str, *, is_async: bool, hangs: bool) -> str:
    cancel = "await cut_off()\n" if is_async else "raise LookupError\n"
    return {
        "fine": "",
        "raise": "raise LookupError\n",
        "skip": "pytest.skip('chance')\n",
        "fail": "pytest.fail('chance')\n",
        "xfail": "pytest.xfail('chance')\n",
        "cancel": cancel,
        "hang": "await hang()\n" if hangs else "raise LookupError\n",
    }[kind]


_OUTCOMES = st.sampled_from(["fine"] * 8 + ["raise", "skip", "fail", "xfail", "cancel", "hang"])
_TEAR_DOWNS = st.sampled_from(["fine"] * 8 + ["raise", "fail", "cancel", "hang"])


@st.composite
def suites(draw: st.DrawFn) -> Suite:
    """Suites of up to nine fixtures and eighteen tests."""
    fixtures: list[Fixture] = []
    for number in range(draw(st.integers(1, 9))):
        scope = draw(st.sampled_from(SCOPES))
        wider = [one.number for one in fixtures if SCOPES.index(one.scope) <= SCOPES.index(scope)]
        is_async = draw(st.booleans())
        needs = tuple(draw(st.lists(st.sampled_from(wider), unique=True, max_size=3))) if wider else ()
        parameters = draw(st.sampled_from([0] * 5 + [2]))
        fixtures.append(
            Fixture(
                number,
                scope,
                is_async,
                needs,
                parameters,
                draw(st.sampled_from([False] * 6 + [True])),
                draw(_OUTCOMES),
                # pytest tears one of several down in the set-up of the next; here both may be up at once
                "fine" if parameters else draw(_TEAR_DOWNS),
                bool(needs) and not is_async and draw(st.booleans()),
            )
        )
    numbers = st.lists(st.sampled_from([one.number for one in fixtures]), unique=True, max_size=3)
    modules = [
        tuple(
            Test(
                number,
                draw(st.sampled_from([True, True, True, False])),
                tuple(draw(numbers)),
                draw(_OUTCOMES),
                draw(st.booleans()),
            )
            for number in range(draw(st.integers(1, 6)))
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Suite(tuple(fixtures), tuple(modules))
