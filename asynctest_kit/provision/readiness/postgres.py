"""PostgreSQL's handshake: start-up message, authentication, ready for query.

Spoken here rather than through a driver, because importing one costs more than the handshake itself. It goes all the
way to ReadyForQuery, which proves that the password is this server's and that the database exists; so it can't
be fooled by a stranger that took the port in the meantime.

Protocol: https://www.postgresql.org/docs/current/protocol-flow.html; SCRAM-SHA-256: RFC 5802, RFC 7677.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import ssl
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctest_kit.provision.readiness import Address, NotReadyError, RejectedError

if TYPE_CHECKING:
    import asyncio

__all__ = ["PostgresHandshake", "execute"]

_PROTOCOL_3 = 196608
_SSL_REQUEST = 80877103

#: SQLSTATEs that pass: starting up or shutting down, too many connections, database not created yet.
_TRANSIENT = ("57P", "53", "3D000")

#: A greeting is short; a longer message comes from something that is no PostgreSQL server.
_LONGEST_MESSAGE = 1 << 16


@dataclass(frozen=True, slots=True)
class PostgresHandshake:
    """Log in as the service's user and see it ready for a query."""

    @property
    def expectation(self) -> str:
        """What is waited for."""
        return "PostgreSQL to log its user in and be ready for a query"

    async def attempt(self, address: Address) -> None:
        """Log in once; see :class:`~asynctest_kit.provision.readiness.Handshake`."""
        reader, writer = await address.connect()
        try:
            if address.tls:
                await _encrypt(reader, writer)
            writer.write(_startup(address))
            await _log_in(reader, writer, address)
            writer.write(_message(b"X", b""))
        finally:
            writer.close()


async def execute(address: Address, statement: str) -> None:
    """Log in and run one statement.

    Raises:
        RejectedError: The server refuses either.
    """
    reader, writer = await address.connect()
    try:
        writer.write(_startup(address))
        await _log_in(reader, writer, address)
        writer.write(_message(b"Q", f"{statement}\0".encode()))
        while (answer := await _read(reader))[0] != b"Z":
            if answer[0] == b"E":
                raise RejectedError(str(_refusal(answer[1])))
        writer.write(_message(b"X", b""))
    finally:
        writer.close()


async def _encrypt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(struct.pack("!ii", 8, _SSL_REQUEST))
    if await reader.readexactly(1) != b"S":
        raise RejectedError("the server does not offer TLS, which its URL asks for")

    # As sslmode=require has it. Whether the certificate is to be trusted is for the driver to judge, in the tests.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    await writer.start_tls(context)


def _startup(address: Address) -> bytes:
    user = address.username or "postgres"
    names = {"user": user, "database": address.database or user}
    body = struct.pack("!i", _PROTOCOL_3) + b"".join(f"{key}\0{value}\0".encode() for key, value in names.items())
    return struct.pack("!i", len(body) + 5) + body + b"\0"


async def _log_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address) -> None:
    scram = _Scram(address.password or "")
    while True:
        kind, body = await _read(reader)
        if kind == b"E":
            raise _refusal(body)

        if kind == b"R":
            answer = _authenticate(body, address, scram)
            if answer is not None:
                writer.write(_message(b"p", answer))

        elif kind == b"Z":
            return


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = struct.unpack("!ci", await reader.readexactly(5))
    if not 4 <= length <= _LONGEST_MESSAGE:  # noqa: PLR2004 (the length counts its own four bytes)
        raise RejectedError("what answers there does not speak PostgreSQL's protocol")

    return kind, await reader.readexactly(length - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _authenticate(body: bytes, address: Address, scram: _Scram) -> bytes | None:
    (method,) = struct.unpack_from("!i", body)
    rest = body[4:]
    password = address.password or ""
    match method:
        case 0:
            return None
        case 3:
            return password.encode() + b"\0"
        case 5:
            inner = hashlib.md5(f"{password}{address.username}".encode(), usedforsecurity=False).hexdigest()
            return b"md5" + hashlib.md5(inner.encode() + rest, usedforsecurity=False).hexdigest().encode() + b"\0"
        case 10:
            first = scram.first()
            return b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
        case 11:
            return scram.final(rest)
        case 12:
            scram.verify(rest)
            return None
        case _:
            raise RejectedError(f"the server asks for authentication method {method}, which is not supported")


def _refusal(body: bytes) -> NotReadyError | RejectedError:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    text = fields.get(b"M", "unknown error")
    is_transient = fields.get(b"C", "").startswith(_TRANSIENT)
    return NotReadyError(text) if is_transient else RejectedError(text)


class _Scram:
    """The client's side of one SCRAM-SHA-256 exchange, without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._nonce = secrets.token_urlsafe(18)
        self._server_signature = b""

    def first(self) -> bytes:
        return b"n,," + self._bare()

    def final(self, challenge: bytes) -> bytes:
        asked = _attributes(challenge)
        if not asked[b"r"].startswith(self._nonce.encode()):
            raise RejectedError("the server answered another client's SCRAM exchange")

        salted = hashlib.pbkdf2_hmac("sha256", self._password, b64decode(asked[b"s"]), int(asked[b"i"]))
        without_proof = b"c=biws,r=" + asked[b"r"]
        transcript = b",".join((self._bare(), challenge, without_proof))
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), transcript)
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), transcript)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return without_proof + b",p=" + b64encode(proof)

    def verify(self, outcome: bytes) -> None:
        if not hmac.compare_digest(b64decode(_attributes(outcome).get(b"v", b"")), self._server_signature):
            raise RejectedError("the server does not know this service's password: another server has its port")

    def _bare(self) -> bytes:
        return b"n=,r=" + self._nonce.encode()


def _attributes(message: bytes) -> dict[bytes, bytes]:
    return {part[:1]: part[2:] for part in message.split(b",")}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
