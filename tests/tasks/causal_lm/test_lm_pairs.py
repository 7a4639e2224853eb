"""Student and teacher of other tokenizers in one training: which tokens meet in a batch, and what is learned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.samples import Dataset
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.errors import KdcError
from compressor.losses.logits import cross_entropy, kd
from compressor.losses.vocabularies import aligned_kd
from compressor.models.loaded import LoadedModel
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from compressor.tasks.causal_lm.encoding import encoded_split
from compressor.tasks.causal_lm.feed import LanguageFeed
from compressor.tasks.causal_lm.models.loading import load_hf
from compressor.tasks.causal_lm.opening import open_data
from compressor.tasks.causal_lm.pairs import cut
from compressor.tasks.causal_lm.tokenizer import of_documents, tokenizer_of
from tests.kit import Hearing
from tests.tasks.causal_lm.kit import documents, marked_json, tokenizer_json, write_jsonl, write_llama
from tests.tasks.causal_lm.test_lm_feed import gradient

pytest.importorskip("tokenizers", reason="kdc[text]")

CPU = torch.device("cpu")
BOTH: list[dict[str, Any]] = [{"name": "uld"}, {"name": "aligned_kd"}, {"name": "cross_entropy"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_llama(folder / "teacher")
    write_llama(folder / "student", 2, size=360, tokenizer=marked_json())
    write_llama(folder / "wide", 2, size=330)
    texts = documents(40)
    rows = [{"prompt": text[:9], "completion": text[9:]} for text in texts[:30]]
    write_jsonl(folder / "data.jsonl", rows + [{"prompt": "", "completion": text} for text in texts[30:]])
    return folder


@pytest.fixture(scope="module")
def data(place: Path) -> Dataset:
    return open_data(f"jsonl:{place / 'data.jsonl'}", skip_bad=False, progress=Hearing())


@pytest.fixture(scope="module")
def teacher(place: Path) -> LoadedModel:
    return load_hf(str(place / "teacher"), 24)


@pytest.fixture(scope="module")
def student(place: Path) -> LoadedModel:
    return load_hf(str(place / "student"), 24)


def recipe(losses: list[dict[str, Any]], **more: Any) -> Recipe:
    return Recipe.model_validate({"losses": losses, "batch_size": 8, "keep_by": "bits_per_byte", **more})


def feed_of(data: Dataset, student: LoadedModel, teacher: LoadedModel, how: Recipe, **more: Any) -> LanguageFeed:
    read = {key: of_documents(model.preprocess) for key, model in (("student", student), ("teacher", teacher))}
    return LanguageFeed(data, read, how, CPU, **more)


def test_blocks_end_where_both_sides_end_a_token() -> None:
    """By hand: groups 0 | 1 1 | 2 | 3 of the student and 0 0 | 1 | 2 | 3 of the teacher, in blocks of 3 tokens."""
    ours, theirs = np.array([-1, 0, 1, 1, 2, 3, -1]), np.array([-1, 0, 0, 1, 2, 3, -1])
    groups, cuts = cut(ours, theirs, 3, 3)
    assert cuts == [(0, 0), (3, 3), (6, 6)]
    assert [side.tolist() for side in groups] == [ours.tolist(), theirs.tolist()]
    assert cut(ours, theirs, 4, 2)[1] == [(0, 0), (1, 2), (4, 4), (6, 6)]


def test_a_group_that_fits_into_no_block_is_cut_and_counts_for_nothing() -> None:
    ours, theirs = np.array([-1, 0, 1, 1, 1, 1, 1, 2, -1]), np.array([-1, 0, 1, 2, -1])
    groups, cuts = cut(ours, theirs, 4, 4)
    assert cuts == [(0, 0), (1, 1), (3, 1), (6, 2), (8, 4)]
    assert groups[0].tolist() == [-1, 0, -1, -1, -1, -1, -1, 2, -1]
    assert groups[1].tolist() == [-1, 0, -1, 2, -1]


def test_a_batch_holds_the_same_text_for_both(data: Dataset, student: LoadedModel, teacher: LoadedModel) -> None:
    """Every group of a batch spells the same bytes on both sides, is learned on both, and comes once an epoch."""
    heard = Hearing()
    feed = feed_of(data, student, teacher, recipe(BOTH), progress=heard)
    spell = [tokenizer_of(of_documents(model.preprocess)) for model in (student, teacher)]
    spelt, ending = [], 0
    for batch in feed.batches(0, 0):
        texts: list[dict[int, str]] = [{}, {}]
        for side, (key, labels) in enumerate((("student", batch["labels"]), ("teacher", batch["teacher_labels"]))):
            groups = batch[f"{key}_groups"]
            positions = batch["teacher_positions"] if side else batch["positions"]
            ids, mask = batch[f"{key}/input_ids"], batch[f"{key}/attention_mask"]
            assert len(groups) == len(labels) == int(positions.sum())
            assert not positions[mask == 0].any()
            assert ids.shape[1] <= 24
            # what is asked for is the token behind, wherever that is in the block
            rows, columns = positions.nonzero(as_tuple=True)
            inside = columns + 1 < mask.sum(1)[rows]
            assert torch.equal(labels[inside], ids[rows[inside], columns[inside] + 1])
            for group in sorted({*groups[groups >= 0].tolist()}):
                texts[side][group] = spell[side].decoded(labels[groups == group].tolist()).strip()
            end = of_documents((student, teacher)[side].preprocess).end_id
            assert (groups[labels == end] == -1).all()
            ending += int((labels == end).sum())
        assert texts[0] == texts[1]
        spelt += [*texts[0].values()]
    assert ending == 2 * len(data.train)
    samples = encoded_split(data.train, of_documents(student.preprocess))
    learned = sum(int(sample.learned.sum()) for sample in samples)
    assert sum(len(batch["labels"]) for batch in feed.batches(0, 0)) == learned
    whole = "".join(data.train.read(row).text[data.train.read(row).prompt :] for row in range(len(data.train)))
    assert 0.85 < len("".join(spelt).replace(" ", "")) / len(whole.replace(" ", "")) <= 1
    (line,) = [line for line in heard.notes if "tokens in common" in line]
    assert line.startswith("uld: student and teacher have ")


def test_losses_are_those_of_groups_told_by_hand(data: Dataset, student: LoadedModel, teacher: LoadedModel) -> None:
    """The batch's loss is that of each document alone, aligned here by a walk over the bytes of its tokens."""
    how = recipe([{"name": "aligned_kd"}])
    feed = feed_of(data, student, teacher, how)
    (batch, *_) = feed.batches(0, 0)
    learner = Learner(BatchModel(student.network, "student", mask="attention_mask"), bind_losses(how, has_teacher=True))
    with torch.no_grad():
        ours, theirs = (BatchModel(m.network, k)(batch) for m, k in ((student, "student"), (teacher, "teacher")))
        found = float(learner(batch, theirs)["aligned_kd"])
    sums, count = 0.0, 0
    for number, row in enumerate(batch["index"].tolist()):
        block, other = feed._pairs.blocks[row]
        where = [_ends(data, model, part) for model, part in ((student, block), (teacher, other))]
        # a group ends where both end; it is learned where all of its tokens are
        ends = sorted({end for end, *_ in where[0]} & {end for end, *_ in where[1]})
        groups = [np.searchsorted(ends, [end for end, *_ in side]) for side in where]
        sides = [list(zip(of, side, strict=True)) for of, side in zip(groups, where, strict=True)]
        bad = {int(group) for side in sides for group, (_, learned, _) in side if not learned}
        kept = [
            torch.tensor([-1 if g in bad or not text else int(g) for g, (_, learned, text) in side if learned])
            for side in sides
        ]
        positions = [batch["positions"][number], batch["teacher_positions"][number]]
        logits = [
            m.network(*(batch[f"{k}/{name}"][number : number + 1] for name in ("input_ids", "attention_mask")))[0]
            for m, k in ((student, "student"), (teacher, "teacher"))
        ]
        labels = [
            torch.tensor([int(encoded_split(data.train, of_documents(m.preprocess))[b.document].ids[at + 1])
                          for at in range(b.start, b.stop)])[p[: b.stop - b.start]]
            for m, b, p in ((student, block, positions[0]), (teacher, other, positions[1]))
        ]  # fmt: skip
        groups_here = len(set(kept[0].tolist()) - {-1})
        value = aligned_kd(
            logits[0][positions[0]], logits[1][positions[1]], labels[0], kept[0], kept[1], labels[1],
            batch["teacher_token_of"],
        )  # fmt: skip
        sums, count = sums + float(value.detach()) * groups_here, count + groups_here
    assert count > 50
    assert found == pytest.approx(sums / count, rel=1e-5)
    assert ours.logits.shape[0] == len(batch["labels"])


