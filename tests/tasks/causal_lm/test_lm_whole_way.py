"""kdc teach and distill on documents: from JSON lines to a trained student, which can be resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.files.locks import is_lock
from compressor.models import load_run
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.base import read_json
from compressor.schema.student import Student
from tests.kit import Ended, call
from tests.tasks.causal_lm.kit import SPEED, documents, llama, made_documents, tokenizer_json, write_jsonl, write_llama

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_documents(tmp_path_factory)


def distilling(made: Path, out: Path, *more: object) -> list[object]:
    return [
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"jsonl:{made / 'data.jsonl'}", "--out", out,
        "--student", "layers:2", "--epochs", 2, *SPEED, *more,
    ]  # fmt: skip


def record(folder: Path) -> Student:
    return read_json(folder / "student.json", Student)


def score(found: object) -> BitsPerByte:
    assert isinstance(found, BitsPerByte)
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_taught_model_knows_its_documents(made: Path) -> None:
    taught = record(made / "teacher")
    assert taught.task == "causal-lm"
    assert taught.class_names == ()
    assert taught.teacher_card is None
    assert score(taught.test).bits_per_byte < 2.0  # of 320 tokens at random: 8.3 a token, 2.7 a byte
    assert [row["validation"]["bits_per_byte"] for row in rows(made / "teacher")] == sorted(
        (row["validation"]["bits_per_byte"] for row in rows(made / "teacher")), reverse=True
    )
    model, _ = load_run(made / "teacher")
    assert model.preprocess == taught.preprocess


def test_a_student_is_cut_taught_and_measured(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*distilling(made, tmp_path / "run")) == 0
    told, student, taught = capsys.readouterr(), record(tmp_path / "run"), record(made / "teacher")
    assert student.teacher_validation == taught.validation
    assert student.kept_rule == "last epoch (validation n=10 < 1000 is too small to choose on)"
    assert {"kd", "cross_entropy"} == rows(tmp_path / "run")[0]["loss"].keys()
    kept = score(student.validation)
    assert rows(tmp_path / "run")[-1]["validation"] == {
        "bits_per_byte": kept.bits_per_byte, "perplexity": kept.perplexity, "n": 10
    }  # fmt: skip
    assert kept.low is not None
    assert kept.high is not None
    assert kept.low < kept.bits_per_byte < kept.high
    for line in (
        "student layers:2: layers 0, 3 of the 4 of run:", "teacher run:", "bits a byte",
        "epochs of 11 steps of 16 blocks",
        "validation: the student is",
    ):  # fmt: skip
        assert line in told.err
    assert "test accuracy" not in told.out + told.err


def test_transformers_loads_what_is_kept(made: Path, tmp_path: Path) -> None:
    """RUN/hf is a folder in its layout, but for the weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    model, _ = load_run(made / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(made / "teacher" / "hf")
    theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(made / "teacher" / "hf")).eval()
    state = model.network.state_dict().items()
    theirs.load_state_dict({name.removeprefix("model."): value for name, value in state})
    ids = tokenizer("the farmer saw the ox", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, model.network(ids, torch.ones_like(ids)))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|start|>", "<|end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<|user|>a<|end|>"


def contents(folder: Path) -> dict[str, bytes]:
    timed = ("history.jsonl", "run.json")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_lock(path.name) and path.name not in timed
    }


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.distill.loop import engine

    assert call(*distilling(made, tmp_path / "whole")) == 0
    taken, step = [], engine._step

    def interrupted(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 15:
            signal_stop()
        return step(*arguments)

    def signal_stop() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(engine, "_step", interrupted)
    assert call(*distilling(made, tmp_path / "stopped")) == 130
    monkeypatch.setattr(engine, "_step", step)
    assert not (tmp_path / "stopped" / "student.json").exists()
    assert call(*distilling(made, tmp_path / "stopped"), "--resume") == 0
    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "stopped")
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


@pytest.mark.parametrize(
    "losses",
    [
        "[{name: cross_entropy}]",
        "[{name: reverse_kl}]",
        "[{name: jsd, beta: 0.1}]",
        "[{name: kd, temperature: 1}, {name: hidden_states}]",
        "[{name: kd, temperature: 1}, {name: token_cosine}]",
    ],
)
def test_every_way_to_learn_lowers_its_loss(made: Path, tmp_path: Path, losses: str) -> None:
    assert call(*distilling(made, tmp_path / "run", "--student-init", "random", "--set", f"losses={losses}")) == 0
    history = rows(tmp_path / "run")
    for name, value in history[0]["loss"].items():
        assert history[-1]["loss"][name] < value, name


def test_chats_and_prompts_are_learned_from(made: Path, tmp_path: Path) -> None:
    texts = documents(30, seed=5)
    chats = [
        {"messages": [{"role": "user", "content": text[:12]}, {"role": "assistant", "content": text[12:]}]}
        for text in texts
    ]
    data = write_jsonl(tmp_path / "chats.jsonl", chats)
    teach = ["teach", "--teacher", f"run:{made / 'teacher'}", "--epochs", 1]
    assert call(*teach, "--data", f"jsonl:{data}", "--out", tmp_path / "chats") == 0
    kept = record(tmp_path / "chats")
    assert score(kept.test).bytes < sum(len(text) for text in texts)
    prompts = [{"prompt": text[:12], "completion": text[12:]} for text in texts]
    data = write_jsonl(tmp_path / "prompts.jsonl", prompts)
    assert call(*teach, "--data", f"jsonl:{data}", "--out", tmp_path / "prompts") == 0


