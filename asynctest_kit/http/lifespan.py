"""An ASGI application's lifespan: its start-up before the first request, its shutdown after the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from asynctest_kit.errors import AtkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ASGIApp", "AppError", "Message", "Receive", "Send", "name_of", "running"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class AppError(AtkError):
    """The application under test can't be used: it doesn't start, doesn't end, has ended, or is none."""


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Run the lifespan of ``app`` around the block, in a task of its own; gives its state, empty if it has none.

    Raises:
        AppError: Its start-up or its shutdown failed, or it ended between.
    """
    lifespan = _Lifespan(app)
    try:
        await lifespan.start()
        try:
            yield lifespan.state
        except (Exception, asyncio.CancelledError):
            with suppress(AppError):
                await lifespan.stop()
            raise
        await lifespan.stop()
    finally:
        await lifespan.aclose()


class _Lifespan:
    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._has_received = False
        self._is_supported = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.ensure_future(self._run(scope))
        message = await self._step("startup")
        if message["type"] == "lifespan.startup.failed":
            raise await self._failure("did not start: its lifespan failed", message)
        self._is_supported = message["type"] == "lifespan.startup.complete"

    async def stop(self) -> None:
        if not self._is_supported:
            return
        message = await self._step("shutdown")
        if message["type"] == "lifespan.shutdown.failed":
            raise await self._failure("failed in its lifespan's shutdown", message)

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, scope: dict[str, Any]) -> None:
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        self._has_received = True
        return await self._to_app.get()

    async def _send(self, message: Message) -> None:
        self._from_app.put_nowait(message)

    async def _step(self, step: str) -> Message:
        """Ask for a step, and wait for its answer, or for the end of an application that gives none."""
        assert self._task is not None  # noqa: S101  # it has begun
        self._to_app.put_nowait({"type": f"lifespan.{step}"})
        answer = asyncio.ensure_future(self._from_app.get())
        try:
            await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            answer.cancel()
        error = None if self._task.cancelled() else self._task.exception()
        if error is not None and (self._has_received or not isinstance(error, Exception)):
            raise await self._failure(f"raised {type(error).__name__} in its lifespan, before its {step} was done", {})
        return {"type": ""}

    async def _failure(self, what: str, message: Message) -> AppError:
        """An error with what the application raised as its cause, if it did."""
        assert self._task is not None  # noqa: S101  # it has begun
        await asyncio.wait((self._task,), timeout=_LAST_WORDS)
        error = self._task.exception() if self._task.done() and not self._task.cancelled() else None
        told = str(message.get("message", "")).strip()
        if error is not None and (not told or "Traceback" in told):  # the cause shows it
            told = f"{type(error).__name__}: {error}"
        failure = AppError(f"The application {name_of(self._app)} {what}{': ' if told else '.'}{told}")
        failure.__cause__ = error
        return failure


#: Seconds for an application to end that has said that it failed.
_LAST_WORDS = 1.0


def name_of(app: object) -> str:
    """What an application is called in messages."""
    name = getattr(app, "__qualname__", None)
    return f"{app.__module__}.{name}" if name else f"<{type(app).__module__}.{type(app).__qualname__}>"
