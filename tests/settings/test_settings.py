from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctest_kit.errors import SettingsError
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import KINDS, Migrations, Preparation, Settings, load, parse_duration

if TYPE_CHECKING:
    from pathlib import Path


steady = settings(deadline=None)  # the machine may be busy


def read(folder: Path, toml: str | None = None, *, paths: Any = (), environ: Any = None, **options: str) -> Settings:
    if toml is not None:
        (folder / "pyproject.toml").write_text(toml, encoding="utf-8")
    return load(paths=list(paths), directory=folder, environ=environ or {}, options=options)


def refusal(folder: Path, toml: str | None = None, **given: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        read(folder, toml, **given)

    return str(caught.value)


def test_defaults_need_no_file(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.root == tmp_path
    assert (settings.budget, settings.concurrency, settings.timeout, settings.provider) == (30.0, 64, 60.0, "auto")
    assert settings.report_json is None
    assert not settings.budget_strict
    assert set(settings.services) == set(KINDS)
    assert settings.services["postgres"].kind == "postgres"
    assert set(settings.sources.values()) == {"default"}


def test_the_dataclass_and_the_loader_have_the_same_defaults(tmp_path: Path) -> None:
    loaded, made = read(tmp_path), Settings(root=tmp_path)
    for name in (
        "root",
        "budget",
        "budget_strict",
        "publish_openly",
        "record",
        "snapshots",
        "warm_imports",
        "report_json",
        "provider",
        "concurrency",
        "timeout",
        "services",
    ):
        assert getattr(loaded, name) == getattr(made, name)


def test_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").touch()
    settings = read(
        tmp_path,
        """
        [tool.asynctest_kit]
        budget = "1m30s"
        budget-strict = true
        report-json = "out/report.json"
        provider = "embedded"
        concurrency = 8
        timeout = 0
        [tool.asynctest_kit.services.postgres]
        image = "postgres:18"
        startup-timeout = "90s"
        environment = { TZ = "UTC" }
        command = ["-c", "fsync=off"]
        migrations = { alembic = "alembic.ini" }
        extensions = ["citext"]
        roles = { app = "LOGIN", reader = "" }
        settings = { jit = false, work_mem = "8MB", max_wal_senders = 4, "app.tenant" = "a" }
        [tool.asynctest_kit.services.ledger]
        kind = "postgres"
        roles = ["app"]
        [tool.asynctest_kit.services.cache]
        kind = "redis"
        provider = "docker"
        """,
    )
    assert (settings.budget, settings.budget_strict, settings.timeout) == (90.0, True, 0.0)
    assert (settings.provider, settings.concurrency) == ("embedded", 8)
    assert settings.report_json == tmp_path / "out/report.json"
    postgres = settings.services["postgres"]
    assert (postgres.image, postgres.startup_timeout) == ("postgres:18", 90.0)
    assert postgres.environment == {"TZ": "UTC"}
    assert postgres.command == ("-c", "fsync=off")
    assert postgres.migrations == Migrations(alembic=tmp_path / "alembic.ini")
    assert postgres.preparation == Preparation(
        extensions=("citext",),
        roles={"app": "LOGIN", "reader": ""},
        settings={"jit": "off", "work_mem": "8MB", "max_wal_senders": "4", "app.tenant": "a"},
    )
    assert settings.services["ledger"].preparation == Preparation(roles={"app": ""})
    assert (settings.services["cache"].kind, settings.services["cache"].provider) == ("redis", "docker")
    assert settings.sources["budget"] == "pyproject.toml [tool.asynctest_kit]"
    assert settings.sources["services.cache.kind"] == "pyproject.toml [tool.asynctest_kit.services.cache]"


def test_the_later_layer_wins(tmp_path: Path) -> None:
    toml = '[tool.asynctest_kit]\nbudget = 10\ntimeout = "5s"\nprovider = "docker"'
    environ = {"ATK_BUDGET": "20", "ATK_TIMEOUT": "6"}
    settings = read(tmp_path, toml, environ=environ, budget="40s")
    assert (settings.budget, settings.timeout, settings.provider) == (40.0, 6.0, "docker")
    assert settings.sources["budget"] == "--budget"
    assert settings.sources["timeout"] == "environment ATK_TIMEOUT"
    assert settings.sources["concurrency"] == "default"


def test_services_read_their_variables(tmp_path: Path) -> None:
    environ = {
        "ATK_POSTGRES_URL": "postgresql://u:p@h/d",
        "ATK_MY_CACHE_IMAGE": "valkey:9",
        "ATK_MY_CACHE_PROVIDER": "docker",
        "ATK_MY_CACHE_STARTUP_TIMEOUT": "2m",
        "PATH": "/bin",
    }
    services = read(
        tmp_path, '[tool.asynctest_kit.services.my-cache]\nkind = "redis"', environ=environ, provider="embedded"
    ).services
    assert services["postgres"].url == "postgresql://u:p@h/d"
    assert services["postgres"].provider == "external"
    assert (services["my-cache"].image, services["my-cache"].provider) == ("valkey:9", "docker")
    assert services["my-cache"].startup_timeout == 120.0


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert read(tmp_path, environ={"ATK_BUDGET": "", "ATK_NO_SUCH": ""}).budget == 30.0


def test_options_may_be_spelt_as_click_spells_them(tmp_path: Path) -> None:
    settings = read(tmp_path, budget_strict="yes", report_json="r.json")
    assert settings.budget_strict
    assert settings.report_json == tmp_path / "r.json"


@pytest.mark.parametrize(
    ("toml", "variable", "expected"),
    [
        ('provider = "docker"', {"URL": "redis://h"}, ("external", "redis://h")),
        ('url = "redis://h"', {"PROVIDER": "embedded"}, ("embedded", None)),
        ('url = "redis://h"', {"PROVIDER": "auto"}, ("external", "redis://h")),
        ('url = "redis://h"\nprovider = "external"', {"URL": "redis://i"}, ("external", "redis://i")),
    ],
)
def test_the_later_of_url_and_provider_wins(tmp_path: Path, toml: str, variable: dict[str, str], expected: Any) -> None:
    environ = {f"ATK_REDIS_{key}": value for key, value in variable.items()}
    service = read(tmp_path, f"[tool.asynctest_kit.services.redis]\n{toml}", environ=environ).services["redis"]
    assert (service.provider, service.url) == expected


def test_no_repr_shows_a_password(tmp_path: Path) -> None:
    toml = '[tool.asynctest_kit.services.redis]\nurl = "redis://:s3cret@h"\nenvironment = { KEY = "s3cret" }'
    assert "s3cret" not in repr(read(tmp_path, toml))


@pytest.mark.parametrize("paths", [["tests/a"], ["tests/a/test_x.py::test_y[b::c]", "tests/b"], ["tests/none"]])
def test_the_file_is_found_upwards_from_the_common_ancestor(tmp_path: Path, paths: list[str]) -> None:
    for folder in ("a", "b"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
    (tmp_path / "tests" / "a" / "test_x.py").touch()
    (tmp_path / "tests" / "pyproject.toml").write_text("[tool.other]\n")
    settings = read(tmp_path, "[tool.asynctest_kit]\nbudget = 5", paths=paths)
    assert (settings.root, settings.budget) == (tmp_path, 5.0)


def test_arguments_that_are_no_paths_are_passed_over(tmp_path: Path) -> None:
    nested = tmp_path / "nested"
    nested.mkdir()
    toml = "[tool.asynctest_kit]\nbudget = 5"
    (nested / "pyproject.toml").write_text(toml)
    assert read(tmp_path, paths=["-k", "some words", "--rootdir=/", "", "nested/gone.py"]).root == tmp_path
    assert read(tmp_path, paths=["-k", "some words", "nested"]).root == nested


def test_the_nearest_table_is_the_root(tmp_path: Path) -> None:
    nested = tmp_path / "nested"
    nested.mkdir()
    (nested / "pyproject.toml").write_text("[tool.asynctest_kit]\nbudget = 7")
    toml = "[tool.asynctest_kit]\nbudget = 5"
    assert read(tmp_path, toml, paths=["nested"]).root == nested
    assert read(tmp_path, toml, paths=["nested", "."]).root == tmp_path


@pytest.mark.parametrize("name", ["asynctest-kit", "asynctestkit", "AsyncTest_Kit"])
@pytest.mark.parametrize("more", ["", "\n[tool.asynctest_kit]\nbudget = 5"])
def test_a_table_that_nobody_would_read_is_told(tmp_path: Path, name: str, more: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, f"[tool.{name}.services.db]\nkind = 'postgres'{more}")
    expected = f"[tool.{name}]: nobody reads this table. Did you mean [tool.asynctest_kit]?"
    assert str(caught.value) == f"{tmp_path / 'pyproject.toml'}, {expected}"


@pytest.mark.parametrize(
    ("migrations", "expected"),
    [
        ('{ sql = "migrations" }', {"sql": "migrations"}),
        ('{ command = ["python", "migrate.py"] }', {"command": ("python", "migrate.py")}),
        ('{ sql = "migrations", seeds = "rows.csv" }', {"sql": "migrations", "seeds": ("rows.csv",)}),
        ('{ seeds = ["migrations", "rows.csv"] }', {"seeds": ("migrations", "rows.csv")}),
        ('{ sql = "migrations", downgrade-to = "03" }', {"sql": "migrations", "downgrade_to": "03"}),
        ('{ sql = "migrations", round-trip = "migrations" }', {"sql": "migrations", "round_trip": "migrations"}),
    ],
)
def test_migrations(tmp_path: Path, migrations: str, expected: dict[str, Any]) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "rows.csv").touch()
    settings = read(tmp_path, f"[tool.asynctest_kit.services.postgres]\nmigrations = {migrations}")
    for key in expected.keys() & {"sql", "round_trip"}:
        expected = expected | {key: tmp_path / expected[key]}
    if "seeds" in expected:
        expected = expected | {"seeds": tuple(tmp_path / path for path in expected["seeds"])}
    assert settings.services["postgres"].migrations == Migrations(**expected)


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("", 'bugdet = "30s"', ["[tool.asynctest_kit]", '"bugdet"', "Did you mean budget?", "timeout"]),
        ("", 'budget = "fast"', ["budget", '"fast"', "1m30s"]),
        ("", "budget = 0", ["budget", "longer than 0"]),
        ("", "budget = -1", ["budget", "-1", "duration"]),
        ("", "budget = inf", ["budget", "duration"]),
        ("", "budget = nan", ["budget", "duration"]),
        ("", "budget = true", ["budget", "true", "duration"]),
        ("", "concurrency = 0", ["concurrency", "whole number from 1"]),
        ("", "concurrency = 1.5", ["concurrency", "1.5"]),
        ("", 'budget-strict = "maybe"', ["budget-strict", '"maybe"', "true, false"]),
        ("", 'provider = "dokcer"', ["provider", '"dokcer"', "Did you mean docker?", "embedded"]),
        ("", 'report-json = ""', ["report-json", "not empty"]),
        ("", "services = 3", ["services", "table", "int"]),
        (".services.redis", "img = 1", ["[tool.asynctest_kit.services.redis]", '"img"', "image"]),
        (".services.redis", "url = 3", ["services.redis", "url", "URL"]),
        (".services.redis", 'command = "a b"', ["command", '["a", "b"]']),
        (".services.redis", "command = []", ["command", "list of words"]),
        (".services.redis", "environment = { A = 1 }", ["environment, A", "quotes"]),
        (".services.redis", 'migrations = { sql = "." }', ["migrations", "redis", "postgres"]),
        (".services.redis", 'provider = "external"', ["provider", "url"]),
        (".services.redis", 'provider = "docker"\nurl = "redis://h"', ["provider", "contradicts", "Remove one"]),
        (".services.postgres", "migrations = {}", ["migrations", "exactly one", "none given"]),
        (".services.postgres", 'migrations = { sql = ".", alembic = "a" }', ["exactly one", "alembic, sql given"]),
        (".services.postgres", 'migrations = { alembic = "gone.ini" }', ["migrations.alembic", "gone.ini", "file"]),
        (".services.postgres", 'migrations = { sql = "gone" }', ["migrations.sql", "gone", "folder"]),
        (
            ".services.postgres",
            'migrations = { sql = ".", seeds = "gone.csv" }',
            ["migrations.seeds", "gone.csv", ".yaml"],
        ),
        (".services.postgres", 'migrations = { sql = ".", seeds = [] }', ["migrations.seeds", "empty"]),
        (".services.postgres", 'migrations = { sql = ".", round-trip = "gone" }', ["migrations.round-trip", "folder"]),
        (".services.postgres", 'migrations = { round-trip = "." }', ["exactly one", "none given"]),
        (".services.postgres", "migrations = { sq = 1 }", ["migrations", '"sq"', "Did you mean sql?"]),
        (".services.postgres", 'extensions = "citext"', ["extensions", "list", '["pgcrypto", "citext"]']),
        (".services.postgres", 'extensions = [""]', ["extensions", "list"]),
        (".services.postgres", "roles = [1]", ["roles", "names of roles", "LOGIN"]),
        (".services.postgres", "roles = { app = 1 }", ["roles", "names of roles"]),
        (".services.postgres", "settings = 1", ["settings", "table"]),
        (".services.postgres", "settings = { jit = [] }", ["settings, jit", "no setting's value"]),
        (".services.postgres", "settings = { port = 1 }", ["settings, port", "not to be set here"]),
        (".services.redis", 'extensions = ["citext"]', ["extensions", 'only services of kind "postgres"']),
        (".services.redis", 'settings = { a = "b" }', ["settings", 'only services of kind "postgres"']),
        (".services.reddis", 'image = "x"', ["services.reddis", "kind", "Did you mean redis?"]),
        (".services.reddis", "", ["services.reddis", "kind", "Did you mean redis?"]),
        (".services.db", 'kind = "postgers"', ["services.db", "kind", "Did you mean postgres?"]),
        (".services.Db", 'kind = "postgres"', ["services.Db", "lower-case"]),
    ],
)
def test_a_mistake_in_the_file_is_told(tmp_path: Path, table: str, line: str, words: list[str]) -> None:
    message = refusal(tmp_path, f"[tool.asynctest_kit{table}]\n{line}")
    for word in (str(tmp_path / "pyproject.toml"), *words):
        assert word in message
    assert ".." not in message.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ATK_BUGDET": "3"}, ["ATK_BUGDET", "Did you mean ATK_BUDGET?"]),
        ({"ATK_POSTGRE_URL": "x"}, ["ATK_POSTGRE_URL", "Did you mean ATK_POSTGRES_URL?"]),
        ({"ATK_POSTGRE_IMAGE": "x"}, ["ATK_POSTGRE_IMAGE", "Did you mean ATK_POSTGRES_IMAGE?"]),
        ({"ATK_ORDERS_DB_URL": "x"}, ["ATK_ORDERS_DB_URL", "ATK_POSTGRES_URL"]),
        ({"ATK_CONCURRENCY": "many"}, ["ATK_CONCURRENCY", '"many"', "whole number"]),
        ({"ATK_REDIS_STARTUP_TIMEOUT": "0"}, ["ATK_REDIS_STARTUP_TIMEOUT", "longer than 0"]),
    ],
)
def test_a_mistake_in_the_environment_is_told(tmp_path: Path, environ: dict[str, str], words: list[str]) -> None:
    message = refusal(tmp_path, environ=environ)
    for word in words:
        assert word in message


