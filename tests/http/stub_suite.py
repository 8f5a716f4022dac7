"""The suite that ``test_stub_servers.py`` runs: written to a folder of its own, with its settings and mappings."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

TESTS = r"""
import asyncio
import sys

import httpx
import pytest

pytestmark = pytest.mark.anyio

MEETING = {"wiremock": asyncio.Event(), "mockserver": asyncio.Event()}
HERE = {"wiremock": set(), "mockserver": set()}


@pytest.fixture(scope="session")
async def client():
    async with httpx.AsyncClient(verify=False, timeout=60) as client:
        yield client


async def meet(place, number):
    # Under the engine each asks with a number of others' stubs there; alone there is nobody to wait for.
    HERE[place].add(number)
    if len(HERE[place]) >= 16 or "asynctest_kit.engine.dispatcher" not in sys.modules:
        MEETING[place].set()
    await MEETING[place].wait()


async def own_answer(stubs, client, place, number):
    await stubs.stub("GET", "/users/1", json={"number": number})
    await meet(place, number)
    assert (await client.get(f"{stubs.url}/users/1")).json() == {"number": number}


@pytest.mark.parametrize("number", range(COUNT))
async def test_on_wiremock(wiremock, client, number):
    await own_answer(wiremock, client, "wiremock", number)


@pytest.mark.parametrize("number", range(COUNT))
async def test_on_mockserver(mockserver, client, number):
    await own_answer(mockserver, client, "mockserver", number)


async def ask(client, stubs):
    return (await client.get(f"{stubs.url}/rates/eur")).json()


@pytest.mark.parametrize("number", range(3))
async def test_everybody_has_the_mappings_of_the_settings(wiremock, client, number):
    assert await ask(client, wiremock) == {"usd": 1.08}
    await wiremock.stub("GET", "/rates/eur", json={"usd": number})
    assert await ask(client, wiremock) == {"usd": number}


@pytest.mark.parametrize("number", range(3))
async def test_a_scenario_of_the_settings_is_each_tests_own(wiremock, client, number):
    told = [(await client.get(f"{wiremock.url}/state")).text for _ in range(3)]
    assert told == ["first", "then", "then"]


@pytest.mark.parametrize("number", range(3))
async def test_everybody_has_the_expectations_of_the_settings(mockserver, client, number):
    assert await ask(client, mockserver) == {"usd": 1.08}
    told = [(await client.get(f"{mockserver.url}/once")).status_code for _ in range(2)]
    mockserver.allow_unmatched("/once")
    assert told == [200, 404]


async def test_a_server_of_stubs_of_any_name(rates, rates_server, client):
    assert list(rates.headers) == ["X-Request-Id"]
    await rates.stub("GET", "/eur", text="1.08")
    assert (await client.get(f"{rates.url}/eur")).text == "1.08"
    assert (await client.get(f"{rates_server.url}/eur", headers=rates.headers)).text == "1.08"
    assert (await client.get(f"{rates_server.url}/eur")).status_code == 404




async def test_beside_mocks_in_the_process(wiremock, mock_http, client):
    mock_http.get("https://rates.example.org/").respond(text="mocked")
    mock_http.let_through(wiremock.url)
    await wiremock.stub("GET", "/tea", text="stubbed")
    for url, text in (("https://rates.example.org/", "mocked"), (f"{wiremock.url}/tea", "stubbed")):
        assert (await client.get(url)).text == text


async def test_unmocked_on_wiremock(wiremock, client):
    await wiremock.stub("GET", "/users", query={"page": "1"}, optional=True)
    await client.get(f"{wiremock.url}/users?page=2&api_key=hidden")


async def test_unmocked_on_mockserver(mockserver, client):
    await mockserver.stub("GET", "/users", query={"page": "1"}, optional=True)
    await client.get(f"{mockserver.url}/users?page=2&api_key=hidden")


async def test_unmocked_and_failed(wiremock, client):
    assert (await client.get(f"{wiremock.url}/nowhere")).status_code == 200


async def test_not_called_on_wiremock(wiremock, client):
    await wiremock.stub("POST", "/pay", request_json={"amount": 1})


