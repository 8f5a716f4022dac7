"""caplog of tests that set opposite levels at once, and that log all the while."""

import asyncio
import logging

import pytest
from meeting import Meeting

pytestmark = pytest.mark.anyio

log = logging.getLogger("records")
below = logging.getLogger("records.below")


@pytest.fixture(scope="session")
def meeting(anyio_backend):
    return Meeting(8)


def say_all(who):
    for logger in (log, below):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logger.log(level, "%s says", who)


def heard(caplog):
    return [(record.name, record.levelname) for record in caplog.records]


async def test_lowers(caplog, meeting):
    caplog.set_level(logging.DEBUG, "records")
    await meeting.all()
    say_all("lowers")
    await meeting.all()
    assert len(caplog.records) == 8
    assert {record.getMessage() for record in caplog.records} == {"lowers says"}


async def test_raises(caplog, meeting):
    caplog.set_level(logging.ERROR, "records")
    await meeting.all()
    say_all("raises")
    await meeting.all()
    assert heard(caplog) == [("records", "ERROR"), ("records.below", "ERROR")]


async def test_usual(caplog, meeting):
    await meeting.all()
    say_all("usual")
    await meeting.all()
    assert [level for _, level in heard(caplog)] == ["WARNING", "ERROR"] * 2


async def test_root(caplog, meeting):
    caplog.set_level(logging.INFO)
    await meeting.all()
    say_all("root")
    await meeting.all()
    assert [level for _, level in heard(caplog)] == ["INFO", "WARNING", "ERROR"] * 2


async def test_for_a_while(caplog, meeting):
    with caplog.at_level(logging.DEBUG, "records.below"):
        await meeting.all()
        below.debug("heard")
        log.debug("not heard")
        with caplog.at_level(logging.ERROR, "records.below"):
            below.warning("not heard")
        below.debug("heard again")
        await meeting.all()
    below.debug("not heard")
    assert caplog.messages == ["heard", "heard again"]


async def test_child_task(caplog, meeting):
    async def child():
        await meeting.all()
        log.info("of a child")

    caplog.set_level(logging.INFO, "records")
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
    await asyncio.to_thread(log.info, "of a thread")
    await meeting.all()
    assert caplog.messages == ["of a child", "of a thread"]


async def test_clear(caplog, meeting):
    await meeting.all()
    log.error("before")
    caplog.clear()
    log.error("after")
    await meeting.all()
    assert caplog.messages == ["after"]


async def test_fails_with_its_own_records(meeting):
    await meeting.all()
    log.warning("of the one that fails")
    await meeting.all()
    raise LookupError


def test_levels_are_as_they_were():
    assert log.level == below.level == logging.NOTSET
    assert logging.getLogger().level == logging.WARNING
