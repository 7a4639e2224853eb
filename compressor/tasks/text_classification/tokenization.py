"""Texts -> ids of tokens, by the library `tokenizers` and a tokenizer.json alone.

A tokenizer.json may say that every text is filled up to one length, or where it is cut. Neither is done here: a batch
is only as long as its longest text, and `max_length` is the model's (`TextPreprocess`). What is kept of the file says
neither.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError, first_line, needs
from compressor.files.reading import JSON_BYTES, json_value, read_text
from compressor.install import install_line
from compressor.schema.preprocess import Preprocess, TextPreprocess
from compressor.tasks.text_classification.opening import Texts

__all__ = ["FILE", "Encoded", "TextTokenizer", "kept", "of_texts", "read_tokenizer", "tokenizer_of"]

FILE = "tokenizer.json"
STARTS = ("[CLS]", "<s>", "<cls>")
BATCH = 1024
"""Texts that are handed to the library at once."""


class Encoded(NamedTuple):
    """One sample: `ids`, and which of a pair's texts each token is of, both int64 [tokens]."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]


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


class TextTokenizer:
    """A tokenizer.json; `text`: it, without padding and truncation."""

    def __init__(self, text: str, where: str) -> None:
        values = json_value(text, where)
        model = values.get("model") if isinstance(values, dict) else None
        if not isinstance(model, dict):
            raise KdcError(f"{where} is no tokenizer: it says nothing of a model")
        values["padding"] = values["truncation"] = None
        self.text = json.dumps(values)
        self.sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        self._where, self._model = where, model

    @cached_property
    def _library(self) -> Any:
        tokenizers = needs("tokenizers", install_line("tokenizers"), "text")
        try:
            return tokenizers.Tokenizer.from_str(self.text)
        except Exception as error:  # a bare Exception, whatever is wrong
            raise KdcError(f"{self._where} is no tokenizer that kdc can read: {first_line(error)}") from None

    @cached_property
    def size(self) -> int:
        """Every id is below it."""
        return 1 + max(self.vocabulary.values(), default=0)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id."""
        tokens: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        return tokens

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

    def encode(self, texts: Sequence[Texts], max_length: int | None = None) -> list[Encoded]:
        """Each sample with its special tokens, cut to `max_length` tokens: of a pair the longer text first."""
        library = self._library
        library.no_padding()
        library.no_truncation()  # it keeps what it cuts off, too: of a pair of long texts, in all combinations
        encoded = []
        for start in range(0, len(texts), BATCH):
            batch = [sample if len(sample) > 1 else sample[0] for sample in texts[start : start + BATCH]]
            for row in library.encode_batch(batch):
                tokens = Encoded(np.array(row.ids, np.int64), np.array(row.type_ids, np.int64))
                if max_length is not None and len(tokens.ids) > max_length:
                    kept = kept_tokens(row.sequence_ids, max_length)
                    tokens = Encoded(tokens.ids[kept], tokens.types[kept])
                encoded.append(tokens)
        return encoded


_KNOWN: dict[str, TextTokenizer] = {}
"""By sha256: a `TextPreprocess` names its tokenizer, which was read with the model that it belongs to."""


def kept(tokenizer: TextTokenizer) -> TextTokenizer:
    """`tokenizer`, to be found by its sha256 from now on."""
    return _KNOWN.setdefault(tokenizer.sha256, tokenizer)


def read_tokenizer(folder: Path, source: str) -> TextTokenizer:
    """That in a model's folder; raises KdcError where there is none."""
    file = folder / FILE
    if not file.is_file():
        raise KdcError(
            f"{source} holds no {FILE}, and kdc tokenizes with that alone",
            "AutoTokenizer.from_pretrained(PATH).save_pretrained(PATH) in Python writes it",
        )
    return kept(TextTokenizer(read_text(file, most=JSON_BYTES), str(file)))


def of_texts(preprocess: Preprocess) -> TextPreprocess:
    """As what it is, for who works with texts."""
    assert isinstance(preprocess, TextPreprocess)
    return preprocess


def tokenizer_of(preprocess: TextPreprocess) -> TextTokenizer:
    """The tokenizer that `preprocess` names, which came with a model."""
    return _KNOWN[preprocess.tokenizer]
