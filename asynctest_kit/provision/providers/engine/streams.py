"""What a container writes, with its stream kept, and what an engine tells of its progress."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asynctest_kit.provision.service import Output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import StreamReader

__all__ = ["Progress", "news", "outputs"]

_HEADER = struct.Struct("!B3xI")
_STDERR = 2

_MEGABYTE = 1_000_000


async def outputs(content: StreamReader) -> AsyncIterator[Output]:
    """Take apart what Docker multiplexes: a byte of identity, three of padding, four of length, then the text."""
    while True:
        try:
            stream, length = _HEADER.unpack(await content.readexactly(_HEADER.size))
            yield Output("stderr" if stream == _STDERR else "stdout", await content.readexactly(length))
        except asyncio.IncompleteReadError:
            return


async def news(content: StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects, one a line, that tell how a pull or a build goes on."""
    rest = b""
    async for chunk in content.iter_any():  # readline() refuses lines that are longer than its buffer
        *lines, rest = (rest + chunk).split(b"\n")
        for line in filter(bytes.strip, lines):
            yield json.loads(line)
    if rest.strip():
        yield json.loads(rest)


@dataclass(slots=True)
class Progress:
    """How far a pull is, told by the engine layer by layer."""

    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, told: dict[str, Any]) -> bool:
        """Note one piece of news; whether it is progress: a registry that is asked again and again makes none."""
        layer, status = str(told.get("id", "")), str(told.get("status", ""))
        detail = told.get("progressDetail") or {}
        known = self._layers.get(layer)
        if status == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail["current"]), int(detail["total"]))
        elif status in ("Download complete", "Pull complete") and known:
            self._layers[layer] = (known[1], known[1])
        return not status.startswith(("Retrying", "Waiting"))

    def __str__(self) -> str:
        done, total = (sum(sizes[place] for sizes in self._layers.values()) / _MEGABYTE for place in (0, 1))
        return f"pulling {done:.0f} of {total:.0f} MB" if total else "pulling"
