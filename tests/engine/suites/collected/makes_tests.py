"""A plugin that multiplies tests, and one that names them."""


def pytest_generate_tests(metafunc):
    if metafunc.function.__name__.endswith("_too") and "place" in metafunc.fixturenames:
        metafunc.parametrize("place", [metafunc.function.__name__, "x"])


def pytest_make_parametrize_id(config, val, argname):
    return f"{argname}={val}"
