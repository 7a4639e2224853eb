"""Files that are not ours are read within bounds."""

import os
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.files.reading import json_value, read_bytes, read_text


def test_a_file_of_the_size_that_is_permitted_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", most=5) == b"12345"
    with pytest.raises(KdcError, match=r"a is larger than 0\.004 kB"):
        read_bytes(tmp_path / "a", most=4)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("link", "a device"), (".", "a folder")):
        with pytest.raises(KdcError, match=f"is {kind}, not a regular file"):
            read_bytes(tmp_path / name, most=10)
    with pytest.raises(KdcError, match="No such file"):
        read_bytes(tmp_path / "missing", most=10)
    with pytest.raises(KdcError, match="is no path"):
        read_bytes(Path("zero\0byte"), most=10)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é".encode("latin-1"))
    with pytest.raises(KdcError, match="not a text file in UTF-8"):
        read_text(tmp_path / "a", most=10)


@pytest.mark.parametrize("depth", [101, 5_000, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_is_nested_too_deeply_is_refused(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    with pytest.raises(KdcError, match="nested deeper than 100 levels"):
        json_value(opening * depth + "1" + closing * depth, "file")


def test_json_within_the_bounds_is_read() -> None:
    assert json_value("[" * 100 + "1" + "]" * 100, "file") is not None
    assert json_value('{"a": [1, {"b": null}]}', "file") == {"a": [1, {"b": None}]}
    assert json_value("3", "file") == 3


@pytest.mark.parametrize("text", ["{", "9" * 5_000, "", b"\xff"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(KdcError, match="file is damaged: not JSON"):
        json_value(text, "file")


def test_no_more_memory_is_asked_for_than_a_file_takes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", most=1 << 60) == b"12345"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_file_that_says_no_size_is_read_to_its_end() -> None:
    assert Path("/proc/self/status").stat().st_size == 0
    assert read_bytes(Path("/proc/self/status"), most=1_000_000).startswith(b"Name:")
