"""Which logical databases are in use, told by the server itself: a channel for each, subscribed to while it is held.

Runs on several machines, of several users, may share a server. What locks a database for one of them must be seen by
all, must leave no key on a server of others, and must end with a process that is killed. A subscription is all that.

Whoever wants a database subscribes first and counts the subscribers then. Who counts one holds it; who counts more
lets go of it. Of two that come at once at most one holds it; that both let go is rare, for they try in random order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import NoPermissionError, RedisError

from asynctest_kit.errors import IsolationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

__all__ = ["Locks"]

_LOCK = "atk:lock:"

#: On it a run that has no database asks the others to give one back.
_WANTED = "atk:wanted"


class Locks:
    """What this process holds; use it as an async context manager.

    Args:
        connection: A connection of redis-py's that isn't open yet, speaks RESP2 and reads without a time-out.
        server: Where subscribers are counted.
        wanted: Called when another run waits for a database.

    Attributes:
        life: Changes when the server has ended the connection: what was taken before isn't held any more.
    """

    def __init__(self, connection: Any, server: Redis, *, wanted: Callable[[], object]) -> None:
        self._connection = connection
        self._server = server
        self._wanted = wanted
        self._answers: deque[asyncio.Future[None]] = deque()
        self._sending = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._tasks = asyncio.TaskGroup()
        self.life = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._connection.disconnect(nowait=True)

    async def held(self) -> set[str]:
        """The names that somebody holds."""
        answer = await self._server.execute_command("PUBSUB", "CHANNELS", f"{_LOCK}*")  # type: ignore[no-untyped-call]
        return {channel.decode().removeprefix(_LOCK) for channel in answer}

    async def take(self, name: str) -> bool:
        """Hold a name until :meth:`leave`; False if another run was first.

        Raises:
            IsolationError: The server lets us subscribe to nothing, or ended the connection.
        """
        await self._send("SUBSCRIBE", _LOCK + name)
        answer = await self._server.execute_command("PUBSUB", "NUMSUB", _LOCK + name)  # type: ignore[no-untyped-call]
        if answer[1] == 1:
            return True

        await self.leave(name, self.life)
        return False

    async def leave(self, name: str, life: int) -> None:
        """Let go of a name that was taken in that life; no-op if it was lost."""
        if life == self.life and self._listener is not None:
            await self._send("UNSUBSCRIBE", _LOCK + name)

    async def ask(self) -> None:
        """Ask the other runs to give back what they can do without."""
        await self._server.publish(_WANTED, "")

    async def _send(self, command: str, channel: str) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._sending:
            if self._listener is None:
                await self._listen()
            self._answers.append(answer)
            await self._connection.send_command(command, channel)
        await answer

    async def _listen(self) -> None:
        await self._connection.connect()
        self._listener = self._tasks.create_task(self._read())
        self._answers.append(asyncio.get_running_loop().create_future())
        await self._connection.send_command("SUBSCRIBE", _WANTED)

    async def _read(self) -> None:
        """Read what comes, for answers and messages come in one stream."""
        try:
            while True:
                kind, *_ = await self._connection.read_response()
                if kind == b"message":
                    self._wanted()
                elif self._answers and not (answer := self._answers.popleft()).done():
                    answer.set_result(None)
        except (RedisError, OSError) as error:
            self._lose(_loss(error))

    def _lose(self, error: IsolationError) -> None:
        self.life += 1
        self._listener = None
        while self._answers:
            answer = self._answers.popleft()
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # the first one has nobody who waits for it


def _loss(error: Exception) -> IsolationError:
    if isinstance(error, NoPermissionError):
        return IsolationError(
            f"Databases are leased by subscribing to channels {_LOCK}*, which the user of the given URL may not: "
            f"{error}. Give it those (ACL SETUSER ... &atk:*), or a server of this kit's own."
        )
    return IsolationError(f"The server ended the connection that tells which of its databases are in use: {error}.")
