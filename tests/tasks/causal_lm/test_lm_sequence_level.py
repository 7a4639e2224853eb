"""`--teacher outputs:completions.jsonl`: sequence-level distillation, and whose words the student learned."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from compressor.data.completion_files import read_completions
from compressor.distill.written import _without_mode
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.base import read_json
from compressor.schema.completions import Completion
from compressor.schema.student import Student
from compressor.tasks.causal_lm.documents import Chat, Message, Written
from compressor.tasks.causal_lm.generation import prompts_in, split_of, texts_in
from tests.kit import Ended, call
from tests.tasks.causal_lm.kit import SPEED, made_documents, write_jsonl, write_llama

Kdc = Callable[..., Ended]


def test_completions_are_documents() -> None:
    rows = (
        Completion(prompt="p", completion="c", mode="chat"),
        Completion(prompt="the farmer", completion=" saw"),
        Completion(prompt="the farmer", completion=" saw", sample=1),
    )
    split = split_of(rows)
    assert [split.read(number) for number in range(3)] == [
        Chat((Message("user", "p"), Message("assistant", "c"))), Written("the farmer saw", 10),
        Written("the farmer saw", 10),
    ]  # fmt: skip
    assert prompts_in(split) == ["p", "the farmer", "the farmer"]
    assert texts_in(split) == ["c", " saw", " saw"]
    whole = split_of([Completion(prompt="the farmer", completion=" saw")])
    plain = replace(whole, read=lambda number: Written("the farmer saw"))
    assert prompts_in(plain) == texts_in(plain) == ["the farmer saw"]
    assert len(set(split.ids)) == 3
    assert split.contents[1] == split.contents[2] != split.contents[0]


def test_what_names_no_mode_is_said() -> None:
    rows = [Completion(prompt="p", completion="c", mode=mode) for mode in ("chat", "text", None)]
    assert _without_mode(rows[:2]) == ""
    assert _without_mode(rows).startswith("; 1 name no mode, and go on where their prompts end")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_documents(tmp_path_factory)


@pytest.fixture(scope="module")
def data(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts and what people completed: of 60 for training, 12 each held out."""
    folder = tmp_path_factory.mktemp("pairs")
    texts = [json.loads(line)["text"] for line in (made / "data.jsonl").read_text().splitlines()]
    pairs = [{"prompt": f"day {number}: ", "completion": text} for number, text in enumerate(texts[:84])]
    for name, part in (("train", pairs[:60]), ("validation", pairs[60:72]), ("test", pairs[72:])):
        write_jsonl(folder / f"{name}.jsonl", [*part])
    return folder


@pytest.fixture(scope="module")
def completions(made: Path, data: Path) -> Path:
    """What the teacher writes to the training prompts, and to one that is held out."""
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    held_out = json.loads((data / "test.jsonl").read_text().splitlines()[0])
    prompts = write_jsonl(data.parent / "asked.jsonl", [*rows, held_out])
    out = data.parent / "completions.jsonl"
    code = call(
        "predict", "--teacher", f"run:{made / 'teacher'}", "--data", f"jsonl:{prompts}", "--mode", "text",
        "--max-tokens", 24, "--out", out, "--licence", "CC-BY-NC-4.0", "--terms", "no competing models",
    )  # fmt: skip
    assert code == 0
    assert len(read_completions(out).rows) == 61
    return out


def distilling(made: Path, data: Path, completions: Path, out: Path, *more: object) -> list[object]:
    return [
        "distill", "--teacher", f"outputs:{completions}", "--data", f"jsonl:{data}", "--out", out, "--student",
        f"hf:{made / 'llama'}", "--max-length", 32, "--epochs", 2, *SPEED, *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_student_of_what_a_teacher_wrote(made: Path, data: Path, completions: Path, tmp_path: Path, kdc: Kdc) -> None:
    loose = ("--set", "completions.cut_off=false")
    ended = kdc(*distilling(made, data, completions, tmp_path / "run", *loose))
    assert ended.code == 0, ended.err
    assert (
        "train is outputs:completions.jsonl, in place of the data's own: of 61 completions 60 are learned" in ended.err
    )
    student = read_json(tmp_path / "run" / "student.json", Student)
    counts = student.data.completions
    assert counts is not None
    assert (counts.rows, counts.kept) == (61, 60)
    assert counts.left_out == {"whose prompt is held out for validation or test": 1}
    assert [term.name for term in student.recipe.losses] == ["cross_entropy"]
    assert student.regime is not None
    assert student.regime.name == "language_sequence"
    assert student.teacher is not None
    assert (student.teacher.licence, student.teacher.terms) == ("CC-BY-NC-4.0", "no competing models")
    assert student.teacher_validation is None
    assert isinstance(student.validation, BitsPerByte)
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"]["cross_entropy"] < rows[0]["loss"]["cross_entropy"]
    lines = completions.read_text().splitlines(keepends=True)
    (tmp_path / "completions.jsonl").write_text("".join(reversed(lines)))
    again = kdc(*distilling(made, data, tmp_path / "completions.jsonl", tmp_path / "again", *loose))
    assert again.code == 0, "in whatever order the answers came"
    assert (tmp_path / "again/student.safetensors").read_bytes() == (tmp_path / "run/student.safetensors").read_bytes()


@pytest.mark.slow
def test_what_is_refused(made: Path, data: Path, completions: Path, tmp_path: Path, kdc: Kdc) -> None:
    start = distilling(made, data, completions, tmp_path / "run")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"schema": 1, "losses": [{"name": "kd", "weight": 1.0, "temperature": 1.0}]}))
    for more, said in (
        (("--recipe", recipe), "kd asks the teacher, and outputs:"),
        (("--set", "licence.forbid=[CC-BY-NC-*]"), "recipe licence.forbid: CC-BY-NC-* (its licence is CC-BY-NC-4.0)"),
        (("--set", "licence.forbid=[run:teacher*]"), "(its model is run:teacher ("),
        (("--set", "completions.min_length=1000"), "no completion is left of 61"),
        (("--teacher", f"run:{made / 'teacher'}"), "stands alone"),
    ):
        ended = kdc(*start, *more)
        assert ended.code == 2, more
        assert said in ended.err
        assert not (tmp_path / "run").exists()
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(completions.read_bytes()[:-5])
    ended = kdc(*distilling(made, data, torn, tmp_path / "run"))
    assert ended.code == 2
    assert "breaks off: whoever wrote it was stopped" in ended.err
    ended = kdc(*distilling(made, data, tmp_path / "none.jsonl", tmp_path / "run"))
    assert ended.code == 2
    assert "does not exist" in ended.err
    ended = kdc(
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"jsonl:{data}", "--out", tmp_path / "run",
        "--set", "completions.min_length=3", "--max-length", 32,
    )  # fmt: skip
    assert ended.code == 2
    assert "recipe completions says which completions are learned from" in ended.err


@pytest.mark.slow
def test_a_model_drawn_here_needs_no_licence_of_others(tmp_path: Path, kdc: Kdc) -> None:
    folder = write_llama(tmp_path / "llama", 2)
    prompts = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "the farmer"}])
    ended = kdc(
        "predict", "--teacher", f"hf:{folder}", "--data", f"jsonl:{prompts}", "--mode", "text", "--max-tokens", 3,
        "--out", tmp_path / "c.jsonl",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    [row] = read_completions(tmp_path / "c.jsonl").rows
    assert (row.licence, row.terms) == ("unknown", "unknown")
