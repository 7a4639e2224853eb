"""Names that are one line of text: of classes, and of samples. One rule for whatever they are read from.

Labels, reports and example programs write one name a line. So a name holds no control character and nothing that breaks
a line anywhere (`str.splitlines`, Unicode's categories Cc, Zl and Zp), and none of the invisible characters that make
text look like other text: embeddings and overrides of the writing direction (Trojan Source, arXiv 2111.00169) and byte
order marks. What scripts and emoji are made of stays: joiners, variation selectors, tags, right-to-left letters and
marks.

Names are compared in Unicode's form NFC and without blanks around them, which nobody sees: `spelt`.
"""

import re
import unicodedata

__all__ = ["LONGEST", "class_fault", "escaped", "line_fault", "lines_of", "spelt"]

LONGEST = 1000
"""Characters in the name of a class. A longer one is a text that stands in the wrong column."""

_FAULTS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BREAKS = re.compile("[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")
_HALVES = re.compile("[\ud800-\udfff]")
_DECEPTIVE = re.compile("[\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff]")
_SHOWN = 60


def spelt(name: str) -> str:
    """The spelling in which names are compared, and classes are called: NFC, without blanks around."""
    return unicodedata.normalize("NFC", name.strip())


def line_fault(text: str) -> str:
    """Why `text` cannot stand on one line of its own, e.g. "holds a line break (U+000A)", or ""."""
    if not _FAULTS.search(text):
        return ""
    for pattern, fault in (
        (_BREAKS, "a line break"),
        (_CONTROLS, "a control character"),
        (_HALVES, "half a character"),
    ):
        if match := pattern.search(text):
            return f"holds {fault} (U+{ord(match[0]):04X})"
    return ""


def class_fault(name: str) -> str:
    """Why `name` cannot be the name of a class, in words that go on from it, or ""."""
    if fault := line_fault(name):
        return fault
    if match := _DECEPTIVE.search(name):
        return f"holds an invisible character that makes it look like another (U+{ord(match[0]):04X})"
    # Letters, numbers, punctuation, symbols; or what this Python does not know yet, such as an emoji newer than it.
    if not any(unicodedata.category(letter).startswith(("L", "N", "P", "S", "Cn", "Co")) for letter in name):
        return "holds nothing that can be seen"
    if len(name) > LONGEST:
        return f"has {len(name):,} characters; {LONGEST:,} are the most"
    return ""


def escaped(text: str, most: int = _SHOWN) -> str:
    """`text` in quotes and in ASCII, as Python writes it, for messages on what cannot be seen; shortened to `most`."""
    return ascii(text) if len(text) <= most else f"{text[:most]!a}…"


def lines_of(text: str) -> list[str]:
    """The lines of a text file that names one thing a line: only line feeds end them, with or without a carriage
    return. The last one need not be ended."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
