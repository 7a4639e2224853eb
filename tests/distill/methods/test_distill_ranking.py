"""Trials are ranked by what the recipe's `keep_by` names, with the interval of that figure, and that is said."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compressor.distill import distill_chain, teach
from compressor.distill.loop.guards import LearningError
from compressor.distill.methods import arms, halving, race, trials
from compressor.distill.methods.ranking import estimate_of, keep_answers, lead_between, ranked
from compressor.distill.methods.trials import Entrant, Ran, run_rounds
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Progress, Silent
from compressor.report.render.race import losses_table, race_table
from compressor.schema.base import read_json, write_json
from compressor.schema.estimate import Estimate
from compressor.schema.race import Contender, LossRace, Race, RaceRequest, RankedTrial, Trial
from compressor.schema.recipe import KeepBy
from compressor.schema.student import Regime, Request, Student
from compressor.stats import accuracy_of, auc, auc_difference, balanced_accuracy, balanced_difference, difference, top1
from tests.distill.test_distill_keep_by import two_classes
from tests.kit import Hearing

Ask = Callable[..., Request]
N = 400
LABELS = (np.arange(N) < 40).astype(np.int64)  # 40 of the second class, 360 of the first


def logits(seed: int, gap: float, lean: float) -> Any:
    """Answers whose classes lie `gap` apart, and which lean to the first class by `lean`."""
    margin = np.random.default_rng(seed).standard_normal(N) + gap * LABELS - lean
    return np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)


def ran(folder: Path, name: str, by: KeepBy, answers: Any) -> Ran:
    """A trial that answered so on validation."""
    folder.mkdir()
    keep_answers(folder, by, answers, LABELS)
    score = accuracy_of(answers, LABELS, "validation")
    plain = Trial(
        student=name, arm=name, epochs=1, steps=1, accuracy=estimate_of("accuracy", score), seconds=1.0, inputs={}
    )
    nothing: Any = None
    data: Any = SimpleNamespace(validation=SimpleNamespace(labels=LABELS))
    return Ran(ranked(plain, by, estimate_of(by, score)), Entrant(name, nothing, data, name), folder)


# Best by accuracy, by the mean recall, by the order of its answers, and by nothing.
ANSWERS = {
    "careful": logits(1, 3.2, 2.9),
    "even": logits(2, 3.0, 1.5),
    "sharp": logits(3, 5.0, 10.0),
    "lazy": logits(4, 1.0, 3.0),
}


@pytest.mark.parametrize(("by", "winner"), [("accuracy", "careful"), ("balanced", "even"), ("auc", "sharp")])
def test_the_best_is_who_is_best_by_it(
    by: KeepBy, winner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = {name: ran(tmp_path / name, name, by, answers) for name, answers in ANSWERS.items()}
    monkeypatch.setattr(trials, "_run", lambda track, number, entrant, *_: entered[entrant.name])
    track: Any = SimpleNamespace(context=SimpleNamespace(progress=Silent()))
    ((first, *rest),), _ = run_rounds(track, [each.entrant for each in entered.values()], [(4, 1)], "race")
    assert first.entrant.name == winner
    scores = [each.trial.rank_score.value for each in (first, *rest)]
    assert scores == sorted(scores, reverse=True)


def test_each_figure_and_its_paired_interval_are_those_of_stats(tmp_path: Path) -> None:
    even, lazy = ANSWERS["even"], ANSWERS["lazy"]
    for by in ("accuracy", "balanced", "auc"):
        for name in ("even", "lazy"):
            (tmp_path / by / name).mkdir(parents=True)
            keep_answers(tmp_path / by / name, by, ANSWERS[name], LABELS)
    right = [top1(answers) == LABELS for answers in (even, lazy)]
    margins = [answers[:, 1].astype(np.float64) - answers[:, 0] for answers in (even, lazy)]
    expected = {
        "accuracy": difference(right[0], right[1]),
        "balanced": balanced_difference(right[0], right[1], LABELS, 2),
        "auc": auc_difference(margins[0], margins[1], LABELS == 1),
    }
    score = accuracy_of(even, LABELS, "validation")
    alone = {"balanced": balanced_accuracy(top1(even), LABELS, 2), "auc": auc(margins[0], LABELS == 1)}
    for by, gap in expected.items():
        lead = lead_between(by, tmp_path / by / "even", tmp_path / by / "lazy", LABELS)  # type: ignore[arg-type]
        assert (lead.value, lead.low, lead.high, lead.n) == (gap.value, gap.low, gap.high, N)
    for by, figure in alone.items():
        found = estimate_of(by, score)  # type: ignore[arg-type]
        assert (found.value, found.low, found.high) == (figure.value, figure.low, figure.high)
    # What the trials before had: nothing but which samples are right.
    assert [path.name for path in (tmp_path / "accuracy" / "even").iterdir()] == ["right.npy"]
    assert [path.name for path in (tmp_path / "auc" / "even").iterdir()] == ["margins.npy"]


def test_what_is_not_finite_has_no_auc_and_damage_is_told(tmp_path: Path) -> None:
    spoilt = ANSWERS["even"].copy()
    spoilt[3, 0] = np.nan
    score = accuracy_of(spoilt, LABELS, "validation")
    assert estimate_of("balanced", score).value == score.balanced
    with pytest.raises(
        LearningError, match="its answers on validation are not finite numbers, so that they have no AU"
    ):
        estimate_of("auc", score)
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        keep_answers(tmp_path / name, "auc", ANSWERS["even"], LABELS)
    with pytest.raises(KdcError, match="is not of 399 validation samples"):
        lead_between("auc", tmp_path / "1", tmp_path / "2", LABELS[1:])
    (tmp_path / "2" / "margins.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(KdcError, match=r"2/margins\.npy is damaged"):
        lead_between("auc", tmp_path / "1", tmp_path / "2", LABELS)


@pytest.mark.parametrize(
    ("by", "named", "gap"),
    [
        ("accuracy", "accuracy, 9", r"points \["),
        ("balanced", "balanced accuracy, 9", r"points \["),
        ("auc", "AUC, 0.9", r"\+0\.\d{4} \[\+?-?0\.\d{4} to \+0\.\d{4}\], n=400"),
    ],
)
def test_the_reason_names_it(by: KeepBy, named: str, gap: str, tmp_path: Path) -> None:
    best, other = (ran(tmp_path / name, name, by, ANSWERS[name]) for name in ("even", "lazy"))
    reasons = [arms._reason([best, other]), race._winner([[best, other]], (), ())[2]]
    assert reasons[0].startswith(f"even has the highest validation {named}")
    assert reasons[1].startswith(f"even has the highest validation {named.split(',')[0]} of the last round, ")
    for reason in reasons:
        assert re.search(gap, reason), reason


def test_a_trial_by_accuracy_is_written_without_another_figure_and_others_are_read_again(tmp_path: Path) -> None:
    plain = ran(tmp_path / "1", "a", "accuracy", ANSWERS["even"]).trial
    other = ran(tmp_path / "2", "a", "auc", ANSWERS["even"]).trial
    assert list(json.loads(plain.model_dump_json())) == [
        "student", "arm", "epochs", "steps", "accuracy", "teacher", "seconds", "inputs",
    ]  # fmt: skip
    contenders = (Contender(student="a"),)
    held = Race(
        contenders=contenders, why="", share=0.5, planned=2, rounds=((plain,), (other,)), failed={}, winner="a",
        lead=None, reason="",
    )  # fmt: skip
    write_json(tmp_path / "race.json", held)
    again = read_json(tmp_path / "race.json", Race)
    assert again == held
    assert [type(turn[0]) for turn in again.rounds] == [Trial, RankedTrial]


def share(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=1000, of="validation samples")


@pytest.mark.parametrize(
    ("by", "title", "cell"),
    [
        ("accuracy", "validation % after 2 epochs (n = 1000)", "70.0 [65.0–75.0]"),
        ("balanced", "validation balanced % after 2 epochs (n = 1000)", "90.0 [85.0–95.0]"),
        ("auc", "validation AUC after 2 epochs (n = 1000)", "0.900 [0.850–0.950]"),
    ],
)
def test_the_tables_show_what_was_ranked_by(by: KeepBy, title: str, cell: str) -> None:
    plain = Trial(student="a", arm="default", epochs=2, steps=1, accuracy=share(0.7), seconds=1.0, inputs={})
    trial = ranked(plain, by, share(0.9))
    held = Race(
        contenders=(Contender(student="a"),), why="w", share=0.5, planned=2, rounds=((trial,),), failed={},
        winner="a", lead=None, reason="r",
    )  # fmt: skip
    losses = LossRace(
        arms={"default": {"kd": 1.0}}, epochs=2, trials=(trial,), failed={}, winner="default", lead=None, reason="r"
    )
    for table in (race_table(held), losses_table(losses)):
        assert title in table
        assert cell in table


def asked(ask: Ask, data: str, by: str) -> Request:
    """Two students race, and then the weights of the losses."""
    names = ("timm:test_efficientnet", "timm:test_resnet")
    field = RaceRequest(named=names, contenders=tuple(Contender(student=name) for name in names), why="named")
    regime = Regime(name="small", why="few", images=48, labelled=48, validation=24, arms=("default", "labels"))
    request = ask(keep_by=by, data=data, batch_size=16, teacher="timm:test_resnet")
    return request.model_copy(update={"student": None, "race": field, "regime": regime})


@pytest.mark.slow
@pytest.mark.parametrize("by", ["balanced", "auc"])
def test_both_races_go_by_it_and_go_on_where_they_were_interrupted(
    by: str, tmp_path: Path, ask_distill: Ask, ask_teach: Ask, interrupt_at: Callable[[int], Progress],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(halving, "LEAST_STEPS", 3)
    data = two_classes(tmp_path / "data")
    teach(ask_teach(data=data, epochs=4, batch_size=16, optimizer={"lr": 0.03}), Destination(tmp_path / "teacher"),
          progress=Silent())  # fmt: skip
    request = asked(ask_distill, data, by).model_copy(update={"teacher": f"run:{tmp_path / 'teacher'}"})
    out, heard = tmp_path / "run", Hearing()
    with pytest.raises(KeyboardInterrupt):
        distill_chain(request, Destination(out), progress=interrupt_at(7))
    student = distill_chain(request, Destination(out, resume=True), progress=heard)
    assert student == read_json(out / "student.json", Student)
    named = {"balanced": "balanced accuracy", "auc": "AUC"}[by]
    for held, rows in ((student.race, out / "race"), (student.losses, out / "arms")):
        assert held is not None
        assert f"has the highest validation {named}" in held.reason
        tried = [read_json(path, RankedTrial) for path in sorted(rows.glob("*/trial.json"))]
        assert {trial.by for trial in tried} == {by}
        assert held.lead is not None
        assert held.lead.n == 24
    assert student.race is not None
    scores = [trial.rank_score.value for trial in student.race.rounds[-1]]
    assert scores == sorted(scores, reverse=True)
    assert student.race.lead is not None
    assert student.race.lead.value == pytest.approx(scores[0] - scores[1])
