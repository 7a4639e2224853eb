"""kdc's own lines and the budget's lines on size and memory, each held against one variant.

    runs         its runtime loaded it and ran it to the end
    precision    it was executed, and is stored, in the precision that was asked for (the table RUNTIMES says which)
    parity       the runtime gives the logits that torch gives (the table PARITY says how closely)
    size_mb, peak_rss_mb, model_rss_mb    exact figures; memory only on the profile's device

The lines on latency are in `latency_lines`, those on what it keeps of accuracy in `accuracy_lines`.
"""

from collections.abc import Mapping

from compressor.report.checks.conditions import Grounds
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number, runtime_and_release, share
from compressor.runtimes import RUNTIMES
from compressor.schema.profile import Budget
from compressor.schema.report import Check, Estimate, Row, Verdict
from compressor.stats import PARITY, ParityFigures, judge, parity_judged, score_parity

__all__ = [
    "REQUIRED_LINES",
    "broke_off",
    "check_of",
    "elsewhere",
    "interval_line",
    "memory_lines",
    "not_run",
    "parity_verdict",
    "precision_verdict",
    "ran_as_asked",
    "required_lines",
    "size_lines",
    "standing_lines",
    "stored_in_half",
]

STRAY = 0.01
"""Share of the weights' bytes that may lie in half precision where fp32 was asked for: a constant here or there."""

REQUIRED_LINES = ("runs", "precision", "parity", "tokens", "features", "licence")


def required_lines(row: Row, grounds: Grounds) -> list[Check]:
    """The lines that every student variant must hold, whatever the budget."""
    return [_runs(row, grounds), _precision(row, grounds), _parity(row)]


def standing_lines(row: Row, grounds: Grounds) -> list[Check]:
    """The line that the teacher and the fp32 reference must hold, which are no students: speed-up and retention rest
    on the one, and what "faster than fp32" means on the other."""
    return [_precision(row, grounds)] if row.measured and row.error is None else []


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


def check_of(row: Row, line: str, limit: str, value: str, verdict: Verdict, reason: str) -> Check:
    return Check(variant=row.name, line=line, limit=limit, value=value, verdict=verdict, reason=reason)


def _here(grounds: Grounds) -> str:
    return " (on this machine, which is not the profile's device)" if grounds.differences else ""


def _runs(row: Row, grounds: Grounds) -> Check:
    limit = "runs to the end"
    if row.error is not None:
        # A GPU's runtime says nothing of the device where there is no such GPU.
        on_gpu = row.runtime in RUNTIMES and RUNTIMES[row.runtime].on_gpu
        verdict: Verdict = "unmeasured" if on_gpu and grounds.elsewhere else "fail"
        return check_of(row, "runs", limit, "failed", verdict, f"{row.error}{_here(grounds)}")
    if not row.measured:
        return check_of(row, "runs", limit, NOT_MEASURED, "unmeasured", not_run(row.measured, row.error))
    if broke := broke_off(grounds):
        return check_of(row, "runs", limit, "ran until then", "inconclusive", broke)
    return check_of(row, "runs", limit, "ran", "pass", f"{runtime_and_release(row)} ran it to the end")


def _precision(row: Row, grounds: Grounds) -> Check:
    runtime = RUNTIMES.get(row.runtime)
    wanted = runtime.precisions.get(row.precision) if runtime is not None else None
    limit = f"executed {wanted}" if wanted else f"as {row.precision} asks"
    verdict, reason = precision_verdict(row, grounds)
    return check_of(row, "precision", limit, row.executed_precision or NOT_MEASURED, verdict, reason)


def precision_verdict(row: Row, grounds: Grounds) -> tuple[Verdict, str]:
    """Whether an artefact ran in the precision that was asked for, and is stored in it, and why."""
    if why := not_run(row.measured, row.error):
        return "unmeasured", why
    verdict, reason = ran_as_asked(row.runtime, row.precision, row.executed_precision, row.weight_bytes)
    # A precision that the profile's device has may be one that this machine lacks; what a file holds is the same there.
    if verdict == "fail" and grounds.differences and not stored_in_half(row.precision, row.weight_bytes):
        return "unmeasured", reason + _here(grounds)
    return verdict, reason


