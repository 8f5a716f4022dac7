import asyncio
import sys
import warnings

import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.skip
async def test_skip_bare():
    raise AssertionError


@pytest.mark.skip("a reason")
async def test_skip_positional():
    raise AssertionError


@pytest.mark.skipif("sys.version_info > (3,)", reason="a string")
async def test_skipif_string():
    raise AssertionError


@pytest.mark.skipif(sys.version_info < (3,), reason="never")
async def test_skipif_false():
    pass


@pytest.mark.skipif(True)
async def test_skipif_without_reason():
    pass


@pytest.mark.skipif("nonsense here", reason="broken")
async def test_skipif_broken():
    pass


@pytest.mark.xfail
async def test_xfail():
    raise LookupError


@pytest.mark.xfail
async def test_xpass_by_ini():
    pass


@pytest.mark.xfail(strict=False)
async def test_xpass():
    pass


@pytest.mark.xfail(raises=LookupError)
async def test_xfail_other_error():
    raise ValueError


@pytest.mark.xfail(raises=(KeyError, IndexError))
async def test_xfail_several():
    raise KeyError


@pytest.mark.xfail(run=False, reason="dangerous")
async def test_xfail_not_run():
    raise AssertionError


@pytest.mark.xfail(False, reason="condition is false")
async def test_xfail_condition():
    pass


@pytest.mark.xfail(sys.platform == "nowhere", reason="elsewhere")
async def test_xfail_elsewhere():
    pass


@pytest.mark.filterwarnings("ignore:quiet")
async def test_filter():
    warnings.warn("quiet please", UserWarning, stacklevel=1)


@pytest.mark.filterwarnings("default")
async def test_filter_default():
    warnings.warn("shown", UserWarning, stacklevel=1)


async def test_warning_is_error():
    warnings.warn("loud", UserWarning, stacklevel=1)


async def test_warns():
    with pytest.warns(UserWarning, match="loud"):
        warnings.warn("loud", UserWarning, stacklevel=1)


async def test_warns_not():
    with pytest.warns(UserWarning):
        await asyncio.sleep(0)


async def test_raises_not():
    with pytest.raises(LookupError):
        await asyncio.sleep(0)


async def test_raises_group():
    async def fail():
        raise LookupError("x")

    with pytest.RaisesGroup(LookupError):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())


async def test_raises_group_wrong():
    with pytest.RaisesGroup(ValueError):
        raise ExceptionGroup("g", [LookupError()])


async def test_importorskip():
    pytest.importorskip("no_such_module_anywhere")


async def test_fail_no_trace():
    pytest.fail("just so", pytrace=False)


async def test_xfail_inside():
    pytest.xfail("inside")


async def test_skip_inside_a_task():
    async def skip():
        pytest.skip("in a task")

    await asyncio.create_task(skip())


@pytest.fixture
async def torn_skip():
    yield
    pytest.skip("in tear-down")


async def test_torn_skip(torn_skip):
    pass


@pytest.fixture
async def torn_xfail():
    yield
    pytest.xfail("in tear-down")


async def test_torn_xfail(torn_xfail):
    pass


@pytest.fixture
async def xfails_up():
    pytest.xfail("in set-up")


async def test_xfails_up(xfails_up):
    pass


@pytest.mark.xfail(reason="set-up fails too")
async def test_xfail_of_set_up(raises_up):
    pass


@pytest.fixture
async def raises_up():
    raise LookupError


async def test_approx():
    assert pytest.approx(0.3) == 0.1 + 0.2
    assert pytest.approx(2) == 1


async def test_long_diff():
    assert list(range(20)) == [*range(10), 99, *range(11, 20)]


async def test_returns_something():
    return 1


async def test_cause():
    try:
        raise KeyError("inner")  # noqa: TRY301
    except KeyError as error:
        raise ValueError("outer") from error
