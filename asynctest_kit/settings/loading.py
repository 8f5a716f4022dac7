"""All that was given for a run, from each of its sources, put together."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from asynctest_kit.container_options import ImageSource
from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import suggestion
from asynctest_kit.settings import parse
from asynctest_kit.settings.contracts import GraphQLSettings, OpenApiSettings, graphql_settings, openapi_settings
from asynctest_kit.settings.declared import no_unclaimed
from asynctest_kit.settings.given import Given, add_keys, last, table_of
from asynctest_kit.settings.keys import (
    NAMES,
    NO_SETTINGS,
    OF_A_SERVICE,
    OVERRIDE_KEYS,
    RUN_KEYS,
    SERVICE_KEYS,
    SERVICE_NAME,
    SERVICE_VARIABLE_KEYS,
    TABLE,
    TABLES,
    service_variable,
    unknown_variable,
    variable_of,
)
from asynctest_kit.settings.model import KINDS, Override, Settings
from asynctest_kit.settings.pacts import PactSettings, pact_settings
from asynctest_kit.settings.services import service
from asynctest_kit.wiring import check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asynctest_kit.settings.given import Givens

__all__ = ["has_services", "load"]


def load(
    *,
    paths: Sequence[str],
    directory: Path,
    environ: Mapping[str, str],
    options: Mapping[str, str | None],
    is_complete: bool = True,
) -> Settings:
    """Read the settings of a run.

    Args:
        paths: The run's arguments; what exists, node ids allowed, counts as pytest counts it. The settings file is
            the first pyproject.toml with a ``[tool.asynctest_kit]`` table from their common ancestor upwards.
        directory: The working directory; relative paths of the environment and the command line start here.
        environ: The process's environment; only ``ATK_*`` is read.
        options: What the command line gave, by key (``budget-strict`` or ``budget_strict``); None for not given.
        is_complete: Whether a variable for a service that isn't here is a mistake. Where services may be declared in
            Python, :func:`no_unclaimed` finds that out later.

    Raises:
        SettingsError: A key, variable or flag is unknown, or its value is not allowed.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100  # resolve() would follow links, pytest doesn't
    file, table = _find_table(paths, directory)
    root = file.parent if file else directory
    run: Givens = {}
    services: dict[str, Givens] = {kind: {} for kind in KINDS}
    groups: Mapping[str, int] = {}
    overrides: tuple[Override, ...] = ()
    substitutes: dict[str, str] = {}
    pact = PactSettings()
    openapi, graphql = OpenApiSettings(), GraphQLSettings()
    if file:
        _add_table(file, table, run, services)
        pact = pact_settings(table["pact"], f"{file}, [{TABLE}.pact]") if "pact" in table else pact
        substitutes = _substitutes(file, table.get("images", {}))
        groups = _groups(file, table.get("groups", {}))
        overrides = _overrides(file, table.get("overrides", []))
        openapi = openapi_settings(table.get("openapi", {}), f"{file}, [{TABLE}.openapi]")
        graphql = graphql_settings(table.get("graphql", {}), f"{file}, [{TABLE}.graphql]", file.parent)
    unclaimed = _add_environment(environ, directory, run, services)
    _add_options(options, directory, run)
    sources = dict.fromkeys(RUN_KEYS, "default") | {key: givens[-1].source for key, givens in run.items()}
    for name, givens in services.items():
        sources |= {f"services.{name}.{key}": values[-1].source for key, values in givens.items()}
    found = {name: service(name, givens) for name, givens in services.items()}
    check(found, lambda name, key: _place(services[name], name, key))
    settings = Settings(
        root=root,
        budget=last(run, "budget", parse.positive_duration, 30.0),
        budget_strict=last(run, "budget-strict", parse.truth, default=False),
        report=last(run, "report", parse.report, "full"),
        report_json=last(run, "report-json", parse.path, None),
        provider=last(run, "provider", parse.provider, "auto"),
        concurrency=last(run, "concurrency", parse.count, 64),
        timeout=last(run, "timeout", parse.duration, 60.0),
        retries=last(run, "retries", parse.whole_number, 0),
        fail_slow=last(run, "fail-slow", parse.duration, 0.0),
        block_threshold=last(run, "block-threshold", parse.duration, 0.5),
        interference=last(run, "interference", parse.interference, "fail"),
        repeat=last(run, "repeat", parse.count, 1),
        shuffle=last(run, "shuffle", parse.seed, None),
        audit_isolation=last(run, "audit-isolation", parse.audit_isolation, ""),
        explain_plan=last(run, "explain-plan", parse.truth, default=False),
        isolation=last(run, "isolation", parse.isolation, "transaction"),
        groups=MappingProxyType(dict(groups)),
        overrides=overrides,
        images=ImageSource(
            prefix=last(run, "image-prefix", parse.image_name, None),
            substitutes=substitutes,
            pull=last(run, "pull", parse.pull, "missing"),
            stall=last(run, "pull-stall", parse.positive_duration, 30.0),
        ),
        record=last(run, "record", parse.truth, default=False),
        publish_openly=last(run, "publish-openly", parse.truth, default=False),
        snapshots=last(run, "snapshots", parse.truth, default=True),
        warm_imports=last(run, "warm-imports", parse.modules, ()),
        pact=pact,
        openapi=openapi,
        graphql=graphql,
        services=MappingProxyType(found),
        sources=MappingProxyType(sources),
        unclaimed=MappingProxyType(unclaimed),
    )
    if is_complete:
        no_unclaimed(settings)
    return settings


