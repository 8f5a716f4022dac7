"""The header that a test's own port adds to requests: in each of them, whatever pieces they come in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctest_kit.http.lease_port import Marker

LINE = b"X-Lease: a.1\r\n"

SIMPLE = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
SIZED = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nGET / HTTP/1"
EMPTY = b"POST /a HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
CHUNKED = (
    b"PUT /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"5;a=b\r\nGET /\r\nB\r\n HTTP/1.1\r\n\r\n0\r\nTrailer: x\r\n\r\n"
)
UNCHUNKED = b"PUT /b HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

REQUESTS = (SIMPLE, SIZED, EMPTY, CHUNKED, UNCHUNKED)


def marked(request):
    head, end, body = request.partition(b"\r\n\r\n")
    return head + b"\r\n" + LINE + end.removeprefix(b"\r\n") + body


def fed(marker, data, cuts):
    return b"".join(marker.feed(data[start:end]) for start, end in pairwise([0, *sorted(cuts), len(data)]))


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5), st.data())
def test_each_request_of_a_connection_is_marked_whatever_pieces_it_comes_in(requests, data):
    sent = b"".join(requests)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=20))
    assert fed(Marker(LINE), sent, cuts) == b"".join(map(marked, requests))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_nothing_is_lost_of_what_is_no_http(data, cuts):
    junk = b"\x16\x03\x01 no HTTP\r\n\r\n" + data
    assert fed(Marker(LINE), junk, [min(cut, len(junk)) for cut in cuts]) == junk


@pytest.mark.parametrize("first", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"nonsense\r\n\r\n"])
def test_what_is_no_request_of_that_version_passes_as_it_is(first):
    marker = Marker(LINE)
    assert marker.feed(first) == first
    assert marker.feed(SIMPLE) == SIMPLE


def test_after_an_upgrade_all_passes_as_it_is():
    upgrade = b"GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    marker = Marker(LINE)
    assert marker.feed(upgrade) == marked(upgrade)
    assert marker.feed(SIMPLE) == SIMPLE


def test_an_upgrade_to_http_2_is_not_passed_on():
    asked = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    marker = Marker(LINE)
    assert marker.feed(asked) == b"GET / HTTP/1.1\r\nHost: x\r\n" + LINE + b"\r\n"
    assert marker.feed(SIMPLE) == marked(SIMPLE)


def test_a_chunk_without_a_size_passes_with_all_that_follows():
    broken = b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
    marker = Marker(LINE)
    assert marker.feed(broken) == marked(broken)
    assert marker.feed(SIMPLE) == SIMPLE


def test_a_head_without_end_passes_when_it_is_too_long():
    long = b"GET / HTTP/1.1\r\n" + b"a" * (1 << 17)
    assert Marker(LINE).feed(long) == long


def test_another_header_of_that_name_is_left_out():
    told = b"GET / HTTP/1.1\r\nx-lease: b.2\r\nHost: x\r\n\r\n"
    assert Marker(LINE).feed(told) == b"GET / HTTP/1.1\r\nHost: x\r\n" + LINE + b"\r\n"


def test_a_server_of_the_users_is_called_by_its_own_name():
    marker = Marker(LINE, "stubs.example.org:443")
    told = b"GET /a?b=c HTTP/1.1\r\nHost: stubs.example.org:443\r\n" + LINE + b"\r\n"
    assert marker.feed(SIMPLE) == told
