"""The teacher's answers that a default keeps: when, where, how long, how much of the disk. The student does not depend
on them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import compressor
from compressor.api.results import RunResult
from compressor.distill import distill_quantized, recipes, regimes
from compressor.distill.beside_run import answers_beside
from compressor.distill.host import resources as host
from compressor.distill.host.resources import Resources
from compressor.distill.methods import arms, race
from compressor.distill.recipes import RecipeAsked
from compressor.distill.regimes import Facts, built_in
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.base import read_json
from compressor.schema.quantization import Scheme
from compressor.schema.student import Regime, Request
from tests.kit import Hearing

Asked = dict[str, Any]
Ask = Callable[..., Request]
Interrupt = Callable[..., Silent]
LARGE = Facts(50_000, 50_000, pretrained=False)


def of_default(*sets: str, teachers: tuple[str, ...] = ("timm:a",), **flags: int) -> RecipeAsked:
    return RecipeAsked(teachers, "timm:b", "random", None, flags, sets)


@pytest.mark.parametrize(
    ("asked", "facts", "distinct"),
    [
        (of_default(), LARGE, 10),
        (of_default(epochs=11), LARGE, 10),
        (of_default(epochs=10), LARGE, None),  # each view comes once
        (of_default(), Facts(9_999, 9_999, pretrained=False), None),
        (of_default(), Facts(50_000, 50_000, pretrained=True), None),
        (of_default(), Facts(50_000, 1_000, pretrained=False), None),
        (of_default("views.distinct=3", epochs=2), LARGE, 3),
        (of_default("views.distinct=null"), LARGE, None),
        (of_default("views={hflip: false}"), LARGE, None),
        (of_default("views.hflip=false"), LARGE, 10),
        (of_default(teachers=("run:a", "run:b")), LARGE, 10),
        (of_default(teachers=("specialists:a",)), LARGE, 10),
        (of_default(teachers=("outputs:a.csv",)), LARGE, None),
        (of_default(teachers=("self",)), LARGE, None),
        (of_default(teachers=("peers",)), LARGE, None),
        (of_default(), None, None),  # what is known of the request alone
        (of_default("views.distinct=3"), None, 3),
    ],
)
def test_which_views_come_again(asked: RecipeAsked, facts: Facts | None, distinct: int | None) -> None:
    assert asked.recipe(facts).views.distinct == distinct


def test_nothing_but_their_number_depends_on_it() -> None:
    again, anew = (of_default(*sets).recipe(LARGE) for sets in ((), ("views.distinct=null",)))
    assert again.model_dump(exclude={"views"}) == anew.model_dump(exclude={"views"})
    assert again.views.model_copy(update={"distinct": None}) == anew.views


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """All data are large, and two views come again; the user's cache, which stays empty, lies here."""
    monkeypatch.setattr(regimes, "SMALL", 0)
    monkeypatch.setattr(recipes, "built_in", lambda name: {**built_in(name), "views": {"distinct": 2}})
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "users"))
    yield tmp_path / "users"
    assert not (tmp_path / "users" / "teacher-answers").exists()


@pytest.fixture
def asked(large: Path, digits4: str, teacher_run: Path) -> Asked:
    return {
        "teacher": f"run:{teacher_run}", "data": digits4, "student": "timm:test_efficientnet", "student_init": "random",
        "input_size": 32, "epochs": 4, "batch_size": 32, "set": {"crop_pct": 1.0, "views.hflip": False},
    }  # fmt: skip


def distilled(**given: Any) -> RunResult:
    return compressor.distill(**{"progress": Silent(), **given})


def weights(run: Path) -> bytes:
    return (run / "student.safetensors").read_bytes()


def answers(run: Path) -> list[Path]:
    return sorted(run.rglob("records"))


