from __future__ import annotations

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from shop.errors import PaymentDeclined, PaymentFailed, PaymentUnavailable
from shop.payments import PaymentPolicy, Payments

pytestmark = pytest.mark.anyio

QUICK = PaymentPolicy(timeout=10.0, attempts=3, backoff=0.005)
IMPATIENT = PaymentPolicy(timeout=0.05)


@pytest.fixture
def client(payments_http):
    return Payments(payments_http, QUICK)


async def test_charge(client, payments):
    assert await client.charge(amount_cents=900, key="a") == "payment-for-a"
    assert payments.charges == {"a": 900}


async def test_same_key_charges_once(client, payments):
    ids = {await client.charge(amount_cents=900, key="a") for _ in range(3)}

    assert ids == {"payment-for-a"}
    assert payments.charges == {"a": 900}


@pytest.mark.parametrize("failures", [1, 2])
async def test_503_is_repeated(client, payments, failures):
    payments.answer_next(*[Response(status_code=503)] * failures)

    assert await client.charge(amount_cents=900, key="a") == "payment-for-a"
    assert payments.keys == ["a"] * (failures + 1)


async def test_attempts_are_limited(client, payments):
    payments.answer_next(*[Response(status_code=503)] * 4)

    with pytest.raises(PaymentUnavailable, match="tried 3 times"):
        await client.charge(amount_cents=900, key="a")

    assert len(payments.keys) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(status_code=402), PaymentDeclined),
        (Response(status_code=500), PaymentFailed),
        (Response(status_code=302), PaymentFailed),
        (JSONResponse([]), PaymentFailed),
        (JSONResponse({"id": None}), PaymentFailed),
        (Response(b"\xff\xfe"), PaymentFailed),
    ],
    ids=["declined", "broken", "redirect", "list", "null-id", "noise"],
)
async def test_other_answers_are_not_repeated(client, payments, answer, error):
    payments.answer_next(answer)

    with pytest.raises(error):
        await client.charge(amount_cents=900, key="a")

    assert payments.keys == ["a"]


async def test_late_answer(payments, payments_http):
    payments.hangs = True

    with pytest.raises(PaymentUnavailable, match="in time"):
        await Payments(payments_http, IMPATIENT).charge(amount_cents=900, key="a")

    assert payments.charges == {"a": 900}


async def test_no_answer_over_a_real_connection(silent_provider, no_certificates):
    async with httpx.AsyncClient(base_url=silent_provider, verify=no_certificates, trust_env=False) as http:
        with pytest.raises(PaymentUnavailable, match="in time"):
            await Payments(http, IMPATIENT).charge(amount_cents=900, key="a")


async def test_refused_connection_is_repeated(no_certificates):
    """Nothing may listen on port 1 of the loopback interface."""
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1", verify=no_certificates, trust_env=False) as http:
        with pytest.raises(PaymentUnavailable, match="tried 3 times"):
            await Payments(http, QUICK).charge(amount_cents=900, key="a")
