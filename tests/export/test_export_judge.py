"""The judge of artefacts on validation, and the ladder on it: right answers alone are not enough."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.export.base import Candidate, Judge, QatModel, Quantizer, Source, TopRung
from compressor.export.judge import ValidationJudge
from compressor.export.ladder import climb
from compressor.processes.runner import RunnerDiedError
from compressor.profiles import load_profile
from compressor.progress import Progress
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.quantization import Quantization, Scheme
from compressor.stats import parity_judged, score_parity
from compressor.tasks.image_classification.stored import StoredImages
from tests.kit import Hearing

SCHEME = Scheme(activations="uint8")
HOW = ImagePreprocess(input_size=(8, 8), resize=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))
Floats = NDArray[np.float32]


class Answering(ValidationJudge):
    """What the artefacts answer lies beside them: no runner is started."""

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> Floats:
        answers: Floats = np.load(model.parent / "answers.npy")[:most]
        return answers


def torchs(n: int, classes: int = 3) -> tuple[Floats, NDArray[np.int64]]:
    labels = np.arange(n) % classes
    noise = np.random.default_rng(0).normal(0, 0.1, (n, classes))
    return (2 * np.eye(classes)[labels] - 1 + noise).astype(np.float32), labels


def judge_of(folder: Path, reference: Floats, labels: NDArray[np.int64], max_drop: float = 0.005) -> Answering:
    pixels = np.random.default_rng(1).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    images = StoredImages(pixels, HOW, folder / "images.npy")
    needed = int((reference.argmax(axis=1) == labels).sum()) - max(1, max_drop * len(labels))
    how: dict[str, Any] = {"batch": 1, "threads": 1, "needed": needed, "max_drop": max_drop}
    return Answering(images, labels, reference, **how)


def artefact(folder: Path, how: str, logits: Floats) -> Path:
    place = folder / how.replace(" ", "-")
    place.mkdir(parents=True)
    np.save(place / "answers.npy", logits)
    (place / "model.txt").write_text(how)
    return place / "model.txt"


def near(reference: Floats, db: float, seed: int = 3) -> Floats:
    """Torch's logits with noise at that SQNR."""
    noise = np.random.default_rng(seed).normal(size=reference.shape)
    scale = np.sqrt((reference**2).sum() / (noise**2).sum() / 10 ** (db / 10))
    noisy: Floats = (reference + scale * noise).astype(np.float32)
    return noisy


def mirrored(reference: Floats, labels: NDArray[np.int64]) -> Floats:
    """The right class stays on top by a hair; all else points the other way."""
    other: Floats = -reference
    rows = np.arange(len(labels))
    other[rows, labels] = other.max(axis=1) + 0.01
    return other


