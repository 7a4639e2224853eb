"""Two tokenizers on the same text: which of their tokens stand for the same bytes, and where both end one.

Tokens are compared as the bytes that they stand for, never as they are written: a space is written Ġ by one tokenizer
and ▁ by another, and a byte of its own ð or <0xF0>.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError

__all__ = ["TokenBytes", "aligned", "common_rows", "numbered", "teacher_token_of"]

Numbers = NDArray[np.int64]

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "▁"
ALIKE = ("model", "normalizer", "pre_tokenizer", "added_tokens")
"""The parts of a tokenizer.json by which a text's tokens and their numbers are told."""

MOST_TOKENS = 2**24
SHOWN = 20


@dataclass(frozen=True)
class TokenBytes:
    """What each token of a tokenizer stands for, by its number; None: for no text, as what ends a text, or a number
    that no token has. `adds_space`: a text may get a space before it. `fallback`: tokens for single bytes, which text
    that the vocabulary has is never made of."""

    tokens: tuple[bytes | None, ...]
    adds_space: bool
    fallback: frozenset[int] = frozenset()

    @classmethod
    def read(cls, tokenizer_json: str, where: str) -> "TokenBytes":
        """Of a tokenizer.json; `where` begins the message. Raises KdcError for one whose tokens do not say which bytes
        they stand for: neither byte-level (GPT-2, Llama 3, Qwen) nor with ▁ for a space (Llama 2, Gemma)."""
        values = json.loads(tokenizer_json)
        steps = list(_steps(values.get("decoder")))
        byte_level = any(step.get("type") == "ByteLevel" for step in steps)
        if not byte_level and not any(_marks_spaces(step) for step in steps):
            kinds = ", ".join(sorted({str(step.get("type")) for step in steps})) or "none"
            raise KdcError(
                f"{where}: its tokens do not say which bytes they stand for (decoder: {kinds})",
                "models with tokenizers of the GPT, Llama, Qwen or Gemma kind can be compared token by token",
            )
        _require_vocabulary(values, where)
        byte_tokens = any(step.get("type") == "ByteFallback" for step in steps)
        bytes_of: dict[int, bytes | None] = {}
        fallback = set()
        for token, number in _vocabulary(values):
            single = BYTE_TOKEN.fullmatch(token) if byte_tokens else None
            if single:
                bytes_of[number] = bytes([int(single[1], 16)])
                fallback.add(number)
            else:
                bytes_of[number] = _of_characters(token) if byte_level else token.replace(SPACE, " ").encode()
        for added in values.get("added_tokens") or ():
            bytes_of[added["id"]] = None if added["special"] else added["content"].encode()
            fallback.discard(added["id"])
        numbers = range(max(bytes_of, default=-1) + 1)
        return cls(tuple(bytes_of.get(number) for number in numbers), _adds_space(values), frozenset(fallback))

    def of_text(self, numbers: Sequence[int], text: str) -> list[bytes]:
        """The bytes of each of the tokens that the tokenizer made of `text`, without the space that it may have put
        before it; those of none for a token that stands for no text."""
        spelt = [self.tokens[number] or b"" for number in numbers]
        if self.adds_space and b"".join(spelt) == b" " + text.encode():
            first = next(at for at, token in enumerate(spelt) if token)
            spelt[first] = spelt[first][1:]
        return spelt


def aligned(student: Sequence[bytes], teacher: Sequence[bytes], where: str) -> tuple[Numbers, Numbers]:
    """The groups of a text's tokens: each ends where both sides end a token on the same byte, and no earlier.

    Args:
        student, teacher: the bytes of each token of the same text (`TokenBytes.of_text`); tokens for no text may be
            anywhere, on one side or both.
        where: what begins the message.

    Returns:
        The number of each token's group, from 0, of the student's [n] and the teacher's [m]; -1 for tokens for no text.

    Raises:
        KdcError: where the two do not spell the same text.
    """
    ours, theirs = b"".join(student), b"".join(teacher)
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        at = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
        raise KdcError(
            f"{where}: the tokens of student and teacher spell different texts from byte {at:,} on: "
            f"{_shown(ours[at:])} and {_shown(theirs[at:])}",
            "one of the tokenizers changes its texts (spelling, spaces, unknown characters): take another model",
        )
    ends = [np.cumsum([len(token) for token in side], dtype=np.int64) for side in (student, teacher)]
    common = np.intersect1d(ends[0], ends[1])
    common = common[common > 0]
    groups = []
    for side, end in zip((student, teacher), ends, strict=True):
        number = np.searchsorted(common, end)
        groups.append(np.where([len(token) > 0 for token in side], number, -1).astype(np.int64))
    return groups[0], groups[1]


