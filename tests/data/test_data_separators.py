"""Semicolons, tabs and bars in place of commas: found by the header and the rows; refused where both would do."""

from pathlib import Path

import pytest

from compressor.data.separators import separated, separator_of
from compressor.errors import KdcError


def written(folder: Path, text: str) -> Path:
    path = folder / "a.csv"
    path.write_text(text, encoding="utf-8-sig", newline="")
    return path


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("text,label\na; b,x\n", ","),
        ("text;label\r\na, b;x\r\n", ";"),
        ("text\tlabel\na, b; c\tx\n", "\t"),
        ("text|label\na, b|x\n", "|"),
        ('"the text, whole";label\na;x\n', ";"),  # in quotes a sign separates nothing
        ('text,"label;other"\na,x\n', ","),
        ("\n\ntext;label\na;x\n", ";"),
        ("text\na,b\n", ","),  # one column: as CSV has it
        ("", ","),
        # Both signs in the header: the rows tell.
        ("text,label|kind\na,x\nb,y\n", ","),
        ("text;label (a,b)\na, b, c;x\nb;y\n", ";"),
        ('text;label (a,b)\n\'a;x\n"b\nc";y\n', ";"),  # a text of two lines
        # Of a file that is even by neither, its reader says what is wrong, as of commas.
        ("text,label;kind\na,x,y\nb\n", ","),
    ],
)
def test_what_separates(tmp_path: Path, text: str, separator: str) -> None:
    assert separator_of(written(tmp_path, text)) == separator


def test_what_both_would_do_for_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "text,a;label\none,b;x\ntwo,c;y\n")
    with pytest.raises(KdcError, match=r"a.csv may be separated by commas or by semicolons: its header has both"):
        separator_of(path)


def test_it_is_said_where_it_is_no_comma() -> None:
    assert [separated(sign) for sign in ",;\t"] == [
        "", "; columns are separated by semicolons", "; columns are separated by tabs"
    ]  # fmt: skip
