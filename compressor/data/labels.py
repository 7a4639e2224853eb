"""Labels as they stand in files -> class names, one a sample. From here on classes go by name, never by number."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from compressor.errors import KdcError
from compressor.names import spelt

__all__ = ["class_order", "label_texts", "listed", "missing_label"]


MISSING = ("", "nan", "<na>")  # as pandas writes what is not there
NEGATIVE = re.compile(r"-\d+(\.0*)?")


def label_texts(
    values: Iterable[object], where: Callable[[int], str], names: Sequence[str] | None = None, *, gaps: bool = False
) -> tuple[str, ...]:
    """Each label as the name of its class. Integers index `names` where the file has them, else "3" is the class 3.

    Texts come as they stand: what is wrong with them as names, and which are one, is found for all sources alike
    (`naming.settled`). Raises KdcError for a label that is missing, negative, or neither text nor a whole number. With
    `gaps`, one that is missing is "", which no class is called.
    """
    return tuple(
        "" if gaps and _is_missing(value) else _text(value, row, where, names) for row, value in enumerate(values)
    )


def missing_label(where: str) -> KdcError:
    """What is said of a sample without a label."""
    return KdcError(f"{where}: the label is missing", "give every sample a label, or leave the row out")


def _is_missing(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and spelt(value).lower() in MISSING)


def _text(value: object, row: int, where: Callable[[int], str], names: Sequence[str] | None) -> str:
    if _is_missing(value):
        raise missing_label(where(row))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        raise KdcError(
            f"{where(row)}: label {value} is neither text nor a whole number",
            "as pandas writes numbers where some are missing; whole ones again: astype('Int64')",
        )
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)):
        raise KdcError(
            f"{where(row)}: label {value!r} is neither text nor a whole number",
            "write what it is called, as text; in pandas: astype(str)",
        )
    if isinstance(value, str):
        if NEGATIVE.fullmatch(spelt(value)):
            raise _negative(spelt(value), row, where)
        return value
    if value < 0:
        raise _negative(value, row, where)
    if names is None:
        return str(value)
    if value >= len(names):
        raise KdcError(f"{where(row)}: label {value} is outside the classes; {len(names)} are named: {listed(names)}")
    return names[int(value)]


def _negative(value: object, row: int, where: Callable[[int], str]) -> KdcError:
    return KdcError(
        f"{where(row)}: label {value} is negative, which usually marks a sample without a label",
        "leave out the rows or the split that have no labels",
    )


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """The class names among `labels`: by value if all are whole numbers (2 before 10), else in alphabetical order."""
    names = sorted(set(labels), key=lambda name: (spelt(name), name))
    if all(spelt(name).isdecimal() for name in names):
        # Compared by length first, since a label may have more digits than Python converts.
        digits = {name: unicodedata.normalize("NFKC", spelt(name)).lstrip("0") for name in names}
        return tuple(sorted(names, key=lambda name: (len(digits[name]), digits[name])))
    return tuple(names)


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names for a message: the first few, each with its first 80 characters, and how many more."""
    every = [name if len(name) <= 80 else f"{name[:79]}…" for name in names]
    suffix = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + suffix
