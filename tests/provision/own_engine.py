"""A Docker engine that a test may hurt: ``own_engine.py FOLDER IMAGE SIGN COMMAND...``, to be started by :data:`APART`.

In namespaces of its own it has bridges, ports, mounts and processes of its own, and all of that ends with this process.
COMMAND is run with the engine's address and with IMAGE, a tar archive of a file system, as the image ``redis:own``;
when the file SIGN appears the engine is restarted. What is left in it when COMMAND has ended is told in the last line.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

APART = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")

_IFREQ = "16sh22x"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def main(folder, image, sign, *command):
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    bring_loopback_up()
    with engine(folder) as process:
        load(folder, image)
        run = subprocess.Popen(command)
        while not Path(sign).exists() and run.poll() is None:
            time.sleep(0.02)
        process.terminate()
        process.wait()
        with engine(folder):
            code = run.wait()
            print("left:", request(folder, "GET", "/containers/json?all=1")[1].decode())
            return code


@contextmanager
def engine(folder):
    """dockerd and its containerd, answering."""
    places = [f"--{name}={folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
    with Path(folder, "log").open("ab") as log:
        process = subprocess.Popen(["dockerd", "-H", os.environ["DOCKER_HOST"], *places], stdout=log, stderr=log)
    try:
        while not answers(folder):
            if process.poll() is not None:
                sys.exit(f"dockerd did not start:\n{Path(folder, 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def answers(folder):
    try:
        return request(folder, "GET", "/_ping")[0] == 200
    except OSError:
        return False


def load(folder, image):
    status, words = request(folder, "POST", "/images/create?fromSrc=-&repo=redis&tag=own", Path(image).read_bytes())
    if status != 200:
        sys.exit(f"the image could not be loaded: {words}")


def request(folder, method, path, body=None):
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(f"{folder}/docker.sock")
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def bring_loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = struct.unpack(_IFREQ, fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack(_IFREQ, b"lo", 0)))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_IFREQ, name, flags | _IFF_UP))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(*sys.argv[1:]))
