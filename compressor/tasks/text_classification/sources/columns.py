"""Which columns of a table hold the texts and the labels: those that were stated, or else known by their names."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from compressor.data.labels import listed
from compressor.errors import KdcError, did_you_mean
from compressor.schema.student import Columns

__all__ = ["Chosen", "choose", "has_texts", "require_words"]

TEXT_COLUMNS = frozenset(
    {
        *("text", "texts", "sentence", "content", "review", "document", "body", "message", "comment", "tweet"),
        *("utterance", "question", "query", "headline", "title", "description", "abstract", "summary", "post"),
        *("article", "news", "email", "sms", "phrase", "definition", "gloss", "statement", "transcript"),
        *("review_text", "review_body", "text_content", "input_text", "raw_text", "full_text", "sentence_text"),
    }
)
PAIRS = (
    ("sentence1", "sentence2"), ("question1", "question2"), ("premise", "hypothesis"), ("text_a", "text_b"),
    ("text1", "text2"), ("text_1", "text_2"), ("sentence_a", "sentence_b"), ("question", "sentence"),
    ("query", "passage"), ("question", "passage"),
)  # fmt: skip
LABEL_COLUMNS = frozenset(
    {
        *("label", "labels", "class", "class_name", "class name", "label_name", "target", "category", "sentiment"),
        *("intent", "topic", "genre", "class index", "class_index", "rating", "stars"),
    }
)
NO_TEXT = frozenset({"id", "idx", "index", "uid", "guid", "uuid", "", "unnamed: 0", "row", "no", "number", "split"})
"""Columns that number samples, or say where they belong."""
NUMBER = re.compile(r"[+-]?[\d.,' ]*\d[\d.,' ]*(e[+-]?\d+)?%?|nan", re.IGNORECASE)
"""As people and programs of any country write one."""


@dataclass(frozen=True)
class Chosen:
    """`text`: one column, or the two of a pair; `label`, None where none is read. As the table spells them."""

    text: tuple[str, ...]
    label: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the label last."""
        return self.text if self.label is None else (*self.text, self.label)

    @property
    def note(self) -> str:
        kind = "column" if len(self.text) == 1 else "columns"
        labels = f", labels from column {self.label}" if self.label is not None else ""
        return f"texts from {kind} {' and '.join(self.text)}{labels}"


def choose(
    columns: Sequence[str], asked: Columns, where: object, numeric: Collection[str] = (), *, labelled: bool = True
) -> Chosen:
    """The columns that count; raises KdcError where they are not there, or where several may be meant. `numeric`: those
    that hold no texts, by their type. Where they are not to be `labelled`, a column of labels is passed over."""
    if not labelled:
        return _without_label(columns, asked, where, numeric)
    label = _label(columns, asked, where)
    if asked.text:
        text = tuple(_stated(name, "--text-column", columns, where) for name in asked.text)
        if len(set(text)) < len(text):
            raise KdcError(f"--text-column {text[0]} is given twice", "a pair has two columns")
        if label in text:
            raise KdcError(f"{where}: column {label} cannot be both the text and the label", "--label-column NAME")
        return Chosen(text, label)
    return Chosen(_text(columns, label, where, numeric), label)


def _without_label(columns: Sequence[str], asked: Columns, where: object, numeric: Collection[str]) -> Chosen:
    """Columns that were stated for the labelled data count where they are here too."""
    stated = [name for name in asked.text if _plain(name) in map(_plain, columns)]
    if asked.text and len(stated) == len(asked.text):
        return Chosen(tuple(_stated(name, "--text-column", columns, where) for name in stated), None)
    labels = {*LABEL_COLUMNS, *([_plain(asked.label)] if asked.label is not None else [])}
    left = [name for name in columns if _plain(name) not in labels]
    return Chosen(_text(left, None, where, numeric), None)


