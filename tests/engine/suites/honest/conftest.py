import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def statements():
    return []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    assert not item.funcargs.get("statements"), "the hook saw statements"
    return result


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    outcome = yield
    if pyfuncitem.name == "test_refused_after_its_call":
        outcome.force_exception(AssertionError("refused"))
    elif pyfuncitem.name == "test_forgiven_by_a_hook":
        outcome.force_result(True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.prepared = True
    return (yield)