def _ends(data: Dataset, model: LoadedModel, block: Any) -> list[tuple[int, bool, bytes]]:
    """Of each token that a block asks for: the byte of the document that it ends before, whether it is learned, and
    what it spells; told from the library's own offsets."""
    preprocess = of_documents(model.preprocess)
    sample, document = encoded_split(data.train, preprocess)[block.document], data.train.read(block.document)
    [(ids, offsets)] = tokenizer_of(preprocess).tokens([document.text], special=False)
    assert [preprocess.start_id, *ids, preprocess.end_id] == sample.ids.tolist()
    size = len(document.text)
    ends = [0, *(end for _, end in offsets), size]
    texts = [b"", *(document.text[begin:end].encode() for begin, end in offsets), b""]
    return [(ends[at], bool(sample.learned[at]), texts[at]) for at in range(block.start + 1, block.stop + 1)]


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_step_change_nothing(data: Dataset, student: LoadedModel, teacher: LoadedModel, parts: int) -> None:
    """Nor does what fills them up; and the gradient is not 0."""
    found = []
    for loaded in (student, teacher):
        loaded.network.double()
    for accumulate in (1, parts):
        how = recipe(BOTH, accumulate=accumulate)
        feed = feed_of(data, student, teacher, how)
        model = BatchModel(student.network, "student", mask="attention_mask")
        found.append(gradient(Learner(model, bind_losses(how, has_teacher=True)), feed, teacher))
    for loaded in (student, teacher):
        loaded.network.float()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)
    assert float(found[0][1].norm()) > 1e-3


