"""Prompts for a language model, `jsonl:FILE` or `csv:FILE`: what `kdc predict` asks for completions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.data.csv_rows import csv_text, rows_of
from compressor.data.json_lines import json_lines
from compressor.data.labels import listed
from compressor.data.places import present_path
from compressor.data.separators import separator_of
from compressor.data.split_words import SPLIT_NAMES
from compressor.errors import KdcError
from compressor.references import Reference

__all__ = ["PROMPTS", "Prompts", "read_prompts"]

PROMPTS = "jsonl:PATH or csv:PATH"
SPLIT = "split"


@dataclass(frozen=True)
class Prompts:
    """Different ones, in their order. `repeated`: so many more stand in the file; `test`: of the test split, which are
    left out."""

    texts: tuple[str, ...]
    repeated: int
    test: int


def read_prompts(reference: str, column: str | None = None) -> Prompts:
    """The prompts in a file: its column or key `prompt`, or the one that `column` names; where there is a column
    `split`, those of test are left out, whatever they are for.

    Raises KdcError for another reference, a file that cannot be read, and a prompt that is missing or empty.
    """
    parsed = Reference.parse(reference)
    if parsed.scheme not in ("jsonl", "csv") or parsed.rest is None:
        raise KdcError(f"--data {reference!r} is not one of {PROMPTS}", "a prompt a row: --data jsonl:prompts.jsonl")
    path = present_path(parsed.rest, parsed.scheme, folder=False)
    rows = _json_rows(path) if parsed.scheme == "jsonl" else _csv_rows(path)
    name, texts, count, test = column or "prompt", dict[str, None](), 0, 0
    for where, values in rows:
        if name not in values:
            raise KdcError(f"{where} has no {name}; it has {listed(values) or 'nothing'}", "--text-column NAME")
        prompt = values[name]
        if not isinstance(prompt, str) or not prompt.strip():
            raise KdcError(f"{where}: {name} is {'empty' if isinstance(prompt, str) else 'no text'}", "take it out")
        if any("\ud800" <= sign <= "\udfff" for sign in prompt):
            raise KdcError(f"{where}: {name} holds half a character", "take it out")
        if _is_test(values.get(SPLIT), where):
            test += 1
            continue
        count += 1
        texts[prompt] = None
    if not texts:
        raise KdcError(f"{path} holds no prompt to ask{f', but {test} of the test split' if test else ''}")
    return Prompts(tuple(texts), count - len(texts), test)


def _is_test(value: Any, where: str) -> bool:
    if value is None or value == "":
        return False
    split = SPLIT_NAMES.get(str(value).strip().lower())
    if split is None:
        raise KdcError(f"{where}: {SPLIT} is {value!s:.60}, and is to be train, validation or test")
    return split == "test"


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in json_lines(path):
        where = f"{path} line {line.number}"
        if line.values is None:
            raise KdcError(f"{where} is no JSON", "JSON lines: an object a line")
        yield where, line.values


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with csv_text(path) as file:
        lines = rows_of(file, path, separator=separator_of(path))
        header: Sequence[str] = [name.strip() for name in next(lines, (0, []))[1]]
        if twice := [name for name in header if header.count(name) > 1]:
            raise KdcError(f"{path} has two columns named {twice[0]}")
        for number, row in lines:
            yield f"{path} line {number}", dict(zip(header, row, strict=True))
