import asyncio

import pytest
from conftest import VARIABLE
from trail import used

pytestmark = pytest.mark.anyio


async def test_chosen(chosen, request):
    with used(f"chosen-{request.node.name}", chosen):
        await asyncio.sleep(0.01)
        assert chosen.startswith("chosen")


async def test_shared(chosen_session, chosen_module):
    with used("shared", chosen_session, chosen_module):
        await asyncio.sleep(0.01)


@pytest.mark.wants("own", "slow_session", "own")
async def test_marked(marked, own, slow_session):
    assert marked == [own, slow_session, own]


async def test_by_helper(by_helper, own):
    assert by_helper is own


async def test_nested(nested, own):
    assert nested is own


async def test_deep(deep):
    assert deep.startswith("own")


async def test_broken(asks_broken):
    pass


async def test_survives_broken(survives_broken):
    assert survives_broken == "broken on purpose"


async def test_skipping(asks_skipping):
    pass


async def test_nowhere(asks_nowhere):
    pass


async def test_variable(with_variable):
    assert VARIABLE.get() in {"set", "unset"}  # each of our tests has a context of its own


async def test_runs_a_loop(runs_a_loop, own):
    assert runs_a_loop == (own, "from a loop of its own")


async def test_narrower(asks_narrower):
    pass


async def test_from_async_code(request):
    request.getfixturevalue("other")


async def test_from_async_fixture(asks_async):
    pass


@pytest.mark.usefixtures("other")
async def test_from_async_code_what_is_up(request):
    assert request.getfixturevalue("other").startswith("other")


async def test_is_missing(request):
    with pytest.raises(pytest.FixtureLookupError):
        request.getfixturevalue("nowhere")


@pytest.mark.parametrize("number", range(20))
async def test_many(chosen, number, chosen_module):
    with used(f"many-{chosen}-{number}", chosen, chosen_module):
        await asyncio.sleep(0.001)
