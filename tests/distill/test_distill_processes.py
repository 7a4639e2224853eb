"""Two processes on CPU (gloo) against one with the same global batch.

test_vit has no batch statistics: the curves must be equal. test_resnet normalises each process's part by itself, as one
process does that takes its step in two parts, so that these two must be equal.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from compressor.models import load_run
from compressor.schema.accuracy import accuracy_in
from compressor.schema.student import Request
from tests.forked import python
from tests.kit import call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Ask = Callable[..., Request]
STEPS = 54  # 240 images less the tenth for validation, by 32: 6 steps, 9 epochs


def command(out: Path, student: str, data: str, teacher: Path, *changes: str) -> list[str]:
    return [
        "distill", "--teacher", f"run:{teacher}", "--data", data, "--student", student, "--student-init", "random",
        "--input-size", "32", "--epochs", "9", "--batch-size", "32", "--set", "crop_pct=1.0", "--set", "ema_decay=0.9",
        "--out", str(out), *(change if change.startswith("--") else f"--set={change}" for change in changes),
    ]  # fmt: skip


def in_two(
    out: Path, student: str, data: str, teacher: Path, *changes: str, code: int = 0, started: bool = False
) -> subprocess.CompletedProcess[str]:
    """By torchrun, on a thread each; really `started`, or forked."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher = [*launcher, "--rdzv-endpoint", "localhost:0"]
    program = ["-m", "compressor", *command(out, student, data, teacher, *changes)]
    whole = (
        [sys.executable, *launcher, *program] if started else [*python(), *launcher, "--no-python", *python(), *program]
    )
    done = subprocess.run(whole, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stderr
    return done


def in_one(out: Path, student: str, data: str, teacher: Path, *changes: str) -> None:
    """In this process, which has one thread too."""
    assert call(*command(out, student, data, teacher, *changes)) == 0


def curve(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert sum(row["steps"] for row in rows) == STEPS
    return [value for row in rows for value in row["loss"].values()]


@pytest.mark.parametrize(
    ("student", "alone", "lr"),
    [("timm:test_vit", [], 3e-4), ("timm:test_resnet", ["accumulate=2"], 1e-5)],
    ids=["vit", "batch norm"],
)
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, digits4: str, teacher_run: Path, student: str, alone: list[str], lr: float
) -> None:
    """At rates where the last digits, which the order of a sum decides, are not blown up within 54 steps."""
    changes = "views.distinct=3", f"optimizer.lr={lr}"
    in_one(tmp_path / "one", student, digits4, teacher_run, *changes, *alone)
    both = in_two(tmp_path / "two", student, digits4, teacher_run, *changes, started=student == "timm:test_vit")
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-5)
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "two"))
    running = ("running_mean", "running_var", "num_batches_tracked")
    for name, tensor in one.items():
        if not name.endswith(running):  # each process keeps the statistics of its own parts
            assert two[name] == pytest.approx(tensor, abs=2e-4), name
    first, second = (load_run(tmp_path / name)[1] for name in ("one", "two"))
    assert second.test.n == first.test.n == 120
    if student == "timm:test_vit":
        assert accuracy_in(second.test).correct == accuracy_in(first.test).correct
    assert both.stdout.count("test accuracy") == 1, "one process speaks"
    assert "2 processes share each batch; each BatchNorm takes its statistics over its process's part" in both.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_two_processes_train_a_control_and_one_writes_the_gain(tmp_path: Path, digits4: str, teacher_run: Path) -> None:
    out = tmp_path / "run"
    done = in_two(out, "timm:test_vit", digits4, teacher_run, "--control")
    (_, student), (_, control) = load_run(out), load_run(out / "control")
    assert student.gain is not None
    assert (student.gain.control_sha256, student.gain.steps) == (control.weights.sha256, STEPS)
    gap = student.gain.test
    assert gap.only_student - gap.only_control == accuracy_in(student.test).correct - accuracy_in(control.test).correct
    assert done.stdout.count("over labels alone") + done.stdout.count("against labels alone") == 1, "one process speaks"
    assert sorted(path.name for path in out.rglob(".kdc*")) == []


def test_a_batch_that_two_processes_cannot_share_is_refused(tmp_path: Path, digits4: str, teacher_run: Path) -> None:
    launcher_failed = 1
    done = in_two(tmp_path / "run", "timm:test_vit", digits4, teacher_run, "accumulate=3", code=launcher_failed)
    assert "batch_size 32 cannot be shared evenly by 2 processes in parts of accumulate=3" in done.stderr
    assert not (tmp_path / "run").exists()


BESIDE = {
    "projections": ['losses=[{"name": "kd"}, {"name": "hint", "weight": 0.1}, {"name": "early_exits", "weight": 0.1}]'],
    "peers": [
        'losses=[{"name": "kd"}, {"name": "mutual"}, {"name": "cross_entropy"}]',
        'peers=[{"student": "timm:test_vit2"}]',
    ],
}


@pytest.mark.parametrize("changes", BESIDE.values(), ids=BESIDE)
def test_what_is_trained_beside_the_student_is_trained_by_all_processes(
    tmp_path: Path, digits4: str, teacher_run: Path, changes: list[str]
) -> None:
    """Pitfalls, "What belongs to the optimizer and not to the export": what several processes average the gradients of
    holds connectors and peers too. Exits have batch statistics, so that one process takes its steps in two parts
    here."""
    changes = ["optimizer.lr=3e-5", *changes]
    in_one(tmp_path / "one", "timm:test_vit", digits4, teacher_run, *changes, "accumulate=2")
    in_two(tmp_path / "two", "timm:test_vit", digits4, teacher_run, *changes)
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=2e-5)


def test_crd_is_refused_in_several_processes(tmp_path: Path, digits4: str, teacher_run: Path) -> None:
    crd = 'losses=[{"name": "kd"}, {"name": "crd"}]'
    launcher_failed = 1
    done = in_two(tmp_path / "run", "timm:test_vit", digits4, teacher_run, crd, code=launcher_failed)
    assert "crd keeps a memory of all samples, which several processes would not share" in done.stderr
    assert not (tmp_path / "run").exists()
