"""What a training on documents is fed with, and what a model's answers to them cost."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.data.samples import Dataset
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.distill.loop.shares import shares_of, weighed
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from compressor.tasks.causal_lm.encoding import blocks_of, encoded_split
from compressor.tasks.causal_lm.feed import LanguageFeed, stacked
from compressor.tasks.causal_lm.models.loading import load_hf
from compressor.tasks.causal_lm.models.students import create_student
from compressor.tasks.causal_lm.opening import open_data
from compressor.tasks.causal_lm.tokenizer import of_documents
from tests.kit import Hearing
from tests.tasks.causal_lm.kit import documents, write_jsonl, write_llama

CPU = torch.device("cpu")
LABELS: list[dict[str, Any]] = [{"name": "cross_entropy"}]
BOTH: list[dict[str, Any]] = [{"name": "kd", "temperature": 2.0}, *LABELS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed")
    write_llama(folder / "llama")
    texts = documents(45)
    rows = [{"prompt": text[:7], "completion": text[7:]} for text in texts]
    write_jsonl(folder / "data.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def data(place: Path) -> Dataset:
    return open_data(f"jsonl:{place / 'data.jsonl'}", skip_bad=False, progress=Hearing())


@pytest.fixture(scope="module")
def teacher(place: Path) -> LoadedModel:
    return load_hf(str(place / "llama"), 24)


def recipe(losses: list[dict[str, Any]] = LABELS, **more: Any) -> Recipe:
    return Recipe.model_validate({"losses": losses, "batch_size": 8, "keep_by": "bits_per_byte", **more})


def feed_of(data: Dataset, *models: LoadedModel, **more: Any) -> LanguageFeed:
    read = {key: of_documents(model.preprocess) for key, model in zip(("student", "teacher"), models, strict=False)}
    return LanguageFeed(data, read, recipe(**more), CPU)


def test_every_token_is_learned_once_an_epoch(data: Dataset, teacher: LoadedModel) -> None:
    feed = feed_of(data, teacher)
    samples = encoded_split(data.train, of_documents(teacher.preprocess))
    expected = sorted(int(token) for sample in samples for token in sample.ids[sample.learned])
    seen = []
    for epoch in (0, 1):
        batches = list(feed.batches(epoch, 0))
        assert len(batches) == feed.steps_per_epoch
        labels = torch.cat([batch["labels"] for batch in batches])
        assert sorted(labels.tolist()) == expected
        seen.append([batch["index"].tolist() for batch in batches])
    assert seen[0] != seen[1]
    again = [batch["index"].tolist() for batch in feed.batches(1, 2)]
    assert again == seen[1][2:]  # a function of seed, epoch and step


def test_a_batch_asks_for_the_token_behind(data: Dataset, teacher: LoadedModel) -> None:
    preprocess = of_documents(teacher.preprocess)
    samples = encoded_split(data.train, preprocess)
    blocks = blocks_of(samples, preprocess.max_length)
    made = stacked(samples, blocks, preprocess.pad_id)
    row = 0
    for number, (document, start, stop) in enumerate(blocks):
        ids, learned = samples[document].ids, samples[document].learned
        for place in range(start, stop):
            assert made["input_ids"][number, place - start] == ids[place]
            assert bool(made["positions"][number, place - start]) == bool(learned[place + 1])
            if learned[place + 1]:
                assert made["labels"][row] == ids[place + 1]
                row += 1
        assert not made["positions"][number, stop - start :].any()
        assert made["attention_mask"][number].sum() == stop - start
    assert row == len(made["labels"])


def test_bits_a_byte_are_the_sum_by_hand(data: Dataset, teacher: LoadedModel) -> None:
    """Document by document, block by block, token by token; without prompts, and without what ends a document."""
    feed, preprocess = feed_of(data, teacher), of_documents(teacher.preprocess)
    model = BatchModel(teacher.network, "student", mask="attention_mask")
    score = feed.evaluate(model, "validation")
    nats, tokens, size = 0.0, 0, 0
    for row, sample in enumerate(encoded_split(data.validation, preprocess)):
        document = data.validation.read(row)
        size += len(document.text[document.prompt :].encode())
        for start in range(0, len(sample.ids) - 1, preprocess.max_length):
            ids = torch.tensor(sample.ids[start : start + preprocess.max_length].tolist())[None]
            with torch.no_grad():
                logits = teacher.network(ids, torch.ones_like(ids))[0].double().log_softmax(-1)
            for place in range(ids.shape[1]):
                behind = start + place + 1
                if behind < len(sample.ids) - 1 and sample.learned[behind]:
                    nats -= float(logits[place, sample.ids[behind]])
                    tokens += 1
    assert (score.n, score.tokens) == (len(data.validation), tokens)
    assert score.bytes <= size  # a token that begins in the prompt is the prompt's
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / score.bytes, rel=1e-6)
    assert score.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert feed.costs["student", "validation"].nats.sum() == pytest.approx(nats, rel=1e-6)


def test_a_score_does_not_hang_on_its_batches(
    data: Dataset, teacher: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BatchModel(teacher.network, "student", mask="attention_mask")
    whole = feed_of(data, teacher).evaluate(model, "test")
    monkeypatch.setattr("compressor.tasks.causal_lm.feed.EVAL_TOKENS", 1)
    alone = feed_of(data, teacher).evaluate(model, "test")
    assert alone.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-6)


def gradient(learner: Learner, feed: LanguageFeed, teacher: LoadedModel) -> tuple[dict[str, float], Tensor]:
    """Of the first step, whatever the parts that it is taken in."""
    from accelerate import Accelerator

    learner.zero_grad()
    batches = list(feed.batches(0, 0))[: feed._recipe.accumulate]
    shares = shares_of([learner.counts(batch) for batch in batches], Accelerator(cpu=True))
    answering = BatchModel(teacher.network, "teacher", mask="attention_mask")
    sums: dict[str, float] = {}
    for batch, share in zip(batches, shares, strict=True):
        with torch.no_grad():
            answers = answering(batch)
        losses = weighed(learner(batch, answers), share)
        total = torch.stack(list(losses.values())).sum() / len(batches)
        total.backward()  # type: ignore[no-untyped-call]
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach()) / len(batches)
    return sums, torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


def test_parts_of_a_step_change_nothing(data: Dataset, teacher: LoadedModel) -> None:
    """Nor does what fills them up: blocks of a part are filled up to that part's longest."""
    torch.manual_seed(1)
    student = create_student("layers:2", "random", None, teacher)
    student.network.double()
    teacher.network.double()
    found = []
    for parts in (1, 4):
        how = recipe(BOTH, accumulate=parts)
        feed = LanguageFeed(data, dict.fromkeys(("student", "teacher"), of_documents(teacher.preprocess)), how, CPU)
        model = BatchModel(student.network, "student", mask="attention_mask")
        learner = Learner(model, bind_losses(how, has_teacher=True))
        found.append(gradient(learner, feed, teacher))
    teacher.network.float()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


