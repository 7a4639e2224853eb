"""Samples that are texts: shown as they begin, or why they are not."""

from pathlib import Path

import pytest

from compressor.report.html.samples import _texts


@pytest.mark.parametrize(
    ("content", "shown", "why"),
    [
        ('[["a cat"], ["one", "two"]]', ["a cat", "one | two", "sample 2"], ""),
        ('{"0": ["a cat"]}', ["sample 0", "sample 1", "sample 2"], "texts.json holds no list of texts"),
        ('[["a cat"', ["sample 0", "sample 1", "sample 2"], "texts.json is not JSON"),
        (None, ["sample 0", "sample 1", "sample 2"], "texts.json"),
    ],
)
def test_texts_are_shown_or_it_is_said_why_not(tmp_path: Path, content: str | None, shown: list[str], why: str) -> None:
    if content is not None:
        (tmp_path / "texts.json").write_text(content, encoding="utf-8")
    named, missing = _texts(tmp_path, "texts.json", "sample {}".format)
    assert [named(number) for number in range(3)] == shown
    assert why in missing
    assert bool(missing) == bool(why)
