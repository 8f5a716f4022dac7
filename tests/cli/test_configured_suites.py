"""Suites that conftest and ini files configure run as they are: the engine makes of them what pytest does."""

from __future__ import annotations

import os

import preloaded
import pytest

pytestmark = pytest.mark.anyio

CONFTEST = """
    import os

    import pytest

    def pytest_addoption(parser):
        parser.addoption("--stage", default="local")
        parser.addini("region", "where", default="nowhere")

    def pytest_configure(config):
        config.addinivalue_line("markers", "slow: takes long")
        config.stage = config.getoption("--stage")

    def pytest_sessionstart(session):
        session.config.started = os.getpid()

    def pytest_collection_modifyitems(config, items):
        items.reverse()
        for item in items:
            if "slow" in item.keywords and config.stage == "local":
                item.add_marker(pytest.mark.skip(reason="slow"))

    def pytest_generate_tests(metafunc):
        if "number" in metafunc.fixturenames:
            metafunc.parametrize("number", [1, 2])

    @pytest.fixture
    def config(request):
        return request.config
"""

TESTS = """
    import os
    import warnings

    import pytest

    {mark}

    async def test_configured(config):
        assert (config.stage, config.getini("region"), config.started) == ("{stage}", "north", os.getpid())

    @pytest.mark.slow
    async def test_slow():
        pass

    async def test_warns():
        warnings.warn("an error here", UserWarning, stacklevel=1)

    async def test_numbers(number):
        assert number < 2

    def test_sync(number):
        pass
"""

ANYIO = """
    @pytest.fixture(scope="session")
    def anyio_backend():
        return "asyncio"
"""


async def outcomes(root, *command):
    """What came of each test, and the exit code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ATK_", "PYTEST_"))}
    clean["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = ("-m", *command, "-q", "-rA", "--tb=no", "-p", "no:cacheprovider")
    done = await preloaded.finished(command, cwd=root, env=clean)
    out = done.stdout + done.stderr
    words = ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL", "XPASS")
    return done.returncode, sorted(line for line in out.splitlines() if line.startswith(words)), out


@pytest.mark.parametrize(
    ("ini", "mark", "arguments"),
    [
        ("", "pytestmark = pytest.mark.anyio", ("-p", "anyio")),
        ("asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function", "", ("-p", "pytest_asyncio.plugin")),
        (
            "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = function",
            "pytestmark = pytest.mark.asyncio",
            ("-p", "pytest_asyncio.plugin"),
        ),
    ],
    ids=["anyio", "asyncio_mode auto", "asyncio_mode strict"],
)
@pytest.mark.parametrize("stage", ["local", "far"])
async def test_outcomes_are_pytests(project, ini, mark, arguments, stage):
    if "asyncio" in ini:
        pytest.importorskip("pytest_asyncio")
    settings = f"[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config\nregion = north\n{ini}\n"
    root = project(
        pytest__ini=settings,
        test_it__py=TESTS.format(mark=mark, stage=stage),
        conftest__py=CONFTEST + (ANYIO if "anyio" in mark else ""),
    )
    options = (*arguments, "--stage", stage)
    plain = await outcomes(root, "pytest", *options)
    engine = await outcomes(root, "asynctest_kit", "run", *options)

    assert engine[:2] == plain[:2], engine[2]
    assert plain[0] == 1, plain[2]
    assert len(plain[1]) == 7, plain[2]


@pytest.mark.parametrize(
    "ini",
    ["asyncio_mode = auto", "addopts = --strict-markers", "addopts = --no-such-option"],
    ids=lambda ini: ini.split()[-1],
)
async def test_what_pytest_refuses_is_refused(project, ini):
    root = project(
        pytest__ini=f"[pytest]\nfilterwarnings = error\n{ini}\n",
        test_it__py="import pytest\n\n@pytest.mark.unheard_of\nasync def test_it():\n    pass\n",
    )
    plain = await outcomes(root, "pytest", "-p", "anyio")
    engine = await outcomes(root, "asynctest_kit", "run", "-p", "anyio")

    assert engine[0] == plain[0], engine[2]
    assert plain[0] not in (0, 1)
