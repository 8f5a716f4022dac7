"""``atk openapi`` and ``atk graphql check``: runs of our own tests, for an app or with the conftest of a folder."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from asynctest_kit.errors import AtkError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["run_ours", "seed_of"]

_USAGE_ERROR = 4


def run_ours(
    module: str, target: str | None, headers: Sequence[str], given: Mapping[str, Any], provider: str | None
) -> NoReturn:
    """Run the tests of ``module`` on an app.

    Args:
        module: Of our tests.
        target: The app: a URL, ``module:attribute``, or a folder whose conftest has it, ``tests`` for None.
        headers: ``Name: value``, each sent with all requests.
        given: What overrules the settings.
        provider: Who gives services.
    """
    from asynctest_kit.cli.run import run
    from asynctest_kit.fixtures.imported_tests import ImportedTests

    try:
        folder, app = _resolved(target)
        tests = ImportedTests(module, {**given, **app, "headers": dict(map(_header, headers))})
    except AtkError as error:
        print(f"atk: {error}", file=sys.stderr)  # noqa: T201  # the command's own message
        sys.exit(_USAGE_ERROR)
    arguments = [folder, "-q", "--no-header", "--tb=short", "--show-capture=no"]
    run(arguments, {"report": "none", "provider": provider}, tests)


def seed_of(text: str | None) -> int | None:
    """The seed that was given; ``random`` is a new one.

    Raises:
        ValueError: It is neither.
    """
    return random.randrange(1 << 32) if text == "random" else None if text is None else int(text)  # noqa: S311


def _resolved(target: str | None) -> tuple[str, dict[str, Any]]:
    """The folder whose conftest counts, and the app if it isn't the conftest's."""
    if target is None:
        return ("tests" if Path("tests").is_dir() else "."), {}
    if Path(target).is_dir():
        return target, {}
    if "://" in target:
        return ".", {"app": target}
    if ":" in target:
        return ".", {"app_in": target}
    raise SettingsError(
        f'"{target}" is nothing to try. Give a URL, an app as module:attribute, or a folder of tests whose conftest '
        "has the fixture app."
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise SettingsError(f'--header: no colon in what should be "Name: value" ({len(text)} characters).')
    return name.strip(), value.strip()
