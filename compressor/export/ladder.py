"""The ladder to int8: it climbs only as far as the accuracy that the profile demands makes it.

    ptq               ranges from training images; the best of several ways on validation. onnxruntime: squeeze-excite
                      and swish in 8 bits too, and only where that falls short in float
    bias-correction   the means that quantization shifted, put back
    fallback          the layers that cost most accuracy, left in float
    qat               the student trained on under fake quantization with the teacher's loss

Each rung is made only where the one below falls short, of the accuracy or of the closeness to torch's logits: six
images can all be right by chance, and their logits are not. Of that closeness there must be some to spare, since other
samples than these judge it in the end (`stats.parity_to_spare`). Where the top falls short too, the best of all is
taken, and the report says that it loses too much, or that its answers are not torch's.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compressor.errors import KdcError
from compressor.export.base import Candidate, Judge, QatModel, Quantizer, Source, TopRung
from compressor.processes.runner import RunnerDiedError
from compressor.progress import Progress
from compressor.schema.quantization import Rung, Scheme, Score
from compressor.stats import closeness, keeps, parity_judged, parity_to_spare, score_parity

__all__ = ["Taken", "climb"]

STAND_IN = "onnxruntime"
"""What computes the candidates of runtimes that cannot run on this machine."""


@dataclass(frozen=True)
class Taken:
    """The candidate that was taken, its files moved into the variant's folder. `qat`: the student behind it, where it
    is a retrained one; `score`: null where its runner died."""

    candidate: Candidate
    score: Score | None
    rungs: tuple[Rung, ...]
    qat: QatModel | None


@dataclass(frozen=True)
class _Tried:
    candidate: Candidate
    score: Score
    seconds: float
    qat: QatModel | None


@dataclass(frozen=True)
class _Dead:
    """A candidate whose runner's process died: `reason`."""

    candidate: Candidate
    reason: str
    qat: QatModel | None


def climb(
    source: Source,
    runtime: str,
    quantizer: Quantizer,
    folder: Path,
    judge: Judge,
    top: TopRung,
    progress: Progress,
) -> Taken:
    """The lowest rung of `runtime`'s int8 that keeps enough accuracy, else the best of all, in the new `folder`.

    The best is taken as `Judge.rank` says; of equals that of the lowest rung, and within it the closest to torch's
    logits. A student that was trained under fake quantization itself (`top.student`) enters at the top. Raises KdcError
    where none could be made.
    """
    workshop = folder.parent / f".{folder.name}.rungs"
    workshop.mkdir(parents=True)
    tried: list[_Tried] = []
    dead: list[_Dead] = []
    try:
        for attempt in _candidates(_Way(source, runtime, quantizer, workshop, judge), top, progress):
            if isinstance(attempt, _Dead):
                dead.append(attempt)
                made = attempt.candidate
                progress.warn(f"{folder.name}, {made.rung}: {made.description}: {attempt.reason}: it is out")
                continue
            tried.append(attempt)
            progress.note(f"{folder.name}, {_line(attempt)}")
        if not tried and not dead:
            raise KdcError(f"{runtime} made no int8 candidate of this network")
        if not tried:
            progress.warn(f"{folder.name}: none could be scored; the first is kept, and a measurement tells if it runs")
            return Taken(_moved(dead[0].candidate, folder), None, (), dead[0].qat)
        best = _best(tried, judge)
        if source.profile.max_drop * best.score.n < 1:
            progress.note(f"{folder.name}: {_few(best.score, source.profile.max_drop)}")
        if not judge.holds(best.score):
            figures, lacks = score_parity(best.score), "keeps the accuracy asked for"
            if parity_judged("int8", figures)[0] == "fail":
                lacks = "gives torch's answers closely enough"
            elif keeps(best.score, source.profile.max_drop) and not parity_to_spare("int8", figures):
                lacks = "gives torch's answers with room to spare for other samples"
            progress.warn(f"{folder.name}: no rung {lacks}; the best is {_line(best)}")
        rungs = tuple(_rung(attempt, attempt is best) for attempt in tried)
        return Taken(_moved(best.candidate, folder), best.score, rungs, best.qat)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


@dataclass(frozen=True)
class _Way:
    """From a candidate to its score. `workshop`: the folder that candidates are made in."""

    source: Source
    runtime: str
    quantizer: Quantizer
    workshop: Path
    judge: Judge

    def scored(
        self, candidate: Candidate, began: float, network: nn.Module | None = None, qat: QatModel | None = None
    ) -> "_Tried | _Dead":
        try:
            score = _score(candidate, self.runtime, self.judge, network)
        except RunnerDiedError as error:
            return _Dead(candidate, error.message, qat)
        return _Tried(candidate, score, time.perf_counter() - began, qat)

    def from_qat(self, qat: QatModel, began: float) -> "_Tried | _Dead":
        assert self.quantizer.from_qat is not None
        folder = self.workshop / "qat"
        folder.mkdir()
        return self.scored(self.quantizer.from_qat(self.source, qat, folder), began, qat.network, qat)


