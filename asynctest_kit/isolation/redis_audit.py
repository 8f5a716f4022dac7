"""What the state of a Redis server is: keys, configuration, functions and users, but those of this kit's leases.

What one node tells: of a cluster the others are not asked. Scripts are in no list that a server gives.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from asynctest_kit.provision.service import Endpoint

__all__ = ["RedisAudit"]

#: What leases have made: users, keys.
_OUR_USER = "atk-"
_OUR_KEYS = (b"atk:", b"{atk:")

#: So many keys of a database are told one by one; more are told together.
_MOST_KEYS = 1000

_BATCH = 500


class RedisAudit:
    """The states of a server.

    Args:
        endpoint: The server, as a user who may see everything.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def state(self) -> dict[str, str]:
        """Everything that can be asked for; what this user may not see is left out."""
        state: dict[str, str] = {}
        async with self._client(None) as server:
            for name, value in _pairs(await _asked(server, "CONFIG", "GET", "*")).items():
                state[f"CONFIG {_text(name)}"] = _hidden(_text(name), _text(value))
            for user in await _asked(server, "ACL", "LIST") or ():
                name, rules = _text(user).split(" ", 2)[1:]
                if not name.startswith(_OUR_USER):
                    state[f"ACL user {name}"] = f"{_without_passwords(rules)} (checksum {_sum(rules.encode())})"
            for library in await _asked(server, "FUNCTION", "LIST", "WITHCODE") or ():
                code = repr(library).encode()
                state[f"function library {_text(_pairs(library).get(b'library_name', b'?'))}"] = (
                    f"checksum {_sum(code)}"
                )
            spaces = await server.info("keyspace")
        for space in spaces:
            state.update(await self._keys(int(space.removeprefix("db"))))
        return state

    async def _keys(self, number: int) -> dict[str, str]:
        found: dict[str, str] = {}
        async with self._client(number) as client:
            batch: list[bytes] = []
            async for key in client.scan_iter(count=_BATCH):
                if not key.startswith(_OUR_KEYS):
                    batch.append(key)
                if len(batch) == _BATCH:
                    found.update(await _values(client, number, batch))
                    batch = []
            found.update(await _values(client, number, batch))
        if len(found) <= _MOST_KEYS:
            return found
        total = sum(int(value.rpartition(" ")[2], 16) for value in found.values()) % 16**8
        return {f"keys of database {number}": f"{len(found)} keys, checksum {total:08x}"}

    def _client(self, number: int | None) -> Redis:
        database = None if number is None else str(number)
        return Redis.from_url(msgspec.structs.replace(self._endpoint, database=database).url)


async def _values(client: Redis, number: int, keys: list[bytes]) -> dict[str, str]:
    if not keys:
        return {}
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.dump(key)
    values = await pipeline.execute()
    told = zip(keys, values, strict=True)
    return {f"key {_text(key)!r} of database {number}": f"checksum {_sum(value)}" for key, value in told if value}


def _pairs(answer: Any) -> dict[Any, Any]:
    """An answer of names and values, which the older protocol and older versions of redis-py give as a list."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True)) if answer else {}


async def _asked(server: Redis, *command: str) -> Any:
    """A command's answer; nothing where it is refused, or not known."""
    try:
        return await server.execute_command(*command)  # type: ignore[no-untyped-call, unused-ignore]
    except ResponseError:
        return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _sum(data: bytes) -> str:
    return sha256(data).hexdigest()[:8]


def _hidden(name: str, value: str) -> str:
    """A password is only told apart from others."""
    return f"checksum {_sum(value.encode())}" if value and name.endswith(("pass", "auth", "password")) else value


def _without_passwords(rules: str) -> str:
    return " ".join(word for word in rules.split() if not word.startswith(("#", ">")))
