"""The same from tests that pytest's protocol runs."""

import pytest
from trail import used

pytestmark = pytest.mark.anyio


def test_chosen(chosen, request, anyio_backend):
    with used(f"sync-chosen-{request.node.name}", chosen):
        pass


def test_shared(chosen_session, chosen_module):
    with used("sync-shared", chosen_session, chosen_module):
        pass


@pytest.mark.parametrize("name", ["own", "slow_module", "chosen_session"])
def test_by_name(request, name, anyio_backend):
    assert request.getfixturevalue(name).startswith(name)


def test_broken(asks_broken, anyio_backend):
    pass


def test_skipping(asks_skipping, anyio_backend):
    pass


def test_deep(deep, anyio_backend):
    assert deep.startswith("own")


async def test_async_beside(slow_module, maybe):
    pass
