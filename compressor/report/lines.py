"""kdc's own lines and the budget's lines on size, memory and accuracy, each held against one variant.

    runs         its runtime loaded it and ran it to the end
    precision    it was executed in the precision that was asked for (the table RUNTIMES says which that is)
    parity       the runtime gives the logits that torch gives (the table PARITY says how closely)
    max_drop     on validation it loses no more accuracy against the student in fp32 than the profile permits
    size_mb, peak_rss_mb, model_rss_mb    exact figures; memory only on the profile's device
    min_accuracy, min_retention           by their whole 95 % interval

The lines on latency are in `latency_lines`.
"""

from dataclasses import dataclass

from compressor.report.conditions import Grounds
from compressor.report.read import Results
from compressor.report.text import NOT_MEASURED, estimate, megabytes, number, runtime_and_release, share
from compressor.runtimes import RUNTIMES
from compressor.spec.profile import Budget
from compressor.spec.report import Check, Estimate, Row, Verdict
from compressor.statistics import judge

__all__ = [
    "OWN_LINES",
    "PARITY",
    "Parity",
    "accuracy_lines",
    "broke_off",
    "drop_lines",
    "elsewhere",
    "memory_lines",
    "not_run",
    "own_lines",
    "parity_verdict",
    "size_lines",
]


@dataclass(frozen=True)
class Parity:
    """The lowest cosine that any sample may have, the least SQNR of all samples together in decibels, and the least
    share of samples with the same top-1."""

    cosine: float
    sqnr_db: float
    agreement: float


# By requested precision. One sample may always disagree: in a small test set a single near tie would otherwise fail
# the line, and the cosine, which every sample must hold, already bounds how far that sample's logits may be off.
PARITY = {
    "fp32": Parity(0.9999, 40, 0.999),
    "f32": Parity(0.9999, 40, 0.999),
    "fp16": Parity(0.999, 30, 0.995),
    "f16": Parity(0.999, 30, 0.995),
    "bf16": Parity(0.99, 20, 0.98),
    "int8": Parity(0.5, 8, 0.9),
}

OWN_LINES = ("runs", "precision", "parity")


def own_lines(row: Row, grounds: Grounds) -> list[Check]:
    """The lines that every student variant must hold, whatever the budget."""
    return [_runs(row, grounds), _precision(row, grounds), _parity(row)]


def drop_lines(row: Row, max_drop: float) -> list[Check]:
    """Whether the variant keeps the accuracy of the student in fp32, on validation; exact, since that was counted."""
    limit, score = f"≤ {100 * max_drop:g} points", row.score
    if score is None:
        if row.precision != "int8":
            return []  # parity sees what a float precision loses
        why = "no runtime on the machine of the export could run it"
        return [_check(row, "max_drop", limit, NOT_MEASURED, "unmeasured", why)]
    stand_in = f", computed by {score.stand_in}" if score.stand_in else ""
    value = f"{100 * score.drop:+.2f} points (n = {score.n} validation samples{stand_in})".replace("-", "−")
    counted = f"{score.correct} right, the student in fp32 {score.reference_correct}"
    verdict: Verdict = "pass" if score.keeps(max_drop) else "fail"
    return [_check(row, "max_drop", limit, value, verdict, counted)]


def size_lines(row: Row, budget: Budget) -> list[Check]:
    """The budget's line on size, which needs no measurement."""
    return [] if budget.size_mb is None else [_exact(row, "size_mb", megabytes(row.size_bytes), budget.size_mb)]


def memory_lines(row: Row, budget: Budget, grounds: Grounds) -> list[Check]:
    """The budget's lines on memory, judged on the profile's device alone: all that the process held, and what the
    model added to it."""
    why = not_run(row.measured, row.error) or elsewhere(grounds)
    idle, peak = row.idle_rss_mb, row.peak_rss_mb
    added = None if idle is None or peak is None else round(peak - idle, 3)
    lines = (("peak_rss_mb", peak, budget.peak_rss_mb), ("model_rss_mb", added, budget.model_rss_mb))
    return [_exact(row, line, value, limit, why) for line, value, limit in lines if limit is not None]


