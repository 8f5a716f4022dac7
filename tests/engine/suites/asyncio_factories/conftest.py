import asyncio


class Loop(asyncio.SelectorEventLoop):
    pass


def pytest_asyncio_loop_factories(config, item):
    if item.get_closest_marker("two_loops"):
        return {"plain": asyncio.new_event_loop, "own": Loop}
    return {"plain": asyncio.new_event_loop}
