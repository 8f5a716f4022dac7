"""Alembic in a process of its own, doing one thing after the other on one database.

Its env.py configures logging, reads the environment and may start an event loop, and alembic itself keeps what it is at
in module globals: all of it process-global, and none of it the tests' business. A process costs half a second, on
another core.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from asynctest_kit.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from asynctest_kit.provision.service import Endpoint

__all__ = ["Alembic", "last_words", "open_alembic"]

_OUTPUT_LINES = 40

#: Most bytes of an answer: a history of ten thousand revisions has one.
_ANSWER = 2**24


@asynccontextmanager
async def open_alembic(ini: Path, endpoint: Endpoint) -> AsyncIterator[Alembic]:
    """A process that works on the endpoint's database until the block is left; it is killed then.

    Raises:
        MigrationError: Alembic isn't installed.
    """
    if find_spec("alembic") is None:
        raise MigrationError(
            f"{endpoint.service} is migrated by alembic ({ini}), which is not installed for {sys.executable}.\n"
            "Install it there: python -m pip install 'asynctest_kit[sqlalchemy]'"
        )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asynctest_kit.isolation.run_alembic", str(ini)),
            cwd=ini.parent,
            env={**os.environ, "PYTHONPATH": path, "DATABASE_URL": endpoint.url},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            limit=_ANSWER,
        )
        try:
            yield Alembic(ini, endpoint, process, output)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@dataclass(frozen=True, slots=True)
class Alembic:
    """One database's migrations by alembic."""

    ini: Path
    endpoint: Endpoint
    process: asyncio.subprocess.Process
    output: IO[bytes]

    async def do(self, what: str, revision: str = "") -> Any:
        """Have one thing done, as :mod:`asynctest_kit.isolation.run_alembic` knows them.

        Raises:
            MigrationError: It failed; the message ends with what was printed, passwords starred out.
        """
        reader, writer = self.process.stdout, self.process.stdin
        if reader is None or writer is None:
            raise TypeError("the process has no pipes")
        writer.write(json.dumps({"do": what, "revision": revision}).encode() + b"\n")
        line = await reader.readline()  # empty if the process has died
        answer = json.loads(line or '{"failed": {}}')
        if "failed" in answer:
            raise MigrationError(self._told(f"alembic {what} {revision}".rstrip(), answer["failed"]))
        return answer["done"]

    def _told(self, did: str, failed: Mapping[str, str]) -> str:
        """What env.py fails for before it comes to the migrations is told in the same words, whatever was asked."""
        service = self.endpoint.service
        if "lacks" in failed:
            return (
                f"{failed['env']} connects to {service} with the driver {failed['lacks']}, which is not installed for "
                f"{sys.executable}.\n{failed['mend']}"
            )
        if "env" in failed:
            what = f"{failed['env']} failed before it came to the migrations of {service}"
        else:
            where = f" in {failed['at']}" if "at" in failed else ""
            what = f"The migration of {service} failed{where}: {did}"
        self.output.seek(0)
        return f"{what} (with {self.ini}). Its last words:\n{last_words(self.output.read(), self.endpoint)}"


def last_words(output: bytes, endpoint: Endpoint) -> str:
    """The end of what a program printed, without the endpoint's password."""
    text = "\n".join(output.decode(errors="replace").splitlines()[-_OUTPUT_LINES:])
    if endpoint.password:
        for secret in {endpoint.password, quote(endpoint.password, safe="")}:
            text = text.replace(secret, "***")
    return text or "(no output)"
