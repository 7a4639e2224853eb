"""Tables of completions: read within bounds, appended to a row at a time, mended after a kill."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from compressor.data.completion_files import ancestors_of, growing, read_completions
from compressor.data.json_lines import MOST_LINE
from compressor.errors import KdcError
from compressor.schema.completions import Completion
from compressor.schema.provenance import Ancestor

ROWS: list[dict[str, Any]] = [
    {"prompt": "What is a marmot?", "completion": "A large ground squirrel.", "model": "text-davinci-003",
     "licence": "CC-BY-NC-4.0", "terms": "no competing models"},
    {"prompt": "And a zebra? 🦓\n", "completion": "", "sample": 1, "tokens": ["a", "b"], "logprobs": [-1.0, -2.0]},
]  # fmt: skip


def table(path: Path, *rows: Any, end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(row) if isinstance(row, dict) else row for row in rows) + end)
    return path


def test_what_is_not_said_is_unknown(tmp_path: Path) -> None:
    read = read_completions(table(tmp_path / "a.jsonl", *ROWS))
    first, second = read.rows
    assert (first.model, first.licence, first.terms) == ("text-davinci-003", "CC-BY-NC-4.0", "no competing models")
    assert (second.model, second.licence, second.terms, second.completion) == ("unknown", "unknown", "unknown", "")
    assert (first.log_likelihood, second.log_likelihood) == (None, -1.5)
    assert ancestors_of(read.rows, "outputs:a.jsonl") == (
        Ancestor(
            source="outputs:a.jsonl", model="text-davinci-003", licence="CC-BY-NC-4.0", terms="no competing models"
        ),
        Ancestor(source="outputs:a.jsonl"),
    )


def test_the_order_and_the_place_of_rows_mean_nothing(tmp_path: Path) -> None:
    one = read_completions(table(tmp_path / "a.jsonl", *ROWS))
    other = read_completions(table(tmp_path / "b.jsonl", ROWS[1], "", ROWS[0], end=""))
    assert one.sha256 == other.sha256
    lines = sorted(row.model_dump_json() for row in one.rows)
    assert one.sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    changed = read_completions(table(tmp_path / "c.jsonl", ROWS[0], ROWS[1] | {"completion": "x"}))
    assert changed.sha256 != one.sha256


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("[1]", "line 2 is no JSON object"),
        ("{", "line 2 is damaged: not JSON"),
        ("[" * 100_000, "nested deeper"),
        ({"completion": "x"}, "line 2: key prompt is missing"),
        ({"prompt": "x"}, "line 2: key completion is missing"),
        ({"prompt": "", "completion": "x"}, "line 2: prompt: "),
        ({"prompt": "x", "completion": "y", "license": "MIT"}, "unknown key license; did you mean licence?"),
        ({"prompt": "x", "completion": "y", "licence": "MIT\nGPL"}, "holds a line break"),
        ({"prompt": "x", "completion": "y", "model": ""}, "line 2: model: "),
        ({"prompt": "x", "completion": "\ud800"}, "line 2: completion: should be a valid string"),
        ({"prompt": "x", "completion": 3}, "line 2: completion: "),
        ({"prompt": "x", "completion": "y", "logprobs": [float("nan")]}, "line 2: logprobs"),
        ({"prompt": "x", "completion": "y", "logprobs": [-1.0], "tokens": []}, "has 0 tokens and 1 logprobs"),
        (ROWS[0] | {"completion": "another"}, "line 2 answers the same question as line 1"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(KdcError) as raised:
        read_completions(table(tmp_path / "a.jsonl", ROWS[0], row))
    assert said in str(raised.value)
    assert str(tmp_path / "a.jsonl") in str(raised.value)


def test_files_that_are_no_text_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "x", "completion": "\xff"}\n')
    with pytest.raises(KdcError, match="line 1 is no text in UTF-8"):
        read_completions(path)
    path.write_bytes(b"x" * (MOST_LINE + 1))
    with pytest.raises(KdcError, match="line 1 is longer than 16,000,000 bytes"):
        read_completions(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode())
    assert len(read_completions(path).rows) == 1
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(KdcError, match="is a pipe"):
        read_completions(tmp_path / "pipe.jsonl")


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.jsonl", [Completion.model_validate(row) for row in ROWS]
    with growing(path, resume=False) as one:
        one.append(rows[0])
        assert read_completions(path).rows == (rows[0],), "on the disk as soon as it is there"
        with pytest.raises(KdcError, match="is being written by"), _in_another_process(path):
            pass
    with pytest.raises(KdcError, match="exists"), growing(path, resume=False):
        pass
    with growing(path, resume=True) as one:
        assert one.rows == (rows[0],)
        one.append(rows[1])
    assert read_completions(path).rows == tuple(rows)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


def _in_another_process(path: Path) -> Any:
    """The lock knows its own process: another one is what it is to keep away."""
    from compressor.files import locks

    locks._held.clear()
    return growing(path, resume=True)


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_line_that_breaks_off_is_asked_again(tmp_path: Path, cut: int) -> None:
    path = table(tmp_path / "a.jsonl", *ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    if cut == 1:  # all but the line feed: nothing is lost
        assert len(read_completions(path).rows) == 2
        with growing(path, resume=True) as again:
            assert len(again.rows) == 2
        assert path.read_bytes() == whole
        return
    with pytest.raises(KdcError, match="line 2 breaks off: whoever wrote it was stopped"):
        read_completions(path)
    with growing(path, resume=True) as again:
        assert len(again.rows) == 1
        again.append(Completion.model_validate(ROWS[1]))
    assert len(read_completions(path).rows) == 2


def test_a_character_that_breaks_off_is_no_other_fault(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", ROWS[0])
    path.write_bytes(path.read_bytes() + '{"prompt": "é'.encode()[:-1])
    assert len(read_completions(path, torn=True).rows) == 1


def test_a_full_disk_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rows = tmp_path / "a.jsonl", [Completion.model_validate(row) for row in ROWS]
    write = os.write

    def half(handle: int, data: bytes) -> int:
        if len(data) > 10:
            return write(handle, data[:10])
        raise OSError(28, "No space left on device")

    with growing(path, resume=False) as one:
        one.append(rows[0])
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(KdcError, match="no space left"):
            one.append(rows[1])
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ['{"text": "data of somebody"}\n', "a,b\n1,2\n", "[]\n"])
def test_a_file_of_others_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(KdcError, match="so it is left alone"), growing(path, resume=True):
        pass
    assert path.read_text() == content


@pytest.mark.parametrize(("name", "said"), [("a.csv", "ends on .jsonl"), ("folder.jsonl", "is a folder")])
def test_what_is_no_file_of_json_lines(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(KdcError, match=said), growing(tmp_path / name, resume=False):
        pass
