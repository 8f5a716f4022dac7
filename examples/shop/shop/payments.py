"""The payment provider, over HTTP.

A charge carries an idempotency key, so that repeating it is safe: the provider charges once for each key.
Every attempt has a deadline. A 503 and a refused connection are repeated with growing pauses; a time-out is not:
the client has waited long enough. Unless declined, a failed charge is in doubt: repeat it with its key to find out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

import httpx
import structlog

from shop.errors import PaymentDeclined, PaymentFailed, PaymentUnavailable

__all__ = ["DEFAULT_POLICY", "PaymentPolicy", "Payments"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentPolicy:
    """How patient to be, in seconds: a deadline for each attempt, and the first of the doubling pauses between them."""

    timeout: float = 2.0
    attempts: int = 3
    backoff: float = 0.1


DEFAULT_POLICY = PaymentPolicy()


class Payments:
    """Charges through a client whose ``base_url`` is the provider's."""

    def __init__(self, http: httpx.AsyncClient, policy: PaymentPolicy = DEFAULT_POLICY) -> None:
        self._http = http
        self._policy = policy

    async def charge(self, *, amount_cents: int, key: str) -> str:
        """Charge once for each ``key``; returns the provider's id of the payment.

        Raises:
            PaymentDeclined: The provider refused; nothing was charged.
            PaymentUnavailable: No answer in time, or still unavailable after the last attempt.
            PaymentFailed: An answer that makes no sense.
        """
        for attempt in range(self._policy.attempts):
            if attempt:
                await asyncio.sleep(self._policy.backoff * 2 ** (attempt - 1))

            try:
                async with asyncio.timeout(self._policy.timeout):
                    response = await self._http.post(
                        "/charges",
                        json={"amount_cents": amount_cents},
                        headers={"idempotency-key": key},
                    )
            except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
                raise PaymentUnavailable("the payment provider did not answer in time") from error
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                log.warning("payments.unreachable", attempt=attempt + 1, error=str(error))
                continue
            except httpx.HTTPError as error:
                raise PaymentFailed(f"the payment provider broke off: {error}") from error

            if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return _payment_id(response)

            log.warning("payments.unavailable", attempt=attempt + 1)

        raise PaymentUnavailable(f"the payment provider is unavailable, tried {self._policy.attempts} times")


def _payment_id(response: httpx.Response) -> str:
    if response.status_code == HTTPStatus.PAYMENT_REQUIRED:
        raise PaymentDeclined("the payment was declined")

    if not response.is_success:
        raise PaymentFailed(f"the payment provider answered {response.status_code}")

    try:
        payment_id = response.json()["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise PaymentFailed("the payment provider's answer holds no payment id") from error

    if not isinstance(payment_id, str):
        raise PaymentFailed("the payment provider's payment id is no text")

    return payment_id
