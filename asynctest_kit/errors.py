"""The errors a user of asynctest_kit can meet, under one base."""

from __future__ import annotations

__all__ = [
    "AtkError",
    "IsolationError",
    "MigrationError",
    "ProvisionError",
    "SettingsError",
]


class AtkError(Exception):
    """Base of every error that asynctest_kit raises on purpose.

    Each message says what was asked, what happened and what to do about it.
    """


class SettingsError(AtkError):
    """A setting is unknown or has a bad value; the message names its place."""


class ProvisionError(AtkError):
    """A service could not be had, or it ended before it was ready."""


class IsolationError(AtkError):
    """A test used something that its isolation can't give it."""


class MigrationError(AtkError):
    """The migrations of a database template failed."""
