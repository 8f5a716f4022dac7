"""``atk pact``: the program ``pact`` with what the settings know, against a double of a broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asynctest_kit.http.apps import opened_app, serve

sys.path.append(str(Path(__file__).parent.parent / "contracts"))

from broker_double import BrokerDouble

pytestmark = pytest.mark.anyio

PYPROJECT = """
[tool.asynctest_kit.pact]
name = "shop"
broker = "BROKER"
"""

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200 if scope["path"] == "/tea" else 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""


def pact(consumer, provider, path="/tea"):
    return {
        "consumer": {"name": consumer},
        "provider": {"name": provider},
        "interactions": [
            {
                "type": "Synchronous/HTTP",
                "description": f"{path} is there",
                "request": {"method": "GET", "path": path},
                "response": {"status": 200},
            }
        ],
        "metadata": {"pactSpecification": {"version": "4.0"}},
    }


@pytest.fixture
def shop(tmp_path):
    """A project with a pact of its own, one in which it is the provider, and its application."""
    folder = tmp_path / "pacts"
    folder.mkdir()
    for consumer, provider in (("shop", "bank"), ("web", "shop")):
        (folder / f"{consumer}-{provider}.json").write_text(json.dumps(pact(consumer, provider)))
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace('broker = "BROKER"\n', ""))
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@pytest.fixture
async def broker(shop):
    double = BrokerDouble()
    async with opened_app(serve(double)) as opened:
        (shop / "pyproject.toml").write_text(PYPROJECT.replace("BROKER", opened.base_url))
        double.url = opened.base_url
        yield double


async def test_publish_ask_and_verify(atk, shop, broker):
    login = {"PACT_BROKER_TOKEN": broker.token}
    options = ("--consumer-app-version", "1.2", "--branch", "main")
    published = await atk("pact", "publish", *options, cwd=shop, **login)
    assert published.code == 0, published
    assert "Pact published successfully for consumer: shop against provider: bank" in published.out
    assert {pair: version for pair, (version, _) in broker.pacts.items()} == {("shop", "bank"): "1.2"}

    refused = await atk("pact", "can-i-deploy", "--version", "1.2", cwd=shop, **login)
    assert refused.code == 1
    assert "no successful result for shop 1.2" in refused.out
    broker.results.append(("shop", "bank", "7", True))
    allowed = await atk("pact", "can-i-deploy", "--version", "1.2", cwd=shop, **login)
    assert allowed.code == 0, allowed
    assert "successful" in allowed.out

    broker.pacts["web", "shop"] = ("3", pact("web", "shop"))
    verified = await atk(
        *("pact", "verify", "--app", "main:app", "--publish", "--provider-version", "1.2"),
        *("--provider-branch", "main"),
        cwd=shop,
        **login,
    )
    assert verified.code == 0, verified
    assert broker.results[-1] == ("web", "shop", "1.2", True)


async def test_the_version_is_gits_unless_it_is_said(atk, shop, broker):
    version = await asyncio.to_thread(_committed, shop)
    published = await atk("pact", "publish", "pacts/shop-bank.json", cwd=shop, PACT_BROKER_TOKEN=broker.token)
    assert published.code == 0, published
    assert broker.pacts["shop", "bank"][0] == version


def _committed(folder):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q", "-b", "trunk"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def test_a_login_that_is_refused(atk, shop, broker):
    done = await atk("pact", "publish", "-a", "1", cwd=shop, PACT_BROKER_TOKEN="wr0ng-token")
    assert done.code == 1
    assert "401 Unauthorized" in done.out
    assert "atk: the broker refused the login: set PACT_BROKER_TOKEN" in done.err
    assert "wr0ng-token" not in done.out + done.err


async def test_what_the_program_would_print_of_the_login_is_starred_out(atk, shop, broker):
    done = await atk("pact", "publish", "wr0ng-token.json", "-a", "1", cwd=shop, PACT_BROKER_TOKEN="wr0ng-token")
    assert done.code == 4
    done = await atk(
        "pact", "can-i-deploy", "--pacticipant", "wr0ng-token", "-e", "1", cwd=shop, PACT_BROKER_TOKEN="wr0ng-token"
    )
    assert done.code == 1
    assert "***" in done.out
    assert "wr0ng-token" not in done.out + done.err


async def test_verify_with_a_filter_that_nothing_passes_is_no_success(atk, shop):
    done = await atk("pact", "verify", "--app", "main:app", "--filter-description", "no such words", cwd=shop)
    assert done.code == 4, done
    assert "Nothing was verified: no interaction was found." in done.err


async def test_verify_without_a_broker(atk, shop):
    done = await atk("pact", "verify", "--app", "main:app", cwd=shop)
    assert done.code == 0, done
    assert "/tea is there" in done.out
    (shop / "pacts" / "web-shop.json").write_text(json.dumps(pact("web", "shop", "/coffee")))
    async with opened_app(serve(BrokerDouble())) as opened:  # anything that answers, but not so
        done = await atk("pact", "verify", "pacts", "--app", opened.base_url, cwd=shop)
    assert done.code == 1
    assert "Verifying a pact between web and shop - /coffee is there" in done.out
    assert "expected 200 but was 401" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("publish",),
            "Nobody says where the Pact Broker is: set PACT_BROKER_BASE_URL in the environment, or",
        ),
        (("can-i-deploy", "-e", "1"), "Nobody says where the Pact Broker is"),
        (("publish", "nowhere"), "There is no pact file, and no folder of them"),
        (("publish", "empty"), "There is no pact of shop in empty. Run the consumer's tests first."),
        (("verify",), "Nobody says where the provider is: --app http://127.0.0.1:8000 where it runs, or --app"),
        (("verify", "--app", "main:app", "--provider-name", "none"), "There is no pact with the provider 'none' in"),
        (("verify", "--app", "main"), "an application's name is module:name"),
    ],
)
async def test_what_is_missing_is_told(atk, shop, arguments, told):
    (shop / "empty").mkdir()
    done = await atk("pact", *arguments, cwd=shop)
    assert done.code == 4
    assert done.out == ""
    assert done.err.startswith("atk: ")
    assert told in done.err


async def test_an_application_that_does_not_start_is_told_where_services_come_from(atk, shop):
    (shop / "main.py").write_text("import os\ndef app(*_): ...\nos.environ['DATABASE_URL']")
    done = await atk("pact", "verify", "--app", "main:app", cwd=shop)
    assert done.code == 4
    assert "KeyError: 'DATABASE_URL'" in done.err
    assert "then for instance `DATABASE_URL=$(atk url postgres) atk pact verify --app ...`" in done.err


async def test_nobody_says_the_name(atk, shop):
    (shop / "pyproject.toml").write_text("[tool.asynctest_kit]\n")
    done = await atk("pact", "can-i-deploy", cwd=shop, PACT_BROKER_BASE_URL="http://127.0.0.1:1")
    assert (done.code, done.err.startswith("atk: Nobody says what this project is called")) == (4, True)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('nam = "shop"', 'unknown key "nam". Did you mean name?'),
        ("name = 3", "name: 3 must be a text that is not empty"),
        ('specification = "V5"', 'specification: "V5" is unknown. Allowed: V2, V3, V4'),
        ('broker = "https://me:secret@pacts.example.org"', "must be the URL of a Pact Broker without a login in it"),
    ],
)
async def test_settings_that_are_wrong(atk, shop, table, told):
    (shop / "pyproject.toml").write_text(f"[tool.asynctest_kit.pact]\n{table}\n")
    done = await atk("pact", "can-i-deploy", "-e", "1", cwd=shop)
    assert done.code == 4
    assert told in done.err
    assert "secret@" not in done.err
