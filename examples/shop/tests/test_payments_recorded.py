"""The payment provider as it once was: its real answers, out of ``exchanges/payments.json``.

``ATK_RECORD=1 atk run tests/test_payments_recorded.py`` asks the provider again and writes the file anew. Here that is
``payment_provider.py``, which ``uvicorn --app-dir tests --port 8765 payment_provider:sandbox`` serves.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from shop.errors import PaymentDeclined
from shop.payments import PaymentPolicy, Payments

pytestmark = pytest.mark.anyio

SANDBOX = "http://127.0.0.1:8765"
EXCHANGES = Path(__file__).parent / "exchanges"


@pytest.fixture
async def client(mock_http, no_certificates):
    mock_http.replay(EXCHANGES / "payments.json")

    async with httpx.AsyncClient(base_url=SANDBOX, verify=no_certificates, trust_env=False) as http:
        yield Payments(http, PaymentPolicy(timeout=10.0))


async def test_what_the_provider_answers(client):
    assert await client.charge(amount_cents=900, key="order-7-1") == "payment-for-order-7-1"

    with pytest.raises(PaymentDeclined):
        await client.charge(amount_cents=1_000_000, key="order-8-1")