def test_a_model_is_drawn_and_taught_from_the_start(tmp_path: Path) -> None:
    config = llama(2).config
    (tmp_path / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    data = write_jsonl(tmp_path / "data.jsonl", [{"text": text} for text in documents(30)])
    assert call(
        "teach", "--teacher", f"hf:{tmp_path / 'config.json'}", "--teacher-init", "random", "--data", f"jsonl:{data}",
        "--out", tmp_path / "run", "--epochs", 1, "--max-length", 32,
    ) == 0  # fmt: skip
    assert record(tmp_path / "run").weights.licence == "none (trained from scratch)"


REFUSED: dict[str, tuple[list[object], str]] = {
    "qat": (["--qat"], "--qat: kdc cannot do that for causal-lm yet"),
    "control": (["--control"], "--control: kdc cannot do that for causal-lm yet"),
    "plan": (["--plan"], "--plan: kdc cannot do that for causal-lm yet"),
    "precompute": (["--precompute"], "--precompute: kdc cannot do that for causal-lm yet"),
    "profile": (["--profile", "x86-avx2"], "--profile: kdc cannot do that for causal-lm yet"),
    "unlabelled": (["--unlabelled", "text:x"], "--unlabelled"),
    "assistant": (["--assistant", "layers:3"], "--assistant: kdc cannot do that for causal-lm yet"),
    "label column": (["--label-column", "text"], "--label-column"),
    "views": (["--set", "views.hflip=false"], "recipe views"),
    "keep_by": (["--set", "keep_by=accuracy"], "recipe keep_by: accuracy is not what these documents are measured by"),
    "input size": (["--input-size", "32"], "--input-size is of images"),
    "without": (["--set", "transfer.without=[x]"], "recipe transfer.without: the data has no class x"),
    "too long": (["--max-length", "256"], "--max-length 256: layers:2 of run:"),
    "width": (["--student", "layers:2,width:16"], "is not layers:N"),
}


@pytest.mark.parametrize(("more", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_kdc_cannot_do_is_said_in_one_line(
    made: Path, tmp_path: Path, more: list[object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*distilling(made, tmp_path / "run", *more)) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kdc: error")]
    assert len(told) == 1
    assert said in told[0]
    assert "bug in kdc" not in told[0]
    assert not (tmp_path / "run" / "student.json").exists()


def test_a_table_of_probabilities_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "answers.csv"
    predict = (
        "predict",
        "--teacher",
        f"run:{made / 'teacher'}",
        "--data",
        f"jsonl:{made / 'data.jsonl'}",
        "--out",
        out,
    )
    assert call(*predict) == 2
    assert "is a table of completions, which ends on .jsonl" in capsys.readouterr().err, "it writes no probabilities"


def test_a_teacher_of_other_tokens_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Base and instruct models of one family may end their texts otherwise, with the same tokenizer."""
    other = write_llama(tmp_path / "other")
    config = {"bos_token": "<|start|>", "eos_token": "<|user|>", "pad_token": "<|pad|>"}
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    ask = distilling(made, tmp_path / "run", "--student", f"hf:{other}", "--max-length", 32)
    assert call(*ask) == 2
    assert "kd compares student and teacher token by token, and they have another last token" in capsys.readouterr().err
    assert call(*ask, "--set", "losses=[{name: cross_entropy}]") == 0  # labels alone ask for none


def test_a_teacher_that_knows_nothing_is_refused(made: Path, tmp_path: Path, kdc: Any) -> None:
    write_llama(tmp_path / "drawn", initializer_range=1.0)
    ended: Ended = kdc(
        "distill", "--teacher", f"hf:{tmp_path / 'drawn'}", "--data", f"jsonl:{made / 'data.jsonl'}",
        "--out", tmp_path / "run", "--student", "layers:2",
    )  # fmt: skip
    assert ended.code == 2
    assert "answers at chance level on the validation split: perplexity" in ended.err


def test_two_teachers_teach_one_student(made: Path, tmp_path: Path, kdc: Any) -> None:
    other = (
        "teach", "--teacher", f"hf:{made / 'llama'}", "--data", f"jsonl:{made / 'data.jsonl'}", "--epochs", 3,
        "--seed", 1, "--max-length", 32, *SPEED, "--out", tmp_path / "other",
    )  # fmt: skip
    assert call(*other) == 0
    ended: Ended = kdc(
        *distilling(made, tmp_path / "run"), "--teacher", f"run:{tmp_path / 'other'}", "--student",
        f"hf:{made / 'llama'}", "--student-init", "random", "--max-length", 32,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    for number in (1, 2):
        assert f"teacher {number} of 2: validation " in ended.err
    apart = write_llama(tmp_path / "apart", template=None)
    ended = kdc(
        *distilling(made, tmp_path / "refused"), "--teacher", f"hf:{apart}", "--student", f"hf:{made / 'llama'}",
    )  # fmt: skip
    assert ended.code == 2
    assert "teachers that read documents as other tokens cannot answer as one" in ended.err
