"""The process of an application that is served in one of its own: ``python -m asynctest_kit.http.served_process SPEC``.

It is uvicorn on a socket that it inherits. It says that it is ready by a pipe that it inherits, too, and lives as long
as its standard input is open: whoever holds that has ended, however, when it isn't.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

from uvicorn import Config, Server

__all__: list[str] = []

#: Seconds for the application to end, before it is killed with all that it started.
_GRACE: Final = 8.0


class _Server(Server):
    """Says when it is ready."""

    ready = -1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As of uvicorn."""
        await super().startup(sockets=sockets)
        if self.started:
            with suppress(BrokenPipeError):  # nobody waits any more, and standard input ends next
                os.write(self.ready, b"1")
            os.close(self.ready)


def main() -> None:
    """Serve until standard input ends, or a signal says so."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    life = os.dup(0)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    sys.argv = [spec["target"]]
    sys.path += [entry for entry in spec["path"] if entry not in sys.path]
    server = _Server(Config(spec["target"], factory=spec["factory"], use_colors=False))
    server.ready = spec["ready"]
    threading.Thread(target=_end_with, args=(life, server), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=spec["socket"])])
    if not server.started:
        raise SystemExit(3)


def _end_with(life: int, server: Server) -> None:
    while os.read(life, 1):
        pass
    if server.started:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
