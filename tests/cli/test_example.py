"""What the example in this repository does where not all is there that it can use."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio

SHOP = Path(__file__).parents[2] / "examples" / "shop"
FILES = ("tests/test_payments_wiremock.py", "tests/test_payments_mockserver.py")
IMAGES = {"ATK_WIREMOCK_IMAGE": "own/wiremock:1", "ATK_MOCKSERVER_IMAGE": "own/mockserver:1"}
JARS = {"ATK_WIREMOCK_JAR": "wiremock.jar", "ATK_MOCKSERVER_JAR": "mockserver.jar"}


@pytest.mark.once
@pytest.mark.parametrize(
    ("provider", "named", "can_run"),
    [("embedded", IMAGES, False), ("embedded", JARS, True), ("docker", JARS, False), ("auto", IMAGES, True)],
    ids=["image-embedded", "jar-embedded", "jar-docker", "image-auto"],
)
async def test_servers_of_stubs_that_the_provider_can_not_give_are_skipped(run_pytest, provider, named, can_run):
    options = ("--collect-only", "-q", "-p", "no:cacheprovider")
    _, out = await run_pytest(*options, *FILES, cwd=SHOP, ATK_PROVIDER=provider, **named)
    assert [f"{file}::test_" in out for file in FILES] == [can_run] * len(FILES), out
    skipped = [line for line in out.splitlines() if line.startswith("SKIPPED [1] tests/test_payments_")]
    assert len(skipped) == (0 if can_run else len(FILES)), out
