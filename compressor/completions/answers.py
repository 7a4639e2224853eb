"""What an endpoint answers, as OpenAI's API describes it: a completion, or what keeps it from one."""

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from compressor.errors import KdcError
from compressor.files.reading import json_value
from compressor.schema.base import parse
from compressor.schema.completions import Completion, Question
from compressor.terminal.printable import one_line

__all__ = ["AgainError", "AnswerError", "RefusedError", "answer_in", "is_error", "said_in", "wait_in"]

MALFORMED_TRIES = 3
"""An answer that is no answer may have been paid for: it is not asked for as often as one that did not come."""
OF_THE_QUESTION = (400, 413, 422)
"""What a server says of one question: it is too long, or against its rules."""
FOR_GOOD = {
    "insufficient_quota": "the account has no credit left",
    "billing_hard_limit_reached": "the limit is reached",
}
PLAIN = re.compile("[0-9A-Za-z]+")
SHOWN = 60
"""Characters of what is no answer."""
OF_THE_MODEL = ("unsupported_parameter", "unsupported_value")
"""Codes of what a model never takes, whatever it is asked: a temperature, a seed."""


class AgainError(Exception):
    """May go well another time: not before `after_s` seconds, where the server says so, and after `tries` in all at
    most. `of_question`: it may be that this question alone cannot be answered."""

    def __init__(
        self, why: str, after_s: float | None = None, tries: int | None = None, *, of_question: bool = False
    ) -> None:
        super().__init__(why)
        self.why, self.after_s, self.tries, self.of_question = why, after_s, tries, of_question


class AnswerError(Exception):
    """This question has no answer that can be used; others may."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class RefusedError(Exception):
    """No question will have an answer: a wrong key, an unknown model, a redirect."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def is_error(body: bytes) -> bool:
    """Whether a response of status 200 is an error all the same, as gateways pass on those of others."""
    try:
        answer = json_value(body.decode("utf-8-sig"), "the response")
    except (KdcError, UnicodeDecodeError):
        return False
    return isinstance(answer, dict) and bool(answer.get("error")) and not answer.get("choices")


def said_in(status: int, headers: Mapping[str, str], body: str, host: str) -> Exception:
    """What a response that is no answer means. `body`: without the key. Of status 200 it is what its code says."""
    code, words = _error_in(body)
    said = f"{host} says {status}{f': {words}' if words else ''}"
    if 300 <= status < 400:
        return RefusedError(f"{host} redirects elsewhere ({status}), where the key and the prompts would go along")
    if code in FOR_GOOD:
        return RefusedError(f"{said} ({FOR_GOOD[code]})")
    if code in OF_THE_MODEL:
        return RefusedError(said)
    if status == 200:
        if not re.fullmatch("[45][0-9]{2}", code):
            return AgainError(said, tries=MALFORMED_TRIES, of_question=True)
        status = int(code)
    if status in (408, 429) or status >= 500:
        return AgainError(said, wait_in(headers), of_question=status >= 500)
    return AnswerError(said) if status in OF_THE_QUESTION else RefusedError(said)


def _error_in(body: str) -> tuple[str, str]:
    """The code and the words of an error, where there are some; else the beginning of the text."""
    try:
        error = json_value(body, "the response")
        error = error.get("error", error) if isinstance(error, dict) else {}
        if isinstance(error, dict):
            return str(error.get("code") or error.get("type") or ""), one_line(error.get("message") or "")[:300]
        return "", one_line(error)[:300]
    except KdcError:
        return "", one_line(body[:300])


def wait_in(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks to wait (RFC 9110, 10.2.3): a number, or a date; None where it says nothing."""
    text = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def answer_in(body: bytes, question: Question, host: str) -> Completion:
    """The completion in a response. Raises AgainError where it is malformed, and AnswerError where it holds no text."""
    try:
        answer = json_value(body.decode("utf-8-sig"), "the answer")
        choice = answer["choices"][0]
        message = choice["message"] if question.mode == "chat" else choice
        text = message["content" if question.mode == "chat" else "text"]
        if text is None:
            raise AnswerError(f"no text ({one_line(message.get('refusal') or choice.get('finish_reason'))[:100]})")
        tokens, logprobs = _logprobs(choice.get("logprobs"))
        _require_spelt(tokens, text)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        named = answer.get("model")
        values = question.model_dump() | {
            "completion": text,
            "answered_by": named if isinstance(named, str) and named not in ("", question.model) else None,
            "finish_reason": choice.get("finish_reason") or None,
            "created": now,
            "tokens": tokens,
            "logprobs": logprobs,
        }
        return parse(Completion, values, "the answer")
    except (KdcError, KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError) as error:
        why = error.message if isinstance(error, KdcError) else f"{type(error).__name__} {error}"
        if not body.lstrip().startswith((b"{", b"[")):
            why += f"; it begins {body[:SHOWN].decode('utf-8', 'replace')!r}"
        raise AgainError(
            f"{host} gave a malformed answer: {one_line(why)[:200]}", tries=MALFORMED_TRIES, of_question=True
        ) from None


def _logprobs(told: Any) -> tuple[list[Any] | None, list[Any] | None]:
    """The tokens and their log-probabilities, in the form of chat/completions or of completions; None and None where
    there are none. Of the first token some servers give none."""
    if not isinstance(told, dict):
        return None, None
    if isinstance(told.get("content"), list):
        pairs = [(row["token"], row["logprob"]) for row in told["content"]]
    elif isinstance(told.get("tokens"), list) and isinstance(told.get("token_logprobs"), list):
        pairs = list(zip(told["tokens"], told["token_logprobs"], strict=True))
    else:
        return None, None
    if not pairs or any(value is None for _, value in pairs):
        return None, None
    return [token for token, _ in pairs], [value for _, value in pairs]


def _require_spelt(tokens: list[Any] | None, text: Any) -> None:
    """Raise KdcError for log-probabilities of other tokens than those of the text. Compared are its plain letters and
    digits: servers write spaces, special tokens and parts of a character in their own ways."""
    spelt = "".join(map(str, tokens or ()))
    if tokens is None or not isinstance(text, str) or any(sign in spelt for sign in ("\\x", "<0x", "bytes:")):
        return
    if "".join(PLAIN.findall(text)) not in "".join(PLAIN.findall(spelt)):
        raise KdcError("its logprobs are of other tokens than its text")
