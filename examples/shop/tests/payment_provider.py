"""A stand-in for the payment provider: charges once for each idempotency key, declines much, and fails when told to."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["PaymentProvider", "sandbox"]

MOST_CENTS = 500_000


class PaymentProvider:
    """An ASGI application with a memory.

    Attributes:
        charges: Amount in cents by idempotency key: what was really charged.
        keys: The idempotency key of every request, in order.
        hangs: Whether it charges and then never answers.
    """

    def __init__(self, *, latency: float) -> None:
        self.charges: dict[str, int] = {}
        self.keys: list[str] = []
        self.hangs = False
        self.app = Starlette(routes=[Route("/charges", self._charge, methods=["POST"])])
        self._latency = latency
        self._next: deque[Response] = deque()

    def answer_next(self, *responses: Response) -> None:
        """Give these answers, without charging, before behaving again."""
        self._next.extend(responses)

    async def _charge(self, request: Request) -> Response:
        """Decide first, then take time: a client that gives up early can't undo the charge."""
        answer = await self._decide(request)
        await asyncio.sleep(self._latency)

        if self.hangs:
            await asyncio.Event().wait()

        return answer

    async def _decide(self, request: Request) -> Response:
        key = request.headers["idempotency-key"]
        self.keys.append(key)

        if self._next:
            return self._next.popleft()

        amount = (await request.json())["amount_cents"]

        if amount > MOST_CENTS:
            return Response(status_code=402)

        self.charges.setdefault(key, amount)
        return JSONResponse({"id": f"payment-for-{key}"}, status_code=201)


sandbox = PaymentProvider(latency=0.0).app
