"""A container that is starting, as those see it who wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from asynctest_kit.provision.readiness import Address

__all__ = ["Candidate", "Health", "Stream"]

Stream: TypeAlias = Literal["stdout", "stderr"]


class Health(msgspec.Struct, frozen=True):
    """What the engine makes of a container's HEALTHCHECK: its status, and what the last check wrote."""

    status: str
    output: str


class Candidate(Protocol):
    """Where it can be seen and touched. A request that fails may yet succeed: NotReadyError."""

    @property
    def ports(self) -> Mapping[str, Address]:
        """Where its ports are reached, by name, the main one first."""

    @property
    def direct(self) -> Mapping[str, Address]:
        """Where its ports themselves are, with nobody between; empty where that can't be reached from here."""

    def log(self) -> AsyncGenerator[tuple[Stream, str], None]:
        """The lines of its log from the beginning to its end."""

    async def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Run a program in it; its exit code and what it wrote."""

    async def check(self) -> tuple[str, ...] | None:
        """The command of its image's HEALTHCHECK, to be run in it; None if it has none."""

    def health(self) -> AsyncGenerator[Health, None]:
        """Its health, now and at each change."""
