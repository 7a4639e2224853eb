"""A table of a teacher's answers, `outputs:FILE`: made by `kdc predict`, or by hand for a teacher that cannot run here.

One row a sample; column `id` names it as the data does, `split` may be there and is not read. kdc writes `content` too,
which says what the image showed that was answered, and `seen`: whether the teacher was trained on it. By `content` an
answer finds its image under another name, and none that was put in the place of the old one. By hand `model`, `licence`
and `terms` can say whose answers they are (`data.table_ancestors`). Besides, one of:

    label                                                  the class alone
    class_1 … class_k, probability_1 … probability_k       the k most probable; `probability_rest` may be there
    one column a class, named after it                     probabilities of all
    probability:NAME, log_probability:NAME or logit:NAME   the same with the meaning said, for every class

and `log_probability_1` … likewise. kdc writes log-probabilities (natural logarithm), so that any temperature can be
applied to them later. Classes are matched by name, never by position.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data.labels import listed
from compressor.data.prediction_files import RawTable, read_table
from compressor.data.samples import Split
from compressor.data.table_ancestors import PROVENANCE, ancestors_in
from compressor.errors import KdcError, did_you_mean
from compressor.names import escaped, spelt
from compressor.schema.predictions import Kind, OutputsInfo
from compressor.schema.provenance import Ancestor

__all__ = ["NOTHING", "AnswerTable", "read_outputs"]

NOTHING = -60000.0
"""The logarithm of a probability of 0: finite, and still 0 at any sensible temperature."""

TOLERANCE = 1e-3
"""How far probabilities may be from a sum of 1: they may be rounded."""

LEAST_REST = 1e-6
"""What of the mass is left for the classes outside the top k, where the file does not say it and it is less, is none:
float32 could not tell it from rounding."""

BESIDE = ("content", "seen", *PROVENANCE)
"""Columns of kdc's own tables. In one that was made by hand they may be classes."""

PREFIXES = ("probability", "log_probability", "logit")
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Values:
    """`encoded`: as AnswerTable keeps it; `raw`: the numbers as the file has them, of which `meaning` says what they
    are. A logarithm may have other last digits on another machine, so what identifies a table is `raw`."""

    kind: Kind
    top_k: int | None
    encoded: Floats
    raw: Floats
    meaning: str


