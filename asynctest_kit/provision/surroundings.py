"""What a client has around it that decides who gives its services, and from what.

The engine that its environment names, the credentials that this has, the binaries on its PATH and in its Python's
wheels: a supervisor that somebody else has started goes by these, and not by what it was started with itself.

On its way to the supervisor all of it is bytes, as the system has it: names of files need not be text.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.messages import Come

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Surroundings", "come_from_here"]

_END = b"\0"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Those of one client. Its repr shows nothing of them, for there are secrets in every environment.

    Attributes:
        environ: Its environment.
        python_path: The folders from which its Python imports.
    """

    environ: Mapping[str, str]
    python_path: tuple[str, ...]

    @classmethod
    def told(cls, message: Come) -> Surroundings:
        """Those that a client told of."""
        variables = (text.partition("=") for text in _unpacked(message.environ))
        return cls({name: value for name, _, value in variables}, _unpacked(message.python_path))

    def __repr__(self) -> str:
        return "<Surroundings>"


def come_from_here() -> Come:
    """This process's, to be told."""
    environ = (f"{name}={value}" for name, value in os.environ.items())
    return Come(_packed(environ), _packed(map(os.path.abspath, sys.path)))


def _packed(texts: Iterable[str]) -> bytes:
    return _END.join(map(os.fsencode, texts))


def _unpacked(data: bytes) -> tuple[str, ...]:
    return tuple(map(os.fsdecode, data.split(_END))) if data else ()
