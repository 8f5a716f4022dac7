"""The public suites that are compared, as data: nobody here wrote them, and none is changed.

What a suite needs beside its project is named here and pinned in ``constraints.txt``, but for pytest itself: that is
the version of whoever runs the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True, slots=True)
class Suite:
    """A project whose source distribution has its tests.

    Attributes:
        name: The project's name on the index.
        version: The release.
        extras: Extras of the project that its tests need.
        requires: What else its tests need, beside pytest.
        arguments: What pytest must be told to run them, beyond what their configuration says.
        pytest: The oldest pytest that it says it supports, or 8.4 if it says nothing newer.
        is_named: Whether it is one of the five over which the share of the shared loop is counted.
        known: Node ids of tests that come out otherwise under ``atk run``, each with the reason.
    """

    name: str
    version: str
    extras: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    pytest: tuple[int, int] = (8, 4)
    is_named: bool = False
    known: tuple[tuple[str, str], ...] = ()


SUITES = (
    Suite(
        "taskiq",
        "0.13.0",
        extras=("cbor", "metrics", "msgpack", "opentelemetry", "orjson", "reload", "zmq"),
        requires=("freezegun", "opentelemetry-test-utils", "polyfactory", "pytest-cov", "pytest-xdist[psutil]"),
        pytest=(9, 0),  # its metadata asks for 9.0.1
        is_named=True,
    ),
    Suite(
        "starlette",
        "1.10.0",
        extras=("full",),
        requires=("blockbuster", "httpx2", "opentelemetry-sdk", "trio"),
        pytest=(9, 1),  # its metadata asks for 9.1.1
    ),
    Suite(
        "httpcore",
        "1.0.9",
        extras=("asyncio", "http2", "socks", "trio"),
        requires=("pytest-httpbin", "pytest-trio"),
        is_named=True,
    ),
    Suite(
        "hypercorn",
        "0.18.0",
        requires=("httpx", "hypothesis", "mock", "pytest-asyncio", "pytest-cov", "pytest-trio", "trio"),
        is_named=True,
    ),
    Suite(
        "asgiref",
        "3.13.0",
        requires=("packaging", "pytest-asyncio"),
        is_named=True,
    ),
    Suite(
        "aiojobs",
        "1.4.0",
        requires=("aiohttp", "pytest-aiohttp", "pytest-asyncio", "pytest-cov"),
        arguments=("-o", "asyncio_mode=auto"),  # its distribution lacks the file that says so
        is_named=True,
    ),
    Suite(
        "janus",
        "2.0.0",
        requires=("pytest-asyncio", "pytest-cov"),
    ),
)
