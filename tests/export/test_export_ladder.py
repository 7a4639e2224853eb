"""The driver alone: candidates are files of text, and the judge knows their scores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.export.base import Candidate, Judge, QatModel, Quantizer, Rank, Source, TopRung
from compressor.export.bundle.items import needed
from compressor.export.ladder import climb
from compressor.processes.runner import RunnerDiedError
from compressor.profiles import load_profile
from compressor.progress import Progress, Silent
from compressor.schema.quantization import Quantization, Scheme, Score
from compressor.schema.student import Accuracy
from compressor.tasks.image_classification.stored import StoredImages
from tests.kit import Hearing, score_of

SCHEME = Scheme(activations="uint8")
RIGHT = {"minmax": 80, "entropy": 85, "corrected": 88, "one layer": 91, "qat": 95}


class FakeJudge:
    def __init__(self, needed: int) -> None:
        self.needed, self.asked = needed, list[tuple[str, str]]()

    def __call__(self, model: Path, runtime: str, precision: str, network: Any = None) -> Score:
        how = model.read_text()
        self.asked.append((how, runtime))
        return score_of(100, RIGHT[how], 95, same=RIGHT[how])

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> Any:
        raise AssertionError("the driver needs none")

    def holds(self, score: Score) -> bool:
        return score.correct >= self.needed

    def rank(self, score: Score) -> Rank:
        return True, True, score.correct, 0.0, 0.0


def candidate(rung: Any, how: str, folder: Path, stand_in: bool = False) -> Candidate:
    place = folder / how.replace(" ", "-")
    place.mkdir(exist_ok=True)
    (place / "model.txt").write_text(how)
    (place / "weights.bin").write_bytes(b"12345")
    return Candidate(rung, how, place / "model.txt", place / "model.txt" if stand_in else None)


def rungs(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
    yield candidate("ptq", "minmax", folder)
    yield candidate("ptq", "entropy", folder)
    yield None
    yield candidate("bias-correction", "corrected", folder)
    yield None
    yield candidate("fallback", "one layer", folder)
    yield None


def source() -> Source:
    profile = load_profile("x86-avx2")
    return Source(
        cast(Any, None),
        Path("model.onnx"),
        cast(Any, None),
        StoredImages(np.empty((0, 1, 1, 3), np.uint8), cast(Any, None)),
        profile,
    )


def from_qat(source: Source, qat: QatModel, folder: Path) -> Candidate:
    return candidate("qat", "qat", folder)


def run(tmp_path: Path, needed: int, quantizer: Quantizer, qat: bool = True) -> tuple[Any, FakeJudge, list[Scheme]]:
    trained: list[Scheme] = []

    def retrain(scheme: Scheme) -> QatModel | None:
        trained.append(scheme)
        record = Quantization(scheme=scheme, inputs={})
        return QatModel(cast(Any, None), cast(Any, None), Path("qat.onnx"), record) if qat else None

    judge = FakeJudge(needed)
    taken = climb(source(), "onnxruntime", quantizer, tmp_path / "out", judge, TopRung(retrain=retrain), Silent())
    return taken, judge, trained


LADDER = Quantizer(lambda profile: SCHEME, rungs, from_qat)


@pytest.mark.parametrize(
    ("needed", "how", "made"),
    [
        (80, "entropy", ["minmax", "entropy"]),  # a rung is finished, and the best of it taken
        (86, "corrected", ["minmax", "entropy", "corrected"]),
        (91, "one layer", ["minmax", "entropy", "corrected", "one layer"]),
        (95, "qat", ["minmax", "entropy", "corrected", "one layer", "qat"]),
    ],
)
def test_it_climbs_only_as_far_as_it_must(tmp_path: Path, needed: int, how: str, made: list[str]) -> None:
    taken, judge, trained = run(tmp_path, needed, LADDER)
    assert [asked for asked, _ in judge.asked] == made
    assert [rung.how for rung in taken.rungs] == made
    assert [rung.how for rung in taken.rungs if rung.taken] == [how]
    assert trained == ([SCHEME] if how == "qat" else [])
    assert (taken.qat is not None) == (how == "qat")
    assert taken.candidate.model == tmp_path / "out" / "model.txt"
    assert taken.candidate.model.read_text() == how
    assert taken.rungs[0].bytes == len("minmax") + 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "the other candidates are gone"


def test_where_the_top_is_not_enough_the_best_is_taken_and_said(tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            said.append(text)

    judge = FakeJudge(99)
    taken = climb(source(), "onnxruntime", LADDER, tmp_path / "out", judge, TopRung(), Listening())
    assert taken.candidate.description == "one layer"
    [line] = said
    assert line.startswith("out: no rung keeps the accuracy asked for; the best is fallback: one layer: 91 of 100")


def test_without_permission_to_train_there_is_no_top_rung(tmp_path: Path) -> None:
    taken, _, trained = run(tmp_path, 99, LADDER, qat=False)
    assert (taken.candidate.description, trained) == ("one layer", [SCHEME])
    taken, _, trained = run(tmp_path / "other", 99, Quantizer(lambda profile: SCHEME, rungs))
    assert (taken.candidate.description, trained) == ("one layer", [])


@pytest.mark.parametrize(("bits", "made"), [(8, ["qat"]), (7, ["minmax", "entropy"])])
def test_a_student_trained_for_it_enters_at_the_top(tmp_path: Path, bits: Any, made: list[str]) -> None:
    """Where it was trained for another way of rounding, it is taken as any student."""
    record = Quantization(scheme=Scheme(activations="uint8", weight_bits=bits), inputs={})
    own = QatModel(cast(Any, None), cast(Any, None), Path("qat.onnx"), record)
    judge = FakeJudge(85)
    taken = climb(source(), "onnxruntime", LADDER, tmp_path / "out", judge, TopRung(own), Silent())
    assert [asked for asked, _ in judge.asked] == made
    assert (taken.qat is own) == (bits == 8)


def test_a_stand_in_is_judged_in_its_place(tmp_path: Path) -> None:
    def one(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
        yield candidate("ptq", "minmax", folder, stand_in=True)

    judge = FakeJudge(0)
    quantizer = Quantizer(lambda profile: SCHEME, one)
    taken = climb(source(), "tensorrt", quantizer, tmp_path / "out", judge, TopRung(), Silent())
    assert judge.asked == [("minmax", "onnxruntime")]
    assert taken.score is not None
    assert taken.score.stand_in == "onnxruntime"


def test_a_failing_candidate_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
        yield candidate("ptq", "minmax", folder)
        raise KdcError("out of luck")

    with pytest.raises(KdcError, match="out of luck"):
        run(tmp_path, 99, Quantizer(lambda profile: SCHEME, broken))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KdcError, match="no int8 candidate"):
        run(tmp_path, 99, Quantizer(lambda profile: SCHEME, lambda *_: iter(())))


def teacher(accuracy: float) -> Accuracy:
    return Accuracy(split="validation", n=1, correct=1, accuracy=accuracy, low=0, high=1, balanced=1)


@pytest.mark.parametrize(
    ("retention", "teacher_accuracy", "expected"),
    [
        (None, 0.9, 847.5),  # a quarter of a point of 1,000
        (0.9, 0.9, 847.5),  # 810 would do: the tolerance asks for more
        (0.94, 0.902, 847.88),  # the retention asks for more
        (0.99, 0.9, 847.5),  # which fp32 does not reach either
    ],
)
def test_how_much_is_needed(retention: float | None, teacher_accuracy: float, expected: float) -> None:
    profile = load_profile("x86-avx2", [f"budget.min_retention={retention or 'null'}"])
    assert needed(profile, 850, 1000, teacher(teacher_accuracy)) == pytest.approx(expected)
    assert needed(profile, 850, 1000, None) == 847.5
    assert needed(profile, 85, 100, None) == 84.0, "one sample may always be lost"


class MortalJudge(FakeJudge):
    """Of some candidates the runner's process dies."""

    def __init__(self, needed: int, deadly: tuple[str, ...]) -> None:
        super().__init__(needed)
        self.deadly = deadly

    def __call__(self, model: Path, runtime: str, precision: str, network: Any = None) -> Score:
        score = super().__call__(model, runtime, precision, network)
        if model.read_text() in self.deadly:
            raise RunnerDiedError("onnxruntime: its process died (signal 11)", "")
        return score


