"""What of a text classifier's best/ is about texts: the tokenizer, what it is told, and the example programs. It needs
no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from compressor.data.samples import Split
from compressor.files.atomic import write_atomically
from compressor.runtimes import Example
from compressor.schema.bundle import RawFiles, Variant
from compressor.schema.manifest import TextInput, TextTensor
from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.shipping import Shipping

__all__ = ["SHIPPING", "TextShipping", "text_input"]

TOKENIZER, TEXTS = "tokenizer.json", "eval/texts.json"
SHARED = ("classify_texts.py", "text_tokens.py", "classify_classes.py")


class TextShipping(Shipping):
    """Texts: the tokenizer travels with the model; programs in Python alone."""

    sample = "text"
    in_card = "text"
    task_in_card = TextPreprocess.task
    beside: ClassVar[Mapping[str, str]] = {TOKENIZER: f"hf/{TOKENIZER}"}
    packages: ClassVar[Mapping[str, str]] = {"tokenizers": "Apache-2.0"}
    reads = "classify.py reads a text, or the two of a pair, or with `--file` files in UTF-8; it says where it cuts."
    argument = "TEXT"
    makes, maker = "tokens", "tokenizers"
    in_words = True
    prepared = "`tokenizer.json` and `preprocess.json` say how a text becomes the input, in words too"

    def input_files(self, variant: Variant, batch: int, model: str, cpp: bool) -> dict[str, bytes]:
        assert isinstance(variant.preprocess, TextPreprocess), "the noun checks that its task's class stands there"
        given = text_input(variant.preprocess, batch)
        return {"preprocess.json": (given.model_dump_json(indent=2) + "\n").encode()}

    def programs(self, example: Example) -> dict[str, str]:
        return {name: name for name in SHARED} | {"classify.py": example.texts} if example.texts else {}

    def write_raw(self, split: Split, folder: Path) -> RawFiles:
        samples = [list(split.read(row)) for row in range(len(split))]
        with write_atomically(folder / TEXTS) as temporary:
            temporary.write_text(json.dumps(samples), encoding="utf-8")
        return RawFiles(samples=TEXTS, tokenizer=TOKENIZER)


SHIPPING = TextShipping()


def text_input(preprocess: TextPreprocess, batch: int) -> TextInput:
    """What preprocess.json says, for a model that takes `batch` texts a call."""
    takes = {None: "a text, or a pair of texts", False: "a text", True: "a pair of texts"}[preprocess.pair]
    types = ("token_type_ids: of which text of a pair each token is",) if preprocess.token_types else ()
    return TextInput(
        inputs=tuple(TextTensor(name=spec.name, type="int64", shape=(batch, "tokens")) for spec in preprocess.inputs),
        batch=batch,
        tokenizer=preprocess.tokenizer,
        max_length=preprocess.max_length,
        pair=preprocess.pair,
        token_types=preprocess.token_types,
        pad_id=preprocess.pad_id,
        steps=(
            f"tokenize {takes} with {TOKENIZER}, its special tokens included; nothing is filled up or cut by that file",
            f"of more than {preprocess.max_length} tokens, special ones included, leave out the last of the text, of a "
            "pair those of the longer one first",
            f"in a batch of several, fill up with {preprocess.pad_id} to the longest",
            "attention_mask: 1 for tokens, 0 for what was filled up",
            *types,
        ),
    )