def test_the_losses_are_those_of_the_tokens_that_count(data: Dataset, teacher: LoadedModel) -> None:
    torch.manual_seed(1)
    student = create_student("layers:2", "random", None, teacher)
    feed = feed_of(data, student, teacher, losses=BOTH)
    (batch, *_) = feed.batches(0, 0)
    learner = Learner(
        BatchModel(student.network, "student", mask="attention_mask"), bind_losses(recipe(BOTH), has_teacher=True)
    )
    with torch.no_grad():
        answers = BatchModel(teacher.network, "teacher", mask="attention_mask")(batch)
        losses = learner(batch, answers)
        ids, mask, positions = batch["student/input_ids"], batch["student/attention_mask"], batch["positions"]
        ours, theirs = student.network(ids, mask), teacher.network(ids, mask)
    nats, kl, count = 0.0, 0.0, 0
    for row, column in positions.nonzero().tolist():
        label = int(batch["labels"][count])
        nats -= float(ours[row, column].double().log_softmax(-1)[label])
        p, q = ((logits[row, column].double() / 2).log_softmax(-1) for logits in (theirs, ours))
        kl += float((p.exp() * (p - q)).sum())
        count += 1
    assert float(losses["cross_entropy"]) == pytest.approx(nats / count, rel=1e-6)
    assert float(losses["kd"]) == pytest.approx(4 * kl / count, rel=1e-5)
    shifted = F.cross_entropy(ours[positions], batch["labels"])
    assert float(losses["cross_entropy"]) == pytest.approx(float(shifted), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"views": {"hflip": False}}, "recipe views"),
        ({"transfer": {"labelled": 0.5}}, r"recipe transfer\.labelled"),
        ({"teacher_answers": {"top_k": 4}}, r"teacher_answers\.top_k"),
        ({"losses": [*LABELS, {"name": "rkd_distance"}]}, "rkd_distance looks at"),
        ({"losses": [*LABELS, {"name": "attention_scores"}]}, "attention_scores looks at"),
        ({"losses": [*LABELS, {"name": "masked_lm"}]}, "masked_lm looks at"),
    ],
)
def test_what_a_recipe_asks_in_vain_is_refused(
    data: Dataset, teacher: LoadedModel, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(KdcError, match=said):
        feed_of(data, teacher, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"end_id": 2}, "another last token"),
        ({"start_id": 2}, "another first token"),
        ({"chat_template": None}, "another template"),
        ({"max_length": 16}, "the student reads blocks of 24 tokens, and the teacher of 16"),
    ],
)
def test_networks_that_read_other_tokens_are_not_compared(
    data: Dataset, teacher: LoadedModel, changes: dict[str, Any], said: str
) -> None:
    ours = of_documents(teacher.preprocess)
    theirs: LanguagePreprocess = ours.model_copy(update=changes)
    with pytest.raises(KdcError, match=said):
        LanguageFeed(data, {"student": ours, "teacher": theirs}, recipe(BOTH), CPU)
    LanguageFeed(data, {"student": ours, "teacher": theirs}, recipe(), CPU)  # labels alone compare nothing


def test_no_answer_is_no_number(data: Dataset, teacher: LoadedModel) -> None:
    class Broken(torch.nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return torch.full((*ids.shape, 320), math.nan)

    with pytest.raises(KdcError, match="answers with what is no number"):
        feed_of(data, teacher).evaluate(BatchModel(Broken(), "student"), "validation")


def test_batches_hold_blocks_about_as_long(data: Dataset, teacher: LoadedModel) -> None:
    feed = feed_of(data, teacher)
    filled = sum(int((batch["student/attention_mask"] == 0).sum()) for batch in feed.batches(0, 0))
    tokens = sum(batch["student/attention_mask"].numel() for batch in feed.batches(0, 0))
    assert filled / tokens < 0.2
    assert np.isin(
        np.concatenate([batch["index"].numpy() for batch in feed.batches(0, 0)]), range(len(feed._blocks))
    ).all()
