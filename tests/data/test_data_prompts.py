"""Prompts: which are asked, and which are not."""

import json
from pathlib import Path

import pytest

from compressor.data.prompts import read_prompts
from compressor.errors import KdcError


def test_each_prompt_once_and_none_of_test(tmp_path: Path) -> None:
    rows = [
        {"prompt": "b", "x": 1},
        {"prompt": "a", "split": "train"},
        {"prompt": "b"},
        {"prompt": "t", "split": "Test"},
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    read = read_prompts(f"jsonl:{path}")
    assert (read.texts, read.repeated, read.test) == (("b", "a"), 1, 1)
    path = tmp_path / "p.csv"
    path.write_text('prompt;split\n"b;c";dev\n"two\nlines";\nt;test\n')
    assert read_prompts(f"csv:{path}").texts == ("b;c", "two\nlines")
    path.write_text("question,prompt\nwhat,x\nwho,y\n")
    assert read_prompts(f"csv:{path}", "question").texts == ("what", "who")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"text": "x"}', "line 1 has no prompt; it has text"),
        ('{"prompt": " "}', "prompt is empty"),
        ('{"prompt": 3}', "prompt is no text"),
        ('{"prompt": "\\ud800"}', "half a character"),
        ('{"prompt": "x", "split": "exam"}', "split is exam"),
        ('{"prompt": "x", "split": "test"}', "holds no prompt to ask, but 1 of the test split"),
        ("{", "line 1 is no JSON"),
        ("", "holds no prompt"),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "p.jsonl").write_text(row)
    with pytest.raises(KdcError) as raised:
        read_prompts(f"jsonl:{tmp_path / 'p.jsonl'}")
    assert said in str(raised.value)


@pytest.mark.parametrize("reference", ["folder:x", "prompts.jsonl", "jsonl", "jsonl:", "jsonl:none.jsonl"])
def test_other_references_are_refused(reference: str) -> None:
    with pytest.raises(KdcError):
        read_prompts(reference)
