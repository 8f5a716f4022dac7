"""How all is called that can be said: keys, variables, services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import suggestion

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "NAMES",
    "NO_SETTINGS",
    "OF_A_SERVICE",
    "OVERRIDE_KEYS",
    "RUN_KEYS",
    "SERVICE_KEYS",
    "SERVICE_NAME",
    "SERVICE_VARIABLE_KEYS",
    "TABLE",
    "TABLES",
    "service_variable",
    "unknown_variable",
    "variable_of",
]

TABLE: Final = "tool.asynctest_kit"
TABLES: Final = ("graphql", "groups", "images", "openapi", "overrides", "pact", "services")
RUN_KEYS: Final = (
    "audit-isolation", "block-threshold", "budget", "budget-strict", "concurrency", "explain-plan", "fail-slow",
    "image-prefix", "interference", "isolation", "provider", "publish-openly", "pull", "pull-stall", "record", "repeat",
    "report", "report-json", "retries", "shuffle", "snapshots", "timeout",
    "warm-imports",
)  # fmt: skip
OVERRIDE_KEYS: Final = ("exclusive", "group", "isolation", "retries", "tests", "timeout")
SERVICE_KEYS: Final = (
    "command", "container", "environment", "extensions", "image", "jar", "kind", "lease-header", "mappings",
    "migrations", "needs", "once", "ports", "provider", "roles", "scheme", "server", "settings", "startup-timeout",
    "url", "wait",
)  # fmt: skip
SERVICE_VARIABLE_KEYS: Final = ("image", "jar", "provider", "startup-timeout", "url")

#: Variables that are over before there are any settings.
NO_SETTINGS: Final = ("ATK_WARM",)

#: Variables that may be for a service that is declared in Python.
OF_A_SERVICE: Final = re.compile(r"ATK_[A-Z][A-Z0-9_]*_(IMAGE|JAR|PROVIDER|STARTUP_TIMEOUT|URL)")

SERVICE_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
#: What to tell who calls one otherwise.
NAMES: Final = "Use lower-case letters and digits, parts joined by single - or _, a letter first."


def variable_of(name: str) -> str:
    """A name as variables have it."""
    return name.upper().replace("-", "_")


def service_variable(name: str, key: str) -> str:
    """The variable that sets a service's key."""
    return f"ATK_{variable_of(name)}_{variable_of(key)}"


def unknown_variable(variable: str, known: Collection[str]) -> SettingsError:
    """An error that names the known one that is most like it."""
    return SettingsError(f"unknown environment variable {variable}.{suggestion(variable, known)}")