def has_texts(columns: Sequence[str], asked: Columns) -> str:
    """As which column a table seems to hold texts, going by names alone; "" where none does."""
    names = [name for name in columns if _plain(name) in TEXT_COLUMNS] or [*asked.text]
    pair = next((pair for pair in PAIRS if {*pair} <= {*map(_plain, columns)}), ())
    return ", ".join(names or pair)


def require_words(cells: Iterable[object], name: str, asked: Columns, where: object) -> None:
    """Raise KdcError for a column that was taken for texts and holds nothing but numbers, unless it was stated."""
    seen = [cell for cell in cells if cell is not None and str(cell).strip()]
    if seen and not asked.text and all(map(_is_number, seen)):
        raise KdcError(
            f"{where}: column {name}, which would be the text, holds only numbers, as {str(seen[0]).strip():.20}",
            f"name the column that holds the texts, --text-column NAME; or insist: --text-column {name}",
        )


def _is_number(cell: object) -> bool:
    return NUMBER.fullmatch(str(cell).strip()) is not None


def _label(columns: Sequence[str], asked: Columns, where: object) -> str:
    if asked.label is not None:
        return _stated(asked.label, "--label-column", columns, where)
    taken = {*map(_plain, asked.text)}
    names = [name for name in columns if _plain(name) in LABEL_COLUMNS and _plain(name) not in taken]
    if len(names) == 1:
        return names[0]
    if names:
        raise KdcError(f"{where} has several columns that may hold the label: {listed(names)}", "--label-column NAME")
    raise KdcError(
        f"{where} has no column that is known to hold the label (label, class, category, …); its columns: "
        f"{listed(columns) or 'none'}",
        "--label-column NAME; a file without labels is no split: move it away",
    )


def _text(
    columns: Sequence[str], label: str | None, where: object, numeric: Collection[str]
) -> tuple[str, ...]:  # fmt: skip
    left = [name for name in columns if name != label]
    names = [name for name in left if _plain(name) in TEXT_COLUMNS]
    plain = {_plain(name): name for name in left}
    pairs = [pair for pair in PAIRS if {*pair} <= {*plain}]
    for pair in pairs:
        if {*map(_plain, names)} <= {*pair}:
            return tuple(plain[name] for name in pair)
    if pairs and names:  # a text and a pair: both may be meant
        beside = [name for name in names if _plain(name) not in pairs[0]]
        first, second = (plain[name] for name in pairs[0])
        raise KdcError(
            f"{where} has several columns that may hold the text: {listed(beside)}, and the pair {first} and {second}",
            f"--text-column {beside[0]}; or the pair: --text-column {first} --text-column {second}",
        )
    if names and len({*names}) < len(names):
        raise KdcError(f"{where} has several columns {names[0]}", "keep one of them")
    if not names:  # the only one that may be it
        others = [name for name in left if _plain(name) not in NO_TEXT and name not in numeric]
        names = others if len(others) == 1 else []
    if len(names) == 1:
        return (names[0],)
    if names:
        raise KdcError(
            f"{where} has several columns that may hold the text: {listed(names)}",
            f"--text-column {names[0]}; of a pair, both: --text-column {names[0]} --text-column {names[1]}",
        )
    raise KdcError(
        f"{where} has no column that is known to hold texts (text, sentence, content, review, …); its columns: "
        f"{listed(columns) or 'none'}",
        "--text-column NAME",
    )


def _stated(name: str, option: str, columns: Sequence[str], where: object) -> str:
    same = [column for column in columns if column == name] or [
        column for column in columns if _plain(column) == _plain(name)
    ]
    if len(same) == 1:
        return same[0]
    if same:
        raise KdcError(f"{where} has several columns {name}: {listed(same)}", "keep one of them")
    near = did_you_mean(name, columns)
    raise KdcError(f"{where} has no column {name} ({option}){near}; its columns: {listed(columns) or 'none'}")


def _plain(name: str) -> str:
    return name.strip().lower()
