"""What holds for all tests here, since ``api`` is watched: exchanges are as ``shop/openapi.json`` has them."""

from __future__ import annotations

import json

import httpx
import pytest
from asynctest_kit.contracts.openapi import OpenApiViolation
from starlette.routing import Route

from shop.routes import OPENAPI, routes

pytestmark = pytest.mark.anyio


async def test_document_is_served(api, openapi):
    with openapi.unchecked():  # it doesn't document itself
        response = await api.get("/openapi.json")

    assert response.json()["info"]["title"] == "shop"


async def test_every_route_is_documented():
    documented = {(path, method.upper()) for path, item in json.loads(OPENAPI)["paths"].items() for method in item}
    over_http = [route for route in routes if isinstance(route, Route)]
    served = {(route.path, method) for route in over_http for method in route.methods or () if method != "HEAD"}

    assert served - documented == {("/openapi.json", "GET")}


async def test_an_answer_that_is_not_documented_fails(openapi):
    request = httpx.Request("GET", "http://shop.test/api/products/7")
    product = {"id": 7, "sku": "TEA-100", "name": "Tea", "price_cents": "4.50", "stock": 3}

    with pytest.raises(OpenApiViolation, match=r'response body, \$\.price_cents: "4\.50" is not of type "integer"'):
        openapi.check(httpx.Response(200, json=product, request=request))
