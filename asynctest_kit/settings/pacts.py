"""The table ``pact`` of the settings: what this project is called in its pacts, and where they are.

Every value is checked here, where it stands. How to log in to a broker stands in the environment alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asynctest_kit.errors import SettingsError
from asynctest_kit.setting_errors import listing, shown, suggestion

__all__ = ["SPECIFICATIONS", "PactSettings", "pact_settings"]

#: Versions of the format in which a pact can be written.
SPECIFICATIONS: Final = ("V2", "V3", "V4")

_KEYS: Final = ("broker", "folder", "name", "provider", "specification")


@dataclass(frozen=True, slots=True, kw_only=True)
class PactSettings:
    """What a project says of its pacts.

    Attributes:
        folder: The folder of its pact files; a relative path starts from the settings' root.
        name: What it is called in pacts: the consumer in its own, the provider in those of others; empty if not said.
        provider: The provider that its consumer tests mean where they name none; empty if not said.
        broker: URL of the Pact Broker; empty for the variable ``PACT_BROKER_BASE_URL``, or none.
        specification: One of :data:`SPECIFICATIONS`, in which pacts are written.
        is_given: Whether there is such a table.
    """

    folder: Path = Path("pacts")
    name: str = ""
    provider: str = ""
    broker: str = ""
    specification: str = "V4"
    is_given: bool = False


def pact_settings(value: object, place: str) -> PactSettings:
    """The table ``pact`` as TOML has it; ``place`` is where it stands, for errors.

    Raises:
        SettingsError: A key is unknown, or a value is not allowed.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"{place}: must be a table of keys, not a value of type {type(value).__name__}.")
    for key, text in value.items():
        if key not in _KEYS:
            raise SettingsError(f'{place}: unknown key "{key}".{suggestion(key, _KEYS)}')
        if not isinstance(text, str) or not text.strip():
            raise SettingsError(f"{place}, {key}: {shown(text)} must be a text that is not empty.")
    broker = value.get("broker", "")
    if broker and not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", broker):
        raise SettingsError(
            f'{place}, broker: must be the URL of a Pact Broker without a login in it: "https://pacts.example.org". '
            "The login is told by PACT_BROKER_TOKEN, or PACT_BROKER_USERNAME and PACT_BROKER_PASSWORD."
        )
    specification = value.get("specification", "V4")
    if specification not in SPECIFICATIONS:
        raise SettingsError(
            f"{place}, specification: {shown(specification)} is unknown. Allowed: {listing(SPECIFICATIONS)}."
        )
    return PactSettings(
        folder=Path(value.get("folder", "pacts")),
        name=value.get("name", ""),
        provider=value.get("provider", ""),
        broker=broker,
        specification=specification,
        is_given=True,
    )