async def test_not_called_on_mockserver(mockserver, client):
    await mockserver.stub("POST", "/pay", request_json={"amount": 1})
"""

#: How many tests ask each server for their own answer.
COUNT = int(os.environ.get("STUBBED_TESTS", "200"))

#: How many pass: they, others, and those of the documentation.
PASSED = 2 * COUNT + 15 + 2

#: What becomes of a test's call and tear-down, for those that don't pass.
ODD = {
    "FAILED test_it.py::test_unmocked_and_failed",
    "ERROR test_it.py::test_unmocked_on_wiremock",
    "ERROR test_it.py::test_unmocked_on_mockserver",
    "ERROR test_it.py::test_not_called_on_wiremock",
    "ERROR test_it.py::test_not_called_on_mockserver",
}

_SETTINGS = """
[tool.pytest.ini_options]
filterwarnings = ["error"]
[tool.asynctest_kit]
provider = "embedded"
timeout = "5m"
[tool.asynctest_kit.services.wiremock]
mappings = "stubs/wiremock"
startup-timeout = "3m"
[tool.asynctest_kit.services.mockserver]
mappings = "stubs/mockserver.json"
startup-timeout = "3m"
[tool.asynctest_kit.services.rates]
kind = "wiremock"
lease-header = "X-Request-Id"
url = "{wiremock}"
startup-timeout = "1m"
"""

_CONFTEST = """
import httpx
import pytest


class Shop:
    # What the tests in the documentation are about.

    def __init__(self, client):
        self._client = client

    async def price(self, name, currency):
        return 5 * (await self._client.get("/rates/eur")).json()[currency]

    async def order(self, name):
        await self._client.post("/pay", json={"amount": 5}, headers={"Idempotency-Key": "1"})


@pytest.fixture
async def shop():
    clients = []

    def opened(url):
        clients.append(httpx.AsyncClient(base_url=url, verify=False, timeout=60))
        return Shop(clients[-1])

    yield opened
    for client in clients:
        await client.aclose()


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""


def _state(needed, following, text):
    request = {"method": "GET", "urlPath": "/state"}
    states = {"scenarioName": "state", "requiredScenarioState": needed, "newScenarioState": following}
    return {"request": request, "response": {"status": 200, "body": text}, **states}


_MAPPINGS = {
    "rates.json": {
        "request": {"method": "GET", "urlPath": "/rates/eur"},
        "response": {"status": 200, "bodyFileName": "eur.json"},
    },
    "states.json": {"mappings": [_state("Started", "then", "first"), _state("then", "then", "then")]},
}

_EXPECTATIONS = [
    {"httpRequest": {"path": "/rates/eur"}, "httpResponse": {"statusCode": 200, "body": '{"usd": 1.08}'}},
    {
        "httpRequest": {"path": "/once"},
        "httpResponse": {"statusCode": 200},
        "times": {"remainingTimes": 1, "unlimited": False},
    },
]


def write(folder, *, wiremock):
    """Write the suite; ``wiremock`` is the URL of a server for the service ``rates``."""
    (folder / "test_it.py").write_text(TESTS.replace("COUNT", str(COUNT)))
    (folder / "test_docs.py").write_text(f"import pytest\n\npytestmark = pytest.mark.anyio\n\n\n{_documented()}")
    write_settings(folder, wiremock=wiremock)
    (folder / "conftest.py").write_text(_CONFTEST)
    mappings, files = folder / "stubs/wiremock/mappings", folder / "stubs/wiremock/__files"
    mappings.mkdir(parents=True)
    files.mkdir()
    (files / "eur.json").write_text('{"usd": 1.08}')
    for name, content in _MAPPINGS.items():
        (mappings / name).write_text(json.dumps(content))
    (folder / "stubs/mockserver.json").write_text(json.dumps(_EXPECTATIONS))


def _documented():
    """The tests in the documentation."""
    page = (Path(__file__).parents[2] / "docs/wiremock.md").read_text()
    return "\n\n".join(re.findall(r"^```python\n(async def test_.*?)^```$", page, re.MULTILINE | re.DOTALL))


def write_settings(folder, *, wiremock):
    """Write the settings alone."""
    (folder / "pyproject.toml").write_text(_SETTINGS.format(wiremock=wiremock))
