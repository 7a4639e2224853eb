"""An endpoint as OpenAI's API describes it (chat/completions and completions), asked with the standard library alone.

The key is read from an environment variable, goes into one header of a request to the endpoint's own host, and is kept
out of every message: what a server says of a refusal is shown without it, and redirects are not followed. Nothing is
sent over plain HTTP but to this machine itself, unless that is asked for.
"""

import http.client
import ipaddress
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from compressor.completions.answers import AgainError, AnswerError, RefusedError, answer_in, is_error, said_in
from compressor.errors import KdcError, first_line
from compressor.references import Reference
from compressor.schema.completions import Completion, Question
from compressor.terminal.printable import one_line

__all__ = ["KEY_VARIABLE", "Client", "Endpoint", "key_from", "parse_endpoint"]

KEY_VARIABLE = "OPENAI_API_KEY"
MOST_ANSWER = 16_000_000
"""Bytes of a response."""
CHUNK = 65_536
LEAST_KEY = 12
"""Characters of a key that is a secret."""
PATHS = {"chat": "chat/completions", "text": "completions"}
LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""The most tokens of an answer: what every server knows, and what OpenAI's reasoning models want in its place."""
FORM = "api:URL#MODEL, as api:https://api.openai.com/v1#gpt-4o-mini"


@dataclass(frozen=True)
class Endpoint:
    """`url`: what chat/completions stands below, without a slash at its end; `local`: it is this machine."""

    url: str
    model: str
    local: bool

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


def parse_endpoint(reference: str, *, allow_http: bool = False) -> Endpoint:
    """What `api:URL#MODEL` names; raises KdcError, which does not repeat a URL that may hold a secret."""
    url, sign, model = (Reference.parse(reference).rest or "").partition("#")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise KdcError("--teacher api: names no URL", FORM) from None
    if parts.username is not None or parts.password is not None or parts.query:
        raise KdcError(
            "--teacher api: the URL holds a user name or a query, where a key would be written into files",
            "a URL without them; the key comes from the environment: --key-variable NAME",
        )
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or any(map(str.isspace, url)):
        raise KdcError("--teacher api: names no URL of http or https", FORM)
    if not sign or not model.strip():
        raise KdcError(f"--teacher api:{url} names no model", FORM)
    local = _is_local(host)
    if parts.scheme == "http" and not local and not allow_http:
        raise KdcError(
            f"--teacher api:{url} is not encrypted, so that anybody between could read the key and the prompts",
            "https, or --allow-http where the network is your own",
        )
    return Endpoint(url.rstrip("/"), model.strip(), local)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_from(variable: str | None, endpoint: Endpoint) -> str | None:
    """The key in the environment variable of that name, or in OPENAI_API_KEY; None where an endpoint on this machine is
    asked, and none is set. Raises KdcError, which repeats neither the key nor what was given as the name."""
    key = os.environ.get(variable or KEY_VARIABLE, "")
    if not key:
        if variable is None and endpoint.local:
            return None
        named = KEY_VARIABLE if variable is None else "that --key-variable names"
        raise KdcError(
            f"the environment variable {named} is not set, and {endpoint.host} wants a key",
            "set it; the key itself is never an option",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KdcError("the key in the environment holds a blank, a line break or a letter that no key has", "set it")
    return key


class Client:
    """Asks one endpoint. `timeout_s`: for a whole answer, seconds."""

    def __init__(self, endpoint: Endpoint, key: str | None, *, timeout_s: float, logprobs: bool = False) -> None:
        self.endpoint = endpoint
        self._key = key
        self._timeout_s, self._logprobs = timeout_s, logprobs
        self._limit = LIMIT
        # What is meant for this machine goes through no proxy; urllib would take the one in the environment.
        proxies = [urllib.request.ProxyHandler({})] if endpoint.local else []
        self._opener = urllib.request.build_opener(_AsItIs(), *proxies)

    def complete(self, question: Question) -> Completion:
        """The answer to a question, without its licence.

        Raises:
            AgainError: for what may go well another time.
            AnswerError: where this question has no answer that can be used.
            RefusedError: where no question has.
        """
        limit = self._limit
        status, headers, body = self._sent(question, limit)
        if status == 400 and limit == LIMIT and NEW_LIMIT.encode() in body:
            self._limit = NEW_LIMIT  # the same under the name that this model knows
            status, headers, body = self._sent(question, NEW_LIMIT)
        if status != 200 or is_error(body):
            raise said_in(status, headers, self._without_key(body), self.endpoint.host)
        self._refuse_key(body)
        completion = answer_in(body, question, self.endpoint.host)
        self._refuse_key(completion.model_dump_json().encode())
        return completion

    def _refuse_key(self, answer: bytes) -> None:
        """What is no secret ("EMPTY", as some servers want it) may be a word of an answer."""
        if self._key is not None and len(self._key) >= LEAST_KEY and self._key.encode() in answer:
            raise AnswerError("the answer holds the key")

    def _sent(self, question: Question, limit: str) -> tuple[int, Any, bytes]:
        """Status, headers and body of the response. `limit`: what the most tokens are called."""
        until = time.monotonic() + self._timeout_s
        try:
            with self._opener.open(self._request(question, limit), timeout=self._timeout_s) as response:
                return response.status, response.headers, _read(response, until)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                why = f"its certificate does not hold: {error.reason.verify_message}"
                raise RefusedError(f"{self.endpoint.host}: {why}") from None
            raise AgainError(f"{self.endpoint.host} cannot be reached: {_shown(error.reason)}") from None
        except TimeoutError:
            raise AgainError(f"{self.endpoint.host} did not answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise AgainError(f"{self.endpoint.host} broke off: {_shown(error)}") from None

    def _request(self, question: Question, limit: str) -> urllib.request.Request:
        asked: dict[str, Any] = {"model": self.endpoint.model}
        chat = question.mode == "chat"
        asked |= {"messages": [{"role": "user", "content": question.prompt}]} if chat else {"prompt": question.prompt}
        given = {"temperature": question.temperature, limit: question.max_tokens, "seed": question.seed}
        asked |= {name: value for name, value in given.items() if value is not None}
        if self._logprobs:
            asked["logprobs"] = True if chat else 1
        url = f"{self.endpoint.url}/{PATHS[question.mode or 'chat']}"
        request = urllib.request.Request(url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
        request.add_header("Accept", "application/json")
        request.add_header("Idempotency-Key", question.digest)  # who honours it makes no answer twice
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        return request

    def _without_key(self, body: bytes) -> str:
        """What a server said, in one line: some repeat the key that they refuse."""
        text = body.decode("utf-8", "replace")
        return text if self._key is None else text.replace(self._key, "[key]").replace(json.dumps(self._key), "[key]")


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Whatever the status is, a response is one: redirects are not followed, which would take prompts and key along."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def _shown(error: Any) -> str:
    return one_line(first_line(error) if isinstance(error, BaseException) else error)[:200]


def _read(response: Any, until: float) -> bytes:
    """The body, of MOST_ANSWER bytes at most, before `until`."""
    parts, size = [], 0
    while part := response.read1(CHUNK):
        parts.append(part)
        size += len(part)
        if size > MOST_ANSWER:
            raise AnswerError(f"the response is larger than {MOST_ANSWER:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError
    expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdigit() and size < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - size)
    return b"".join(parts)