def test_an_image_that_is_exported_for_another_project_stops_nobody(tmp_path: Path) -> None:
    settings = read(tmp_path, environ={"ATK_ORDERS_DB_IMAGE": "x", "ATK_KAFKA_IMAGE": "y"})
    assert settings.services.keys() == set(KINDS)


def test_a_bad_url_is_refused_without_its_password(tmp_path: Path) -> None:
    message = refusal(tmp_path, environ={"ATK_REDIS_URL": "redis:/:s3cret@h"})
    assert "ATK_REDIS_URL" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_url_leads_to_a_server_of_its_kind(tmp_path: Path, kind: str) -> None:
    variable = f"ATK_{kind.upper()}_URL"
    told = refusal(tmp_path, environ={variable: "ftp://user:s3cret@127.0.0.1:1"})
    assert f'environment variable {variable}: "ftp://" leads to no server of kind "{kind}". Allowed: ' in told
    assert "s3cret" not in told
    for scheme in kind_of(ServiceSpec(name=kind, kind=kind)).schemes:
        url = f"{scheme}://127.0.0.1:1"
        assert read(tmp_path, environ={variable: url}).services[kind].url == url


def test_a_mistake_in_a_flag_is_told(tmp_path: Path) -> None:
    assert "flag --timeout" in refusal(tmp_path, timeout="soon")
    assert "Did you mean --timeout?" in refusal(tmp_path, time_out="3")


