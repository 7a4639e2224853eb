"""What of a text classifier's best/ is about texts: the tokenizer, and what it is told. It needs no torch."""

from collections.abc import Mapping
from typing import ClassVar

from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.shipping import Shipping

__all__ = ["SHIPPING", "TextShipping"]


class TextShipping(Shipping):
    """Texts: the tokenizer travels with the model."""

    in_card = "text"
    task_in_card = TextPreprocess.task
    beside: ClassVar[Mapping[str, str]] = {"tokenizer.json": "hf/tokenizer.json"}
    prepared = "`tokenizer.json` and `preprocess.json` say how a text becomes the input"


SHIPPING = TextShipping()
