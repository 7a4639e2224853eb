"""What a builder of language models is, and how its tokenizer is compared with the model's."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, first_line, needs
from compressor.install import install_line

__all__ = ["SAMPLES", "LanguageArtefact", "LanguageBuilder", "config_of", "require_tokens", "write_json"]

SAMPLES = (
    "",
    " ",
    "In the beginning God created the heaven and the earth.",
    "don't  stop\tat 3.14159, or 2026-11-30!\n\n",
    "naïve Ünïcode: ß, Ωμέγα, Москва, 東京, עברית",
    "👍🏽 👩\u200d👩\u200d👧 🇩🇪",
    "def f(x):\n    return x**2  # ½\r\n",
    "  indented\u00a0and\u200bjoined",
)
"""What a runtime's tokenizer has to read as the model's does: nothing, blanks, letters beyond ASCII, emoji, code."""


@dataclass(frozen=True)
class LanguageArtefact:
    """`folder`: all of its files ship; `made`: how, in one line; `weight_bytes`: bytes of its weights by type."""

    folder: Path
    made: str
    weight_bytes: dict[str, int]


@dataclass(frozen=True)
class LanguageBuilder:
    """How a runtime's folders are made, and what is in them.

    `convert`: (folder of transformers, precision, empty folder) -> how it was made. `constants`: (type, bytes) of each
    constant of a folder's model, types as numpy names them, weights that are packed as "int4" or "int8". `limit`: the
    most tokens that it takes. `encoder`: the runtime's own tokenizer, without the token that starts a document.
    """

    convert: Callable[[Path, str, Path], str]
    constants: Callable[[Path], Iterable[tuple[str, int]]]
    limit: Callable[[Path], int]
    encoder: Callable[[Path], Callable[[str], list[int]]]


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """What config.json, or another such file, says. Its `bos_token_id` is the token that starts a document."""
    values: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return values


def write_json(path: Path, values: Any) -> None:
    """Write `values` to a file in a folder that is still being made."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def require_tokens(model_folder: Path, encode: Callable[[str], list[int]], runtime: str) -> None:
    """Raises KdcError where the runtime's tokenizer reads a text of SAMPLES as other tokens than tokenizer.json says:
    then the model would be asked in words that it was never taught."""
    library = needs("tokenizers", install_line("tokenizers"), "text")
    theirs = library.Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    for text in SAMPLES:
        expected = theirs.encode(text, add_special_tokens=False).ids
        try:
            given = encode(text)
        except RuntimeError as error:
            raise KdcError(f"{runtime} cannot read {text!r} with this model's tokenizer: {first_line(error)}") from None
        if given != expected:
            raise KdcError(
                f"{runtime} reads {text!r} as other tokens than the model's tokenizer: {given[:8]}, expected "
                f"{expected[:8]}",
                "this tokenizer is not one that the runtime knows: take another runtime",
            )
