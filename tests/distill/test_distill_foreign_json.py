"""JSON that lies beside what a training writes, whoever wrote it: passed over, never an error of Python's."""

from pathlib import Path

import numpy as np
import pytest

from compressor.distill.run_refusals import _generalist
from compressor.distill.teacher.cache import AnswerStore

FOREIGN = {"deep": "[" * 100_000, "number": "9" * 6_000, "list": "[]", "null": "null", "binary": "\ud800"}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_key_among_kept_answers(tmp_path: Path, text: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "key.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    store = AnswerStore(tmp_path, {"teacher": "x"}, views=1, samples=2, size=4)
    store.write(0, np.array([1]), np.array([[1, 2, 3, 4]], np.uint8))
    assert store.missing(0).tolist() == [0]


@pytest.mark.parametrize("text", [*FOREIGN.values(), '{"generalist": {"source": 5}}', '{"generalist": []}'])
def test_foreign_specialists_have_no_generalist(tmp_path: Path, text: str) -> None:
    (tmp_path / "specialists.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    assert _generalist(f"specialists:{tmp_path}") is None
    (tmp_path / "specialists.json").write_text('{"generalist": {"source": "run:x"}}')
    assert _generalist(f"specialists:{tmp_path}") == "run:x"
