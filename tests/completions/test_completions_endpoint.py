"""`api:URL#MODEL`, its key, and what a response means."""

import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from compressor.completions.answers import AgainError, AnswerError, RefusedError, answer_in, is_error, said_in, wait_in
from compressor.completions.client import key_from, parse_endpoint
from compressor.completions.pool import Patience
from compressor.errors import KdcError
from compressor.schema.completions import Question


@pytest.mark.parametrize(
    ("reference", "url", "model", "local"),
    [
        ("api:https://api.openai.com/v1#gpt-4o-mini", "https://api.openai.com/v1", "gpt-4o-mini", False),
        ("api:http://127.0.0.1:8080/v1/#org/model", "http://127.0.0.1:8080/v1", "org/model", True),
        ("api:http://[::1]:80#m#n", "http://[::1]:80", "m#n", True),
        ("api:http://localhost/v1#m", "http://localhost/v1", "m", True),
    ],
)
def test_a_url_and_a_model(reference: str, url: str, model: str, local: bool) -> None:
    endpoint = parse_endpoint(reference)
    assert (endpoint.url, endpoint.model, endpoint.local) == (url, model, local)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("api:https://api.openai.com/v1", "names no model"),
        ("api:https://api.openai.com/v1# ", "names no model"),
        ("api:ftp://x/v1#m", "no URL of http"),
        ("api:gpt-4", "no URL of http"),
        ("api:https://#m", "no URL of http"),
        ("api:https://x:99999999/v1#m", "names no URL"),
        ("api:https://x y/v1#m", "no URL of http"),
        ("api:http://example.org/v1#m", "not encrypted"),
        ("api:http://localhost.example.org/v1#m", "not encrypted"),
        ("api:https://user:hunter2@x/v1#m", "user name or a query"),
        ("api:https://x/v1?key=hunter2#m", "user name or a query"),
    ],
)
def test_what_is_none_is_refused_and_no_secret_is_repeated(reference: str, said: str) -> None:
    with pytest.raises(KdcError) as raised:
        parse_endpoint(reference)
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_http_elsewhere_where_it_is_asked_for() -> None:
    assert not parse_endpoint("api:http://example.org/v1#m", allow_http=True).local


def test_the_key_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = parse_endpoint("api:http://127.0.0.1/v1#m"), parse_endpoint("api:https://example.org/v1#m")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert key_from(None, here) is None, "a server of one's own wants none"
    for variable, endpoint in ((None, there), ("OTHER", here), ("sk-1234567890", there)):
        with pytest.raises(KdcError) as raised:
            key_from(variable, endpoint)
        assert "sk-1234567890" not in str(raised.value), "it may be the key itself, by mistake"
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    monkeypatch.setenv("OTHER", "b")
    assert (key_from(None, there), key_from("OTHER", there)) == ("a", "b")
    for bad in ("sk-1234\nX-Other: 1", "sk 1234", "sk-1234é"):  # http.client would repeat it in its own error
        monkeypatch.setenv("OTHER", bad)
        with pytest.raises(KdcError) as raised:
            key_from("OTHER", there)
        assert "1234" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "said"),
    [
        (429, {"Retry-After": "3"}, '{"error": {"message": "slow\\ndown"}}', AgainError, "h says 429: slow down"),
        (429, {}, '{"error": {"code": "insufficient_quota"}}', RefusedError, "no credit left"),
        (500, {}, "<html>\x1b[31m", AgainError, "h says 500: <html>\\x1b[31m"),
        (408, {}, "", AgainError, "h says 408"),
        (400, {}, '{"error": "too long"}', AnswerError, "h says 400: too long"),
        (401, {}, '{"message": "no such key"}', RefusedError, "h says 401: no such key"),
        (404, {}, "[[", RefusedError, "h says 404: [["),
        (302, {}, "", RefusedError, "h redirects elsewhere (302)"),
        (200, {"Retry-After": "3"}, '{"error": {"message": "slow", "code": 429}}', AgainError, "h says 200: slow"),
        (200, {}, '{"error": {"message": "too long", "code": "400"}}', AnswerError, "h says 200: too long"),
        (200, {}, '{"error": {"message": "no such key", "code": 401}}', RefusedError, "h says 200: no such key"),
    ],
)
def test_what_a_refusal_means(
    status: int, headers: dict[str, str], body: str, kind: type[AgainError], said: str
) -> None:
    error = said_in(status, headers, body, "h")
    assert type(error) is kind
    assert said in str(error)
    if isinstance(error, AgainError):
        assert error.after_s == (3.0 if headers else None)
        assert error.of_question == (status >= 500)


