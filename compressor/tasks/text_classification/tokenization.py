"""Texts -> ids of tokens, by the library `tokenizers` and a tokenizer.json alone.

Where a text is cut, `max_length`, is the model's (`TextPreprocess`).
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.models.tokenizers import FILE, Tokenizer, tokenizer_text
from compressor.schema.preprocess import Preprocess, TextPreprocess
from compressor.tasks.text_classification.opening import Texts

__all__ = ["FILE", "Encoded", "TextTokenizer", "kept", "of_texts", "read_tokenizer", "tokenizer_of"]

STARTS = ("[CLS]", "<s>", "<cls>")
BATCH = 1024
"""Texts that are handed to the library at once."""
MASKS = "[MASK]", "<mask>"
BEGINNINGS, GOES_ON = ("\u0120", "\u2581"), "##"
"""What the first token of a word, or all others, begin with: in BPE and in SentencePiece, or in WordPiece."""


class Encoded(NamedTuple):
    """One sample: `ids`, and what the model is told of which of a pair's texts each token is of, both int64 [tokens].
    `text`, int64 [tokens]: 0 or 1, the text that it is of; -1: a special token. `alone`, bool [tokens]: it is a whole
    word."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    text: NDArray[np.int64]
    alone: NDArray[np.bool_]

    def part(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Encoded":
        """Those tokens alone."""
        return Encoded(self.ids[rows], self.types[rows], self.text[rows], self.alone[rows])


def kept_tokens(texts: Sequence[int | None], most: int) -> NDArray[np.int64]:
    """Which tokens of a sample are kept, `most` of them: the special ones, and the first of each text. `texts`: of
    which text each is, None for special ones. Of a pair the longer text is cut first; what cannot be shared out evenly
    is the longer one's (as TruncationStrategy::LongestFirst of tokenizers has it)."""
    of = np.array([2 if text is None else text for text in texts])
    counts = [int((of == number).sum()) for number in (0, 1)]
    room = max(0, most - int((of == 2).sum()))
    longer = int(counts[0] <= counts[1])
    kept = [0, 0]
    kept[1 - longer] = min(counts[1 - longer], room // 2)
    kept[longer] = min(counts[longer], room - kept[1 - longer])
    chosen = [np.flatnonzero(of == number)[: kept[number]] for number in (0, 1)]
    return np.sort(np.concatenate([np.flatnonzero(of == 2), *chosen]))


class TextTokenizer(Tokenizer):
    """A tokenizer.json, for texts with their special tokens."""

    @cached_property
    def special(self) -> frozenset[int]:
        """The ids of tokens that no text is made of: of a beginning, an end, what is unknown."""
        added = self._library.get_added_tokens_decoder()
        unknown = [] if self.unknown is None else [self.unknown]
        return frozenset([*(number for number, token in added.items() if token.special), *unknown])

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens before a text, and those behind it."""
        self._library.no_padding()
        encoded = self._library.encode("a")
        inside = [position for position, added in enumerate(encoded.special_tokens_mask) if not added]
        first, last = (inside[0], inside[-1] + 1) if inside else (len(encoded.ids), len(encoded.ids))
        return encoded.ids[:first], encoded.ids[last:]

    @cached_property
    def unused_start(self) -> str | None:
        """The token that is to begin a text, where the vocabulary has one and it begins none: a post-processor is
        missing."""
        begins = next((token for token in STARTS if token in self.vocabulary), None)
        return None if any(self.around) else begins

    @cached_property
    def unknown(self) -> int | None:
        """The id that stands for what the vocabulary does not have; None where there is none."""
        named = self._model.get("unk_token")
        if isinstance(named, str):
            number: int | None = self._library.token_to_id(named)
            return number
        number = self._model.get("unk_id")
        return number if isinstance(number, int) else None

    @cached_property
    def mask(self) -> int | None:
        """The id of the token that hides another; None where there is none."""
        numbers = (self._library.token_to_id(name) for name in MASKS)
        return next((number for number in numbers if number is not None), None)

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """Of each id what may stand in its place, int64 [size]: 1 for words, and their beginnings, where these are
        marked; 2 for what goes on with a word; 0 for signs, special tokens, and where nothing is."""
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        pieces = self._model.get("type") == "WordPiece"
        marked = not pieces and any(token.startswith(BEGINNINGS) for token in vocabulary)
        kinds = np.zeros(self.size, np.int64)
        for token, number in vocabulary.items():
            plain = token.removeprefix(GOES_ON) if pieces else token.lstrip("".join(BEGINNINGS))
            inside = plain != token if pieces else marked and plain == token
            kinds[number] = (2 if inside else 1) if plain.isalnum() else 0
        kinds[[number for number in self.special if number < self.size]] = 0
        return kinds

    def encode(self, texts: Sequence[Texts], max_length: int | None = None) -> list[Encoded]:
        """Each sample with its special tokens, cut to `max_length` tokens: of a pair the longer text first."""
        library = self._library
        library.no_padding()
        library.no_truncation()  # it keeps what it cuts off, too: of a pair of long texts, in all combinations
        encoded = []
        for start in range(0, len(texts), BATCH):
            batch = [sample if len(sample) > 1 else sample[0] for sample in texts[start : start + BATCH]]
            for row in library.encode_batch(batch):
                ids, text = np.array(row.ids, np.int64), _of_text(row.sequence_ids)
                text[np.isin(ids, [*self.special])] = -1
                tokens = Encoded(ids, np.array(row.type_ids, np.int64), text, _alone(row.word_ids, text))
                if max_length is not None and len(tokens.ids) > max_length:
                    kept = kept_tokens(row.sequence_ids, max_length)
                    tokens = tokens.part(kept)
                encoded.append(tokens)
        return encoded


def _of_text(numbers: Sequence[int | None]) -> NDArray[np.int64]:
    return np.array([-1 if number is None else number for number in numbers], np.int64)


def _alone(words: Sequence[int | None], text: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each token is the only one of its word."""
    numbers = _of_text(words)
    keys = numbers + (text << 32)
    same = np.zeros(len(keys) + 1, np.bool_)
    same[1:-1] = keys[1:] == keys[:-1]
    alone: NDArray[np.bool_] = ~same[1:] & ~same[:-1] & (text >= 0) & (numbers >= 0)
    return alone


_KNOWN: dict[str, TextTokenizer] = {}
"""By sha256: a `TextPreprocess` names its tokenizer, which was read with the model that it belongs to."""


def kept(tokenizer: TextTokenizer) -> TextTokenizer:
    """`tokenizer`, to be found by its sha256 from now on."""
    return _KNOWN.setdefault(tokenizer.sha256, tokenizer)


def read_tokenizer(folder: Path, source: str) -> TextTokenizer:
    """That in a model's folder; raises KdcError where there is none."""
    return kept(TextTokenizer(tokenizer_text(folder, source), str(folder / FILE)))


def of_texts(preprocess: Preprocess) -> TextPreprocess:
    """As what it is, for who works with texts."""
    assert isinstance(preprocess, TextPreprocess)
    return preprocess


def tokenizer_of(preprocess: TextPreprocess) -> TextTokenizer:
    """The tokenizer that `preprocess` names, which came with a model."""
    return _KNOWN[preprocess.tokenizer]
