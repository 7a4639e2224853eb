"""How a text becomes the input of a classifier, and a document that of a language model."""

from typing import Annotated, ClassVar

from pydantic import Field

from compressor.schema.preprocess.base import Preprocess
from compressor.schema.tensors import TensorSpec

__all__ = ["LanguagePreprocess", "TextPreprocess"]


class TextPreprocess(Preprocess):
    """Text, or a pair of texts -> the ids of its tokens, int64 [tokens], of which at most `max_length` are kept,
    special ones included; of a pair the longer text is cut first. A batch is filled up with `pad_id` to its longest
    text, and the mask leaves that out.

    `tokenizer`: sha256 of the tokenizer.json that lies beside the model, without its own padding and truncation.
    `pair`: whether a sample has two texts; null: one or two.
    `vocabulary`: ids are below it. `token_types`: how many kinds of tokens the model tells apart (which of a pair's
    texts they are of); 0: it is not told.
    """

    tokenizer: str
    vocabulary: Annotated[int, Field(ge=1, le=100_000_000)]
    max_length: Annotated[int, Field(ge=4, le=1_000_000)]
    pair: bool | None = None
    token_types: Annotated[int, Field(ge=0, le=1000)] = 0
    pad_id: Annotated[int, Field(ge=0)] = 0

    task: ClassVar[str] = "text-classification"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        shape = ("batch", "tokens")
        types = [TensorSpec("token_type_ids", "int64", shape, self.token_types)] if self.token_types else []
        mask = TensorSpec("attention_mask", "int64", shape, 2, mask=True)
        return (TensorSpec("input_ids", "int64", shape, self.vocabulary), *types, mask)

    @property
    def most_tokens(self) -> int:
        return self.max_length

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(sorted({min(length, self.max_length) for length in (16, 64, 128, 256)}))

    @property
    def described(self) -> str:
        return f"{'pairs of texts' if self.pair else 'texts'} of up to {self.max_length} tokens"


class LanguagePreprocess(Preprocess):
    """A document -> the ids of its tokens, behind the one that starts it (`start_id`) -> blocks of `max_length` tokens,
    each of which is asked for the token that follows: so every token of a document is asked for once. A batch is filled
    up behind, with `pad_id`, and the mask leaves that out.

    `tokenizer`: sha256 of the tokenizer.json that lies beside the model, without its own padding and truncation.
    `vocabulary`: what the model answers at each token, a value an id. `end_id`: the token that ends a document, which
    is learned, too. `chat_template`: sha256 over chat_template.jinja, which makes a document of messages, and the
    tokens that it is told of; null: there is none.
    """

    tokenizer: str
    vocabulary: Annotated[int, Field(ge=1, le=100_000_000)]
    max_length: Annotated[int, Field(ge=4, le=1_000_000)]
    start_id: Annotated[int, Field(ge=0)]
    end_id: Annotated[int, Field(ge=0)]
    pad_id: Annotated[int, Field(ge=0)] = 0
    chat_template: str | None = None

    task: ClassVar[str] = "causal-lm"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        shape = ("batch", "tokens")
        mask = TensorSpec("attention_mask", "int64", shape, 2, mask=True)
        return (TensorSpec("input_ids", "int64", shape, self.vocabulary), mask)

    @property
    def most_tokens(self) -> int:
        return self.max_length

    @property
    def every_token(self) -> int:
        return self.vocabulary

    @property
    def described(self) -> str:
        return f"blocks of {self.max_length} tokens"

    def reads_as(self, other: "LanguagePreprocess") -> str | None:
        """What of the other one's reading differs, so that its tokens are not these; None where nothing does."""
        keys = {
            "tokenizer": "tokenizer",
            "start_id": "first token",
            "end_id": "last token",
            "chat_template": "template",
        }
        return next((word for key, word in keys.items() if getattr(self, key) != getattr(other, key)), None)