def ladder(made: list[tuple[str, str, Floats]]) -> Quantizer:
    """`made`: rung, how, and what the candidate answers; each rung on its own."""

    def candidates(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
        for number, (rung, how, logits) in enumerate(made):
            yield Candidate(cast(Any, rung), how, artefact(folder, how, logits))
            if number + 1 == len(made) or made[number + 1][0] != rung:
                yield None

    return Quantizer(lambda profile: SCHEME, candidates)


def source() -> Source:
    profile = load_profile("x86-avx2")
    return Source(
        cast(Any, None),
        Path("model.onnx"),
        cast(Any, None),
        StoredImages(np.empty((0, 1, 1, 3), np.uint8), cast(Any, None)),
        profile,
    )


def test_a_score_counts_by_class_and_measures_parity(tmp_path: Path) -> None:
    reference, labels = torchs(9)
    reference[0] = [0, 5, 0]  # the student in fp32 is wrong on the first sample of class 0
    answers = reference.copy()
    answers[0] = [5, 0, 0]  # here it is right
    answers[4] = [5, 0, 0]  # and on a sample of class 1 wrong
    answers[8, 0] = np.nan
    score = judge_of(tmp_path, reference, labels)(artefact(tmp_path, "a", answers), "onnxruntime", "int8")
    assert (score.n, score.correct, score.reference_correct, score.same, score.not_finite) == (9, 7, 8, 6, 1)
    assert score.by_class.model_dump() == {
        "n": (3, 3, 3), "reference": (2, 3, 3), "correct": (3, 2, 2), "both": (2, 2, 2)
    }  # fmt: skip
    finite = np.arange(9) != 8
    ours, theirs = answers[finite].astype(float), reference[finite].astype(float)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert score.cosine == pytest.approx(cosines.min())
    noise = ((ours - theirs) ** 2).sum()
    assert score.sqnr_db == pytest.approx(10 * np.log10((theirs**2).sum() / noise))
    assert score.balanced_drop == pytest.approx((-1 + 1 + 1) / 9)


def test_six_right_answers_do_not_make_up_for_mirrored_logits(tmp_path: Path) -> None:
    """All of six validation images right, and a cosine of -0.7: the rung does not hold, so the next is made."""
    reference, labels = torchs(6, 10)
    bad, good = mirrored(reference, labels), near(reference, 20)
    judge = judge_of(tmp_path, reference, labels)
    score = judge(artefact(tmp_path, "bad", bad), "onnxruntime", "int8")
    assert (score.correct, score.n) == (6, 6)
    assert score.cosine is not None
    assert score.cosine < -0.5
    assert not judge.holds(score)
    progress = Hearing()
    rungs = ladder([("ptq", "mirrored", bad), ("bias-correction", "close", good)])
    taken = climb(source(), "onnxruntime", rungs, tmp_path / "out", judge, TopRung(), progress)
    assert taken.candidate.description == "close"
    assert [rung.taken for rung in taken.rungs] == [False, True]
    assert taken.rungs[0].score == score
    assert progress.warnings == []
    assert any("6 validation samples cannot show whether 0.5 points are lost" in note for note in progress.notes)


def doubtful(n: int, swapped: int) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Torch's logits and the labels; and logits that have another top-1 in the first samples, of which torch has none
    right."""
    reference, labels = torchs(n)
    for row in range(swapped):
        reference[row] = 1.0
        reference[row, (labels[row] + 1) % 3] = 1.02
        reference[row, labels[row]] = -1.0
    other = reference.copy()
    for row in range(swapped):
        other[row, (labels[row] + 2) % 3] = 1.04
    return reference, labels, other


def test_a_rung_that_other_samples_may_fail_is_not_enough(tmp_path: Path) -> None:
    """75 of 80 with torch's top-1 are 93.75 %, and other samples may have less than the 90 that parity asks for."""
    reference, labels, other = doubtful(80, 5)
    judge = judge_of(tmp_path, reference, labels)
    score = judge(artefact(tmp_path, "doubtful", other), "onnxruntime", "int8")
    assert (score.same, score.correct, score.reference_correct) == (75, 75, 75)
    assert parity_judged("int8", score_parity(score))[0] == "pass"
    assert not judge.holds(score)
    progress = Hearing()
    rungs = ladder([("ptq", "doubtful", other), ("bias-correction", "close", near(reference, 40))])
    taken = climb(source(), "onnxruntime", rungs, tmp_path / "out", judge, TopRung(), progress)
    assert (taken.candidate.description, progress.warnings) == ("close", [])
    climb(source(), "onnxruntime", ladder([("ptq", "doubtful", other)]), tmp_path / "b", judge, TopRung(), progress)
    assert "no rung gives torch's answers with room to spare for other samples" in progress.warnings[0]


def test_more_right_answers_than_fp32_has_are_luck(tmp_path: Path) -> None:
    reference, labels, _ = doubtful(80, 2)
    lucky = near(reference, 20)
    lucky[0, labels[0]] = 1.5
    judge = judge_of(tmp_path, reference, labels)
    rungs = ladder([("ptq", "lucky", lucky), ("ptq", "close", near(reference, 40))])
    taken = climb(source(), "onnxruntime", rungs, tmp_path / "out", judge, TopRung(), Hearing())
    assert [rung.score.correct for rung in taken.rungs] == [79, 78]
    assert taken.candidate.description == "close"


def test_within_a_rung_parity_comes_before_right_answers(tmp_path: Path) -> None:
    reference, labels = torchs(30, 10)
    reference[0, 1] = reference[0, 0] - 0.01
    wrong = near(reference, 25)
    wrong[0] = reference[0, [1, 0, *range(2, 10)]]
    judge = judge_of(tmp_path, reference, labels)
    rungs = ladder([("ptq", "mirrored", mirrored(reference, labels)), ("ptq", "one wrong", wrong)])
    taken = climb(source(), "onnxruntime", rungs, tmp_path / "out", judge, TopRung(), Hearing())
    assert taken.score is not None
    assert (taken.candidate.description, taken.score.correct) == ("one wrong", 29)


def test_of_equals_within_a_rung_the_closest_is_taken(tmp_path: Path) -> None:
    """And the lowest of several rungs: more float is always closer."""
    reference, labels = torchs(6)
    close, closer = near(reference, 15), near(reference, 35)
    made = [("ptq", "close", close), ("ptq", "closer", closer), ("fallback", "some float", near(reference, 60))]
    judge = judge_of(tmp_path, reference, labels)
    taken = climb(source(), "onnxruntime", ladder(made), tmp_path / "a", judge, TopRung(), Hearing())
    assert taken.candidate.description == "closer"
    judge.needed = 7  # none holds
    taken = climb(source(), "onnxruntime", ladder(made), tmp_path / "b", judge, TopRung(), Hearing())
    assert taken.candidate.description == "closer"


def test_where_none_is_close_the_best_is_taken_and_said(tmp_path: Path) -> None:
    reference, labels = torchs(6, 10)
    progress = Hearing()
    judge = judge_of(tmp_path, reference, labels)
    rungs = ladder([("ptq", "mirrored", mirrored(reference, labels))])
    climb(source(), "onnxruntime", rungs, tmp_path / "out", judge, TopRung(), progress)
    [warning] = progress.warnings
    assert "no rung gives torch's answers closely enough" in warning
    assert "lowest cosine -0." in warning


def test_a_rung_that_loses_a_class_does_not_hold(tmp_path: Path) -> None:
    """What it loses in the rare class it gains in the common one: accuracy says nothing."""
    labels = np.repeat([0, 1], [94, 6])
    reference = (6 * np.eye(2)[labels]).astype(np.float32)
    reference[:6] = [2.9, 3.0]  # near misses of the common class
    lost = reference.copy()
    lost[:6] = [3.0, 2.9]
    lost[94:] = [3.1, 3.0]
    judge = judge_of(tmp_path, reference, labels)
    score = judge(artefact(tmp_path, "lost", lost), "onnxruntime", "int8")
    assert (score.drop, score.correct) == (0, 94)
    assert not judge.holds(score)
    assert judge.rank(score) < judge.rank(judge(artefact(tmp_path, "kept", reference), "onnxruntime", "int8"))


def test_a_retrained_student_is_compared_with_itself(tmp_path: Path) -> None:
    """Its logits are far from those of the student in float: that is another network, not a bad artefact."""
    reference, labels = torchs(40)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    judge = judge_of(tmp_path, reference, labels, max_drop=1.0)
    judge.needed = 0
    pixels = np.load(tmp_path / "images.npy")
    with torch.no_grad():
        own = network(torch.from_numpy(pixels).float().permute(0, 3, 1, 2) / 255).numpy()
    qat = QatModel(network, network, Path("qat.onnx"), Quantization(scheme=SCHEME, inputs={}))
    quantizer = Quantizer(
        lambda profile: SCHEME,
        lambda *given: iter(()),
        lambda source, qat, folder: Candidate("qat", "retrained", artefact(folder, "q", own)),
    )
    taken = climb(
        source(), "onnxruntime", quantizer, tmp_path / "out", judge, TopRung(retrain=lambda scheme: qat), Hearing()
    )
    assert taken.score is not None
    assert taken.score.cosine == pytest.approx(1, abs=1e-5)
    assert (taken.score.same, taken.score.n) == (40, 40)


def test_an_artefact_whose_process_died_is_not_run_again(tmp_path: Path) -> None:
    asked: list[Path] = []

    class Dying(Answering):
        def logits(self, model: Path, runtime: str, precision: str, most: int) -> Floats:
            asked.append(model)
            raise RunnerDiedError("openvino: its process died (signal 11)", "")

    answers, labels = torchs(12)
    judge = judge_of(tmp_path, answers, labels)
    judge.__class__ = Dying
    for _ in range(3):
        with pytest.raises(RunnerDiedError, match=r"died \(signal 11\)"):
            judge(artefact(tmp_path, "x", answers) if not asked else asked[0], "openvino", "int8")
    assert len(asked) == 1
