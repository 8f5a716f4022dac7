"""What one value says, or the error that says what it should have been."""

from __future__ import annotations

import contextlib
import json
import os
import re
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, get_args

from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import suggestion
from asynctest_kit.settings.given import table_of, wrong
from asynctest_kit.settings.model import AuditIsolation, Interference, Isolation, ProviderChoice, ReportLength

if TYPE_CHECKING:
    from collections.abc import Collection

    from asynctest_kit.container_options import PullPolicy
    from asynctest_kit.settings.given import Given

__all__ = [
    "audit_isolation",
    "command",
    "count",
    "duration",
    "environment",
    "existing",
    "existing_file",
    "existing_folder",
    "header",
    "image_name",
    "interference",
    "isolation",
    "modules",
    "names",
    "one_of",
    "parse_duration",
    "path",
    "positive_duration",
    "provider",
    "pull",
    "report",
    "seed",
    "text",
    "truth",
    "url",
    "whole_number",
]

_MODULE: Final = re.compile(r"[A-Za-z_]\w*")
_DURATION: Final = re.compile(
    r"(?=.)"
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?"
    r"(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?"
    r"(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_DURATIONS: Final = 'seconds as a number, or a time such as "30s", "2m", "1m30s" or "500ms"'
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TRUTH: Final = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def parse_duration(text: str) -> float:
    """Return the seconds of ``"30s"``, ``"2m"``, ``"1m30s"``, ``"500ms"`` or a bare number.

    Raises:
        ValueError: The text is no duration; the message says what is allowed.
    """
    text = text.strip()
    match = _DURATION.fullmatch(text)
    seconds = inf
    if match:
        seconds = sum(float(value) * _SECONDS[unit] for unit, value in match.groupdict(default="0").items())
    elif re.fullmatch(r"\d+(\.\d+)?|\.\d+", text, re.ASCII):
        seconds = float(text)
    if seconds < inf:
        return seconds

    raise ValueError(f'"{text}" is not a duration. Allowed: {_DURATIONS}')


def duration(given: Given) -> float:
    """Seconds, 0 or more."""
    value = given.value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf:
        return float(value)

    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return parse_duration(value)

    raise wrong(given, f"is not a duration. Allowed: {_DURATIONS}")


def positive_duration(given: Given) -> float:
    """Seconds, more than 0."""
    seconds = duration(given)
    if seconds <= 0:
        raise wrong(given, "must be longer than 0 s")

    return seconds


def truth(given: Given) -> bool:
    """Yes or no, also as a text."""
    value = given.value
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]

    if isinstance(value, bool):
        return value

    raise wrong(given, "is neither true nor false. Allowed: true, false")


def count(given: Given) -> int:
    """A whole number from 1, also as a text."""
    value = given.value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value

    raise wrong(given, "is not a count. Allowed: a whole number from 1")


def whole_number(given: Given) -> int:
    """A whole number from 0, also as a text."""
    value = given.value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value

    raise wrong(given, "is not a number of times. Allowed: a whole number from 0")


def seed(given: Given) -> int | None:
    """Of a random order; None for none."""
    value = given.value
    if value is False:
        return None
    if value is True or (isinstance(value, str) and value.lower() in {"random", "true"}):
        return int.from_bytes(os.urandom(4))
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, int) and value >= 0:
        return value

    raise wrong(given, 'is not a seed. Allowed: a whole number from 0, or "random"')


def one_of(given: Given, allowed: Collection[str]) -> str:
    """A text that is among those allowed."""
    if isinstance(given.value, str) and given.value in allowed:
        return given.value

    raise wrong(given, f"is unknown.{suggestion(str(given.value), allowed).removesuffix('.')}")


def audit_isolation(given: Given) -> AuditIsolation:
    """When the state of services is compared."""
    if given.value in {True, "true"}:
        return "suite"
    if given.value in {False, "false", ""}:
        return ""
    return cast("AuditIsolation", one_of(given, ("suite", "each")))


def interference(given: Given) -> Interference:
    """What becomes of a run with tests that pass alone only."""
    return cast("Interference", one_of(given, get_args(Interference)))


def isolation(given: Given) -> Isolation:
    """How tests are kept apart."""
    return cast("Isolation", one_of(given, get_args(Isolation)))


def report(given: Given) -> ReportLength:
    """How much is told."""
    return cast("ReportLength", one_of(given, get_args(ReportLength)))


def provider(given: Given) -> ProviderChoice:
    """Who gives services."""
    return cast("ProviderChoice", one_of(given, get_args(ProviderChoice)))


def pull(given: Given) -> PullPolicy:
    """When images are pulled."""
    from asynctest_kit.settings.containers import pull_policy

    return pull_policy(given.value, given.place)


def text(given: Given) -> str:
    """A text that is not empty."""
    if isinstance(given.value, str) and given.value.strip():
        return given.value

    raise wrong(given, "must be a text that is not empty")


def names(given: Given) -> tuple[str, ...]:
    """Of services."""
    value = given.value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)

    raise wrong(given, 'must be a list of names of services, e.g. ["postgres"]')


def modules(given: Given) -> tuple[str, ...]:
    """Names that are imported; a text may have several."""
    value = given.value.replace(",", " ").split() if isinstance(given.value, str) else given.value
    if isinstance(value, list) and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in value):
        return tuple(value)

    raise wrong(given, 'must be a list of names that are imported, e.g. ["fastapi", "pydantic"]')


def command(given: Given) -> tuple[str, ...]:
    """Words."""
    value = given.value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)

    if isinstance(value, str) and value.strip():
        raise wrong(given, f"is one text. Allowed: a list of words, e.g. {json.dumps(value.split())}")

    raise wrong(given, 'must be a list of words, e.g. ["python", "migrate.py"]')


def environment(given: Given) -> dict[str, str]:
    """Texts by name."""
    table = table_of(given.value, given.place)
    for name, value in table.items():
        if not isinstance(value, str):
            raise SettingsError(f"{given.place}, {name}: must be a text; put it in quotes")

    return cast("dict[str, str]", dict(table))


def header(given: Given) -> str:
    """The name of one."""
    if isinstance(given.value, str) and re.fullmatch(r"[A-Za-z0-9-]+", given.value):
        return given.value

    raise wrong(given, 'is no name of a header, e.g. "X-Request-Id"')


def url(given: Given) -> str:
    """A URL, which no error shows."""
    if isinstance(given.value, str) and re.match(r"[a-z][a-z0-9+.-]*://[^/]", given.value):
        return given.value

    raise SettingsError(f'{given.place} is not a URL. Allowed: e.g. "postgresql://user:password@host:5432/database"')


def image_name(given: Given) -> str:
    """The name of an image, or what it begins with."""
    from asynctest_kit.settings.containers import image_name

    return image_name(given.value, given.place)


def path(given: Given) -> Path:
    """Absolute; relative ones start where the value stands."""
    return Path(os.path.abspath(given.folder / text(given)))  # noqa: PTH100  # keeps links, as everywhere here


def existing(given: Given) -> Path:
    """The path of a file or folder that is there."""
    found = path(given)
    if not found.exists():
        raise wrong(given, f"is no file and no folder: {found} was looked for")

    return found


def existing_file(given: Given) -> Path:
    """The path of a file that is there."""
    found = path(given)
    if not found.is_file():
        raise wrong(given, f"is not a file: {found} was looked for")

    return found


def existing_folder(given: Given) -> Path:
    """The path of a folder that is there."""
    found = path(given)
    if not found.is_dir():
        raise wrong(given, f"is not a folder: {found} was looked for")

    return found
