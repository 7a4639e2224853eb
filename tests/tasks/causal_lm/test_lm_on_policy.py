"""On-policy steps: what a student writes is a function of its weights, the seed and the step, and is learned right."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.samples import Dataset
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.losses.logits import cross_entropy
from compressor.losses.vocabularies import groups_of
from compressor.models.loaded import LoadedModel
from compressor.schema.on_policy import OnPolicy
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from compressor.tasks.causal_lm.encoding import Block, Encoded, encoded_split
from compressor.tasks.causal_lm.feed import LanguageFeed
from compressor.tasks.causal_lm.models.loading import load_hf
from compressor.tasks.causal_lm.on_policy import _Drawing, is_on_policy, prompt_of
from compressor.tasks.causal_lm.opening import open_data
from compressor.tasks.causal_lm.tokenizer import of_documents
from tests.kit import Hearing, call
from tests.tasks.causal_lm.kit import SPEED, documents, made_documents, write_jsonl, write_llama
from tests.tasks.causal_lm.test_lm_whole_way import contents, distilling, rows

CPU = torch.device("cpu")
BOTH: list[dict[str, Any]] = [{"name": "kd", "temperature": 1.0}, {"name": "cross_entropy"}]
ALWAYS = {"share": 1.0, "max_new_tokens": 12, "prompt_tokens": 5}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writing")
    write_llama(folder / "teacher", initializer_range=0.3)
    write_llama(folder / "student", 2, initializer_range=0.3)
    texts = documents(40)
    prompts = [{"prompt": text[:9], "completion": text[9:]} for text in texts[:20]]
    write_jsonl(folder / "data.jsonl", prompts + [{"prompt": "", "completion": text} for text in texts[20:]])
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


def recipe(**more: Any) -> Recipe:
    asked = {"losses": BOTH, "batch_size": 8, "keep_by": "bits_per_byte", "on_policy": ALWAYS, **more}
    return Recipe.model_validate(asked)


def feed_of(data: Dataset, model: LoadedModel, how: Recipe, heard: Hearing | None = None) -> LanguageFeed:
    return LanguageFeed(data, dict.fromkeys(("student", "teacher"), of_documents(model.preprocess)), how, CPU, heard)


def test_steps_are_on_policy_by_seed_and_step() -> None:
    half = OnPolicy(share=0.5)
    drawn = [[is_on_policy(half, seed, step) for step in range(2000)] for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    assert all(900 < sum(steps) < 1100 for steps in drawn)
    assert not any(is_on_policy(OnPolicy(), 0, step) for step in range(99))
    assert all(is_on_policy(OnPolicy(share=1.0), 0, step) for step in range(99))


def test_a_token_is_drawn_where_the_number_falls() -> None:
    """By hand: probabilities 0.5, 0.25, 0.25 of the tokens that there are, and a fourth row that is of none."""
    scores = torch.tensor([[0.5, 0.25, 0.25, 9.0]]).log().repeat(5, 1)
    draws = torch.tensor([[0.0], [0.49], [0.51], [0.74], [0.76]], dtype=torch.float64)
    made = _Drawing(draws, 3, 3, 1.0)(torch.zeros(5, 3, dtype=torch.int64), scores)
    assert made.argmax(-1).tolist() == [0, 0, 1, 1, 2]
    assert (made == 0).sum() == 5
    # at temperature 1/2: 2/3, 1/6, 1/6
    cooler = _Drawing(draws, 3, 3, 0.5)(torch.zeros(5, 3, dtype=torch.int64), scores)
    assert cooler.argmax(-1).tolist() == [0, 0, 0, 1, 1]


def test_prompts_are_what_does_not_count_or_the_first_tokens() -> None:
    ids = np.arange(10, dtype=np.int32)
    text, after = np.array([False] + [True] * 9), np.array([False] * 4 + [True] * 6)
    whole = [Encoded(ids, learned, learned, 1) for learned in (text, after)]
    assert prompt_of(whole[0], Block(0, 0, 9), 3).tolist() == [0, 1, 2]
    assert prompt_of(whole[0], Block(0, 5, 9), 3).tolist() == [5, 6, 7]
    assert prompt_of(whole[0], Block(0, 7, 9), 3).tolist() == [7, 8]
    assert prompt_of(whole[1], Block(0, 0, 9), 2).tolist() == [0, 1, 2, 3]
    assert prompt_of(whole[1], Block(0, 2, 9), 9).tolist() == [2, 3]


def test_what_is_written_follows_its_prompt_token_by_token(data: Dataset, student: LoadedModel) -> None:
    """Each token is the one that its number draws from what the student says of the text before it, alone and without a
    cache; and it ends at a token that ends documents, or is as long as it may be."""
    from compressor.data.randomness import keyed_uniform

    feed, reads = feed_of(data, student, recipe()), of_documents(student.preprocess)
    model = BatchModel(student.network, "student", mask="attention_mask")
    (part, *_) = feed.batches(0, 0)
    student.network.train()
    (batch,) = feed.written([part], model, 7)
    assert student.network.training
    student.network.eval()
    assert batch is not None
    samples, ended, lengths = encoded_split(data.train, reads), 0, []
    for row, number in enumerate(part["index"].tolist()):
        block = feed._blocks[number]
        prompt = prompt_of(samples[block.document], block, 5)
        mask, positions = batch["student/attention_mask"][row], batch["positions"][row]
        ids, at = batch["student/input_ids"][row, : int(mask.sum())], positions.nonzero()[:, 0]
        assert ids[: len(prompt)].tolist() == prompt.tolist()
        assert at.tolist() == list(range(len(prompt) - 1, len(ids)))
        labels = batch["labels"][batch["positions"].nonzero()[:, 0] == row]
        draws = keyed_uniform(0, np.array([number]), 8, 12)[0]
        for place, token in enumerate(labels.tolist()):
            shown = ids[: len(prompt) + place][None]
            with torch.no_grad():
                chances = student.network(shown, torch.ones_like(shown))[0, -1].double().softmax(-1).cumsum(-1)
            assert token == int((chances <= draws[place] * chances[-1]).sum())
            assert (token == reads.end_id) <= (place == len(labels) - 1)
        ended += int(labels[-1]) == reads.end_id
        lengths.append(len(labels))
        assert len(labels) == min(12, reads.max_length + 1 - len(prompt)) or int(labels[-1]) == reads.end_id
    assert max(lengths) == 12
    assert torch.equal(batch["student/input_ids"], batch["teacher/input_ids"])
    (again,) = feed.written([part], model, 7)
    (other,) = feed.written([part], model, 8)
    assert again is not None
    assert other is not None
    assert torch.equal(again["labels"], batch["labels"])
    assert not torch.equal(other["labels"], batch["labels"])


def test_parts_of_a_step_write_the_same(data: Dataset, student: LoadedModel) -> None:
    model, made = BatchModel(student.network, "student", mask="attention_mask"), []
    for accumulate in (1, 4):
        feed = feed_of(data, student, recipe(accumulate=accumulate))
        parts = [part for part, _ in zip(feed.batches(0, 0), range(accumulate), strict=False)]
        texts: dict[int, list[int]] = {}
        for part, batch in zip(parts, feed.written(parts, model, 0), strict=True):
            assert batch is not None
            of = batch["positions"].nonzero()[:, 0]
            for row, number in enumerate(part["index"].tolist()):
                texts[number] = batch["labels"][of == row].tolist()
        made.append(texts)
    assert made[0] == made[1]


def test_the_teacher_is_compared_on_what_was_written_and_labels_are_of_documents(
    data: Dataset, student: LoadedModel, teacher: LoadedModel
) -> None:
    how = recipe()
    feed, model = feed_of(data, student, how), BatchModel(student.network, "student", mask="attention_mask")
    (part, *_) = feed.batches(0, 0)
    (batch,) = feed.written([part], model, 0)
    assert batch is not None
    learner = Learner(model, bind_losses(how, has_teacher=True))
    with torch.no_grad():
        answers = BatchModel(teacher.network, "teacher")(batch)
        losses = learner(part, answers, batch)
        ours = model(batch).logits.double().log_softmax(-1)
        theirs = answers.logits.double().log_softmax(-1)
        documents_of_it = model(part).logits
    assert float(losses["kd"]) == pytest.approx(float((theirs.exp() * (theirs - ours)).sum(-1).mean()), rel=1e-6)
    assert float(losses["cross_entropy"]) == pytest.approx(float(cross_entropy(documents_of_it, part["labels"])))
    counts = learner.counts(part, batch)
    assert (int(counts["kd"]), int(counts["cross_entropy"])) == (len(batch["labels"]), len(part["labels"]))
    assert len(batch["labels"]) != len(part["labels"])
    assert int(groups_of(torch.tensor([-1]))) == 0


@pytest.mark.parametrize("losses", ["{name: kd, temperature: 1}", "{name: reverse_kl}", "{name: jsd}"])
@pytest.mark.slow
def test_a_student_learns_from_what_it_writes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, losses: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_documents(tmp_path_factory)
    ask = writing(made, tmp_path / "run", losses, share=1.0)
    assert call(*ask, "--student-init", "random") == 0
    assert "on-policy: in 22 of 22 steps the student writes up to 8 tokens" in capsys.readouterr().err
    history = rows(tmp_path / "run")
    for name, value in history[0]["loss"].items():
        assert history[-1]["loss"][name] < value, name


def writing(made: Path, out: Path, losses: str, share: float = 0.5) -> list[object]:
    return [
        *distilling(made, out, "--set", f"on_policy.share={share}", "--set", "on_policy.max_new_tokens=8"),
        "--set", f"losses=[{losses}]",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.distill.loop import engine

    made = made_documents(tmp_path_factory)
    ask = ("{name: jsd}, {name: cross_entropy}",)
    assert call(*writing(made, tmp_path / "whole", *ask)) == 0
    taken, step = [], engine._step

    def interrupted(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(engine, "_step", interrupted)
    assert call(*writing(made, tmp_path / "stopped", *ask)) == 130
    monkeypatch.setattr(engine, "_step", step)
    assert call(*writing(made, tmp_path / "stopped", *ask), "--resume") == 0
    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "stopped")
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


LANGUAGE = ("--task", "causal-lm", "--teacher", "hf:missing", "--student", "layers:2", "--data", "jsonl:missing.jsonl")
IMAGES = (
    "--task", "image-classification", "--teacher", "timm:resnet18", "--student", "timm:resnet18", "--data",
    "folder:missing",
)  # fmt: skip
REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "images": (IMAGES, "{name: kd}", "recipe on_policy: a student of image-classification writes nothing"),
    "labels alone": (LANGUAGE, "{name: cross_entropy}", "recipe on_policy: a teacher scores what the student writes"),
    "groups": (LANGUAGE, "{name: uld}", "recipe on_policy: uld takes more than answers to what the student writes"),
    "labels": (LANGUAGE, "{name: dkd}", "recipe on_policy: dkd takes more than answers to what the student writes"),
}


@pytest.mark.parametrize(("ask", "losses", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_refused_before_data_are_read(
    tmp_path: Path, ask: tuple[str, ...], losses: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", *ask, "--out", str(tmp_path / "run"), *SPEED, "--set", f"losses=[{losses}]"]
    assert call(*command, "--set", "on_policy.share=0.5") == 2
    told = capsys.readouterr().err
    assert told.count("kdc: error") == 1
    assert said in told


def test_a_share_of_0_is_asked_in_vain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["distill", *LANGUAGE, "--out", str(tmp_path / "run"), "--set", "on_policy.max_new_tokens=8"]
    assert call(*command) == 2
    assert "recipe on_policy: its share is 0" in capsys.readouterr().err
