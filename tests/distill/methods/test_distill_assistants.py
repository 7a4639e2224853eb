"""Teacher, assistants, student: what is refused before the first is trained, what is recorded, what is gone on with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.distill import distill, distill_chain, distill_quantized, teach
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.export.bundle.identity import without_paths
from compressor.models import load_run
from compressor.models.lineage import load_teacher, teacher_of
from compressor.progress import Progress, Silent
from compressor.schema.base import read_json, write_json
from compressor.schema.quantization import Scheme
from compressor.schema.student import Request, Student
from tests.kit import Hearing

Ask = Callable[..., Request]
BETWEEN, TRANSFORMER = "timm:test_resnet", "timm:test_vit"


def run(request: Request, out: Path, progress: Progress | None = None, resume: bool = False) -> Student:
    return distill_chain(request, Destination(out, resume=resume), progress=progress or Silent())


def chained(request: Request, *assistants: str) -> Request:
    return request.model_copy(update={"assistants": assistants or (BETWEEN,)})


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


@pytest.mark.slow
def test_a_chain_is_recorded_and_equals_its_parts(tmp_path: Path, ask_distill: Ask, teacher_run: Path) -> None:
    out, progress = tmp_path / "run", Hearing()
    request = chained(ask_distill(epochs=3))
    student = run(request, out, progress)
    parts = ["assistants", "history.jsonl", "run.json", "student.json", "student.safetensors", "trained_on.npy"]
    assert files(out) == parts
    assert files(out / "assistants") == ["1"]
    assistant, between = load_run(out / "assistants" / "1")
    asked = load_teacher(request, student.class_names)
    assert asked is not None
    taught = asked.weights
    assert (between.architecture, between.teacher, between.assistants) == ("test_resnet", taught, ())
    # Held against the teacher that it began with, by its own accuracy.
    assert (student.teacher, student.teacher_validation) == (taught, between.teacher_validation)
    assert [one.sha256 for one in student.assistants] == [assistant.weights.sha256]
    assert read_json(out / "run.json", Request) == request
    assert student.recipe == request.recipe
    assert f"the student: timm:test_efficientnet learns from run:{out / 'assistants' / '1'}" in progress.notes
    told = [line for line in progress.notes + progress.warnings if "the student is" in line]
    taught_by = [f"its teacher run:{folder} (n=24 pairs)" for folder in (teacher_run, out / "assistants" / "1")]
    assert all(any(name in line for line in told) for name in taught_by)
    assert teacher_of(request, student, None, "").weights == taught  # type: ignore[union-attr]
    assert [one.source for one in without_paths(student).assistants] == ["run:1"]
    # The same student comes of the same two commands.
    by_hand = ask_distill(epochs=3, teacher=f"run:{out / 'assistants' / '1'}")
    distill(by_hand, Destination(tmp_path / "hand"), progress=Silent())
    assert (tmp_path / "hand" / "student.safetensors").read_bytes() == (out / "student.safetensors").read_bytes()
    before = (out / "assistants" / "1" / "student.json").stat().st_mtime_ns
    assert run(request, out, resume=True) == student
    assert (out / "assistants" / "1" / "student.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 15])
def test_an_interrupted_chain_goes_on(
    step: int, tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    """In the assistant (6 steps an epoch, 2 epochs), or in the student."""
    request = chained(ask_distill())
    run(request, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "parts", interrupt_at(step))
    assistant = tmp_path / "parts" / "assistants" / "1"
    assert (assistant / "student.json").exists() == (step == 15)
    with pytest.raises(KdcError, match="a run that was not finished"):
        run(request, tmp_path / "parts")
    other = chained(ask_distill(), TRANSFORMER)
    with pytest.raises(KdcError, match="assistants was"):
        run(other, tmp_path / "parts", resume=True)
    before = (assistant / "student.json").stat().st_mtime_ns if step == 15 else None
    run(request, tmp_path / "parts", resume=True)
    assert before in (None, (assistant / "student.json").stat().st_mtime_ns)
    for name in ("student.safetensors", "assistants/1/student.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["teacher", "data", "unlabelled"])
def test_a_chain_does_not_go_on_with_something_else(
    changed: str, tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    """Its assistant is finished; the student is not."""
    request, out = chained(ask_distill()), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(request, out, interrupt_at(15))
    record = out / "assistants" / "1" / "student.json"
    values = json.loads(record.read_text())
    if changed == "unlabelled":
        values["data"]["unlabelled"] = {"source": "x", "count": 1, "fingerprint": "f", "left_out_copies": 0}
    else:
        values[changed]["sha256" if changed == "teacher" else "fingerprint"] = "0" * 64
    record.write_text(json.dumps(values))
    what = "the teacher" if changed == "teacher" else "the data"
    with pytest.raises(KdcError, match=f"--resume: since the assistants were trained, {what} changed"):
        run(request, out, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"assistants": (BETWEEN,), "unlabelled": "folder:nowhere"},
        {"assistants": (BETWEEN,), "transfer": {"without": ("five",)}},
        {"assistants": (BETWEEN,), "init": "x.pth", "qat": Scheme(activations="uint8")},
        {"student": "timm:resnet1O", "qat": Scheme(activations="uint8")},
        {"unlabelled": "folder:nowhere", "qat": Scheme(activations="uint8")},
        {"transfer": {"without": ("five",)}, "qat": Scheme(activations="uint8")},
    ],
)
def test_overwriting_keeps_the_old_run_where_the_new_one_cannot_begin(
    changes: dict[str, Any], tmp_path: Path, ask_distill: Ask
) -> None:
    out = tmp_path / "run"
    write_json(out / "run.json", ask_distill())
    (out / "student.safetensors").write_text("trained for a week")
    transfer = changes.get("transfer", {})
    request = ask_distill(transfer=transfer).model_copy(
        update={key: value for key, value in changes.items() if key != "transfer"}
    )
    how = distill_quantized if request.qat else distill_chain
    with pytest.raises(KdcError, match=r"nowhere does not exist|no class five|x\.pth|no model resnet1O"):
        how(request, Destination(out, overwrite=True), progress=Silent())
    assert files(out) == ["run.json", "student.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"assistants": (BETWEEN,)}, {"qat": Scheme(activations="uint8")}])
def test_overwriting_for_a_teacher_at_chance_keeps_the_old_run(
    changes: dict[str, Any], tmp_path: Path, ask_distill: Ask, ask_teach: Ask
) -> None:
    """It is found when its answers are measured, which is after the new run began."""
    out, untrained = tmp_path / "run", tmp_path / "untrained"
    ask = ask_teach(epochs=1, optimizer={"lr": 1e-12}, ema_decay=0)
    teach(ask, Destination(untrained), progress=Silent())
    write_json(out / "run.json", ask_distill())
    (out / "student.safetensors").write_text("trained for a week")
    request = ask_distill(teacher=f"run:{untrained}").model_copy(update=changes)
    how = distill_quantized if request.qat else distill_chain
    with pytest.raises(KdcError, match="at chance level"):
        how(request, Destination(out, overwrite=True), progress=Silent())
    assert files(out) == ["run.json", "student.safetensors"]
    assert read_json(out / "run.json", Request) == ask_distill()


@pytest.mark.slow
def test_a_quantized_student_of_a_chain_has_its_first_teacher(tmp_path: Path, ask_distill: Ask) -> None:
    request = chained(ask_distill(student="timm:test_resnet", qat={"epochs": 1, "calibration": 32}))
    request = request.model_copy(update={"qat": Scheme(activations="uint8")})
    out = tmp_path / "run"
    student = distill_quantized(request, Destination(out), progress=Silent())
    in_float = load_run(out / "float")[1]
    assert (student.teacher, student.assistants) == (in_float.teacher, in_float.assistants)
    assert len(student.assistants) == 1
    assert student.quantization is not None
    assert files(out / "float" / "assistants") == ["1"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"assistants": ("timm:test_vitt",)}, "timm has no model test_vitt"),
        ({"student": "timm:nothing"}, "timm has no model nothing"),
        ({"assistants": ("run:x",)}, "student 'run:x' is not timm:NAME"),
        ({"teacher": "self"}, "--assistant stands between a teacher and the student, and --teacher self"),
        ({"init": "mine.safetensors"}, "--student-init mine.safetensors is the student's alone"),
        ({"teacher": "run:nowhere"}, "the run nowhere does not exist"),
    ],
)
@pytest.mark.slow
def test_what_would_stop_the_last_is_known_before_the_first(
    changes: dict[str, Any], said: str, ask_distill: Ask, tmp_path: Path
) -> None:
    request = chained(ask_distill()).model_copy(update=changes)
    with pytest.raises(KdcError) as caught:
        run(request, tmp_path / "run")
    assert said in caught.value.message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_layers_that_only_the_last_lacks_are_known_before_the_first(tmp_path: Path, ask_distill: Ask) -> None:
    """An attention loss from a transformer to a transformer, and then to a student that has no attention."""
    losses = [{"name": "attention_maps"}, {"name": "kd"}]
    request = chained(ask_distill(losses=losses), TRANSFORMER)
    with pytest.raises(KdcError, match="has no attention"):
        run(request, tmp_path / "run")
    assert not (tmp_path / "run").exists()