def _candidates(way: _Way, top: TopRung, progress: Progress) -> Iterator["_Tried | _Dead"]:
    """Every candidate with its score, each made when it is asked for."""
    quantizer, judge = way.quantizer, way.judge
    scheme, student = quantizer.scheme(way.source.profile), top.student
    enters_at_top = student is not None and student.record.scheme == scheme and quantizer.from_qat is not None
    if student is not None and not enters_at_top:
        progress.warn(
            f"the student was trained for {_rounding(student.record.scheme)}, and {way.runtime} needs "
            f"{_rounding(scheme)}: it is quantized as any other student"
        )
    if student is not None and enters_at_top:
        entered = way.from_qat(student, time.perf_counter())
        yield entered
        if _is_enough(entered, judge):
            return
    enough, began = False, time.perf_counter()
    made = quantizer.candidates(way.source, way.workshop, judge, progress)
    for candidate in _until_one_dies(made, progress):
        if candidate is None:  # the end of a rung
            if enough:
                return
            continue
        attempt = way.scored(candidate, began)
        enough, began = enough or _is_enough(attempt, judge), time.perf_counter()
        yield attempt
    if enough or enters_at_top or quantizer.from_qat is None:
        return
    began, qat = time.perf_counter(), top.retrain(scheme)
    if qat is not None:
        yield way.from_qat(qat, began)


def _is_enough(attempt: "_Tried | _Dead", judge: Judge) -> bool:
    return isinstance(attempt, _Tried) and judge.holds(attempt.score)


def _until_one_dies(candidates: Iterator[Candidate | None], progress: Progress) -> Iterator[Candidate | None]:
    """A rung may be built on what runs: where that dies, there are no more."""
    try:
        yield from candidates
    except RunnerDiedError as error:
        progress.warn(f"no higher rung after training: {error.message}")


def _rounding(scheme: Scheme) -> str:
    return f"{scheme.activations} activations with {scheme.weight_bits}-bit weights"


def _score(candidate: Candidate, runtime: str, judge: Judge, network: nn.Module | None = None) -> Score:
    """`network`: the retrained student, where the candidate should answer as that one."""
    if candidate.stand_in is None:
        return judge(candidate.model, runtime, "int8", network)
    score = judge(candidate.stand_in, STAND_IN, "int8", network)
    return score.model_copy(update={"stand_in": STAND_IN})


def _best(tried: list[_Tried], judge: Judge) -> _Tried:
    def worth(attempt: _Tried) -> tuple[object, ...]:
        return judge.holds(attempt.score), *judge.rank(attempt.score)[:-1]

    first = max(tried, key=worth)
    # Of the fallbacks the first of equals has the fewest layers in float; more of them are always closer.
    alike = [attempt for attempt in tried if attempt.candidate.rung == first.candidate.rung != "fallback"]
    equals = [attempt for attempt in alike if worth(attempt) == worth(first)]
    return max(equals, key=lambda attempt: judge.rank(attempt.score)[-1], default=first)


def _few(score: Score, max_drop: float) -> str:
    return (
        f"{score.n} validation samples cannot show whether {100 * max_drop:g} points are lost, since one of them is "
        f"{100 / score.n:.1f}: the choice rests more on how close the logits are to torch's"
    )


def _line(attempt: _Tried) -> str:
    score, made = attempt.score, attempt.candidate
    return (
        f"{made.rung}: {made.description}: {score.correct} of {score.n} validation samples right, "
        f"{100 * score.drop:+.2f} points lost against fp32, balanced {100 * score.balanced_drop:+.2f}, "
        f"{closeness(score)} ({attempt.seconds:.0f} s)"
    )


def _rung(attempt: _Tried, taken: bool) -> Rung:
    files = [path for path in attempt.candidate.model.parent.rglob("*") if path.is_file()]
    return Rung(
        rung=attempt.candidate.rung,
        how=attempt.candidate.description,
        score=attempt.score,
        seconds=round(attempt.seconds, 1),
        bytes=sum(path.stat().st_size for path in files),
        taken=taken,
    )


def _moved(candidate: Candidate, folder: Path) -> Candidate:
    """The candidate, its own folder having become the variant's."""
    candidate.model.parent.rename(folder)
    return Candidate(candidate.rung, candidate.description, folder / candidate.model.name, None)
