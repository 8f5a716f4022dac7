"""What provisioning leaves on the machine, and processes that use it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from asynctest_kit.containers import Port
from asynctest_kit.provision.catalog import kind_of
from asynctest_kit.provision.identity import Identity
from asynctest_kit.provision.providers import Order
from asynctest_kit.provision.runtime import project_of
from asynctest_kit.provision.service import ServiceSpec

IMAGES = {
    "postgres": os.environ.get("ATK_POSTGRES_IMAGE") or "asynctest-kit/postgres:testbed",
    "redis": os.environ.get("ATK_REDIS_IMAGE") or "asynctest-kit/redis:testbed",
}

BUSYBOX = os.environ.get("TESTS_BUSYBOX_IMAGE") or "asynctest-kit/busybox:testbed"
HEALTHCHECK = os.environ.get("TESTS_HEALTHCHECK_IMAGE") or "asynctest-kit/healthcheck:testbed"

LABEL = "asynctest_kit.project"
SESSION = "asynctest_kit.session"


def spec_of(like, **fields):
    return ServiceSpec(**{"name": like, "kind": like, "image": IMAGES[like]} | fields)


def container_of(script, *, ports=None, name="box", image=BUSYBOX, **fields):
    """A container of any image that runs a script of the shell."""
    exposed = {port: Port(number, "http") for port, number in (ports or {}).items()}
    how = {"startup_timeout": 60.0} | fields
    return ServiceSpec(name=name, kind="container", image=image, command=("sh", "-c", script), ports=exposed, **how)


def docker_context(folder, name, endpoints):
    """Make a Docker configuration with one context; the folder of its TLS material."""
    key = sha256(name.encode()).hexdigest()
    meta = folder / "contexts/meta" / key
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": endpoints}))
    return folder / "contexts/tls" / key / "docker"


def order_of(spec, phases=None):
    record = (phases if phases is not None else []).append
    return Order(spec=spec, kind=kind_of(spec), asked=time.monotonic(), record=record)


async def eventually(condition, seconds=10.0):
    """Poll what other processes do, until it is so."""
    deadline = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s: {condition}"
        await asyncio.sleep(0.02)
    return outcome


def sessions(root):
    """The directories of the project's supervisors."""
    try:
        return [entry for entry in project_of(root).directory.iterdir() if entry.is_dir()]
    except FileNotFoundError:  # the last one took the project's own with it
        return []


def supervisors(root):
    """Process ids of the project's supervisors."""
    return [owner.pid for session in sessions(root) if (owner := _owner(session))]


def data_of(supervisor):
    """The data directories that the supervisor with this process id signed."""
    parents = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    found = [entry for parent in parents for entry in parent.glob(f"asynctest_kit-{os.getuid()}-*")]
    return [entry for entry in found if (owner := _owner(entry)) and owner.pid == supervisor]


def servers_of(supervisor):
    """Process ids of the servers in those directories."""
    files = [directory / "server.json" for directory in data_of(supervisor)]
    return [msgspec.json.decode(file.read_bytes(), type=Identity).pid for file in files if file.exists()]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _owner(directory):
    try:
        return msgspec.json.decode(str(Path(f"{directory}.owner").readlink()), type=Identity)
    except (OSError, msgspec.DecodeError):
        return None


_USER = """
import os, signal, sys
from pathlib import Path
import msgspec
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.service import ServiceSpec

client = Client.connect(Path(sys.argv[1]))
specs = msgspec.json.decode(sys.argv[2], type=list[ServiceSpec])
futures = [client.ensure(spec) for spec in specs]
print("asked", flush=True)
for future in futures:
    print(future.result(60).url, flush=True)
if sys.argv[3:] == ["fork"]:
    child = os.fork()  # it inherits the client's socket
    if child:
        print(child, flush=True)
    else:
        signal.pause()
sys.stdin.read()
client.close()
"""


async def line_of(process):
    """The next line that a process says; other tests go on meanwhile."""
    return (await asyncio.to_thread(process.stdout.readline)).rstrip("\n")


@asynccontextmanager
async def user(root, *specs, words=(), python_path=""):
    """Another process that asks for services, prints their URLs and holds them until its stdin closes.

    With the word ``fork`` it then leaves a child behind, and prints its process id.
    """
    process = subprocess.Popen(  # noqa: ASYNC220  # the pipes stay blocking: tests read them in threads
        (sys.executable, "-c", _USER, str(root), msgspec.json.encode(specs).decode(), *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, (str(python_path), os.environ.get("PYTHONPATH"))))},
    )
    with process:
        try:
            assert await line_of(process) == "asked"
            yield process
        finally:
            process.kill()