def climbed(tmp_path: Path, judge: FakeJudge, made: Any = rungs) -> tuple[Any, Hearing]:
    heard, quantizer = Hearing(), Quantizer(lambda profile: SCHEME, made)
    return climb(source(), "onnxruntime", quantizer, tmp_path / "out", judge, TopRung(), heard), heard


def test_a_candidate_whose_runner_dies_is_out_and_the_others_are_tried(tmp_path: Path) -> None:
    judge = MortalJudge(86, ("entropy",))
    taken, heard = climbed(tmp_path, judge)
    assert taken.candidate.model.read_text() == "corrected"
    assert [rung.how for rung in taken.rungs] == ["minmax", "corrected"]
    assert [asked for asked, _ in judge.asked] == ["minmax", "entropy", "corrected"], "each of them once"
    assert heard.warnings == ["out, ptq: entropy: onnxruntime: its process died (signal 11): it is out"]


def test_where_all_die_the_first_is_kept_without_a_score(tmp_path: Path) -> None:
    taken, heard = climbed(tmp_path, MortalJudge(80, tuple(RIGHT)))
    assert (taken.score, taken.rungs, taken.candidate.rung) == (None, (), "ptq")
    assert (tmp_path / "out" / "model.txt").read_text() == "minmax"
    assert heard.warnings[-1] == ("out: none could be scored; the first is kept, and a measurement tells if it runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_rung_that_rests_on_what_dies_is_the_end(tmp_path: Path) -> None:
    """As where the better of two is to be corrected."""

    def ranked(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
        first = candidate("ptq", "minmax", folder)
        yield first
        yield None
        judge(candidate("ptq", "entropy", folder).model, "onnxruntime", "int8")
        yield candidate("bias-correction", "corrected", folder)
        yield None

    taken, heard = climbed(tmp_path, MortalJudge(99, ("entropy",)), ranked)
    assert taken.candidate.model.read_text() == "minmax"
    assert "no higher rung after training: onnxruntime: its process died (signal 11)" in heard.warnings
