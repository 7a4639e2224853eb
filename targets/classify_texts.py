"""Texts for the example programs: tokenized exactly as the model was trained and evaluated.

classify.py has the one part that depends on the runtime, text_tokens.py makes the tokens.
Standard library, numpy and tokenizers only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_classes import LabelsError, labels_in, likeliest, shown
    from targets.text_tokens import TextError, Tokenizer
else:
    from classify_classes import LabelsError, labels_in, likeliest, shown
    from text_tokens import TextError, Tokenizer

Floats = npt.NDArray[np.float32]
EXIT_USAGE, EXIT_MISSING = 2, 4
LONGEST_FILE = 100_000_000  # bytes of a text


def main(logits_of: Callable[[Path, Any, str], Floats]) -> int:
    """`classify.py TEXT [--top 5]`. `logits_of`: the model's file, its inputs by name and the precision in which it is
    to run -> logits [batch, classes]."""
    parser = argparse.ArgumentParser(description="Says what a text, or a pair of texts, is about.")
    parser.add_argument("text", metavar="TEXT", nargs="+", help="one text; of a pair, both, one after the other")
    parser.add_argument("--file", action="store_true", help="TEXT is a file in UTF-8, and all of it is the text")
    parser.add_argument("--top", type=int, default=5, help="how many classes to name, the likeliest first (5)")
    args = parser.parse_args()
    here = Path(__file__).resolve().parent
    manifest, preprocess = (
        json.loads((here / name).read_text("utf-8")) for name in ("manifest.json", "preprocess.json")
    )
    try:
        labels = labels_in(here / "labels.txt")
        sample = [read_text(Path(text)) if args.file else stated(text) for text in args.text]
        tokenizer = Tokenizer(here / "tokenizer.json", preprocess)
        tokens = tokenizer.encode(sample)
        batch = tokenizer.inputs([tokens] * preprocess["batch"])
        logits = logits_of(here / manifest["model"], batch, manifest["precision"])
        if logits.shape[-1] != len(labels):
            raise LabelsError(f"labels.txt names {len(labels)} classes, the model answers {logits.shape[-1]}")
    except (LabelsError, TextError) as error:
        print(f"classify.py: {shown(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except ImportError as error:
        print(f"classify.py: {manifest['install']} ({error})", file=sys.stderr)
        return EXIT_MISSING
    if tokens.cut:
        read = len(tokens.ids)
        print(f"classify.py: cut: {tokens.whole:,} tokens, of which the model reads {read:,}", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have signs that this terminal has not got
        sys.stdout.reconfigure(errors="backslashreplace")
    for name, share in likeliest(logits[0], labels, args.top):
        print(f"{share:7.2%}  {shown(name)}")
    return 0


def stated(text: str) -> str:
    """A text of the command line. Raises TextError for bytes that are not of the terminal's encoding."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise TextError("the text is not in this terminal's encoding; put it in a file in UTF-8: --file FILE") from None
    return text


def read_text(path: Path) -> str:
    """A file's whole content. Raises TextError."""
    try:
        if not path.is_file():
            raise TextError(f"{path} is no file")
        if path.stat().st_size > LONGEST_FILE:
            raise TextError(f"{path} has more than {LONGEST_FILE:,} bytes")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TextError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8, at byte {error.start}") from error