@dataclass(frozen=True, eq=False)
class AnswerTable:
    """Checked answers. `rows`: sample id -> row of `encoded`, float32 [N, C] of logits or log-probabilities, or with
    `top_k` [N, 2k + 1]: class numbers, log-probabilities, log of the mass of all other classes (as
    `distill.answer_codec` keeps them). `zero`: the id of a sample whose answer has a probability of 0, if one has.
    `contents`: what is shown (`Split.contents`) -> id, where the table says it; `seen`: the ids of what its teacher was
    trained on, where that is known; `ancestors`: whose answers they are."""

    kind: Kind
    top_k: int | None
    rows: Mapping[str, int]
    encoded: Floats
    zero: str | None
    info: OutputsInfo | None
    sha256: str
    contents: Mapping[int, str] | None = None
    seen: frozenset[str] | None = None
    ancestors: tuple[Ancestor, ...] = ()

    def named(self, split: Split) -> list[str | None]:
        """The id under which the table answers each sample of a split, None where it has no answer: by what the image
        shows, where the table says so, else by the sample's own id."""
        if self.contents is not None:
            return [self.contents.get(content) for content in split.contents.tolist()]
        return [name if name in self.rows else None for name in split.ids]

    def of(self, ids: Sequence[str]) -> Floats:
        """The rows of `encoded` with these ids (see `named`), in their order. All of them must be there."""
        answers: Floats = self.encoded[[self.rows[name] for name in ids]]
        return answers

    def top1(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The most probable class of each of these samples, [N]: with `top_k` of those that are named, whatever an even
        share of the rest would come to. The first of equals."""
        rows, k = self.of(ids), self.top_k
        best = (rows if k is None else rows[:, k : 2 * k]).argmax(axis=1)
        classes = best if k is None else rows[np.arange(len(rows)), best]
        return np.asarray(classes, np.int64)


def read_outputs(path: Path, class_names: Sequence[str]) -> AnswerTable:
    """The answers in the file `path` for these classes, in their order.

    The mass outside the top k is taken from `probability_rest`, or is what is missing to 1; it is spread evenly over
    the other classes. A bare label is a probability of 1. Raises KdcError, naming file and row, for an id that is
    missing or stands twice, a class that is unknown or missing, a probability that is negative or no number, and for
    probabilities that do not sum to 1 within 0.001.
    """
    table = read_table(path)
    if "id" not in table.columns:
        raise KdcError(f"{path} has no column id; its columns: {listed(table.columns)}", "id names the sample")
    rows: dict[str, int] = {}
    for row, name in enumerate(table.texts("id")):
        if name in rows:
            raise KdcError(f"{table.where(row)}: the id {name} stands twice, first in {table.where(rows[name])}")
        rows[name] = row
    extras = {name for name in BESIDE if name in table.columns and (table.info is not None or name not in class_names)}
    contents = _contents(table, list(rows)) if "content" in extras else None
    seen = _seen(table, list(rows)) if "seen" in extras else None
    columns = [name for name in table.columns if name not in ("id", "split", *extras)]
    values = _values(table, columns, class_names, path)
    zeros = np.flatnonzero((values.encoded <= NOTHING).any(axis=1))
    zero = list(rows)[zeros[0]] if len(zeros) else None
    digest = _sha256(values, class_names, rows, contents)
    ancestors = ancestors_in(table, f"outputs:{path}")
    return AnswerTable(
        values.kind, values.top_k, rows, values.encoded, zero, table.info, digest, contents, seen, ancestors
    )


def _contents(table: RawTable, ids: Sequence[str]) -> dict[int, str]:
    ids_by_content: dict[int, str] = {}
    for row, text in enumerate(table.texts("content")):
        if not re.fullmatch(r"[0-9a-f]{16}", text):
            raise KdcError(
                f"{table.where(row)}: column content holds {text!r}, not the 16 hexadecimal digits of kdc predict",
                "leave the column out, and rows are matched by id",
            )
        ids_by_content.setdefault(int(text, 16), ids[row])
    return ids_by_content


def _seen(table: RawTable, ids: Sequence[str]) -> frozenset[str]:
    texts = table.texts("seen")
    for row, text in enumerate(texts):
        if text not in ("yes", "no"):
            raise KdcError(f"{table.where(row)}: column seen holds {text!r}; expected yes or no")
    return frozenset(name for name, text in zip(ids, texts, strict=True) if text == "yes")


def _values(table: RawTable, columns: list[str], class_names: Sequence[str], path: Path) -> _Values:
    if columns == ["label"]:
        numbers = _classes(table, "label", class_names)
        encoded = np.stack([numbers, np.zeros_like(numbers), np.full_like(numbers, NOTHING)], axis=1)
        return _Values("labels", 1, encoded, numbers[:, None], "label")
    if "class_1" in columns and {"probability_1", "log_probability_1"} & set(columns):
        return _top(table, columns, class_names, path)
    return _every(table, columns, class_names, path)


def _every(table: RawTable, columns: list[str], class_names: Sequence[str], path: Path) -> _Values:
    """One column a class."""
    said = [name for name in PREFIXES if any(column.startswith(f"{name}:") for column in columns)]
    if len(said) > 1:
        raise KdcError(f"{path} has columns {said[0]}:… and {said[1]}:…", "keep one of them")
    prefix = f"{said[0]}:" if said else ""
    wanted = [prefix + name for name in class_names]
    column_of, known = _column_of(columns, prefix, path), set(wanted)
    missing = [name for name in wanted if name not in column_of]
    foreign = [column for name, column in column_of.items() if name not in known]
    if foreign:
        near = did_you_mean(foreign[0], missing) or f"; the classes of the data: {listed(class_names)}"
        raise KdcError(
            f"{path}: column {foreign[0]} is no class of the data{near}",
            "beside id and split: label; or class_1, probability_1, …; or one column a class",
        )
    if missing:
        raise KdcError(f"{path} has no column for {len(missing)} classes of the data: {listed(missing)}")
    values = np.empty((table.rows, len(wanted)), np.float32)
    for number, name in enumerate(wanted):
        values[:, number] = table.numbers(column_of[name])
    if said == ["logit"]:
        _refuse(table, ~np.isfinite(values), wanted, values, "which is no finite number")
        return _Values("logits", None, values, values, "logit")
    log = said == ["log_probability"]
    logs, chances = _log_probabilities(table, values, wanted, log=log)
    _sum_to_one(table, chances)
    return _Values("probabilities", None, logs, values, "log_probability" if log else "probability")


def _column_of(columns: Sequence[str], prefix: str, path: Path) -> dict[str, str]:
    """For each column of a class, in the spelling in which classes are called: how the file spells it."""
    column_by_name: dict[str, str] = {}
    for column in columns:
        name = prefix + spelt(column.removeprefix(prefix)) if column.startswith(prefix) else column
        if name in column_by_name:
            both = f"{escaped(column_by_name[name])} and {escaped(column)}"
            raise KdcError(f"{path} has two columns for one class: {both}", "keep one of them")
        column_by_name[name] = column
    return column_by_name


def _top(table: RawTable, columns: list[str], class_names: Sequence[str], path: Path) -> _Values:
    """`class_1`, `probability_1`, …"""
    log = "log_probability_1" in columns
    value = "log_probability" if log else "probability"
    k = sum(re.fullmatch(r"class_\d+", column) is not None for column in columns)
    names, values = ([f"{prefix}_{number}" for number in range(1, k + 1)] for prefix in ("class", value))
    foreign = set(columns) - {*names, *values, f"{value}_rest"}
    there = set(columns)
    missing = [name for name in (*names, *values) if name not in there]
    if foreign or missing:
        wrong = f"lacks {missing[0]}" if missing else f"has a column {sorted(foreign)[0]} too"
        raise KdcError(f"{path} holds the top {k}, and {wrong}", f"class_1 … class_k and {value}_1 … {value}_k")
    if k > len(class_names):
        raise KdcError(f"{path} holds the top {k} of {len(class_names)} classes")
    numbers = np.stack([_classes(table, name, class_names) for name in names], axis=1)
    ordered = np.sort(numbers, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(twice):
        raise KdcError(f"{table.where(int(twice[0]))}: the same class stands twice among the top {k}")
    raw = np.stack([table.numbers(name) for name in values], axis=1)
    top, chances = _log_probabilities(table, raw, values, log=log)
    if f"{value}_rest" in columns:
        said = table.numbers(f"{value}_rest")[:, None]
        rest, mass = _log_probabilities(table, said, [f"{value}_rest"], log=log)
        raw = np.concatenate([raw, said], axis=1)
        _sum_to_one(table, np.concatenate([chances, mass], axis=1))
    else:
        _sum_to_one(table, chances, at_most=k < len(class_names))
        left = 1 - chances.sum(axis=1, dtype=np.float64)
        rest = _log(np.where(left < LEAST_REST, 0.0, left).astype(np.float32))[:, None]
    raw = np.concatenate([numbers, raw], axis=1)
    if k == len(class_names):
        every = np.empty((table.rows, k), np.float32)
        np.put_along_axis(every, numbers.astype(np.int64), top, axis=1)
        return _Values("probabilities", None, every, raw, value)
    return _Values("top-k", k, np.concatenate([numbers, top, rest], axis=1), raw, value)


def _classes(table: RawTable, column: str, class_names: Sequence[str]) -> Floats:
    """The numbers of the classes that a column names, as float32 (exact up to 2^24)."""
    index = {name: number for number, name in enumerate(class_names)}
    numbers = np.empty(table.rows, np.float32)
    for row, name in enumerate(map(spelt, table.texts(column))):
        if name not in index:
            near = did_you_mean(name, class_names) or f"; the classes of the data: {listed(class_names)}"
            raise KdcError(f"{table.where(row)}: {column} {name!r} is no class of the data{near}")
        numbers[row] = index[name]
    return numbers


def _log_probabilities(table: RawTable, values: Floats, columns: Sequence[str], *, log: bool) -> tuple[Floats, Floats]:
    """Of probabilities, or of their logarithms: the logarithms, and the probabilities."""
    if log:
        _refuse(table, np.isnan(values) | (values > TOLERANCE), columns, values, "which is no log-probability")
        return np.maximum(values, np.float32(NOTHING)), np.exp(values)
    _refuse(table, ~np.isfinite(values) | (values < 0), columns, values, "which is no probability")
    return _log(values), values


def _log(values: Floats) -> Floats:
    logs = np.full_like(values, NOTHING)
    np.log(values, out=logs, where=values > 0)
    return logs


def _refuse(table: RawTable, bad: NDArray[np.bool_], columns: Sequence[str], values: Floats, why: str) -> None:
    places = np.argwhere(bad)
    if len(places):
        row, column = places[0].tolist()
        raise KdcError(f"{table.where(row)}: column {columns[column]} holds {values[row, column]:g}, {why}")


def _sum_to_one(table: RawTable, chances: Floats, *, at_most: bool = False) -> None:
    sums = chances.sum(axis=1, dtype=np.float64)
    wrong = np.flatnonzero((sums > 1 + TOLERANCE) | ((sums < 1 - TOLERANCE) & (not at_most)))
    if len(wrong):
        limit = "more than 1" if at_most else "not to 1"
        raise KdcError(
            f"{table.where(int(wrong[0]))}: the probabilities sum to {sums[wrong[0]]:.4g}, {limit}",
            "name columns logit:NAME or log_probability:NAME where they hold such values" if not at_most else "",
        )


def _sha256(
    values: _Values, class_names: Sequence[str], rows: Mapping[str, int], contents: Mapping[int, str] | None
) -> str:
    """Over what the table says, whatever file and order it stands in."""
    digest = hashlib.sha256(json.dumps([values.kind, values.meaning, list(class_names)]).encode())
    digest.update(json.dumps(sorted((contents or {}).items())).encode())
    for name in sorted(rows):
        digest.update(json.dumps(name).encode() + np.ascontiguousarray(values.raw[rows[name]], "<f4").tobytes())
    return digest.hexdigest()
