"""The command line of the example programs that go on with a text.

generate.py has the one part that depends on the runtime. Standard library only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

EXIT_USAGE, EXIT_MISSING = 2, 4


class PromptError(Exception):
    """A prompt that the model cannot go on with."""


def main(generate: Callable[[Path, str, int, Callable[[str], None]], None]) -> int:
    """`generate.py PROMPT [--tokens 40]`. `generate`: the model's folder, the prompt, how many tokens at most, and who
    is told each piece of text as soon as it is there."""
    parser = argparse.ArgumentParser(description="Goes on with a text, a most probable token at a time.")
    parser.add_argument("prompt", metavar="PROMPT", help="the beginning of the text")
    parser.add_argument("--tokens", type=int, default=40, help="how many tokens at most (40)")
    args = parser.parse_args()
    if args.tokens < 1:
        parser.error(f"--tokens {args.tokens}: at least 1")
    here = Path(__file__).resolve().parent
    manifest = json.loads((here / "manifest.json").read_text("utf-8"))
    model = here / manifest["model"]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a text may have signs that this terminal has not got
        sys.stdout.reconfigure(errors="backslashreplace")

    def tell(text: str) -> None:
        print(text, end="", flush=True)

    try:
        require_text(args.prompt)
        generate(model if model.is_dir() else model.parent, args.prompt, args.tokens, tell)
    except PromptError as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ImportError as error:
        print(f"generate.py: {manifest['install']} ({error})", file=sys.stderr)
        return EXIT_MISSING
    print()
    return 0


def require_text(text: str) -> None:
    """Raises PromptError for bytes that are not of the terminal's encoding."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise PromptError("the prompt is not in this terminal's encoding") from None


def require_room(prompt: int, tokens: int, limit: int) -> None:
    """Raises PromptError where prompt and answer are more tokens than the model takes."""
    if prompt + tokens > limit:
        raise PromptError(f"the prompt's {prompt} tokens and --tokens {tokens} are more than the model's {limit}")