def has_services(*, paths: Sequence[str], directory: Path) -> bool:
    """Whether the file that :func:`load` would read has a service in it; raises SettingsError if it is no TOML."""
    _, table = _find_table(paths, Path(os.path.abspath(directory)))  # noqa: PTH100  # as load() has it
    return bool(table.get("services"))


def _find_table(paths: Sequence[str], directory: Path) -> tuple[Path | None, Mapping[str, object]]:
    """Return the settings file and its table; (None, {}) where no pyproject.toml upwards has one."""
    named = [os.path.abspath(directory / path.split("::", 1)[0]) for path in paths if path[:1] != "-"]  # noqa: PTH100
    start = Path(os.path.commonpath([path for path in named if os.path.exists(path)] or [str(directory)]))  # noqa: PTH110
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue

        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"{file} can't be read as TOML: {error}") from error

        tool = content.get("tool", {})
        _no_misspelt_table(tool, file)
        if isinstance(tool, dict) and "asynctest_kit" in tool:
            return file, table_of(tool["asynctest_kit"], f"{file}, [{TABLE}]")

    return None, {}


def _no_misspelt_table(tool: object, file: Path) -> None:
    """Raise SettingsError if there is a table that would be ours but for its spelling, and would be ignored."""
    for name in tool if isinstance(tool, dict) else ():
        if name != "asynctest_kit" and re.sub(r"[-_.]", "", name).lower() == "asynctestkit":
            raise SettingsError(f"{file}, [tool.{name}]: nobody reads this table. Did you mean [{TABLE}]?")


def _add_table(file: Path, table: Mapping[str, object], run: Givens, services: dict[str, Givens]) -> None:
    add_keys(file, TABLE, {key: value for key, value in table.items() if key not in TABLES}, RUN_KEYS, run)
    names = table_of(table.get("services", {}), f"{file}, [{TABLE}.services]")
    for name, value in names.items():
        header = f"{TABLE}.services.{name}"
        place = f"{file}, [{header}]"
        if not SERVICE_NAME.fullmatch(name):
            raise SettingsError(f'{place}: "{name}" is no name for a service. {NAMES}')

        twin = next((known for known in services if known != name and variable_of(known) == variable_of(name)), None)
        if twin:
            raise SettingsError(
                f'{place}: the services "{twin}" and "{name}" would share the variables ATK_{variable_of(name)}_*. '
                "Rename one."
            )

        content = table_of(value, place)
        is_container = "image" in content and not content.keys().isdisjoint(("once", "ports", "wait"))
        if name not in KINDS and "kind" not in content and "image" in content and not is_container:
            raise SettingsError(
                f"{place}: it isn't said when a container of this image is ready. Add ports = [8080] or wait, or "
                f'once = true for a job that ends; or "kind", for a server that is known.{suggestion(name, KINDS)}'
            )

        if name not in KINDS and "kind" not in content and not is_container:
            raise SettingsError(
                f'{place}: "{name}" is no kind of service, so the key "kind" is needed; or, for a container of any '
                f'image, "image" and one of "ports", "wait" and "once".{suggestion(name, KINDS)}'
            )

        add_keys(file, header, content, SERVICE_KEYS, services.setdefault(name, {}))


