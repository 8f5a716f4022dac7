"""What a run was asked to do: pyproject.toml, then the environment, then the command line; the later overrules.

Every value is checked where it stands, also one that is overruled later, so a mistake in the file shows in every run.
An error says what was asked, where (file, table and key; variable; or flag), what is allowed and, for a misspelt
name, which one was probably meant. A variable that is set to nothing counts as unset.

A URL may hold a password: no error and no repr shows one.
"""

from asynctest_kit.settings.declared import check_name, no_unclaimed, with_services
from asynctest_kit.settings.loading import has_services, load
from asynctest_kit.settings.model import (
    KINDS,
    SEED_ENDINGS,
    Isolation,
    Migrations,
    Override,
    Preparation,
    ProviderChoice,
    ServiceSettings,
    Settings,
)
from asynctest_kit.settings.parse import parse_duration

__all__ = [
    "KINDS",
    "SEED_ENDINGS",
    "Isolation",
    "Migrations",
    "Override",
    "Preparation",
    "ProviderChoice",
    "ServiceSettings",
    "Settings",
    "check_name",
    "has_services",
    "load",
    "no_unclaimed",
    "parse_duration",
    "with_services",
]
