"""What servers have in common that Java runs from a jar of the user's."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from asynctest_kit.provision.catalog.kind import Command, Login, Recipe, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctest_kit.provision.service import ServiceSpec

__all__ = ["FOR_THE_IMAGE", "from_jar", "no_login"]

#: Up sooner, and less of two cores: a server of stubs does not live long enough for the second compiler to pay.
_BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")


#: The same for the Java in an image.
FOR_THE_IMAGE = {"JAVA_TOOL_OPTIONS": " ".join(_BRIEF)}


def no_login(_spec: ServiceSpec, _password: str) -> Login:
    """Such a server asks nobody who they are."""
    return Login(username=None, password="", database=None)


def from_jar(serve: Callable[[Site, int], tuple[str, ...]]) -> Recipe:
    """How such a server is run.

    Args:
        serve: Java's arguments, from the first option of its own.
    """

    def command(site: Site, port: int) -> Command:
        return Command(argv=(str(site.server), *_BRIEF, *serve(site, port), *site.spec.command))

    return Recipe(
        servers=("java",),
        of_a_jar=True,
        stop=SIGTERM,
        orphaned=SIGKILL,
        prepare=lambda _site: (),
        serve=command,
    )
