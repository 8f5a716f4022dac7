"""What of texts and logs is secret, and what isn't."""

from __future__ import annotations

import pytest

from asynctest_kit.http.scrubbing import Scrubber, content_of

STARRED = [
    ("password=hidden", "password=***"),
    ("user=ann DB_PASSWORD=hidden, port=5432", "user=ann DB_PASSWORD=***, port=5432"),
    ("Authorization: Bearer hidden", "Authorization: ***"),
    ("cookie: id=hidden; more=hidden\nnext: line", "cookie: ***\nnext: line"),
    ("sent bearer hid.den-1234", "sent bearer ***"),
    ("(b'Authorization', b'Basic aGlkZGVuOjE=')", "(b'Authorization', b'Basic ***')"),
    ('{"event": "in", "apiKey": "hid\\"den", "n": 1}', '{"event": "in", "apiKey": "***", "n": 1}'),
    ("{'access_token': 'hidden', 'id': 7}", "{'access_token': '***', 'id': 7}"),
    ("connects to postgresql://shop:hid:den@db:5432/shop", "connects to postgresql://shop:***@db:5432/shop"),
    ("git clone https://hidden@host/x", "git clone https://***@host/x"),
    ('"GET /in?page=1&access_token=hidden HTTP/1.1" 200', '"GET /in?page=1&access_token=*** HTTP/1.1" 200'),
    ("client_secret = 'hidden words'", "client_secret = '***'"),
    (r'"{\"token\": \"hidden\"}"', r'"{\"token\": \"***\"}"'),
    ("ssn=hidden", "ssn=***"),
]

LEFT = [
    "KeyError: 'name'",
    "cache miss: key=orders:1, primary key: id",
    "3 passed, 1 failed; pass: 3",
    "token=None password: str",
    "basic authentication is used",
    "mails ann@example.org of http://x/?to=ann@example.org",
    "ssh://git@host/x at 10:20:30",
    'INFO:     127.0.0.1:52 - "GET /users?page=2 HTTP/1.1" 200 OK',
    "keyword=tea monkey=1 tokenizer=fast bypass=yes",
]


@pytest.mark.parametrize(("line", "shown"), STARRED)
def test_what_is_secret_in_a_log_is_starred(line, shown):
    assert Scrubber(["SSN"]).log(f"{line}\n") == f"{shown}\n"


@pytest.mark.parametrize("line", LEFT)
def test_what_is_not_secret_in_a_log_is_left(line):
    assert Scrubber().log(f"{line}\n") == f"{line}\n"


def test_a_text_in_which_nothing_is_secret_is_as_it_was():
    for text in (
        '{"a" : [1.0,  "http://x/?a=b%20c"]}',
        "http://x/?a=%7e&b#c",
        "a?b=c",
        "[",
        "{not json}",
        "[" * 9000 + "]" * 9000,
    ):
        assert Scrubber().text(text) == text


FORM = 'Content-Disposition: form-data; name="{}"'
PASSWORD, NOTE = FORM.format("password"), FORM.format("note")

#: Bodies of several parts, with the contents that are told.
PARTED = {
    "as it should be": (f"--B\r\n{PASSWORD}\r\n\r\nhidden\r\n--B\r\n{NOTE}\r\n\r\ntea\r\n--B--\r\n", ["***", "tea"]),
    "bare line feeds": (f"--B\n{PASSWORD}\n\nhidden\n--B\n{NOTE}\n\ntea\n\n--B--\n", ["***", "tea\n"]),
    "no end": (f"--B\r\n{PASSWORD}\r\n\r\nhidden\r\n--B\r\n{NOTE}\r\n\r\ntea", ["***", "tea"]),
    "no end but the line": (f"--B\r\n{PASSWORD}\r\n\r\nhidden\r\n--B\r\n", ["***"]),
    "a folded header": (f"--B\r\n{PASSWORD.replace('; ', ';{0} ')}{{0}}{{0}}hidden{{0}}--B--".format("\r\n"), ["***"]),
    "no blank line": (f"--B\r\n{PASSWORD}\r\nhidden\r\n--B\r\n{NOTE}\r\n\r\ntea\r\n--B--", ["***", "tea"]),
    "a header that is none": (f"--B\r\n{PASSWORD}\r\nhidden\r\n\r\nhidden\r\n--B--", ["***"]),
    "what follows the end": (f"--B\r\n{NOTE}\r\n\r\ntea\r\n--B--\r\nepilogue\r\n--B\r\n", ["tea"]),
    "nothing": ("--B--\r\n", []),
}


@pytest.mark.parametrize("how", PARTED)
def test_parts_are_read_as_servers_read_them_and_what_is_left_is_starred(how):
    content, told = PARTED[how]
    kind = "multipart/form-data; boundary=B"
    body = Scrubber().body(content.encode(), kind)
    assert [part["text"] for part in body["parts"]] == told
    assert "hidden" not in str(body)
    assert Scrubber().body(content_of(body, kind), kind) == body


def test_what_is_not_in_parts_though_it_is_said_to_be_is_starred():
    kind = "multipart/form-data; boundary=B"
    assert Scrubber().body(f"--C\r\n{PASSWORD}\r\n\r\nhidden\r\n--C--".encode(), kind) == {"text": "***"}
    assert Scrubber().body(b"\xffhidden", kind) == {"text": "***"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_json_may_be_in_any_encoding(encoding):
    told = Scrubber().body('{"password": "hidden-grün", "note": "grün"}'.encode(encoding), "application/json")
    assert told == {"json": {"password": "***", "note": "grün"}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_what_is_no_json_though_it_is_said_to_be_has_no_secrets(encoding):
    for text in ('{"a": 1, "token": "***"}\n{"b": "grün"}\n', '{"password": "***", "note": grün}', '{"password": "***'):
        came = text.replace("***", "hidden").encode(encoding)
        told = Scrubber().body(came, "application/x-ndjson")
        assert "hidden" not in told["text"]
        assert Scrubber().body(content_of(told, ""), "application/x-ndjson") == told
    assert Scrubber().body(b'{"a":1}\n{"b":2}\n', "application/x-ndjson") == {"text": '{"a":1}\n{"b":2}\n'}


def test_what_is_long_takes_no_time_of_its_square():
    for text in ("a" * 500_000, "a." * 250_000, "a=" * 100_000, "http://" * 50_000, "?a" * 200_000):
        assert Scrubber().log(f"{text} password=hidden\n") == f"{text} password=***\n"
        assert Scrubber().text(f"{text} ?token=hidden") == f"{text} ?token=***"
