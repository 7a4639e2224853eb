"""A smaller transformer learns a larger one's hidden states, attention and relations, through the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from compressor.models import load_run
from compressor.schema.preprocess import PREPROCESS
from compressor.tasks.table import TASKS, TaskRow
from tests import toy_task
from tests.kit import call
from tests.toy_task import ToyPreprocess
from tests.toy_transformer import Encoder

pytestmark = pytest.mark.slow

HOW = ("--data", "toy:any", "--batch-size", 20, "--set", "optimizer.lr=0.01")


def of_width(width: int, classes: int) -> Encoder:
    return Encoder(width, width // 8, classes=classes)


@pytest.fixture(scope="module", autouse=True)
def _tenant() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", TaskRow("tests.toy_task", ("toy",), ("toy",), ("toy",)))
        patch.setitem(PREPROCESS, "toy", ToyPreprocess)
        patch.setattr(toy_task, "Network", of_width)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens") / "teacher"
    given = "--teacher", "toy:32", "--teacher-init", "random", "--epochs", 6, "--set", "head_epochs=0"
    assert call("teach", *given, *HOW, "--out", out) == 0
    return out


def distilled(teacher: Path, out: Path, losses: str, *more: object) -> int:
    student = "--student", "toy:16", "--student-init", "random", "--epochs", 4
    return call(
        "distill", "--teacher", f"run:{teacher}", *student, *HOW, "--out", out, "--set", f"losses=[{losses}]", *more
    )


TINYBERT = (
    "{name: kd, temperature: 1}, {name: hidden_states}, {name: attention_scores, weight: 0.1}, "
    "{name: relations, relation_heads: 8}"
)


def test_it_learns_what_the_teacher_computes_and_keeps_no_projector(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student"
    assert distilled(teacher, out, TINYBERT, "--set", "accumulate=2") == 0
    said = capsys.readouterr().err
    assert (
        "hidden_states: embedding (16 wide) from embedding (32 wide), stage1 (16 wide) from stage2 (32 wide), " in said
    )
    assert "relations: projections2 (16 wide) from projections4 (32 wide)" in said
    rows = [json.loads(line)["loss"] for line in (out / "history.jsonl").read_text().splitlines()]
    for name in ("hidden_states", "relations", "kd"):
        assert rows[-1][name] < 0.9 * rows[0][name], name
    plain = of_width(16, 3)
    assert load_file(out / "student.safetensors").keys() == plain.state_dict().keys()
    assert load_run(out)[1].weights.parameters == sum(one.numel() for one in plain.parameters())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("{name: token_cosine}", "stage2 is 16 wide and stage4 of the teacher 32"),
        ("{name: relations, relation_heads: 12}", "relation_heads=12 does not divide a width of 16"),
        ("{name: masked_lm}", "masked_lm needs token_labels"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], loss: str, message: str
) -> None:
    assert distilled(teacher, tmp_path / "student", "{name: kd}, " + loss) == 2
    assert message in " ".join(capsys.readouterr().err.split())
