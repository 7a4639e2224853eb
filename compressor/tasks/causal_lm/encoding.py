"""Documents -> tokens, and these -> blocks: each token of a document is asked for once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Split
from compressor.errors import KdcError
from compressor.schema.preprocess import LanguagePreprocess
from compressor.tasks.causal_lm.documents import Chat, Written
from compressor.tasks.causal_lm.opening import documents_of
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer, Span, tokenizer_of

__all__ = ["Block", "Encoded", "blocks_of", "encoded", "encoded_split"]

AT_ONCE = 256
"""Documents that are handed to the library at once."""
Spans = Sequence[Span]


class Encoded(NamedTuple):
    """A document's `ids` int32 [T], the token that starts it first; a chat begins as its template has it. `learned`,
    bool [T]: what is asked for in training; `scored`: what a score is made of: the same without what ends the document,
    or an answer in a chat, and is the same whatever was said. `bytes`: of the text that is scored, in UTF-8."""

    ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    bytes: int


class Block(NamedTuple):
    """The tokens `start` to `stop` of a document, by its number: each is asked for the one behind it."""

    document: int
    start: int
    stop: int


def encoded_split(split: Split, preprocess: LanguagePreprocess) -> list[Encoded]:
    """All documents of a split, as the model reads them."""
    documents, tokenizer = documents_of(split), tokenizer_of(preprocess)
    made = []
    for start in range(0, len(documents), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(documents)))
        made += encoded([documents[row] for row in rows], tokenizer, [split.ids[row] for row in rows])
    return made


def encoded(documents: Sequence[Written | Chat], tokenizer: DocumentTokenizer, names: Sequence[str]) -> list[Encoded]:
    """Each of these as tokens; `names`: what they are called in messages. Raises KdcError where of one no token is left
    that counts."""
    texts: list[str] = []
    spans: list[Spans] = []
    counted: Spans
    for document, name in zip(documents, names, strict=True):
        if isinstance(document, Chat):
            text, counted = tokenizer.rendered(document, name)
        else:
            text, counted = document.text, (Span(document.prompt, len(document.text), len(document.text)),)
        texts.append(text)
        spans.append(counted)
    chats = [isinstance(document, Chat) for document in documents]
    read = {kind: iter(_read(texts, chats, kind, tokenizer)) for kind in (False, True)}
    made = []
    for text, counted, chat, name in zip(texts, spans, chats, names, strict=True):
        ids, offsets = next(read[chat])
        made.append(_encoded(text, counted, ids, offsets, tokenizer, chat=chat))
        if not made[-1].scored.any() or not made[-1].bytes:
            raise KdcError(f"{name}: the tokenizer makes no token of what counts in it", "leave it out of the data")
    return made


def _read(
    texts: Sequence[str], chats: Sequence[bool], kind: bool, tokenizer: DocumentTokenizer
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    chosen = [text for text, chat in zip(texts, chats, strict=True) if chat is kind]
    return tokenizer.tokens(chosen, special=kind) if chosen else []


def _encoded(
    text: str, spans: Spans, ids: list[int], offsets: list[tuple[int, int]], tokenizer: DocumentTokenizer, *, chat: bool
) -> Encoded:  # fmt: skip
    """A token that begins before a span and ends in it is the prompt's, and so are the bytes of it there."""
    places = np.array(offsets, np.int64).reshape(-1, 2)
    counts, says, size = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_), 0
    for first, last, said in spans:
        over = places[(places[:, 0] < first) & (places[:, 1] > first), 1]
        counts |= (places[:, 0] >= first) & (places[:, 0] < last)
        says |= (places[:, 0] >= first) & (places[:, 0] < said)
        size += len(text[min(int(over.max()) if len(over) else first, said) : said].encode())
    head = [] if chat and not counts[:1].any() else [tokenizer.start_id]
    tail = [] if chat else [tokenizer.end_id]
    before, behind = np.zeros(len(head), np.bool_), np.ones(len(tail), np.bool_)
    return Encoded(
        np.array([*head, *ids, *tail], np.int32),
        np.concatenate([before, counts, behind]),
        np.concatenate([before, says, ~behind]),
        size,
    )


def blocks_of(samples: Sequence[Encoded], most: int) -> list[Block]:
    """Blocks of at most `most` tokens, in order; without those in which nothing that is asked for counts."""
    return [
        Block(number, start, min(start + most, len(sample.ids) - 1))
        for number, sample in enumerate(samples)
        for start in range(0, len(sample.ids) - 1, most)
        if sample.learned[start + 1 : start + most + 1].any()
    ]