def test_an_error_that_says_200_is_one() -> None:
    assert is_error(b'{"error": {"message": "it broke"}, "choices": []}')
    assert is_error(b'\xef\xbb\xbf{"error": "it broke"}')
    for answer in (
        b'{"choices": [{"text": "x"}], "error": {}}',
        b'{"choices": [{}], "error": "x"}',
        b"{",
        b"[]",
        b"\xff",
    ):
        assert not is_error(answer)
    unknown = said_in(200, {}, '{"error": {"message": "it broke", "type": "upstream"}}', "h")
    assert isinstance(unknown, AgainError)
    assert (unknown.why, unknown.tries, unknown.of_question) == ("h says 200: it broke", 3, True)


def test_how_long_a_server_wants_to_be_left_alone() -> None:
    assert wait_in({"Retry-After": "2.5"}) == 2.5
    assert wait_in({"Retry-After": "-5"}) == 0.0
    in_a_minute = wait_in({"Retry-After": formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 61
    for nothing in ({}, {"Retry-After": "soon"}, {"Retry-After": "nan"}, {"Retry-After": "inf"}):
        assert wait_in(nothing) is None


CHAT = Question(prompt="p", model="m", mode="chat")
TEXT = Question(prompt="p", model="m", mode="text")


def test_an_answer_of_either_kind() -> None:
    content = '[{"token": "a", "logprob": -1.5}, {"token": "b", "logprob": -0.5}]'
    chat = answer_in(
        b'{"model": "m-2026", "choices": [{"message": {"content": "ab"}, "finish_reason": "length", "logprobs": '
        b'{"content": ' + content.encode() + b"}}]}",
        CHAT, "h",
    )  # fmt: skip
    assert (chat.completion, chat.answered_by, chat.finish_reason) == ("ab", "m-2026", "length")
    assert (chat.tokens, chat.logprobs, chat.log_likelihood) == (("a", "b"), (-1.5, -0.5), -1.0)
    assert chat.key == CHAT.key
    text = answer_in(
        b'{"model": "m", "choices": [{"text": " x", "logprobs": {"tokens": [" x"], "token_logprobs": [-0.25]}}]}',
        TEXT, "h",
    )  # fmt: skip
    assert (text.completion, text.answered_by, text.logprobs, text.finish_reason) == (" x", None, (-0.25,), None)
    first = b'{"choices": [{"text": "x", "logprobs": {"tokens": ["x"], "token_logprobs": [null]}}]}'
    assert answer_in(first, TEXT, "h").logprobs is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": {}}]}', b'{"choices": [{"message": "x"}]}',
        b'{"choices": [{"message": {"content": 3}}]}', b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"content": "\\ud83d"}}]}', b"[" * 5000,
        b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": NaN}]}}]}',
        b'{"choices": [{"message": {"content": "x"}, "finish_reason": ["stop"]}]}',
        b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": 0.9}]}}]}',
        b'{"choices": [{"message": {"content": "ab"}, "logprobs": {"content": [{"token": "c", "logprob": -1}]}}]}',
        b'data: {"choices": [{"delta": {"content": "x"}}]}', b"<html>sign in</html>",
    ],
)  # fmt: skip
def test_a_malformed_answer_is_asked_for_again_but_not_often(body: bytes) -> None:
    with pytest.raises(AgainError) as raised:
        answer_in(body, CHAT, "h")
    assert raised.value.tries == 3
    assert "h gave a malformed answer" in raised.value.why
    if body[:1] in b"d<":
        assert f"it begins {body[:20].decode()!r}"[:-1] in raised.value.why


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("it is 5", ["it", "Ġis", "Ġ5", "<|im_end|>"]),
        ("naïve", ["na", "\\xc3", "\\xaf", "ve"]),
        ("naïve", ["na", "bytes:\\xc3\\xaf", "ve"]),
        ("a\n", ["a", "<0x0A>"]),
        ("x", ["\n", "x"]),
    ],
)
def test_tokens_are_those_of_the_text_in_the_ways_that_servers_write_them(text: str, tokens: list[str]) -> None:
    rows = [{"token": token, "logprob": 0.0001} for token in tokens]
    body = json.dumps({"choices": [{"message": {"content": text}, "logprobs": {"content": rows}}]})
    assert answer_in(b"\xef\xbb\xbf" + body.encode(), CHAT, "h").tokens == tuple(tokens)


def test_an_answer_without_text_is_none() -> None:
    body: Any = b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}'
    with pytest.raises(AnswerError, match="no text"):
        answer_in(body, CHAT, "h")


def test_the_wait_doubles_up_to_its_most_and_half_of_it_is_drawn() -> None:
    patience = Patience(first_s=1.0, most_s=10.0)
    for tried, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (50, 10.0)):
        drawn = [patience.wait_s(tried) for _ in range(200)]
        assert most / 2 <= min(drawn) < max(drawn) <= most
        assert max(drawn) - min(drawn) > most / 4
