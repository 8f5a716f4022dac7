"""Containers of any image in the settings: what is understood, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from asynctest_kit.containers import AllOf, AnyOf, Command, Handshake, Health, Http, Listening, Log, Port, parsed_wait
from asynctest_kit.errors import SettingsError
from asynctest_kit.provision.catalog import spec_for
from asynctest_kit.settings import load

TABLE = "[tool.asynctest_kit.services"


def read(folder: Path, toml: str, **environ: str):
    (folder / "pyproject.toml").write_text(toml)
    return load(paths=[], directory=folder, environ=environ, options={})


def test_a_container_with_all_it_may_be_told(tmp_path):
    settings = read(
        tmp_path,
        f"""
        {TABLE}.api]
        image = "shop/api:1"
        ports = {{ http = 8080, admin = {{ port = 9000, scheme = "https" }} }}
        scheme = "http"
        wait = [{{ port = "admin" }}, {{ http = "/health" }}]
        needs = ["migrate"]
        environment = {{ DATABASE_URL = "{{postgres.url}}", OTHER = "{{{{postgres.url}}}}", JSON = '{{"a": 1}}' }}
        command = ["--cache", "{{cache.host}}:{{cache.ports.redis}}"]

        {TABLE}.migrate]
        image = "shop/api:1"
        once = true
        needs = ["postgres"]

        {TABLE}.cache]
        kind = "container"
        image = "valkey"
        ports = {{ redis = 6379 }}

        {TABLE}.single]
        image = "x"
        ports = [8080]
        """,
    )
    api = settings.services["api"]
    assert (api.kind, dict(api.ports)) == ("container", {"http": Port(8080, "http"), "admin": Port(9000, "https")})
    assert api.wait == AllOf((Listening("admin"), Http("/health")))
    assert dict(settings.services["single"].ports) == {"8080": Port(8080, "tcp")}
    spec = spec_for("api", settings)
    assert [need.name for need in spec.needs] == ["migrate", "postgres", "cache"]
    assert [need.name for need in spec.needs[0].needs] == ["postgres"]
    assert spec.needs[0].needs[0] == spec.needs[1] == spec_for("postgres", settings)
    assert spec.needs[0].once and not spec.once


def test_a_container_may_be_elsewhere(tmp_path):
    table = f'{TABLE}.api]\nimage = "x"\nports = [80]\nneeds = ["redis"]'
    settings = read(tmp_path, table, ATK_API_URL="http://staging:8080")
    spec = spec_for("api", settings)
    assert (spec.url, spec.provider, spec.needs) == ("http://staging:8080", "external", ())


@pytest.mark.parametrize(
    ("toml", "wait"),
    [
        ({"log": "ready", "times": 2, "stream": "stderr"}, Log("ready", 2, "stderr")),
        ({"http": "/", "status": [200, 204], "tls": True}, Http("/", status=(200, 204), tls=True)),
        ({"http": "/", "port": "a", "status": 200}, Http("/", port="a", status=200)),
        ({"command": ["ready", "-q"]}, Command(("ready", "-q"))),
        ({"health": True}, Health()),
        ({"port": "a"}, Listening("a")),
        ({"handshake": "redis", "port": "a", "password": "x"}, Handshake("redis", "a", password="x")),
        (
            [{"log": "a"}, {"any": [{"log": "b"}, {"all": [{"log": "c"}]}]}],
            AllOf((Log("a"), AnyOf((Log("b"), AllOf((Log("c"),)))))),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wait_is_the_same_in_both_spellings_and_goes_over_the_socket(toml, wait):
    from asynctest_kit.containers import Wait

    assert parsed_wait(toml) == wait
    assert msgspec.json.decode(msgspec.json.encode(wait), type=Wait) == wait


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("wait", "must be a table such as"),
        ({}, "has none of the keys all, any, command, handshake, health, http, log, port"),
        ({"times": 2}, "has none of the keys all, any, command, handshake, health, http, log, port"),
        (
            {"status": 200, "htp": "/health"},
            'unknown key "htp". Did you mean http? Allowed: all, any, command, handshake, health, http, log, port',
        ),
        ({"log": "a", "tims": 2}, 'unknown key "tims". Did you mean times? Allowed: log, stream, times'),
        ({"log": "("}, "'(' is no regular expression"),
        ({"log": "a", "times": 0}, "times = 0: at least 1"),
        ({"log": "a", "stream": "stdin"}, "stream"),
        ({"http": "health"}, "a path begins with /"),
        ({"http": "/", "status": "200"}, "Expected"),
        ({"command": "ready"}, "Expected `array`"),
        ({"command": []}, "at least a program"),
        ({"health": False}, "only true makes sense"),
        ({"handshake": "mysql"}, "mysql"),
        ([], "there is nothing to wait for"),
        ({"any": [{"log": "a"}], "times": 2}, "with no other key beside it"),
    ],
    ids=str,
)
def test_a_wait_that_makes_no_sense(toml, words):
    with pytest.raises(ValueError, match=r".") as caught:
        parsed_wait(toml)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('image = "x"\nports = {}', ["services.api], ports: {}", "must be ports such as [8080]"]),
        ('image = "x"\nports = [70000]', ["services.api], ports, 70000: 70000 is no port"]),
        ('image = "x"\nports = { http = "80" }', ['services.api], ports, http: "80" is no port, but a number is']),
        ('image = "x"\nports = ["8080"]', ['services.api], ports, 8080: "8080" is no port, but a number is']),
        ('image = "x"\nonce = true\nscheme = "http"', ["scheme", 'the key "ports" is needed']),
        ('image = "x"\nonce = true\nports = [80]', ["ports: a service that is run to its end (once = true) has none"]),
        ('image = "x"\nwait = { log = "(" }', ["services.api], wait: '(' is no regular expression"]),
        ('image = "x"\nwait = { http = "/" }', ['wait: it waits for a port, so the key "ports" is needed']),
        ('image = "x"\nports = { a = 1 }\nwait = { port = "b" }', ['wait: no port is called "b". There are: a.']),
        ('image = "x"', ["it isn't said when a container of this image is ready. Add ports = [8080] or wait, or once"]),
        ("once = true", ['"api" is no kind of service', 'or, for a container of any image, "image" and one of']),
        ('kind = "container"\nimage = "x"', ["image: nothing says when it is ready"]),
        ('kind = "container"\nports = [1]', ['kind: a service of kind "container" needs the key "image"']),
        ('kind = "redis"\nonce = true', ['once: only services of kind "container" have it']),
        ('image = "x"\nonce = true\nprovider = "embedded"', ["provider: an image runs in a container only"]),
        ('image = "x"\nonce = true\nneeds = "redis"', ["needs", "must be a list of names of services"]),
        (
            'image = "x"\nonce = true\nneeds = ["reddis"]',
            ['needs: no service is called "reddis". Did you mean "redis"?'],
        ),
        (
            'image = "x"\nonce = true\nenvironment = { A = "{postgers.url}" }',
            ["environment: {postgers.url}: no service is called", 'Did you mean "postgres"?', "Double the braces"],
        ),
        ('image = "x"\nonce = true\ncommand = ["{redis.uri}"]', ["command: {redis.uri}: no service has that", "url"]),
        ('image = "x"\nonce = true\ncommand = ["{redis.ports.a}"]', ['"redis" is of kind "redis" and has no named']),
        (
            'image = "x"\nports = { a = 1 }\ncommand = ["{api.url}"]',
            ['none of these could start first: "api" needs "api"'],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_container_that_makes_no_sense(tmp_path, lines, words):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, f"{TABLE}.api]\n{lines}")
    for word in (str(tmp_path / "pyproject.toml"), *words):
        assert word in str(caught.value)


def test_ports_of_others_are_known(tmp_path):
    tables = f"""
        {TABLE}.job]
        image = "x"
        once = true

        {TABLE}.web]
        image = "x"
        ports = {{ http = 80 }}

        {TABLE}.api]
        image = "x"
        once = true
        command = ["FIELD"]
    """
    for field, words in (
        ("job.url", '{job.url}: "job" exposes no port, so it has no address'),
        ("web.ports.admin", '"web" exposes no port of that name. There are: http.'),
    ):
        with pytest.raises(SettingsError) as caught:
            read(tmp_path, tables.replace("FIELD", f"{{{field}}}"))
        assert words in str(caught.value)


def test_a_circle_is_shown_whole(tmp_path):
    circle = {"a": "b", "b": "c", "c": "a"}
    tables = [f'{TABLE}.{name}]\nimage = "x"\nonce = true\nneeds = ["{need}"]' for name, need in circle.items()]
    with pytest.raises(SettingsError, match='none of these could start first: "a" needs "b" needs "c" needs "a"'):
        read(tmp_path, "\n".join(tables))
