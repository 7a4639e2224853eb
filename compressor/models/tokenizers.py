"""A tokenizer.json, read by the library `tokenizers` alone.

It may say that every text is filled up to one length, or where it is cut. Neither is done here: a batch is only as long
as its longest sample, and what is cut is the task's to say. What is kept of the file says neither.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, first_line, needs
from compressor.files.reading import JSON_BYTES, json_value, read_text
from compressor.install import install_line

__all__ = ["FILE", "Tokenizer", "tokenizer_text"]

FILE = "tokenizer.json"


class Tokenizer:
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

    def decoded(self, ids: Sequence[int]) -> str:
        """What tokens say, without the special ones."""
        text: str = self._library.decode([*ids], skip_special_tokens=True)
        return text

    @cached_property
    def size(self) -> int:
        """Every id is below it."""
        return 1 + max(self.vocabulary.values(), default=0)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id."""
        tokens: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        return tokens


def tokenizer_text(folder: Path, source: str) -> str:
    """What the file in a model's folder says; raises KdcError where there is none."""
    file = folder / FILE
    if not file.is_file():
        raise KdcError(
            f"{source} holds no {FILE}, and kdc tokenizes with that alone",
            "AutoTokenizer.from_pretrained(PATH).save_pretrained(PATH) in Python writes it",
        )
    return read_text(file, most=JSON_BYTES)
