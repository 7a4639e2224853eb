"""Names are one line, whatever they are read from; they are compared in one spelling."""

import sys
import unicodedata

import pytest

from compressor.errors import KdcError
from compressor.names import LONGEST, class_fault, escaped, line_fault, lines_of, spelt
from compressor.schema.base import parse
from compressor.schema.student import DataInfo

EVERY = [chr(number) for number in range(sys.maxunicode + 1)]


def test_whatever_breaks_a_line_or_controls_is_refused() -> None:
    """All that `str.splitlines` splits at, and all of Unicode's control characters, separators and half characters."""
    breaking = {letter for letter in EVERY if len(f"a{letter}b".splitlines()) > 1}
    controls = {letter for letter in EVERY if unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs")}
    assert {letter for letter in EVERY if line_fault(f"a{letter}b")} == breaking | controls
    assert all(line_fault(letter + "a") and line_fault("a" + letter) for letter in breaking | controls)
    assert line_fault("a\nb") == "holds a line break (U+000A)"
    assert line_fault("a\x1b[31mb") == "holds a control character (U+001B)"


@pytest.mark.parametrize(
    "name",
    [
        "\U0001f469\u200d\U0001f52c",  # a woman scientist, with a joiner
        "\u2764\ufe0f",  # a heart, with a variation selector
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England, with tags
        "\u05d7\u05ea\u05d5\u05dc",  # Hebrew
        "\u0642\u0637\u0629 \u200fA",  # Arabic, with a right-to-left mark
        "\u0645\u06cc\u200c\u0634\u0648\u062f",  # Persian, with a non-joiner
        "\u0915\u094d\u200d\u0937",  # Devanagari
        "\u732b", "sea lion", "C++", "a|b", "0.5", "???", "-", "x" * LONGEST,
    ],
)  # fmt: skip
def test_scripts_and_emoji_are_names(name: str) -> None:
    assert class_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("cat\u202egnp", "holds an invisible character that makes it look like another (U+202E)"),
        ("\u2066cat\u2069", "holds an invisible character that makes it look like another (U+2066)"),
        ("\ufeffcat", "holds an invisible character that makes it look like another (U+FEFF)"),
        ("", "holds nothing that can be seen"),
        (" \u00a0 ", "holds nothing that can be seen"),
        ("\u200b\u200d", "holds nothing that can be seen"),
        ("x" * (LONGEST + 1), "has 1,001 characters; 1,000 are the most"),
    ],
)
def test_what_deceives_is_no_name(name: str, fault: str) -> None:
    assert class_fault(name) == fault


def test_names_are_compared_composed_and_without_blanks() -> None:
    assert spelt(" cafe\u0301\u00a0") == spelt("caf\xe9") == "caf\xe9"
    assert spelt("Cat") != spelt("cat")


def test_only_line_feeds_end_lines() -> None:
    assert lines_of("a\r\nb\u2028c\x85d\x0be\nf") == ["a", "b\u2028c\x85d\x0be", "f"]
    assert lines_of("a\n\nb\n") == ["a", "", "b"]
    assert lines_of("") == []


def test_a_fault_is_shown_in_ascii_and_short() -> None:
    assert escaped("a\n\u202e") == r"'a\n\u202e'"
    assert len(escaped("x" * 5000)) < 70


def test_a_noun_with_such_a_name_is_refused() -> None:
    values = {"source": "digits", "fingerprint": "0", "class_names": ["a", "b\nc"], "counts": {}}
    with pytest.raises(KdcError) as raised:
        parse(DataInfo, values, "student.json")
    assert r"student.json: class_names: the class name 'b\nc' holds a line break (U+000A)" in raised.value.message
    assert "\n" not in raised.value.message