def accuracy_lines(row: Row, results: Results, grounds: Grounds, teacher: Row | None) -> list[Check]:
    """The budget's lines on what the variant keeps. `teacher`: its row, where the bundle has one."""
    checks, budget = [], results.bundle.profile.budget
    missing = not_run(row.measured, row.error)
    if budget.min_accuracy is not None:
        checks.append(_interval(row, "min_accuracy", row.accuracy, budget.min_accuracy, missing, grounds))
    if budget.min_retention is not None:
        why = missing or _no_teacher(teacher, results)
        checks.append(_interval(row, "min_retention", row.retention, budget.min_retention, why, grounds))
    return checks


def not_run(measured: bool, error: str | None) -> str:
    """Why there are no figures of a variant; empty where there are some."""
    if error is not None:
        return "it did not run: see the line runs"
    return "" if measured else "the bundle holds no measurement of it"


def elsewhere(grounds: Grounds) -> str:
    """Why this session says nothing of the profile's device; empty where it does."""
    return f"not measured on the profile's device: {'; '.join(grounds.differences)}" if grounds.differences else ""


def broke_off(grounds: Grounds) -> str:
    """That the session ended before its end, and why; empty where it did not."""
    return "" if grounds.lost is None else f"the session broke off: {grounds.lost}; samples kept"


def _no_teacher(teacher: Row | None, results: Results) -> str:
    """Why nothing can be held against the teacher's answers; empty where it can."""
    table = results.bundle.teacher_table
    if table is not None:
        if results.table is None:
            return f"the teacher is a table of answers: {table.missing}"
        return "" if (results.table.top1 == results.labels).any() else "the teacher is right on no test sample"
    if teacher is None or not teacher.measured or teacher.accuracy is None:
        return f"the teacher was not measured{f': {teacher.error}' if teacher is not None and teacher.error else ''}"
    if teacher.accuracy.value == 0:
        return "the teacher is right on no test sample"
    verdict, reason = parity_verdict(teacher)
    return f"the teacher's own parity does not hold: {reason}" if verdict != "pass" else ""


def _check(row: Row, line: str, limit: str, value: str, verdict: Verdict, reason: str) -> Check:
    return Check(variant=row.name, line=line, limit=limit, value=value, verdict=verdict, reason=reason)


def _here(grounds: Grounds) -> str:
    return " (on this machine, which is not the profile's device)" if grounds.differences else ""


def _runs(row: Row, grounds: Grounds) -> Check:
    limit = "runs to the end"
    if row.error is not None:
        # A GPU's runtime says nothing of the device where there is no such GPU.
        on_gpu = row.runtime in RUNTIMES and RUNTIMES[row.runtime].on_gpu
        verdict: Verdict = "unmeasured" if on_gpu and grounds.elsewhere else "fail"
        return _check(row, "runs", limit, "failed", verdict, f"{row.error}{_here(grounds)}")
    if not row.measured:
        return _check(row, "runs", limit, NOT_MEASURED, "unmeasured", not_run(row.measured, row.error))
    if broke := broke_off(grounds):
        return _check(row, "runs", limit, "ran until then", "inconclusive", broke)
    return _check(row, "runs", limit, "ran", "pass", f"{runtime_and_release(row)} ran it to the end")


def _precision(row: Row, grounds: Grounds) -> Check:
    runtime = RUNTIMES.get(row.runtime)
    wanted = runtime.precisions.get(row.precision) if runtime is not None else None
    if wanted is None:
        why = f"this version of kdc does not know {row.precision} on {row.runtime}"
    else:
        untold = "" if row.executed_precision else "the runner did not tell what it executed"
        why = not_run(row.measured, row.error) or untold
    limit = f"executed {wanted}" if wanted else f"as {row.precision} asks"
    if why or row.executed_precision is None:
        return _check(row, "precision", limit, row.executed_precision or NOT_MEASURED, "unmeasured", why)
    reason = f"asked {row.precision}, executed {row.executed_precision}"
    if runtime is not None and runtime.ran_as_asked(row.precision, row.executed_precision):
        return _check(row, "precision", limit, row.executed_precision, "pass", reason)
    # A precision that the profile's device has may be one that this machine lacks.
    verdict: Verdict = "unmeasured" if grounds.differences else "fail"
    return _check(row, "precision", limit, row.executed_precision, verdict, reason + _here(grounds))


