"""Services that are databases of one server, as the supervisor has them."""

from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import pytest
from provision_traces import servers_of, supervisors

from asynctest_kit.errors import ProvisionError
from asynctest_kit.provision.catalog import spec_for
from asynctest_kit.provision.client import Client
from asynctest_kit.provision.service import ServiceSpec
from asynctest_kit.settings import load

pytestmark = pytest.mark.anyio

ORDERS = ServiceSpec(name="orders-db", kind="postgres", provider="embedded")


def on(server, name="billing-db", **fields):
    return ServiceSpec(name=name, kind="postgres", provider=server.provider, needs=(server,), shares=True, **fields)


async def asked(endpoint, query):
    connection = await asyncpg.connect(endpoint.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_each_is_a_database_of_one_server_and_is_lost_with_it(root):
    client = Client.connect(root)
    try:
        billing, again = await client.endpoint(on(ORDERS)), await client.endpoint(on(ORDERS))
        archive = await client.endpoint(on(ORDERS, "archive"))
        orders = client.endpoints["orders-db"]
        assert billing == again
        assert (billing.service, billing.shares, billing.provider) == ("billing-db", "orders-db", "embedded")
        assert (orders.shares, archive.shares) == ("", "orders-db")
        assert {(one.host, one.port, one.password) for one in (billing, archive)} == {
            (orders.host, orders.port, orders.password)
        }
        for one, name in ((orders, "postgres"), (billing, "atk_service_billing_db"), (archive, "atk_service_archive")):
            assert await asked(one, "SELECT current_database()") == name
        [supervisor] = supervisors(root)
        [server] = servers_of(supervisor)
        os.kill(server, signal.SIGKILL)
        async with asyncio.timeout(60):
            while len(client.losses) < 3:  # noqa: ASYNC110 (a thread takes what comes)
                await asyncio.sleep(0.02)
        assert "was killed by SIGKILL while it was in use" in client.losses["orders-db"]
        for name in ("billing-db", "archive"):
            assert client.losses[name].endswith(") lost 'orders-db', which it needs, while it was in use.")
    finally:
        await asyncio.to_thread(client.close)


async def test_a_claim_on_one_database_is_on_the_server(root):
    first, second = Client.connect(root), Client.connect(root)
    try:
        taken = await first.endpoint(on(ORDERS))
        first.claim("billing-db", "these")
        assert await asyncio.to_thread(first.check, "billing-db", since=0.0) == ""  # the claim has come by then
        theirs = ServiceSpec(name="orders-db", kind="postgres", provider="embedded", migrations="these")
        others = ServiceSpec(name="orders-db", kind="postgres", provider="embedded", migrations="others")
        assert await second.endpoint(on(theirs, migrations="these")) == taken
        apart = await second.endpoint(on(others, migrations="others"))
        assert apart.port != taken.port
        assert await second.endpoint(others) == await second.endpoint(others)
        assert second.endpoints["orders-db"].port == apart.port
    finally:
        await asyncio.gather(*(asyncio.to_thread(client.close) for client in (first, second)))


async def test_where_the_server_fails_the_others_tell_the_way_to_it(root):
    client = Client.connect(root)
    try:
        broken = ServiceSpec(name="orders-db", kind="postgres", provider="embedded", command=("--no-such-option",))
        with pytest.raises(ProvisionError) as raised:
            await client.endpoint(on(broken))
        assert str(raised.value).startswith(
            "The service 'billing-db' was not started: it needs 'orders-db', which failed."
        )
    finally:
        await asyncio.to_thread(client.close)


async def test_a_database_that_can_not_be_made_is_told_with_its_server(root):
    client = Client.connect(root)
    try:
        orders = await client.endpoint(ORDERS)
        await asked(orders, "ALTER SYSTEM SET default_transaction_read_only = on")
        await asked(orders, "SELECT pg_reload_conf()")
        async with asyncio.timeout(60):
            while await asked(orders, "SHOW default_transaction_read_only") == "off":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        with pytest.raises(ProvisionError) as raised:
            await client.endpoint(on(ORDERS))
        told = str(raised.value)
        assert told.startswith("The database of the service 'billing-db' can't be made on the server of 'orders-db' (")
        assert told.endswith("cannot execute CREATE DATABASE in a read-only transaction")
    finally:
        await asyncio.to_thread(client.close)


def test_what_is_kept_of_a_server_is_for_all_that_is_on_it(tmp_path):
    for name in ("orders", "billing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.sql").write_text(f"CREATE TABLE {name} ()")
    text = '[tool.asynctest_kit.services.postgres]\nmigrations = { sql = "orders" }\n'
    more = (
        '[tool.asynctest_kit.services.more]\nkind = "postgres"\nserver = "postgres"\nmigrations = { sql = "billing" }\n'
    )

    def specs(settings, **environ):
        (tmp_path / "pyproject.toml").write_text(settings)
        read = load(paths=(), directory=tmp_path, environ=environ, options={})
        return [spec_for(name, read) for name in ("postgres", "more") if name in read.services]

    [alone] = specs(text)
    server, more_of_it = specs(text + more)
    assert more_of_it.shares and more_of_it.needs == (server,)
    assert alone.migrations != server.migrations == more_of_it.migrations
    (tmp_path / "billing" / "1.sql").write_text("CREATE TABLE other ()")
    assert server.migrations != specs(text + more)[0].migrations
    elsewhere = specs(text + more, ATK_MORE_URL="postgresql://h/d")
    assert elsewhere[0] == alone
    assert not elsewhere[1].shares
