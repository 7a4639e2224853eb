"""A student of one tokenizer learns from a teacher of another one: trained, stopped and resumed, by two processes."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.forked import python
from tests.kit import call
from tests.tasks.causal_lm.kit import SPEED, made_documents, marked_json, write_llama
from tests.tasks.causal_lm.test_lm_whole_way import contents, distilling, record, rows, score

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BOTH = "{name: uld, weight: 1.5}, {name: aligned_kd}, {name: cross_entropy}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_documents(tmp_path_factory)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untaught network of 2 layers that reads by a tokenizer as Llama 2 has it."""
    return write_llama(tmp_path_factory.mktemp("cross") / "other", 2, size=360, tokenizer=marked_json())


def crossing(
    made: Path, other: Path, out: Path, *more: object, losses: str = BOTH, epochs: int = 2, teacher: str = ""
) -> list[str]:
    asked = [
        "distill", "--teacher", teacher or f"run:{made / 'teacher'}", "--data", f"jsonl:{made / 'data.jsonl'}",
        "--out", out, "--student", f"hf:{other}", "--epochs", epochs, "--max-length", 32,
        "--set", f"losses=[{losses}]", *SPEED, *more,
    ]  # fmt: skip
    return [str(part) for part in asked]


def test_a_student_of_another_tokenizer_learns(
    made: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*crossing(made, other, tmp_path / "run")) == 0
    told, history = capsys.readouterr().err, rows(tmp_path / "run")
    assert "uld: student and teacher have " in told
    assert "validation: the student is " in told
    assert history[0]["loss"].keys() == {"uld", "aligned_kd", "cross_entropy"}
    for name, value in history[0]["loss"].items():
        assert history[-1]["loss"][name] < value, name
    taught = record(made / "teacher")
    assert record(tmp_path / "run").teacher_validation == taught.validation
    assert score(record(tmp_path / "run").test).bytes == score(taught.test).bytes


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    made: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.distill.loop import engine

    assert call(*crossing(made, other, tmp_path / "whole")) == 0
    taken, step = [], engine._step

    def interrupted(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(engine, "_step", interrupted)
    assert call(*crossing(made, other, tmp_path / "stopped")) == 130
    monkeypatch.setattr(engine, "_step", step)
    assert call(*crossing(made, other, tmp_path / "stopped"), "--resume") == 0
    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "stopped")
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


def test_two_processes_learn_what_one_learns(made: Path, other: Path, tmp_path: Path) -> None:
    """Of whose parts of a step none has as many groups as the other."""
    assert call(*crossing(made, other, tmp_path / "one", "--set", "accumulate=2", epochs=1)) == 0
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher = [*launcher, "--rdzv-endpoint", "localhost:0", "--no-python", *python(), "-m", "compressor"]
    command = [*python(), *launcher, *crossing(made, other, tmp_path / "two", epochs=1)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
    weights = [load_file(tmp_path / name / "student.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        assert weights[1][name] == pytest.approx(tensor, abs=2e-4), name


def test_more_rows_than_the_teacher_has_change_nothing(made: Path, tmp_path: Path) -> None:
    """A student of the same tokenizer whose vocabulary is filled up learns by any loss."""
    wide = write_llama(tmp_path / "wide", 2, size=384, max_position_embeddings=64)
    ask = [
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"jsonl:{made / 'data.jsonl'}", "--student",
        f"hf:{wide}", "--epochs", 2, "--max-length", 32, *SPEED, "--out", tmp_path / "run", "--set",
        "losses=[{name: kd, temperature: 1}, {name: reverse_kl}, {name: cross_entropy}]",
    ]  # fmt: skip
    assert call(*ask) == 0
    history = rows(tmp_path / "run")
    for name, value in history[0]["loss"].items():
        assert history[-1]["loss"][name] < value, name


def test_a_student_learns_by_way_of_assistants(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped while the second assistant learns, and resumed: to the bytes of a run that was not."""
    from compressor.distill.loop import engine

    more = ("--assistant", "layers:3", "--assistant", "layers:2", "--student", "layers:1", "--epochs", 1)
    assert call(*distilling(made, tmp_path / "whole", *more)) == 0
    told = capsys.readouterr().err
    assert "assistant 1 of 2: layers:3 learns from run:" in told
    assert "student layers:1: layers 0 of the 2 of run:" in told
    taken, step = [], engine._step

    def interrupted(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 15:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(engine, "_step", interrupted)
    assert call(*distilling(made, tmp_path / "stopped", *more)) == 130
    monkeypatch.setattr(engine, "_step", step)
    assert call(*distilling(made, tmp_path / "stopped", *more, "--resume")) == 0
    weights = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]
    student, taught = record(tmp_path / "whole"), record(made / "teacher")
    assert len(student.assistants) == 2
    assert student.teacher_validation == taught.validation


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teacher": "self"}, "recipe losses: uld compares the tokens of two models, and --teacher self is none apart"),
        ({"losses": "{name: top_k_kd}"}, "top_k_kd needs teacher_top, which trainings of causal-lm do not give it"),
    ],
)
def test_what_cannot_be_is_refused_before_data_are_read(
    made: Path, other: Path, tmp_path: Path, more: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    losses, teacher = more.get("losses", BOTH), more.get("teacher", "")
    ask = crossing(made, other, tmp_path / "run", "--task", "causal-lm", losses=losses, teacher=teacher)
    ask[ask.index("--data") + 1] = f"jsonl:{tmp_path / 'missing.jsonl'}"
    assert call(*ask) == 2
    assert said in error_of(capsys)


@pytest.mark.parametrize(("name", "lacks"), [("uld", "student_groups"), ("aligned_kd", "student_groups")])
def test_other_tasks_refuse_losses_of_documents_before_data_are_read(
    tmp_path: Path, name: str, lacks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = [
        "distill", "--task", "image-classification", "--teacher", "timm:resnet18", "--data", f"folder:{tmp_path / 'x'}",
        "--student", "timm:mobilenetv3_small_100", "--out", tmp_path / "run", "--set",
        f"losses=[{{name: {name}}}, {{name: cross_entropy}}]",
    ]  # fmt: skip
    assert call(*ask) == 2
    said = f"{name} needs {lacks}, which trainings of image-classification do not give it"
    told = error_of(capsys)
    assert said in told
    assert "it is for causal-lm" in told


def test_a_loss_that_compares_tokens_names_those_that_need_not(
    made: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*crossing(made, other, tmp_path / "run", losses="{name: kd, temperature: 1}")) == 2
    told = error_of(capsys)
    assert "kd compares student and teacher token by token, and they have another tokenizer" in told
    assert "uld, aligned_kd" in told


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error, and what to do next."""
    told = capsys.readouterr().err
    assert told.count("kdc: error") == 1
    return told[told.index("kdc: error") :]