def _parity(row: Row) -> Check:
    wanted = PARITY.get(row.precision)
    limit = "close to torch"
    if wanted:
        limit = f"cosine ≥ {wanted.cosine:g}, SQNR ≥ {wanted.sqnr_db:g} dB, same top-1 ≥ {100 * wanted.agreement:g} %"
    verdict, reason = parity_verdict(row)
    value = NOT_MEASURED
    if row.parity_cosine is not None and row.parity_agreement is not None:
        n = row.accuracy.n if row.accuracy is not None else 0
        sqnr = "no noise" if row.parity_sqnr_db is None else f"SQNR {row.parity_sqnr_db:.1f} dB"
        value = f"cosine {row.parity_cosine:.6f}, {sqnr}, same top-1 {share(row.parity_agreement)} % (n = {n})"
    return _check(row, "parity", limit, value, verdict, reason)


def parity_verdict(row: Row) -> tuple[Verdict, str]:
    """Whether a variant's logits are torch's, and why. At most `1 - agreement` of the samples may have another top-1,
    and one always may; every sample must hold the cosine; a sample that is not finite fails."""
    wanted = PARITY.get(row.precision)
    if why := not_run(row.measured, row.error):
        return "unmeasured", why
    if row.not_finite:
        return "fail", f"{row.not_finite} samples have logits that are not finite (NaN or infinity)"
    if wanted is None:
        return "unmeasured", f"kdc knows no parity threshold for {row.precision}"
    if row.parity_cosine is None or row.parity_agreement is None or row.accuracy is None:
        return "unmeasured", "the runner left no logits"
    disagreeing = round((1 - row.parity_agreement) * row.accuracy.n)
    if row.parity_cosine < wanted.cosine:
        return "fail", "the logits differ from torch's on the same inputs: the lowest cosine is below the threshold"
    if row.parity_sqnr_db is not None and row.parity_sqnr_db < wanted.sqnr_db:
        return "fail", f"the logits differ from torch's: {row.parity_sqnr_db:.1f} dB of signal to noise, all samples"
    if disagreeing > 1 and row.parity_agreement < wanted.agreement:
        return "fail", f"{disagreeing} of {row.accuracy.n} samples get another top-1 than from torch"
    return "pass", f"{disagreeing} of {row.accuracy.n} samples get another top-1 than from torch"


def _exact(row: Row, line: str, value: float | None, limit: float, why: str = "") -> Check:
    if value is None:
        return _check(row, line, f"≤ {limit:g} MB", NOT_MEASURED, "unmeasured", why or "the runner did not tell")
    if why:
        return _check(row, line, f"≤ {limit:g} MB", f"{number(value, 4)} MB", "unmeasured", why)
    verdict = judge(value, value, limit, at_most=True)
    reason = "within the limit" if verdict == "pass" else f"{number(value - limit)} MB over the limit"
    return _check(row, line, f"≤ {limit:g} MB", f"{number(value, 4)} MB", verdict, reason)


REASONS = {
    "pass": "the whole 95 % interval keeps to the limit",
    "fail": "the whole 95 % interval breaks the limit",
    "inconclusive": "the 95 % interval straddles the limit: more samples would tell",
}


def _interval(row: Row, line: str, figure: Estimate | None, bound: float, why: str, grounds: Grounds) -> Check:
    limit = f"≥ {100 * bound:g} %"
    value = NOT_MEASURED if figure is None else f"{estimate(figure, percent=True)} % (n = {figure.n} {figure.of})"
    if why or figure is None:
        return _check(row, line, limit, value, "unmeasured", why or broke_off(grounds) or "the runner left no logits")
    verdict = judge(figure.low, figure.high, bound, at_most=False)
    return _check(row, line, limit, value, verdict, REASONS[verdict])
