from __future__ import annotations

import pytest

from shop import requests
from shop.errors import Invalid, NotFound
from shop.models import Line, NewUser, PageRequest, ProductChanges


def test_user_is_trimmed():
    user = requests.new_user({"email": " Ada@Example.COM ", "name": "  Ada  "})

    assert user == NewUser(email="ada@example.com", name="Ada")


def test_absent_changes_stay_none():
    assert requests.product_changes({"stock": 0}) == ProductChanges(price_cents=None, stock=0)


def test_every_line_is_checked():
    lines = [{"product_id": 0, "quantity": 1}, None, {"product_id": 3, "quantity": -1}]

    with pytest.raises(Invalid) as invalid:
        requests.order_request({"user_id": 1, "lines": lines})

    assert invalid.value.fields.keys() == {"lines[0].product_id", "lines[1]", "lines[2].quantity"}


def test_lines_keep_their_order():
    order = requests.order_request(
        {"user_id": 1, "lines": [{"product_id": 9, "quantity": 1}, {"product_id": 3, "quantity": 2}]}
    )

    assert order.lines == (Line(product_id=9, quantity=1), Line(product_id=3, quantity=2))


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, PageRequest(limit=20, after=0)),
        ({"limit": "100"}, PageRequest(limit=100, after=0)),
        ({"after": "9223372036854775807"}, PageRequest(limit=20, after=2**63 - 1)),
    ],
    ids=["default", "longest", "farthest"],
)
def test_page(query, page):
    assert requests.page_request(query) == page


@pytest.mark.parametrize("text", ["1", "007", str(requests.MAX_ID)])
def test_identifier(text):
    assert requests.identifier("user", text) == int(text)


@pytest.mark.parametrize("text", ["", "1.0", "+1", "one", str(requests.MAX_ID + 1)])
def test_no_identifier(text):
    with pytest.raises(NotFound):
        requests.identifier("user", text)