def ran_as_asked(runtime: str, precision: str, executed: str | None, weights: Mapping[str, int]) -> tuple[Verdict, str]:
    """The same of a runtime, what it was asked and what it executed; `weights`: bytes of the artefact's stored weights
    by their type."""
    row = RUNTIMES.get(runtime)
    if row is None or precision not in row.precisions:
        return "unmeasured", f"this version of kdc does not know {precision} on {runtime}"
    if half := stored_in_half(precision, weights):
        return "fail", half
    if executed is None:
        return "unmeasured", "the runner did not tell what it executed"
    return ("pass" if row.ran_as_asked(precision, executed) else "fail"), f"asked {precision}, executed {executed}"


def stored_in_half(precision: str, weights: Mapping[str, int]) -> str:
    """How much of an artefact that is called fp32 lies in half precision, where it is more than a stray constant;
    empty where it does not. A runtime widens such weights at each call, and then it is smaller and slower than fp32."""
    half = {name: size for name, size in weights.items() if name in ("float16", "bfloat16")}
    if precision not in ("fp32", "f32") or sum(half.values()) <= STRAY * sum(weights.values()):
        return ""
    share_of = sum(half.values()) / sum(weights.values())
    return f"asked {precision}, but {share(share_of)} % of the weights' bytes are stored as {' and '.join(half)}"


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
    return check_of(row, "parity", limit, value, verdict, reason)


def parity_verdict(row: Row) -> tuple[Verdict, str]:
    """Whether a variant's logits are torch's, and why: on the test inputs, whose labels do not matter for it, and on
    the validation images that it was scored on when it was made."""
    if row.score is not None and row.precision in PARITY:
        verdict, why = parity_judged(row.precision, score_parity(row.score))
        if verdict == "fail":
            return "fail", f"on the {row.score.n} validation samples of the export: {why}"
    if why := not_run(row.measured, row.error):
        return "unmeasured", why
    if row.precision not in PARITY:
        return "unmeasured", f"kdc knows no parity threshold for {row.precision}"
    if row.parity_agreement is None or row.accuracy is None:
        return "unmeasured", "the runner left no logits"
    n = row.accuracy.n
    same = round(row.parity_agreement * n)
    return parity_judged(row.precision, ParityFigures(n, same, row.not_finite, row.parity_cosine, row.parity_sqnr_db))


def _exact(row: Row, line: str, value: float | None, limit: float, why: str = "") -> Check:
    if value is None:
        return check_of(row, line, f"≤ {limit:g} MB", NOT_MEASURED, "unmeasured", why or "the runner did not tell")
    if why:
        return check_of(row, line, f"≤ {limit:g} MB", f"{number(value, 4)} MB", "unmeasured", why)
    verdict = judge(value, value, limit, at_most=True)
    reason = "within the limit" if verdict == "pass" else f"{number(value - limit)} MB over the limit"
    return check_of(row, line, f"≤ {limit:g} MB", f"{number(value, 4)} MB", verdict, reason)


REASONS = {
    "pass": "the whole 95 % interval keeps to the limit",
    "fail": "the whole 95 % interval breaks the limit",
    "inconclusive": "the 95 % interval straddles the limit: more samples would tell",
}


def interval_line(row: Row, line: str, figure: Estimate | None, bound: float, why: str, grounds: Grounds) -> Check:
    limit = f"≥ {100 * bound:g} %"
    value = NOT_MEASURED if figure is None else f"{estimate(figure, percent=True)} % (n = {figure.n} {figure.of})"
    if figure is None and row.accuracy is not None:
        why = why or f"{row.accuracy.n} test samples are too few for an interval"
    if why or figure is None:
        return check_of(row, line, limit, value, "unmeasured", why or broke_off(grounds) or "the runner left no logits")
    verdict = judge(figure.low, figure.high, bound, at_most=False)
    return check_of(row, line, limit, value, verdict, REASONS[verdict])
