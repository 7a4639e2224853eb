"""Trainings in stages: hints first, then logits. Each resumes byte for byte, and the answers that one has kept serve
the next."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from compressor.distill import Resources, distill, distill_controlled, teach
from compressor.distill.forecast import _notes, _parts, _Timed
from compressor.distill.methods.control import control_of
from compressor.distill.methods.qat import qat_recipe
from compressor.distill.recipes import recipe_from
from compressor.distill.run_folder import Destination
from compressor.distill.stages import recipe_of
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.models.runs import read_student
from compressor.pipeline import _epochs_in_all
from compressor.progress import Progress, Silent
from compressor.schema.base import parse
from compressor.schema.estimate import Spread
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request, Student
from tests.kit import Hearing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Ask = Callable[..., Request]
FITNETS: dict[str, Any] = {
    "stages": [{"losses": [{"name": "hint", "at": [["stage2", "stage2"]]}], "epochs": 2, "optimizer": {"lr": 0.003}}],
    "epochs": 2,
}
STEPS = 6


def run(
    request: Request, out: Path, *, resume: bool = False, progress: Progress | None = None, cache: Path | None = None
) -> Student:
    resources = Resources(teacher_cache=cache)
    return distill(request, Destination(out, resume=resume), progress=progress or Silent(), resources=resources)


def same(one: Path, other: Path) -> bool:
    a, b = (load_file(path / "student.safetensors") for path in (one, other))
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def history(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, ask_distill: Ask) -> Path:
    """Never change it."""
    out = tmp_path_factory.mktemp("staged") / "run"
    run(ask_distill(**FITNETS), out)
    return out


def test_hints_come_first_and_logits_go_on_from_there(staged: Path, tmp_path: Path, ask_distill: Ask) -> None:
    hints, logits = history(staged / "stages" / "1"), history(staged)
    assert [list(row["loss"]) for row in hints] == [["hint"]] * 2
    assert [list(row["loss"]) for row in logits] == [["kd", "cross_entropy"]] * 2
    assert hints[1]["loss"]["hint"] < hints[0]["loss"]["hint"]
    alone = run(ask_distill(epochs=2), tmp_path / "alone")
    assert not same(staged, tmp_path / "alone"), "it began with what the hints had taught"
    record = load_run(staged)[1]
    assert [stage.epochs for stage in record.recipe.stages] == [2]
    assert record.weights.parameters == alone.weights.parameters
    assert load_file(staged / "student.safetensors").keys() == load_file(tmp_path / "alone/student.safetensors").keys()
    assert not list(staged.rglob("checkpoint")), "nothing goes on from a run that is finished"


@pytest.mark.parametrize("step", [3, 2 * STEPS - 1, 2 * STEPS, 3 * STEPS + 1])
def test_interrupted_in_any_stage_it_goes_on_byte_for_byte(
    staged: Path, tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress], step: int
) -> None:
    """Pitfalls, "Resumed is not the same": within the first stage, at its end, in the next one, and later."""
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(**FITNETS), out, progress=interrupt_at(step))
    assert (out / "stages" / "1" / "checkpoint").is_dir()
    assert (out / "checkpoint").is_dir() is (step >= 2 * STEPS)
    run(ask_distill(**FITNETS), out, resume=True)
    assert same(staged, out)
    assert history(out) == history(staged)
    assert history(out / "stages" / "1") == history(staged / "stages" / "1")


def test_other_stages_are_another_run(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(**FITNETS), tmp_path / "run", progress=interrupt_at(3))
    longer = {**FITNETS, "stages": [{**FITNETS["stages"][0], "epochs": 3}]}
    with pytest.raises(KdcError, match=r"started with other settings: .*stages"):
        run(ask_distill(**longer), tmp_path / "run", resume=True)


TWICE: dict[str, Any] = {
    "stages": [{"losses": [{"name": "kd"}, {"name": "pkd"}], "epochs": 1}, {"losses": [{"name": "kd"}], "epochs": 1}],
    "epochs": 1, "views": {"distinct": 1, "hflip": False},
}  # fmt: skip


def test_answers_that_one_stage_has_kept_serve_the_next(tmp_path: Path, ask_distill: Ask) -> None:
    """Each shows every view once, so that none of them alone would keep any."""
    progress = Hearing()
    run(ask_distill(**TWICE), tmp_path / "kept", progress=progress, cache=tmp_path / "cache")
    assert sum("the teacher's answers: new in" in line for line in progress.notes) == 2, "with maps, and without"
    assert sum("the teacher's answers: in" in line for line in progress.notes) == 1
    run(ask_distill(**TWICE), tmp_path / "anew")
    assert same(tmp_path / "kept", tmp_path / "anew")
    told = [line for line in progress.notes if line.startswith("stage ")]
    assert told == ["stage 1 of 3: kd, pkd", "stage 2 of 3: kd"]


def test_the_control_takes_as_many_steps_and_no_stages(ask_distill: Ask, tmp_path: Path) -> None:
    request = ask_distill(**FITNETS).model_copy(update={"control": True})
    alone = control_of(request, request.student, STEPS).recipe
    assert (alone.epochs, alone.stages) == (4, ())
    distill_controlled(request, Destination(tmp_path / "run"), progress=Silent())
    gain = read_student(tmp_path / "run").gain
    assert gain is not None
    assert gain.steps == 4 * STEPS


def test_under_fake_quantization_there_are_none(ask_distill: Ask) -> None:
    shorter, left_out = qat_recipe(ask_distill(**FITNETS).recipe, with_teacher=True)
    assert (shorter.stages, left_out) == ((), [])


def test_a_stage_is_the_recipe_but_for_its_own_keys() -> None:
    values = {"schema": 1, "batch_size": 16, "optimizer": {"lr": 0.01}, "losses": [{"name": "kd"}], **FITNETS}
    recipe = parse(Recipe, {**values, "head_epochs": 1}, "recipe")
    stage = recipe_of(recipe, 1)
    assert (stage.epochs, stage.optimizer.lr, stage.head_epochs, stage.stages) == (2, 0.003, 0, ())
    assert [term.name for term in stage.losses] == ["hint"]
    assert stage.batch_size == 16
    assert recipe.epochs_in_all == 4
    own = {"losses": [{"name": "hint"}], "epochs": 1}
    assert recipe_of(parse(Recipe, {**values, "stages": [own]}, "recipe"), 1).optimizer.lr == 0.01
    scaled = recipe_from({**values, "stages": [{**own, "optimizer": {"lr": 0.02, "lr_for_batch": 64}}]}, None, {}, [])
    assert scaled.stages[0].optimizer is not None
    assert scaled.stages[0].optimizer.lr == pytest.approx(0.01)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown loss": (
        {"stages": [{"losses": [{"name": "hnt"}], "epochs": 1}]}, r"recipe stages\.0\.losses\.0: unknown loss",
    ),
    "a layer that is not there": (
        {"stages": [{"losses": [{"name": "hint", "at": [["stage9", "stage1"]]}], "epochs": 1}]}, "there is no stage9",
    ),
    "nothing to look at": (
        {"stages": [{"losses": [{"name": "attention_scores"}], "epochs": 1}]}, "shows no scores of its attention",
    ),
    "no weight": (
        {"stages": [{"losses": [{"name": "hint", "weight": 0}], "epochs": 1}]},
        r"recipe stages\.0\.losses: every weight is 0",
    ),
    "peers": (
        {
            "stages": [{"losses": [{"name": "mutual"}], "epochs": 1}], "losses": [{"name": "kd"}],
        }, r"recipe stages\.0\.losses\.0: mutual needs peers",
    ),
    "the last leaves the classifier out": ({**FITNETS, "losses": [{"name": "hint"}]}, "teach the student's classifier"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_stage_is_said_before_training(
    tmp_path: Path, ask_distill: Ask, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdcError, match=message):
        run(ask_distill(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"losses": [{"name": "kd"}]}]}, r"key stages\.0\.epochs is missing"),
        ({"stages": [{"losses": [], "epochs": 1}]}, r"stages\.0\.losses"),
        ({"stages": [{"losses": [{"name": "kd"}, {"name": "kd"}], "epochs": 1}]}, "names the same loss twice"),
        ({**FITNETS, "peers": [{"student": "timm:test_resnet"}]}, "peers learn along from the first step"),
    ],
)
def test_stages_that_mean_nothing_are_refused_as_they_are_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(KdcError, match=message):
        parse(Recipe, {"schema": 1, "losses": [{"name": "kd"}], **changes}, "recipe")


def test_teaching_has_no_stages(tmp_path: Path, ask_teach: Ask) -> None:
    stages = [{"losses": [{"name": "cross_entropy"}], "epochs": 1}]
    with pytest.raises(KdcError, match="recipe stages: kdc teach learns in one"):
        teach(ask_teach(stages=stages), Destination(tmp_path / "run"), progress=Silent())


def test_a_forecast_and_progress_count_every_stage(ask_distill: Ask) -> None:
    request = ask_distill(**FITNETS).model_copy(update={"control": True})
    spread = Spread(median=0.5, lowest=0.5, highest=0.5, n=2)
    timed = _Timed(STEPS, spread, 0.0, 0.0, 0, 1, "", True)
    parts = list(_parts(request, {str(request.student): timed}))
    assert [(part.name, part.epochs) for part in parts] == [("student, stage 1", 2), ("student", 2), ("the control", 4)]
    assert sum(part.seconds for part in parts) == pytest.approx(8 * STEPS * 0.5)
    assert any("stage is counted as one of the last" in line for line in _notes(request, {str(request.student): timed}))
    assert _epochs_in_all(request) == 8