class Watching(Hearing):
    """Says, with each note, whether answers lie in the run."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run
        self.kept: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        super().note(text)
        self.kept.append((text, len(answers(self.run))))


@pytest.mark.slow
def test_they_lie_in_the_run_until_it_is_finished(asked: Asked, tmp_path: Path) -> None:
    progress = Watching(tmp_path / "run")
    done = distilled(**asked, out=tmp_path / "run", progress=progress)
    assert [count for text, count in progress.kept if text.startswith("epoch ")] == [1, 1, 1, 1]
    (line,) = [text for text in progress.notes if text.startswith("the teacher's answers: ")]
    assert line.startswith(f"the teacher's answers: new in {tmp_path / 'run' / 'answers'}/")
    assert not (tmp_path / "run" / "answers").exists()
    (said,) = [text for text in progress.notes if text.startswith("views: ")]
    assert said.startswith("views: 2 of each sample over and over, the teacher's answers to them kept (")
    assert done.student.recipe.views.distinct == 2
    assert done.student.regime is not None
    assert f"views: {done.student.regime.views}".replace("--teacher-cache", "teacher_cache") == said
    assert read_json(tmp_path / "run" / "run.json", Request).regime == done.student.regime
    # Kept or not, it is the same student.
    off = {**asked, "set": {**asked["set"], "views.distinct": 2}, "teacher_cache": "off"}
    distilled(**off, out=tmp_path / "off")
    assert weights(tmp_path / "off") == weights(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["off", "full"])
def test_where_none_are_kept_views_are_new(
    asked: Asked, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Watching(tmp_path / "run")
    with monkeypatch.context() as patch:
        if how == "full":
            patch.setattr(host, "free_bytes", lambda _: 100_000)
        given = {"teacher_cache": "off"} if how == "off" else {"decode_cache": "1GB"}
        done = distilled(**asked, **given, out=tmp_path / "run", progress=progress)
    why = {
        "off": "teacher_cache off",
        "full": "its answers would take 867.5 KB, and a run keeps 25.0 KB unasked, a quarter of the free disk",
    }[how]
    (said,) = [text for text in progress.notes if text.startswith("views: ")]
    assert said.startswith(f"views: new ones in every epoch: {why}")
    assert not any(count for _, count in progress.kept)
    assert done.student.recipe.views.distinct is None
    assert done.student.regime is not None
    assert f"views: {done.student.regime.views}".replace("--teacher-cache", "teacher_cache") == said
    new = {**asked, "set": {**asked["set"], "views.distinct": None}}
    distilled(**new, out=tmp_path / "new")
    assert weights(tmp_path / "new") == weights(tmp_path / "run")


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_time_alone(asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    distilled(**asked, out=tmp_path / "run")
    monkeypatch.setattr("os.posix_fallocate", full)
    progress = Hearing()
    distilled(**asked, out=tmp_path / "full", progress=progress)
    assert any("the teacher answers anew in every epoch, which takes longer: " in line for line in progress.warnings)
    assert weights(tmp_path / "full") == weights(tmp_path / "run")


@pytest.mark.slow
def test_a_place_that_is_named_is_the_users(asked: Asked, tmp_path: Path) -> None:
    done = distilled(**asked, out=tmp_path / "run", teacher_cache=tmp_path / "mine")
    assert done.student.recipe.views.distinct == 2
    assert len(answers(tmp_path / "mine")) == 1
    assert not (tmp_path / "run" / "answers").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, "off"])
def test_resumed_it_goes_on_with_what_is_kept(
    asked: Asked, cache: str | None, tmp_path: Path, interrupt_at: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    distilled(**asked, out=tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distilled(**asked, out=out, progress=interrupt_at(15))
    assert len(answers(out)) == 1
    progress = Hearing()
    with monkeypatch.context() as patch:  # what is free now says nothing
        patch.setattr(host, "free_bytes", lambda _: 0)
        distilled(**asked, out=out, resume=True, progress=progress, teacher_cache=cache, decode_cache="1GB")
    kept = [line for line in progress.notes if line.startswith(f"the teacher's answers: in {out / 'answers'}/")]
    assert len(kept) == (cache is None)
    assert weights(out) == weights(tmp_path / "whole")
    assert (out / "run.json").read_bytes() == (tmp_path / "whole" / "run.json").read_bytes()
    assert not (out / "answers").exists()


@pytest.mark.slow
def test_new_views_stay_new_when_resumed(asked: Asked, tmp_path: Path, interrupt_at: Interrupt) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distilled(**asked, out=out, teacher_cache="off", progress=interrupt_at(15))
    done = distilled(**asked, out=out, resume=True)
    assert done.student.recipe.views.distinct is None
    # Of one's own number it is another recipe.
    with pytest.raises(KeyboardInterrupt):
        distilled(**asked, out=out, overwrite=True, progress=interrupt_at(15))
    given = {**asked, "set": {**asked["set"], "views.distinct": None}}
    with pytest.raises(KdcError, match=r"recipe\.views\.distinct was 2, now None"):
        distilled(**given, out=out, resume=True)


@pytest.mark.slow
def test_what_is_overwritten_keeps_none(asked: Asked, tmp_path: Path, interrupt_at: Interrupt) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distilled(**asked, out=out, progress=interrupt_at(15))
    (before,) = answers(out)
    with pytest.raises(KeyboardInterrupt):
        distilled(**{**asked, "seed": 3}, out=out, overwrite=True, progress=interrupt_at(15))
    (after,) = answers(out)
    assert after.parent.name != before.parent.name
    distilled(**{**asked, "seed": 3}, out=out, resume=True)
    assert answers(out) == []


@pytest.mark.slow
def test_trials_share_them_and_so_does_the_winner(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "ENOUGH", 0)
    raced = {**asked, "student": None, "students": "timm:test_efficientnet,timm:test_resnet"}
    progress = Watching(tmp_path / "run")
    done = distilled(**raced, out=tmp_path / "run", progress=progress)
    assert done.student.race is not None
    assert done.student.losses is not None
    made = [line for line in progress.notes if line.startswith("the teacher's answers: new in ")]
    again = [line for line in progress.notes if line.startswith("the teacher's answers: in ")]
    assert {Path(line.split(" in ", 1)[1].split(" (")[0]).parent for line in made + again} == {
        tmp_path / "run" / "answers"
    }
    assert again, "the default in full asks for those of the race"
    assert max(count for _, count in progress.kept) == len(made)
    assert not (tmp_path / "run" / "answers").exists()


@pytest.mark.slow
def test_trials_of_other_regimes_keep_theirs_there_too(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "built_in", built_in)
    monkeypatch.setattr(regimes, "SMALL", 10_000)
    raced = {**asked, "student": None, "students": "timm:test_efficientnet,timm:test_resnet"}
    progress = Watching(tmp_path / "run")
    done = distilled(**raced, out=tmp_path / "run", progress=progress)
    assert done.student.recipe.views.distinct is None
    assert done.student.regime is not None
    assert done.student.regime.views is None
    epochs = [count for text, count in progress.kept if text.startswith("epoch ")]
    assert max(epochs[:-4]) >= 1
    assert epochs[-4:] == [0, 0, 0, 0], "those of the trials, which the training has no use for"
    assert not (tmp_path / "run" / "answers").exists()


def test_where_labels_alone_came_out_views_are_new(ask_distill: Ask) -> None:
    request = ask_distill(views={"distinct": 2}, losses=[{"name": "kd"}, {"name": "cross_entropy"}])
    regime = Regime(name="large", why="many", images=216, labelled=216, views="2 of each image")
    request = request.model_copy(update={"regime": regime})
    progress = Hearing()
    data: Any = SimpleNamespace(train=SimpleNamespace(labels=np.zeros(9, np.int64)))
    named, _ = arms.weighed(request, "labels", data)
    assert named.recipe.views == request.recipe.views.model_copy(update={"distinct": None})
    assert arms.weighed(request, "labels", data, trial=True)[0].recipe.views == request.recipe.views
    recorded = race._with_views(request, named, progress)
    assert progress.notes == ["views: new ones in every epoch: labels alone teach"]
    assert recorded.regime is not None
    assert recorded.regime.views == "new ones in every epoch: labels alone teach"
    assert race._with_views(request, request, progress) == request
    named_by_user = regime.model_copy(update={"overrides": ("views.distinct",)})
    theirs = request.model_copy(update={"regime": named_by_user})
    assert arms.weighed(theirs, "labels", data)[0].recipe.views == request.recipe.views


@pytest.mark.slow
def test_a_control_sees_the_same_views_and_needs_none(asked: Asked, tmp_path: Path) -> None:
    progress = Watching(tmp_path / "run")
    done = distilled(**asked, out=tmp_path / "run", control=True, progress=progress)
    assert done.student.gain is not None
    control = read_json(tmp_path / "run" / "control" / "run.json", Request)
    assert control.recipe.views == done.student.recipe.views
    began = next(number for number, text in enumerate(progress.notes) if text.startswith("the control: "))
    assert not any(count for _, count in progress.kept[began:])


@pytest.mark.slow
def test_each_of_a_chain_keeps_its_teachers_until_the_end(asked: Asked, tmp_path: Path) -> None:
    progress = Watching(tmp_path / "run")
    distilled(**asked, assistant="timm:test_resnet", out=tmp_path / "run", progress=progress)
    assert [count for text, count in progress.kept if text.startswith("epoch ")] == [1] * 4 + [2] * 4
    assert answers(tmp_path / "run") == []


@pytest.mark.slow
def test_an_ensemble_has_its_answers_kept(asked: Asked, tmp_path: Path, teacher_run: Path) -> None:
    distilled(**{**asked, "epochs": 2}, out=tmp_path / "second")
    several = [f"run:{teacher_run}", f"run:{tmp_path / 'second'}"]
    progress = Watching(tmp_path / "run")
    done = distilled(**{**asked, "teacher": several}, out=tmp_path / "run", progress=progress)
    assert done.student.recipe.views.distinct == 2
    assert [count for text, count in progress.kept if text.startswith("epoch ")] == [1, 1, 1, 1]
    assert answers(tmp_path / "run") == []


@pytest.mark.slow
def test_a_loss_that_wants_a_layer_whole_has_new_views(asked: Asked, tmp_path: Path) -> None:
    changed = {**asked, "set": {**asked["set"], "losses": [{"name": "kd"}, {"name": "hint"}]}}
    progress = Hearing()
    done = distilled(**changed, out=tmp_path / "run", progress=progress)
    assert done.student.recipe.views.distinct is None
    assert any(text.startswith("views: new ones in every epoch: a loss looks at all of its") for text in progress.notes)


@pytest.mark.slow
def test_under_fake_quantization_none_are_left(ask_distill: Ask, tmp_path: Path, large: Path) -> None:
    request = ask_distill(views={"distinct": 2, "hflip": False}, epochs=3, qat={"epochs": 3, "calibration": 64})
    regime = Regime(name="large", why="many", images=216, labelled=216, views="2 of each image")
    request = request.model_copy(update={"regime": regime, "qat": Scheme(activations="uint8", per_channel=True)})
    out = tmp_path / "run"
    progress = Watching(out)
    beside = answers_beside(out, request, Resources.of(None, None, None))
    distill_quantized(request, Destination(out), progress=progress, resources=beside)
    assert {count for text, count in progress.kept if text.startswith("epoch ")} == {1}
    assert not list(out.rglob("answers"))


def test_whose_they_are(ask_distill: Ask, tmp_path: Path) -> None:
    unnamed, named = Resources.of(None, None, None), Resources.of(None, str(tmp_path), None)
    off = Resources.of(None, "off", None)
    anew, again = ask_distill(), ask_distill(views={"distinct": 2})
    beside = answers_beside(tmp_path / "run", anew, unnamed)
    assert beside.teacher_cache == tmp_path / "run" / "answers"
    assert beside.answers_budget is not None
    assert answers_beside(tmp_path / "run", again, unnamed) == unnamed
    for given in (named, off):
        assert answers_beside(tmp_path / "run", anew, given) == given


def test_what_they_may_take_counts_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "free_bytes", lambda _: 3_000)
    assert Resources().within(tmp_path / "answers").answers_budget == 750
    (tmp_path / "answers" / "a").mkdir(parents=True)
    (tmp_path / "answers" / "a" / "records").write_bytes(bytes(1_000))
    assert Resources().within(tmp_path / "answers").answers_budget == 1_000


@pytest.mark.slow
def test_the_plan_tells_what_they_take_and_writes_nothing(asked: Asked, tmp_path: Path) -> None:
    plan = compressor.plan_distill(**asked, out=tmp_path / "run").plan
    assert plan.disk["teacher answers"] > 0
    assert any(f"are kept in {tmp_path / 'run' / 'answers'}, until the run is finished" in line for line in plan.notes)
    assert not (tmp_path / "run").exists()
    off = compressor.plan_distill(**asked, out=tmp_path / "run", teacher_cache="off").plan
    assert "teacher answers" not in off.disk


@pytest.mark.slow
def test_to_compute_ahead_views_must_be_named(asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="for one run, so there is nothing to compute ahead") as caught:
        compressor.precompute(**asked, out=tmp_path / "run")
    assert "views.distinct=10" in caught.value.hint


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_agree(asked: Asked, tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        "import sys\n"
        "from compressor.__main__ import main\n"
        "from compressor.distill import recipes, regimes\n"
        "regimes.SMALL, read = 0, regimes.built_in\n"
        "recipes.built_in = lambda name: {**read(name), 'views': {'distinct': 2}}\n"
        "sys.exit(main())\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    out = tmp_path / "run"
    done = subprocess.run(
        [
            *launcher, "--rdzv-endpoint", "localhost:0", "--no-python", sys.executable, str(script), "distill",
            "--teacher", asked["teacher"], "--data", asked["data"], "--student", "timm:test_vit", "--student-init",
            "random", "--input-size", "32", "--epochs", "4", "--batch-size", "32", "--set", "crop_pct=1.0",
            "--out", str(out),
        ],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "views: 2 of each sample over and over" in done.stderr
    assert f"the teacher's answers: new in {out / 'answers'}/" in done.stderr
    assert not (out / "answers").exists()