def test_a_bad_value_shows_even_when_overruled(tmp_path: Path) -> None:
    assert "pyproject.toml" in refusal(tmp_path, '[tool.asynctest_kit]\nbudget = "x"', budget="3")


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, "[tool.asynctest_kit]\nbudget = ?")


def test_services_that_would_share_variables_are_refused(tmp_path: Path) -> None:
    toml = '[tool.asynctest_kit.services]\na-b = { kind = "redis" }\na_b = { kind = "redis" }'
    assert "ATK_A_B_*" in refusal(tmp_path, toml)


@steady
@given(st.integers(0, 99), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    assert parse_duration(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


@steady
@given(st.floats(0, 1e9, allow_subnormal=False).map(lambda value: f"{value:.6f}"))
def test_a_bare_number_is_seconds(text: str) -> None:
    assert parse_duration(text) == float(text) == parse_duration(f"{text}s")


@steady
@given(st.text(max_size=8))
def test_any_text_is_a_duration_or_is_refused_by_name(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert text.strip() in str(error)
    else:
        assert 0 <= seconds < float("inf")


@pytest.mark.parametrize("text", ["", " ", "-1", "1e3", "30 s", "s", "1s1m", "nan", "inf", "9" * 400, "٣"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="Allowed"):
        parse_duration(text)


def test_a_server_of_stubs_has_a_jar_and_mappings(tmp_path: Path) -> None:
    (tmp_path / "stubs").mkdir()
    text = '[tool.asynctest_kit.services.rates]\nkind = "wiremock"\njar = "rates.jar"\nmappings = "stubs"'
    rates = read(tmp_path, text).services["rates"]
    assert (rates.kind, rates.jar, rates.mappings) == ("wiremock", tmp_path / "rates.jar", tmp_path / "stubs")
    overruled = read(tmp_path, text, environ={"ATK_RATES_JAR": "other.jar", "ATK_WIREMOCK_JAR": "wiremock.jar"})
    assert overruled.services["rates"].jar == tmp_path / "other.jar"
    assert overruled.services["wiremock"].jar == tmp_path / "wiremock.jar"


def test_other_services_have_neither(tmp_path: Path) -> None:
    kinds = 'only services of the kinds "mockserver" and "wiremock" have it.'
    (tmp_path / "stubs").mkdir()
    for key, value in (("jar", "redis.jar"), ("mappings", "stubs"), ("lease-header", "X-Id")):
        told = refusal(tmp_path, f'[tool.asynctest_kit.services.redis]\n{key} = "{value}"')
        assert f"[tool.asynctest_kit.services.redis], {key}: {kinds}" in told
    told = refusal(tmp_path, '[tool.asynctest_kit.services.wiremock]\nlease-header = "X: 1"')
    assert 'lease-header: "X: 1" is no name of a header, e.g. "X-Request-Id"' in told
    told = refusal(tmp_path, '[tool.asynctest_kit.services.wiremock]\nmappings = "missing"')
    assert f'mappings: "missing" is no file and no folder: {tmp_path / "missing"} was looked for' in told


SHARED = """
[tool.asynctest_kit.services.orders-db]
kind = "postgres"
image = "postgres:17"
roles = { app = "LOGIN" }

[tool.asynctest_kit.services.billing-db]
kind = "postgres"
server = "orders-db"
roles = { app = "LOGIN", biller = "NOLOGIN" }
extensions = ["citext"]
"""


def test_a_service_shares_the_server_of_another_unless_it_has_a_url(tmp_path: Path) -> None:
    settings = read(tmp_path, SHARED)
    assert (settings.services["billing-db"].server, settings.services["billing-db"].shares) == ("orders-db",) * 2
    assert settings.on_server("orders-db") == ("orders-db", "billing-db")
    assert settings.on_server("postgres") == ("postgres",)
    apart = read(tmp_path, environ={"ATK_BILLING_DB_URL": "postgresql://h/billing"})
    assert (apart.services["billing-db"].server, apart.services["billing-db"].shares) == ("orders-db", None)
    assert apart.on_server("orders-db") == ("orders-db",)
    beside = read(tmp_path, environ={"ATK_ORDERS_DB_URL": "postgresql://h/orders"})
    assert beside.on_server("orders-db") == ("orders-db", "billing-db")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("server = 3", "server: 3 must be a text that is not empty."),
        ('server = "order-db"', 'no service is called "order-db". Did you mean "orders-db"? There are:'),
        ('server = "redis"', '"redis" is of kind "redis". Only the server of a "postgres" can be shared.'),
        ('server = "ledger-db"', "that is the service itself. Name another one, or leave the key out."),
        (
            'server = "billing-db"',
            '"billing-db" has no server of its own, for it is on that of "orders-db". Name "orders-db" here, too.',
        ),
        (
            'server = "orders-db"\nroles = { app = "NOLOGIN" }',
            "and both are on one server. Say the same in both, or give the roles names of their own.",
        ),
        *(
            (
                f'server = "orders-db"\n{key} = {value}',
                f'{key}: "ledger-db" is a database on the server of "orders-db", to',
            )
            for key, value in {
                "image": '"postgres:16"',
                "command": '["-c", "work_mem=1MB"]',
                "container": '{ memory = "1g" }',
                "environment": '{ TZ = "UTC" }',
                "needs": '["redis"]',
                "provider": '"docker"',
                "settings": '{ work_mem = "8MB" }',
            }.items()
        ),
    ],
)
def test_a_server_that_can_not_be_shared_so_is_told(tmp_path: Path, line: str, told: str) -> None:
    table = "[tool.asynctest_kit.services.ledger-db]"
    message = refusal(tmp_path, f'{SHARED}\n{table}\nkind = "postgres"\n{line}')
    assert message.startswith(f"{tmp_path / 'pyproject.toml'}, [tool.asynctest_kit.services.")
    assert told in message


def test_other_mistakes_with_a_shared_server_are_told(tmp_path: Path) -> None:
    ring = SHARED.replace('image = "postgres:17"', 'server = "billing-db"')
    message = refusal(tmp_path, ring)
    assert 'for it is on that of "orders-db". Leave the key out at one of them.' in message
    redis = '[tool.asynctest_kit.services.redis]\nserver = "postgres"'
    assert 'server: a service of kind "redis" shares no server. Only "postgres" does.' in refusal(tmp_path, redis)
    message = refusal(tmp_path, SHARED, environ={"ATK_BILLING_DB_IMAGE": "postgres:16"})
    assert message.startswith('environment variable ATK_BILLING_DB_IMAGE: "billing-db" is a database on the server of')
    assert (
        read(tmp_path, SHARED, environ={"ATK_BILLING_DB_URL": "postgresql://h"}).services["billing-db"].shares is None
    )
