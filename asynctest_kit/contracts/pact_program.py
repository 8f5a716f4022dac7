"""The program ``pact``: where it is, what it is told by its environment, and which secrets it must not tell."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asynctest_kit.contracts.errors import PactError
from asynctest_kit.http.scrubbing import secrets_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BROKER", "broker_url", "pact_program", "program_environment", "secrets"]

#: The variable with a broker's URL, as the program knows it.
BROKER: Final = "PACT_BROKER_BASE_URL"

_LOGINS: Final = ("PACT_BROKER_TOKEN", "PACT_BROKER_PASSWORD")


def pact_program(environ: Mapping[str, str]) -> str:
    """The path of the program.

    Raises:
        PactError: There is none.
    """
    beside = Path(sys.executable).parent  # where installers put it, on PATH or not
    found = shutil.which("pact", path=os.pathsep.join([str(beside), environ.get("PATH", os.defpath)]))
    if found is None:
        raise PactError(
            f"There is no program `pact`, neither beside {sys.executable} nor on PATH. Install it: "
            "pip install 'asynctest_kit[pact]'"
        )
    return found


def program_environment(environ: Mapping[str, str], broker: str = "") -> dict[str, str]:
    """The program's environment: the login is in it and in no command line; it reports to nobody how it is used."""
    given = {BROKER: broker} if broker else {}
    return {"PACT_DO_NOT_TRACK": "true", **environ, **given}


def broker_url(environ: Mapping[str, str], settings_url: str = "") -> str:
    """The broker's URL, by the environment or else by the settings; empty if nobody says it."""
    return environ.get(BROKER, "") or settings_url


def secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What of the login nobody should see."""
    names = (*_LOGINS, BROKER)
    return secrets_of({name: value for name, value in environ.items() if name in names})