def test_what_is_not_judged_changes_nothing(data: Dataset, student: LoadedModel, teacher: LoadedModel) -> None:
    """Logits at prompts and at what fills a batch up, of either side, have a gradient of exactly 0."""
    how = recipe([{"name": "uld"}, {"name": "aligned_kd"}])
    (batch, *_) = feed_of(data, student, teacher, how).batches(0, 0)
    inputs = (batch[f"student/{name}"] for name in ("input_ids", "attention_mask"))
    logits: torch.Tensor = student.network(*inputs).detach().requires_grad_()

    class Said(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return logits

    learner = Learner(BatchModel(Said(), "student"), bind_losses(how, has_teacher=True))
    with torch.no_grad():
        answers = BatchModel(teacher.network, "teacher")(batch)
    torch.stack(list(learner(batch, answers).values())).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    judged = torch.zeros_like(batch["positions"])
    judged[batch["positions"]] = batch["student_groups"] >= 0
    assert (logits.grad[~judged] == 0).all()
    assert (logits.grad[judged].abs().sum(-1) > 0).all()
    assert (~judged).sum() > judged.shape[0]


def test_the_same_tokenizer_on_both_sides_is_kd(data: Dataset, teacher: LoadedModel, place: Path) -> None:
    """Each token is a group then, and `aligned_kd` is `kd` at temperature 1, but for the tokens of no text."""
    student = load_hf(str(place / "wide"), 24)
    how = recipe([{"name": "aligned_kd"}, {"name": "kd", "temperature": 1.0}])
    (batch, *_) = feed_of(data, student, teacher, how).batches(0, 0)
    assert torch.equal(batch["labels"], batch["teacher_labels"])
    assert torch.equal(batch["positions"], batch["teacher_positions"])
    assert torch.equal(batch["student_groups"] < 0, batch["labels"] == of_documents(student.preprocess).end_id)


def test_rows_that_fill_a_vocabulary_up_are_left_out(data: Dataset, teacher: LoadedModel, place: Path) -> None:
    """A student of the same tokenizer with 330 values for a token, and a teacher with 320."""
    student = load_hf(str(place / "wide"), 24)
    how = recipe([{"name": "kd", "temperature": 2.0}, {"name": "reverse_kl"}, {"name": "cross_entropy"}])
    (batch, *_) = feed_of(data, student, teacher, how).batches(0, 0)
    assert int(batch["columns"]) == 320
    learner = Learner(BatchModel(student.network, "student"), bind_losses(how, has_teacher=True))
    with torch.no_grad():
        ours, theirs = (BatchModel(m.network, k)(batch) for m, k in ((student, "student"), (teacher, "teacher")))
        losses = learner(batch, theirs)
    assert (ours.logits.shape[1], theirs.logits.shape[1]) == (330, 320)
    assert float(losses["kd"]) == pytest.approx(
        float(kd(ours.logits[:, :320], theirs.logits, temperature=2.0)), rel=1e-6
    )
    assert float(losses["cross_entropy"]) == pytest.approx(float(cross_entropy(ours.logits, batch["labels"])), rel=1e-6)


def test_losses_that_compare_token_by_token_are_refused(
    data: Dataset, student: LoadedModel, teacher: LoadedModel
) -> None:
    said = "kd compares student and teacher token by token, and they have another tokenizer"
    with pytest.raises(KdcError, match=said) as raised:
        feed_of(data, student, teacher, recipe([{"name": "kd"}, *BOTH]))
    assert "uld, aligned_kd" in raised.value.hint
    feed_of(data, student, teacher, recipe([{"name": "kd", "weight": 0.0}, *BOTH]))


def test_a_training_without_a_teacher_has_no_groups(data: Dataset, student: LoadedModel) -> None:
    with pytest.raises(KdcError, match="uld compares the tokens of two networks"):
        LanguageFeed(data, {"student": of_documents(student.preprocess)}, recipe(BOTH), CPU)


def test_texts_that_both_sides_spell_otherwise_are_refused(data: Dataset, teacher: LoadedModel, place: Path) -> None:
    """A tokenizer that writes small letters alone."""
    import json

    values = json.loads(tokenizer_json())
    values["normalizer"] = {"type": "Replace", "pattern": {"String": "saw"}, "content": "SAW"}
    write_llama(place / "shouting", 2, tokenizer=json.dumps(values))
    student = load_hf(str(place / "shouting"), 24)
    with pytest.raises(KdcError, match="the tokens of student and teacher spell different texts from byte"):
        feed_of(data, student, teacher, recipe(BOTH))
