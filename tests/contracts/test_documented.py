"""What docs/pact.md says of a broker in a container: the settings make that service."""

from __future__ import annotations

import re
from pathlib import Path

from asynctest_kit.contracts.pact_program import BROKER, broker_url, program_environment, secrets
from asynctest_kit.provision.catalog import kind_of, spec_for
from asynctest_kit.settings import load

DOCS = Path(__file__).parent.parent.parent / "docs" / "pact.md"


def test_the_documented_tables_are_settings_and_the_broker_is_a_container(tmp_path):
    blocks = re.findall(r"(?s)```toml\n(.*?)```", DOCS.read_text())
    (tmp_path / "pyproject.toml").write_text("\n".join(blocks))
    settings = load(paths=(), directory=tmp_path, environ={}, options={})
    assert (settings.pact.name, settings.pact.provider, settings.pact.specification) == ("shop", "payments", "V4")
    assert settings.pact.folder == Path("pacts")

    spec = spec_for("pact-broker", settings)
    plan = kind_of(spec).container(spec, kind_of(spec).login(spec, "unused"))
    assert spec.image == "pactfoundation/pact-broker:latest-multi"
    assert {name: (port.port, port.scheme) for name, port in spec.ports.items()} == {"http": (9292, "http")}
    assert "/diagnostic/status/heartbeat" in repr(spec.wait)
    assert spec.startup_timeout == 120
    assert plan.environment["PACT_BROKER_DATABASE_ADAPTER"] == "sqlite"
    assert spec.needs == ()


def test_the_environment_overrules_the_settings_and_holds_the_login():
    environ = {"PACT_BROKER_TOKEN": "s3cret-token", "PATH": "/bin"}
    assert broker_url(environ, "https://of-the-settings") == "https://of-the-settings"
    assert broker_url(environ | {BROKER: "https://other"}, "https://of-the-settings") == "https://other"
    assert program_environment(environ, "https://b")[BROKER] == "https://b"
    assert program_environment(environ)["PACT_DO_NOT_TRACK"] == "true"
    assert program_environment(environ | {"PACT_DO_NOT_TRACK": ""})["PACT_DO_NOT_TRACK"] == ""
    assert secrets(environ | {BROKER: "https://me:pa55word@b", "OTHER_TOKEN": "not-ours"}) == (
        "s3cret-token",
        "pa55word",
    )
