"""Texts -> ids of tokens, as training made them: by the library `tokenizers` and a tokenizer.json alone.

Of the example programs and of the runners. Standard library, numpy and tokenizers only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

INSTALL = "pip install tokenizers"


class TextError(Exception):
    """A text, or the tokenizer, is not what the model takes: one line for people."""


class Tokens(NamedTuple):
    """One sample: `ids`, and which of a pair's texts each token is of; `whole`: how many there were before it was
    cut."""

    ids: Sequence[int]
    types: Sequence[int]
    whole: int

    @property
    def cut(self) -> bool:
        """Whether some of it is left out."""
        return len(self.ids) < self.whole


def kept_tokens(texts: Sequence[int | None], most: int) -> list[int]:
    """Which tokens of a sample are kept, `most` of them: the special ones, and the first of each text. `texts`: of
    which text each is, None for special ones. Of a pair the longer text is cut first; what cannot be shared out evenly
    is the longer one's (as TruncationStrategy::LongestFirst of tokenizers has it)."""
    counts = [sum(text == number for text in texts) for number in (0, 1)]
    room = max(0, most - (len(texts) - sum(counts)))
    longer = int(counts[0] <= counts[1])
    kept = [0, 0]
    kept[1 - longer] = min(counts[1 - longer], room // 2)
    kept[longer] = min(counts[longer], room - kept[1 - longer])
    chosen, seen = [], [0, 0]
    for number, text in enumerate(texts):
        if text is not None:
            seen[text] += 1
        if text is None or seen[text] <= kept[text]:
            chosen.append(number)
    return chosen


class Tokenizer:
    """`path`: a tokenizer.json; `preprocess`: the model's, of which `tokenizer` (sha256 of that file), `max_length`,
    `pad_id`, `pair` and `token_types` count. Raises TextError; ImportError where tokenizers is missing."""

    def __init__(self, path: Path, preprocess: dict[str, Any]) -> None:
        import tokenizers  # here, so that whoever asks can say how to install it

        self.version = str(tokenizers.__version__)
        self._preprocess = preprocess
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TextError(f"cannot read {path.name}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != preprocess["tokenizer"]:
            raise TextError(f"{path.name} is not the one that the model was trained with (its sha256 differs)")
        try:
            self._library = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # a bare Exception, whatever is wrong
            raise TextError(f"tokenizers {self.version} cannot read {path.name}: {error}") from error
        # A tokenizer.json may fill up every text to one length, or cut it elsewhere than training did. The library cuts
        # by making tokens of all that is left out, too: of a pair of long texts, of all combinations.
        self._library.no_padding()
        self._library.no_truncation()

    def encode(self, sample: Sequence[str]) -> Tokens:
        """One text, or a pair of texts, with its special tokens, cut to the model's length: of a pair the longer text
        first. Raises TextError."""
        pair, count = self._preprocess.get("pair"), len(sample)
        if count not in (1, 2) or (pair is not None and count != 1 + pair):
            takes = "one text or two" if pair is None else "two texts" if pair else "one text"
            raise TextError(f"the model takes {takes}, found {count}")
        try:
            row = self._library.encode(sample[0], sample[1] if count == 2 else None)
        except Exception as error:  # text that is no Unicode, as half of a pair of surrogates
            raise TextError(f"this is no text that can be tokenized: {' '.join(str(error).split())[:200]}") from error
        ids, types, most = row.ids, row.type_ids, self._preprocess["max_length"]
        if len(ids) <= most:
            return Tokens(ids, types, len(ids))
        kept = kept_tokens(row.sequence_ids, most)
        return Tokens([ids[number] for number in kept], [types[number] for number in kept], len(ids))

    def inputs(self, samples: Sequence[Tokens], length: int = 0) -> dict[str, Any]:
        """What the model takes, by the names of its inputs, int64 [samples, tokens]: as long as the longest of them, or
        `length`; filled up with `pad_id`, which the mask leaves out."""
        width = max(1, length, *(len(row.ids) for row in samples))
        made = {name: np.zeros((len(samples), width), np.int64) for name in ("input_ids", "attention_mask")}
        if self._preprocess.get("token_types"):
            made["token_type_ids"] = np.zeros((len(samples), width), np.int64)
        made["input_ids"][:] = self._preprocess["pad_id"]
        for row, sample in enumerate(samples):
            count = len(sample.ids)
            made["input_ids"][row, :count] = sample.ids
            made["attention_mask"][row, :count] = 1
            if "token_type_ids" in made:
                made["token_type_ids"][row, :count] = sample.types
        return made
