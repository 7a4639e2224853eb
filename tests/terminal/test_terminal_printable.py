"""What others wrote is shown so that nothing in it can act, and ordinary writing stays."""

import json

import pytest

from compressor.terminal.printable import in_short, one_line, printable, printable_json, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red\x1b[31m", r"red\x1b[31m"),
        ("a\nkdc: error: b", r"a\nkdc: error: b"),
        ("a\r\tb", r"a\r\tb"),
        ("\x00\x07\x7f", r"\x00\x07\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),  # C1: a terminal takes \x9b for \x1b[
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\u202egpj.exe\u2066\u2069", r"\u202egpj.exe\u2066\u2069"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("\uffff", r"\uffff"),
    ],
)
def test_signs_that_act_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(printable(text)) == shown
    shown.encode("ascii")


@pytest.mark.parametrize(
    "text", ["café", "e\u0301", "数字", "שלום\u200f", "مرحبا", "👩\u200d🔬", "🏴", "–×≤", "a b", "x\\y"]
)
def test_ordinary_writing_stays(text: str) -> None:
    assert printable(text) == printable_lines(text) == printable_json(text) == one_line(text) == text


def test_lines_of_our_own_stay_lines() -> None:
    assert printable_lines("a\n\tb\x1b[2J\r\n") == "a\n\tb\\x1b[2J\\r\n"


def test_json_says_the_same_without_the_signs() -> None:
    value = {"a\x9b": "b\u202e\x7f\u2028\n", "é": ["👩\u200d🔬"]}
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    assert "é" in shown


def test_prose_becomes_one_line() -> None:
    assert one_line("  a\n\n b\tc\x1b[0m ") == r"a b c\x1b[0m"


def test_a_value_in_short_is_short_whatever_it_is() -> None:
    assert in_short({"a": [1, "x"]}) == "{'a': [1, 'x']}"
    assert in_short(10**100_000) == "a number of thousands of digits"
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10**7, list(range(10**6)), deep):
        assert len(in_short(value)) <= 60
    while deep:  # or Python takes it apart in one recursion
        deep = deep.pop()  # type: ignore[assignment]
