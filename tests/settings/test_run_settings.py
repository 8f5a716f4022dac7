"""How tests are run: retries, order, groups, and what is said of tests by their node ids."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from asynctest_kit.errors import SettingsError
from asynctest_kit.settings import Override, Settings, load

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
[tool.asynctest_kit]
retries = 2
fail-slow = "1m"
block-threshold = 0
interference = "warn"
repeat = 3
shuffle = 12
warm-imports = ["sqlmodel"]
explain-plan = true
isolation = "database"
audit-isolation = "each"
[tool.asynctest_kit.groups]
mail = 1
"payment provider" = 4
[[tool.asynctest_kit.overrides]]
tests = "tests/legacy/*"
exclusive = true
isolation = "server"
[[tool.asynctest_kit.overrides]]
tests = "*::test_mail*"
group = "mail"
retries = 0
timeout = "2m"
"""


def read(folder: Path, toml: str = "", environ: dict[str, str] | None = None, **options: str | None) -> Settings:
    (folder / "pyproject.toml").write_text(toml or "[tool.asynctest_kit]\n")
    return load(paths=[], directory=folder, environ=environ or {}, options=options)


def test_the_whole_file(tmp_path: Path) -> None:
    settings = read(tmp_path, WHOLE)
    assert (settings.retries, settings.fail_slow, settings.block_threshold) == (2, 60.0, 0.0)
    assert (settings.interference, settings.repeat, settings.shuffle, settings.explain_plan) == ("warn", 3, 12, True)
    assert settings.warm_imports == ("sqlmodel",)
    assert settings.isolation == "database"
    assert settings.audit_isolation == "each"
    assert dict(settings.groups) == {"mail": 1, "payment provider": 4}
    assert settings.overrides == (
        Override(tests="tests/legacy/*", exclusive=True, isolation="server"),
        Override(tests="*::test_mail*", group="mail", retries=0, timeout=120.0),
    )


def test_what_is_loaded_from_nothing_is_what_is_made_from_nothing(tmp_path: Path) -> None:
    loaded, made = read(tmp_path), Settings(root=tmp_path)
    for field in fields(Settings):
        if field.name != "sources":
            assert getattr(loaded, field.name) == getattr(made, field.name)


def test_the_later_layer_wins(tmp_path: Path) -> None:
    environ = {"ATK_RETRIES": "5", "ATK_FAIL_SLOW": "2s", "ATK_INTERFERENCE": "fail", "ATK_BLOCK_THRESHOLD": "1"}
    settings = read(tmp_path, WHOLE, environ, retries="0", repeat="1", shuffle="7", explain_plan=None)
    assert (settings.retries, settings.repeat, settings.shuffle) == (0, 1, 7)
    assert read(tmp_path, WHOLE, {"ATK_WARM_IMPORTS": "fastapi, pydantic"}).warm_imports == ("fastapi", "pydantic")
    assert (settings.fail_slow, settings.interference, settings.block_threshold) == (2.0, "fail", 1.0)
    assert settings.explain_plan
    assert read(tmp_path, WHOLE, {"ATK_ISOLATION": "transaction"}).isolation == "transaction"
    assert read(tmp_path, WHOLE, {"ATK_ISOLATION": "transaction"}, isolation="server").isolation == "server"


@pytest.mark.parametrize("place", ["", "[[tool.asynctest_kit.overrides]]\ntests = '*'\n"])
def test_an_isolation_that_there_is_none_of(tmp_path: Path, place: str) -> None:
    with pytest.raises(SettingsError, match=r'isolation: "schema" is unknown\. Allowed: database, server, transaction'):
        read(tmp_path, f"[tool.asynctest_kit]\n{place}isolation = 'schema'\n")


@pytest.mark.parametrize("value", ["random", "true", "Random"])
def test_a_random_seed_is_another_each_time(tmp_path: Path, value: str) -> None:
    seeds = {read(tmp_path, shuffle=value).shuffle for _ in range(4)}
    assert len(seeds) > 1
    assert None not in seeds


def test_no_seed(tmp_path: Path) -> None:
    assert read(tmp_path, "[tool.asynctest_kit]\nshuffle = false\n").shuffle is None
    assert isinstance(read(tmp_path, "[tool.asynctest_kit]\nshuffle = true\n").shuffle, int)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("retries = -1", ", retries: -1 is not a number of times. Allowed: a whole number from 0."),
        ("retries = true", ", retries: true is not a number of times. Allowed: a whole number from 0."),
        ("repeat = 0", ", repeat: 0 is not a count. Allowed: a whole number from 1."),
        ("shuffle = -1", ', shuffle: -1 is not a seed. Allowed: a whole number from 0, or "random".'),
        ('shuffle = "x"', ', shuffle: "x" is not a seed. Allowed: a whole number from 0, or "random".'),
        (
            'warm-imports = ["my-app"]',
            ', warm-imports: ["my-app"] must be a list of names that are imported, e.g. ["fastapi", "pydantic"].',
        ),
        (
            "warm-imports = 1",
            ', warm-imports: 1 must be a list of names that are imported, e.g. ["fastapi", "pydantic"].',
        ),
        ("shuffle = 1.5", ', shuffle: 1.5 is not a seed. Allowed: a whole number from 0, or "random".'),
        ('report = "x"', ', report: "x" is unknown. Allowed: full, none, short.'),
        ('interference = "ignore"', ', interference: "ignore" is unknown. Allowed: fail, warn.'),
        ("explain-plan = 1", ", explain-plan: 1 is neither true nor false. Allowed: true, false."),
        ("groups = 3", ".groups]: must be a table of keys, not a value of type int."),
        ("[tool.asynctest_kit.groups]\nmail = 0", ".groups], mail: 0 is not a count. Allowed: a whole number from 1."),
        ("overrides = 3", ".overrides]]: must be an array of tables, each in [[tool.asynctest_kit.overrides]]."),
        (
            "[[tool.asynctest_kit.overrides]]\nexclusive = true",
            '.overrides]], number 1: the key "tests" is needed, e.g. tests = "tests/legacy/*".',
        ),
        (
            '[[tool.asynctest_kit.overrides]]\ntests = "*"\n[[tool.asynctest_kit.overrides]]\ntests = "*"\ntimeot = 1',
            (
                '.overrides]], number 2: unknown key "timeot". Did you mean timeout? '
                "Allowed: exclusive, group, isolation, retries, tests, timeout."
            ),
        ),
        (
            '[[tool.asynctest_kit.overrides]]\ntests = "*"\nretries = "many"',
            '.overrides]], number 1, retries: "many" is not a number of times. Allowed: a whole number from 0.',
        ),
        (
            '[[tool.asynctest_kit.overrides]]\ntests = ""',
            '.overrides]], number 1, tests: "" must be a text that is not empty.',
        ),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, f"[tool.asynctest_kit]\n{toml}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'pyproject.toml'}, [")
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"environ": {"ATK_REPEAT": "0"}}, 'environment variable ATK_REPEAT: "0" is not a count.'),
        ({"environ": {"ATK_GROUPS": "3"}}, "unknown environment variable ATK_GROUPS."),
        ({"retries": "x"}, 'flag --retries: "x" is not a number of times.'),
        ({"fail_slow": "soon"}, 'flag --fail-slow: "soon" is not a duration.'),
        ({"interference": "maybe"}, 'flag --interference: "maybe" is unknown.'),
    ],
)
def test_a_mistake_outside_the_file_is_told(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, **given)
    assert str(caught.value).startswith(message)
