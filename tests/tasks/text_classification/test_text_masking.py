"""Hidden tokens: as many, and as transformers' own collator hides them; the same for teacher and student."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.base import parse
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.text_classification.feed import TextFeed
from compressor.tasks.text_classification.masking import NOT_HIDDEN, hidden
from compressor.tasks.text_classification.opening import open_data
from compressor.tasks.text_classification.tokenization import Encoded, TextTokenizer, kept
from tests.tasks.text_classification.kit import texts, tokenizer_json, write_csv

TOKENIZER = kept(TextTokenizer(tokenizer_json(), "here"))
READ = TextPreprocess(
    tokenizer=TOKENIZER.sha256, vocabulary=TOKENIZER.size, max_length=24, token_types=0, pad_id=0, pair=False
)
MASK, SPECIAL = 4, {0, 1, 2, 3, 4}
CPU = torch.device("cpu")


def shown(many: int = 1500, epoch: int = 0) -> tuple[list[Encoded], list[Encoded], list[np.ndarray]]:
    encoded = TOKENIZER.encode([(f"{text} xyz ££ [SEP] sport",) for text, _ in texts(many)], 24)
    return encoded, *hidden(encoded, np.arange(many), READ, 7, epoch)


def rates(before: np.ndarray, after: np.ndarray, labels: np.ndarray, may: np.ndarray) -> list[float]:
    """The shares: to be told; of these the mask, another token, the same token."""
    told = labels != NOT_HIDDEN
    assert (labels[told] == before[told]).all()
    assert (after[~told] == before[~told]).all()
    assert not told[~may].any()
    other = told & (after != MASK) & (after != before)
    count = told.sum()
    return [count / may.sum(), (after[told] == MASK).sum() / count, other.sum() / count]


def test_as_many_are_hidden_as_transformers_hides(tmp_path: Path) -> None:
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    encoded, after, labels = shown()
    before = np.concatenate([row.ids for row in encoded])
    may = ~np.isin(before, [*SPECIAL])
    ours = rates(before, np.concatenate([row.ids for row in after]), np.concatenate(labels), may)
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(padded=False))
    theirs_tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    collator = DataCollatorForLanguageModeling(theirs_tokenizer, mlm_probability=0.15, seed=0)
    whole = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row.ids) for row in encoded], batch_first=True)
    batch = collator([{"input_ids": row} for row in whole])
    flat = whole.numpy().ravel()
    theirs = rates(
        flat, batch["input_ids"].numpy().ravel(), batch["labels"].numpy().ravel(), ~np.isin(flat, [*SPECIAL])
    )
    n = may.sum()
    # Of a random token one in the vocabulary is the token itself.
    for ours_, theirs_, expected, of in zip(ours, theirs, (0.15, 0.8, 0.1), (n, 0.15 * n, 0.15 * n), strict=True):
        error = 4 * (expected * (1 - expected) / of) ** 0.5 + 0.1 / TOKENIZER.size
        assert ours_ == pytest.approx(expected, abs=error)
        assert theirs_ == pytest.approx(expected, abs=error)


def test_special_tokens_are_never_hidden_nor_put_in_place_of_others() -> None:
    encoded, after, labels = shown()
    for row, changed, told in zip(encoded, after, labels, strict=True):
        special = np.isin(row.ids, [*SPECIAL])
        assert (changed.ids[special] == row.ids[special]).all()
        assert (told[special] == NOT_HIDDEN).all()
        assert {*changed.ids[~special].tolist()}.isdisjoint(SPECIAL - {MASK})


def test_what_is_hidden_hangs_on_seed_epoch_and_sample_alone() -> None:
    encoded, first, _ = shown(40)
    alone, _ = hidden(encoded[7:8], np.array([7]), READ, 7, 0)
    assert (alone[0].ids == first[7].ids).all()
    again = shown(40, epoch=1)[1]
    assert any((a.ids != b.ids).any() for a, b in zip(first, again, strict=True))
    other = hidden(encoded, np.arange(40), READ, 8, 0)[0]
    assert any((a.ids != b.ids).any() for a, b in zip(first, other, strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = write_csv(tmp_path_factory.mktemp("masking") / "data.csv", texts(60))
    return open_data(f"csv:{path}", progress=Silent())


def feed_of(data: Dataset, losses: list[dict[str, Any]], teacher: TextPreprocess = READ, **more: Any) -> TextFeed:
    recipe = parse(Recipe, {"losses": losses, "batch_size": 8, "views": {"distinct": 1}, **more}, "recipe")
    return TextFeed(data, {"student": READ, "teacher": teacher}, recipe, CPU)


HIDING = [{"name": "masked_lm"}, {"name": "cross_entropy"}]


def test_teacher_and_student_see_the_same_hidden_tokens(data: Dataset) -> None:
    feed = feed_of(data, HIDING, READ.model_copy(update={"max_length": 512}), accumulate=2)
    batches = list(feed.batches(0, 0))
    for batch in batches:
        ids, labels = batch["student/input_ids"], batch["token_labels"]
        assert ids.shape == labels.shape
        assert torch.equal(ids, batch["teacher/input_ids"])
        assert (labels[batch["student/attention_mask"] == 0] == NOT_HIDDEN).all()
    told = [batch["token_labels"] for batch in batches]
    assert any((labels >= 0).any() for labels in told)
    later = next(iter(feed.batches(0, 3)))
    assert torch.equal(later["student/input_ids"], batches[6]["student/input_ids"])
    alone = next(iter(feed.batches(0, 0, {"student"})))
    assert torch.equal(alone["token_labels"], told[0])


def test_tokens_are_hidden_only_where_a_loss_is_on_them(data: Dataset) -> None:
    plain = next(iter(feed_of(data, [{"name": "kd"}]).batches(0, 0)))
    never = next(iter(feed_of(data, [{"name": "kd"}, {"name": "masked_lm", "weight": 0}]).batches(0, 0)))
    for batch in (plain, never):
        assert "token_labels" not in batch
        assert not (batch["student/input_ids"] == MASK).any()


def test_what_cannot_hide_tokens_is_refused(data: Dataset) -> None:
    other = kept(TextTokenizer(tokenizer_json().replace("[MASK]", "[HIDE]"), "here"))
    read = READ.model_copy(update={"tokenizer": other.sha256})
    with pytest.raises(KdcError, match="read texts as other tokens"):
        feed_of(data, HIDING, read)
    recipe = parse(Recipe, {"losses": HIDING, "batch_size": 8, "views": {"distinct": 1}}, "recipe")
    with pytest.raises(KdcError, match=r"no token that hides another \(\[MASK\] or <mask>\)"):
        TextFeed(data, {"student": read}, recipe, CPU)
