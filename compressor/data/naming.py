"""What a source lists -> classes whose names can be told apart, and samples whose ids are one line each."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from compressor.data.labels import listed
from compressor.data.samples import Found, Part
from compressor.errors import KdcError
from compressor.names import class_fault, escaped, line_fault, spelt

__all__ = ["refuse_ids", "settled"]

NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?")

GAPS = frozenset({"na", "n/a", "#n/a", "none", "null"})
"""What pandas, R, spreadsheets and databases write where nothing is; each may be the name of a class, too."""

# The spellings of a class, each with where it stands first.
Spellings = Mapping[str, Mapping[str, str]]


def settled(listing: Found, reference: str, sample: str = "image") -> Found:
    """`listing` with the names of its classes as they count everywhere from here on (`names.spelt`), and notes on what
    may not be meant.

    Spellings of one name, such as é in one character and in two, or blanks around it, are one class, and said. Names
    that differ in case, in blanks inside or in what cannot be seen stay different classes, and are said. Raises
    KdcError for a name or an id that is not one line, and for labels that are one whole number in two spellings: "0"
    and "0.0" may be one class, which pandas wrote as a float in one of the files, or two. A file that has nothing but
    "0.0", "1.0", … keeps these as names, with a note: what stands there counts, in every file alike.
    """
    spellings = _spellings(listing, reference)
    for texts in spellings.values():
        for text, where in texts.items():
            if fault := class_fault(text):
                raise KdcError(
                    f"{_line(where)}: the class name {escaped(text)} {fault}", "give the class a name of one plain line"
                )
    _ask_about_numbers(spellings)
    for part in listing.parts.values():
        refuse_ids(part, sample)
    class_names = listing.class_names
    if len(set(class_names)) == len(class_names):  # else it stands twice in a list, which is refused later
        class_names = tuple(dict.fromkeys(spelt(name) for name in class_names))
    parts = {split: _renamed(part) for split, part in listing.parts.items()}
    return replace(listing, class_names=class_names, parts=parts, notes=(*listing.notes, *_notes(spellings)))


def refuse_ids(part: Part, sample: str = "image") -> None:
    """Raise KdcError for a sample whose id is not one line: files list them, one a line."""
    for row, sample_id in enumerate(part.ids):
        if fault := line_fault(sample_id):
            raise KdcError(
                f"{_line(part.where(row))}: the {sample}'s name {escaped(sample_id)} {fault}", "rename the file"
            )


def _line(where: str) -> str:
    """A place as one line: a path may hold the fault that is reported."""
    return where if where.isprintable() else escaped(where, 300).strip("'\"")


def _spellings(listing: Found, reference: str) -> Spellings:
    first: dict[str, str] = {}
    for part in listing.parts.values():
        for row, label in enumerate(part.labels):
            if label not in first:
                first[label] = part.where(row)
    for name in listing.class_names:
        first.setdefault(name, f"{reference}, the list of its classes")
    spellings: dict[str, dict[str, str]] = defaultdict(dict)
    for text, where in first.items():
        spellings[spelt(text)][text] = where
    return spellings


def _renamed(part: Part) -> Part:
    names = {label: spelt(label) for label in set(part.labels)}
    if all(label == name for label, name in names.items()):
        return part
    return replace(part, labels=tuple(names[label] for label in part.labels))


def _ask_about_numbers(spellings: Spellings) -> None:
    for names in _same_numbers(spellings):
        if not _fraction(names[0]):
            shorter, longer = sorted(names, key=lambda name: (len(name), name))[:2]
            places = " and ".join(f"{escaped(name)} ({_line(_first(spellings[name]))})" for name in (shorter, longer))
            raise KdcError(
                f"the labels {places} are the same number: are they one class, or two?",
                f"one: write {shorter} everywhere (in pandas, astype('Int64') keeps whole numbers where labels are "
                "missing); two: name them with letters",
            )


def _same_numbers(names: Iterable[str]) -> list[list[str]]:
    """Names that are the same decimal number in other spellings."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name in names:
        if match := NUMBER.fullmatch(unicodedata.normalize("NFKC", name)):
            # Compared as texts: a label may have more digits than Python converts.
            integer, fraction = match[2].lstrip("0"), (match[3] or "").rstrip("0")
            sign = "-" if match[1] == "-" and (integer or fraction) else ""
            groups[sign, integer, fraction].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _fraction(name: str) -> str:
    match = NUMBER.fullmatch(unicodedata.normalize("NFKC", name))
    return (match[3] or "").rstrip("0") if match else ""


def _first(places: Mapping[str, str]) -> str:
    return next(iter(places.values()))


def _notes(spellings: Spellings) -> list[str]:
    # Without paths: notes stand in reports.
    several = [f"{name} ({' and '.join(map(escaped, texts))})" for name, texts in spellings.items() if len(texts) > 1]
    blanks = [text for texts in spellings.values() if len(texts) == 1 for text in texts if text != text.strip()]
    alike = [" and ".join(map(repr, group)) for group in _alike(spellings)]
    numbers = [" and ".join(group) for group in _same_numbers(spellings)]
    floats = [name for name in spellings if (match := NUMBER.fullmatch(name)) and match[3] and not _fraction(name)]
    gaps = [name for name in spellings if name.casefold() in GAPS]
    told = (
        (several, "spellings that count as one class: {}"),
        (blanks and [*map(escaped, blanks)], "blanks around class names do not count: {}"),
        (alike, "classes that differ only in case, blanks, underscores or what cannot be seen, and stay apart: {}"),
        (numbers, "classes that are the same number, and stay apart: {}"),
        (gaps, "classes called as programs write what is missing: {}; leave such rows out where they have no label"),
        (floats, "labels are whole numbers written as floats, and the classes are called so: {}"),
    )
    return [text.format(listed(names, 3)) for names, text in told if names]


def _alike(names: Iterable[str]) -> list[Sequence[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_skeleton(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _skeleton(name: str) -> str:
    """What people see of a name, roughly: without case, blanks and underscores alike, without formatting characters."""
    if name.isascii():
        return " ".join(name.lower().replace("_", " ").split())
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).replace("_", " ")
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())
