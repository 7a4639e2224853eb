"""ids by the library tokenizers alone: as transformers has them, filled up nowhere, cut where it is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.plain_feed import by_length
from compressor.tasks.text_classification.feed import evaluation_batches, stacked
from compressor.tasks.text_classification.tokenization import TextTokenizer, kept, read_tokenizer, tokenizer_of
from tests.tasks.text_classification.kit import texts, tokenizer_json

HARD = [
    "", " ", "plain words", "Ünïcödé ÀÉÎ ß", "naïve cafe\u0301", "中文字符 and 日本語", "русский текст",
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈", "a\u200bb\u200d", "tab\tnew\nline\r\n", "[CLS] [SEP] [MASK] [PAD]", "##goal", "x" * 300,
    "\u202eright to left",
    "'quoted' \"text\" — dash…", "1,234.56 €", "goal " * 20_000, "\ufeffmark", "nul\0inside", "\U0010ffff",
]  # fmt: skip


def of_transformers(tokenizer: str, folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    (folder / "tokenizer.json").write_text(tokenizer)
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


@pytest.mark.parametrize("max_length", [None, 8, 128])
def test_ids_are_those_of_transformers(tmp_path: Path, max_length: int | None) -> None:
    ours, theirs = TextTokenizer(tokenizer_json(), "here"), of_transformers(tokenizer_json(padded=False), tmp_path)
    samples = [*HARD, *(text for text, _ in texts(100))]
    cut = {"truncation": max_length is not None, "max_length": max_length}
    expected = theirs(samples, **cut)
    for sample, found, ids, types in zip(
        samples, ours.encode([(one,) for one in samples], max_length), expected["input_ids"],
        expected["token_type_ids"], strict=True,
    ):  # fmt: skip
        assert found.ids.tolist() == ids, sample[:40]
        assert found.types.tolist() == types, sample[:40]
    pairs = [(one, other) for one, other in zip(samples, reversed(samples), strict=True)]
    expected = theirs([one for one, _ in pairs], [other for _, other in pairs], **cut)
    found_pairs = ours.encode(pairs, max_length)
    assert [found.ids.tolist() for found in found_pairs] == expected["input_ids"]
    assert [found.types.tolist() for found in found_pairs] == expected["token_type_ids"]


def test_what_the_file_says_of_padding_and_cutting_does_not_count() -> None:
    """Sentence encoders fill every text up to 128 tokens: ten times the work."""
    padded, plain = (TextTokenizer(tokenizer_json(padded=padded), "here") for padded in (True, False))
    assert padded.sha256 == plain.sha256
    assert json.loads(padded.text)["padding"] is None
    (short,), (long,) = (padded.encode([(text,)]) for text in ("goal match", "goal " * 200))
    assert (len(short.ids), len(long.ids)) == (4, 202)


def test_a_batch_is_as_long_as_its_longest_text() -> None:
    tokenizer = kept(TextTokenizer(tokenizer_json(), "here"))
    preprocess = TextPreprocess(
        tokenizer=tokenizer.sha256, vocabulary=tokenizer.size, max_length=8, token_types=2, pad_id=0
    )
    assert tokenizer_of(preprocess) is tokenizer
    made = stacked(tokenizer.encode([("goal",), ("a b c", "goal")], preprocess.max_length), preprocess)
    assert list(made) == [spec.name for spec in preprocess.inputs] == ["input_ids", "token_type_ids", "attention_mask"]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0], [1] * 7]
    assert made["token_type_ids"].tolist() == [[0] * 7, [0, 0, 0, 0, 0, 1, 1]]
    assert made["input_ids"][0, 3:].tolist() == [0] * 4
    single = preprocess.model_copy(update={"token_types": 0})
    assert list(stacked(tokenizer.encode([("goal",)]), single)) == ["input_ids", "attention_mask"]


def test_tokenizers_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match=r"holds no tokenizer\.json"):
        read_tokenizer(tmp_path, "hf:here")
    for text, said in (
        ("{", "not JSON"), ("[]", "no tokenizer"), ('{"model": {}}', "no tokenizer that kdc can read"),
    ):  # fmt: skip
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(KdcError, match=said):
            read_tokenizer(tmp_path, "hf:here").encode([("a",)])


@pytest.mark.parametrize(
    ("count", "size", "parts"),
    [(64, 16, 1), (70, 16, 1), (16, 16, 1), (17, 16, 1), (5, 2, 1), (70, 16, 4), (69, 16, 2)],
)
def test_batches_are_of_one_length_and_hold_every_text(count: int, size: int, parts: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 120, count)
    batches = by_length(lengths, size, 7, parts)
    assert len(batches) == -(-count // size)
    assert all(len(row) <= size and len(row) % parts == 0 for row in batches)
    shown = np.concatenate(batches)
    assert {*shown.tolist()} == {*range(count)}
    assert len(shown) == count + -count % parts  # once each, but for what makes the parts whole
    again, other = by_length(lengths, size, 7, parts), by_length(lengths, size, 8, parts)
    assert all((row == same).all() for row, same in zip(batches, again, strict=True))
    if len(batches) > 3:
        filled = sum(int(lengths[row].max()) * len(row) for row in batches)
        assert filled < 1.5 * lengths[shown].sum()
        assert any((row != another).any() for row, another in zip(batches, other, strict=True))


def test_evaluation_takes_every_text_once_in_bounded_batches() -> None:
    lengths = np.random.default_rng(1).integers(1, 4000, 200).tolist()
    batches = evaluation_batches(lengths)
    assert sorted(row for batch in batches for row in batch) == [*range(200)]
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 16_384 for batch in batches)