def numbered(
    groups: Sequence[tuple[Numbers, Numbers]], learned: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
) -> tuple[Numbers, Numbers]:
    """The groups of several texts, in one numbering, as losses on both take them.

    Args:
        groups: of each text, what `aligned` gives.
        learned: of each text, which tokens of the student and the teacher are learned, bool [n] and [m]: what is no
            part of a prompt, and has an answer of the network's before it.

    Returns:
        For the learned tokens of all texts, one after another, the number of their group, of the student and of the
        teacher; -1 where it holds a token on either side that is not learned.
    """
    ours: list[Numbers] = []
    theirs: list[Numbers] = []
    first = 0
    for (of_student, of_teacher), (student, teacher) in zip(groups, learned, strict=True):
        spoilt = np.union1d(of_student[~student], of_teacher[~teacher])
        for side, chosen, numbers in ((of_student, student, ours), (of_teacher, teacher, theirs)):
            numbers.append(np.where(np.isin(side, spoilt) | (side < 0), -1, side + first)[chosen])
        first += int(of_student.max(initial=-1)) + 1
    return np.concatenate(ours), np.concatenate(theirs)


def common_rows(student_json: str, teacher_json: str) -> int | None:
    """How many tokens two models have whose tokenizers are the same; their logits, cut to so many, mean the same.

    Models of one family have unequal numbers of logits, filled up to what suits a machine (151,936 and 152,064 of the
    151,665 tokens of Qwen 2.5). None: the tokenizers differ in more than what they put around a text.
    """
    parts = [json.loads(text) for text in (student_json, teacher_json)]
    ours, theirs = ([part.get(name) or None for name in ALIKE] for part in parts)
    if ours != theirs:
        return None
    return max((number for _, number in _all_tokens(parts[0])), default=-1) + 1


def teacher_token_of(student: TokenBytes, teacher: TokenBytes, rows: int) -> Numbers:
    """The teacher's token of the same bytes for each of the `rows` logits of a student, int64 [rows]; -1: none.

    Where several tokens of a side stand for the same bytes, it is the one that texts are made of.
    """
    theirs = _by_bytes(teacher)
    tokens = np.full(rows, -1, np.int64)
    for text, number in _by_bytes(student).items():
        if text in theirs and number < rows:
            tokens[number] = theirs[text]
    return tokens


def _by_bytes(side: TokenBytes) -> dict[bytes, int]:
    numbers: dict[bytes, int] = {}
    for number, text in enumerate(side.tokens):
        if text and (text not in numbers or numbers[text] in side.fallback):
            numbers[text] = number
    return numbers


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder, and all that it is made of."""
    if isinstance(part, dict):
        yield part
        for inside in ("decoders", "normalizers", "pretokenizers"):
            for step in part.get(inside) or ():
                yield from _steps(step)


def _marks_spaces(step: dict[str, Any]) -> bool:
    if step.get("type") == "Metaspace":
        return bool(step.get("replacement", SPACE) == SPACE)
    return step.get("type") == "Replace" and step.get("pattern") == {"String": SPACE} and step.get("content") == " "


def _adds_space(values: dict[str, Any]) -> bool:
    before = [*_steps(values.get("normalizer")), *_steps(values.get("pre_tokenizer"))]
    return any(
        (step.get("type") == "Prepend" and step.get("prepend") == SPACE)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        or (step.get("type") == "ByteLevel" and bool(step.get("add_prefix_space")))
        for step in before
    )


def _require_vocabulary(values: dict[str, Any], where: str) -> None:
    vocabulary = values.get("model", {}).get("vocab")
    if not isinstance(vocabulary, (dict, list)) or not vocabulary:
        raise KdcError(f"{where} is no tokenizer with a vocabulary")
    numbers = [number for _, number in _all_tokens(values)]
    if not all(isinstance(number, int) and 0 <= number < MOST_TOKENS for number in numbers):
        raise KdcError(f"{where}: its tokens have numbers beyond 0 to {MOST_TOKENS - 1:,}")


def _vocabulary(values: dict[str, Any]) -> Iterator[tuple[str, int]]:
    vocabulary = values["model"]["vocab"]
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
    else:  # Unigram: (token, score), in the order of their numbers
        yield from ((token, number) for number, (token, _) in enumerate(vocabulary))


def _all_tokens(values: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield from _vocabulary(values)
    yield from ((added["content"], added["id"]) for added in values.get("added_tokens") or ())


def _characters() -> dict[str, int]:
    """The byte that each character of a byte-level token is written for: printable ones stand for themselves, the
    others are moved up from 256 on (GPT-2's bytes_to_unicode)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


CHARACTERS = _characters()


def _of_characters(token: str) -> bytes | None:
    """None for a token that is written with other characters, and so never made of a text."""
    if not all(character in CHARACTERS for character in token):
        return None
    return bytes(CHARACTERS[character] for character in token)


def _shown(text: bytes) -> str:
    return repr(text[:SHOWN].decode("utf-8", "replace")) if text else "the end"