def _groups(file: Path, value: object) -> Mapping[str, int]:
    header = f"{TABLE}.groups"
    table = table_of(value, f"{file}, [{header}]")
    return {
        name: parse.count(Given(limit, "", f"{file}, [{header}], {name}", file.parent)) for name, limit in table.items()
    }


def _substitutes(file: Path, value: object) -> dict[str, str]:
    place = f"{file}, [{TABLE}.images]"
    return {
        name: parse.image_name(Given(substitute, "", f"{place}, {name}", file.parent))
        for name, substitute in table_of(value, place).items()
    }


def _overrides(file: Path, value: object) -> tuple[Override, ...]:
    header = f"{TABLE}.overrides"
    if not isinstance(value, list):
        raise SettingsError(f"{file}, [[{header}]]: must be an array of tables, each in [[{header}]].")

    return tuple(_override(file, f"{header}]], number {place}", entry) for place, entry in enumerate(value, 1))


def _override(file: Path, header: str, value: object) -> Override:
    givens: Givens = {}
    add_keys(file, header, table_of(value, f"{file}, [[{header}"), OVERRIDE_KEYS, givens)
    if "tests" not in givens:
        raise SettingsError(f'{file}, [[{header}: the key "tests" is needed, e.g. tests = "tests/legacy/*".')

    return Override(
        tests=last(givens, "tests", parse.text, ""),
        exclusive=last(givens, "exclusive", parse.truth, None),
        group=last(givens, "group", parse.text, None),
        isolation=last(givens, "isolation", parse.isolation, None),
        retries=last(givens, "retries", parse.whole_number, None),
        timeout=last(givens, "timeout", parse.duration, None),
    )


def _add_environment(
    environ: Mapping[str, str], directory: Path, run: Givens, services: dict[str, Givens]
) -> dict[str, str]:
    """Add what variables give; those that may be for services declared elsewhere are the result."""
    unclaimed = {}
    targets = {f"ATK_{variable_of(key)}": (run, key) for key in RUN_KEYS}
    for name, givens in services.items():
        targets |= {service_variable(name, key): (givens, key) for key in SERVICE_VARIABLE_KEYS}
    for variable, value in sorted(environ.items()):
        if not variable.startswith("ATK_") or not value or variable in NO_SETTINGS:
            continue

        if variable not in targets and OF_A_SERVICE.fullmatch(variable):
            unclaimed[variable] = value
            continue

        if variable not in targets:
            raise unknown_variable(variable, targets)

        givens, key = targets[variable]
        given = Given(value, f"environment {variable}", f"environment variable {variable}", directory)
        givens.setdefault(key, []).append(given)
    return unclaimed


def _add_options(options: Mapping[str, str | None], directory: Path, run: Givens) -> None:
    for option, value in options.items():
        key = option.replace("_", "-")
        flag = f"--{key}"
        if key not in RUN_KEYS:
            raise SettingsError(f"unknown flag {flag}.{suggestion(flag, [f'--{key}' for key in RUN_KEYS])}")

        if value is not None:
            run.setdefault(key, []).append(Given(value, flag, f"flag {flag}", directory))


def _place(givens: Givens, name: str, key: str) -> str:
    """Where a service's key was given; if it wasn't, the service."""
    given = givens.get(key) or [given for values in givens.values() for given in values]
    if not given:
        return f'service "{name}"'
    return given[-1].place if key in givens else given[-1].place.rpartition(", ")[0]
