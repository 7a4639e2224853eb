"""The lines that a variant of a language model is held against.

    runs, precision, licence    as those of every model
    parity       in fp32: the runtime gives each validation token the log-probability that torch gives it
    max_drop     in int8 and int4: by how much of torch's its bits a byte rise, on validation
    size_mb, peak_rss_mb, model_rss_mb    exact figures; memory only on the profile's device
    min_tokens_per_s, min_prompt_tokens_per_s    only on the profile's device, by their whole interval
    min_retention    the teacher's bits a byte / its own, on test, by its whole 95 % interval

Nothing that is chosen rests on test: `choose` leaves min_retention out.
"""

from collections.abc import Iterator

from compressor.report.checks.artefact import ran_as_asked
from compressor.report.checks.provenance import licence_line
from compressor.report.language.figures import SPEED, SpeedGrounds, speed_at
from compressor.report.language.read import LanguageResults
from compressor.report.render.text import NOT_MEASURED, confidence_percent, estimate, megabytes, number, share
from compressor.runtimes import RUNTIMES
from compressor.schema.language.report import LanguageRow
from compressor.schema.profile import Budget
from compressor.schema.report import Check, Verdict
from compressor.stats import judge, percentile_needs

__all__ = ["ON_TEST", "PARITY", "checks_for", "choose", "precision_line"]

PARITY = (0.01, 0.001)
"""In fp32, how far a log-probability may lie from torch's at most, and in the mean, in nats: a thousandth is 0.1 % of a
token's probability, far below what any figure here shows, and a hundred times what rounding brings."""

ON_TEST = ("min_retention",)


def checks_for(row: LanguageRow, results: LanguageResults, grounds: SpeedGrounds) -> tuple[Check, ...]:
    """Every line held against one student variant."""
    bundle = results.bundle
    return (
        _runs(row),
        precision_line(row),
        *licence_line(row.name, bundle.student, bundle.profile),
        _kept(row, bundle.profile.max_drop),
        *_exact_lines(row, bundle.profile.budget, grounds),
        *_speed_lines(row, results, grounds),
        *_retention(row, results),
    )


def _check(row: LanguageRow, line: str, limit: str, value: str, verdict: Verdict, reason: str) -> Check:
    return Check(variant=row.name, line=line, limit=limit, value=value, verdict=verdict, reason=reason)


def _not_run(row: LanguageRow) -> str:
    if row.error is not None:
        return "it did not run: see the line runs"
    return "" if row.measured else "the bundle holds no measurement of it"


def _runs(row: LanguageRow) -> Check:
    limit = "runs to the end"
    if row.error is not None:
        return _check(row, "runs", limit, "failed", "fail", row.error)
    if not row.measured:
        return _check(row, "runs", limit, NOT_MEASURED, "unmeasured", _not_run(row))
    return _check(row, "runs", limit, "ran", "pass", f"{row.runtime} {row.runtime_version} ran it to the end")


def precision_line(row: LanguageRow) -> Check:
    """Whether its weights are what was asked for, as the runtime reads them from the model that it loaded."""
    runtime = RUNTIMES.get(row.runtime)
    wanted = runtime.precisions.get(row.precision) if runtime is not None else None
    limit = f"{wanted} weights" if wanted else f"as {row.precision} asks"
    if why := _not_run(row):
        return _check(row, "precision", limit, NOT_MEASURED, "unmeasured", why)
    verdict, reason = ran_as_asked(row.runtime, row.precision, row.executed_precision, row.weight_bytes)
    return _check(row, "precision", limit, f"{row.executed_precision} weights", verdict, reason)


def _kept(row: LanguageRow, max_drop: float) -> Check:
    full = row.precision in ("fp32", "f32")
    line = "parity" if full else "max_drop"
    limit = f"|Δ log p| ≤ {PARITY[0]:g} at most, ≤ {PARITY[1]:g} in the mean" if full else f"≤ {100 * max_drop:g} %"
    if row.not_finite:
        reason = f"{row.not_finite:,} tokens have no probability that is a finite number"
        return _check(row, line, limit, "not finite", "fail", reason)
    if (why := _not_run(row)) or row.validation is None or row.parity_max is None or row.parity_mean is None:
        return _check(row, line, limit, NOT_MEASURED, "unmeasured", why or "the runner left no log-probabilities")
    counted = f"n = {row.validation.tokens:,} validation tokens"
    if full:
        held = row.parity_max <= PARITY[0] and row.parity_mean <= PARITY[1]
        value = f"{number(row.parity_max, 2)} at most, {number(row.parity_mean, 2)} in the mean ({counted})"
        return _check(row, line, limit, value, "pass" if held else "fail", "against the student in torch in fp32")
    assert row.loss_share is not None
    loss = row.validation_loss
    bits = "" if loss is None else f"{loss.value:+.4f} [{loss.low:+.4f} to {loss.high:+.4f}] bits a byte, "
    value = f"{100 * row.loss_share:+.2f} % ({bits}n = {row.validation.n:,} validation documents)".replace("-", "−")
    verdict: Verdict = "pass" if row.loss_share <= max_drop else "fail"
    return _check(row, line, limit, value, verdict, f"{row.precision} weights against the student in torch in fp32")


def _exact_lines(row: LanguageRow, budget: Budget, grounds: SpeedGrounds) -> Iterator[Check]:
    idle, peak = row.idle_rss_mb, row.peak_rss_mb
    added = None if idle is None or peak is None else round(peak - idle, 3)
    why = _not_run(row) or _elsewhere(grounds)
    for line, value, limit, reason in (
        ("size_mb", megabytes(row.size_bytes), budget.size_mb, ""),
        ("peak_rss_mb", peak, budget.peak_rss_mb, why),
        ("model_rss_mb", added, budget.model_rss_mb, why),
    ):
        if limit is None:
            continue
        shown = NOT_MEASURED if value is None else f"{number(value, 4)} MB"
        if value is None or reason:
            reason = reason or "the runner did not tell"
            yield _check(row, line, f"≤ {limit:g} MB", shown, "unmeasured", reason)
            continue
        held = value <= limit
        reason = "within the limit" if held else f"{number(value - limit)} MB over the limit"
        yield _check(row, line, f"≤ {limit:g} MB", shown, "pass" if held else "fail", reason)


def _elsewhere(grounds: SpeedGrounds) -> str:
    return f"not measured on the profile's device: {'; '.join(grounds.differences)}" if grounds.differences else ""


def _speed_lines(row: LanguageRow, results: LanguageResults, grounds: SpeedGrounds) -> Iterator[Check]:
    budget = results.bundle.profile.budget
    for line, figure in SPEED.items():
        bound = getattr(budget, line)
        if bound is None:
            continue
        shown = getattr(row, figure)
        value = NOT_MEASURED if shown is None else f"{estimate(shown)} tokens/s (n = {shown.n} {shown.of})"
        verdict, reason = _speed(row, results, grounds, figure, bound)
        yield _check(row, line, f"≥ {bound:g} tokens/s", value, verdict, reason)


def _speed(
    row: LanguageRow, results: LanguageResults, grounds: SpeedGrounds, figure: str, bound: float
) -> tuple[Verdict, str]:
    """Whatever disturbs a session makes it slower than the device, so what it then fails is open."""
    if why := _not_run(row) or _elsewhere(grounds):
        return "unmeasured", why
    interval = speed_at(results, row.name, figure, grounds.confidence)
    if interval is None:
        return "unmeasured", f"too few answers: needs {percentile_needs(0.5)}, found {row.answers} (--rounds)"
    verdict = judge(interval.low, interval.high, bound, at_most=False)
    shown = f"{confidence_percent(grounds.confidence)} % interval [{number(interval.low)}–{number(interval.high)}]"
    if verdict == "inconclusive":
        reason = f"the {shown} straddles the limit: more rounds would tell (--rounds, --seconds)"
    else:
        reason = f"the whole {shown} {'keeps to' if verdict == 'pass' else 'breaks'} the limit"
    if not grounds.disturbed:
        return verdict, reason
    disturbed = f"disturbed ({'; '.join(grounds.disturbed)})"
    if verdict == "fail" or (verdict == "pass" and not grounds.slower):
        return "inconclusive", f"{reason}, but the session was {disturbed}"
    return verdict, f"{reason}, though the session was {disturbed}"


def _retention(row: LanguageRow, results: LanguageResults) -> Iterator[Check]:
    bound = results.bundle.profile.budget.min_retention
    if bound is None:
        return
    limit, figure = f"≥ {100 * bound:g} %", row.retention
    value = NOT_MEASURED
    if figure is not None:
        value = f"{share(figure.value)} [{share(figure.low)}–{share(figure.high)}] % (n = {figure.n:,} documents)"
    why = _not_run(row)
    if not why and results.teacher is None:
        why = "the teacher could not be run, so that nothing is known of what it pays for the text"
    if not why and figure is None:
        why = "one test document is too few for an interval" if row.test is not None else "it has no score on test"
    if why or figure is None:
        yield _check(row, "min_retention", limit, value, "unmeasured", why)
        return
    verdict = judge(figure.low, figure.high, bound, at_most=False)
    reasons = {
        "pass": "the whole 95 % interval keeps to the limit",
        "fail": "the whole 95 % interval breaks the limit",
        "inconclusive": "the 95 % interval straddles the limit: more test documents would tell",
    }
    yield _check(row, "min_retention", limit, value, verdict, reasons[verdict])


def choose(rows: tuple[LanguageRow, ...], checks: tuple[Check, ...], grounds: SpeedGrounds) -> tuple[str | None, str]:
    """The variant to ship, or None, and why: of those that fail no line, but for those on test, the one that generates
    fastest. So bits a byte on validation decide by max_drop, and nothing on test does."""
    students = [row for row in rows if row.role == "student"]
    failed = {
        row.name: [
            check.line
            for check in checks
            if check.variant == row.name and check.line not in ON_TEST and check.verdict == "fail"
        ]
        for row in students
    }
    as_asked = {check.variant for check in checks if check.line == "precision" and check.verdict == "pass"}
    fit = [row for row in students if not failed[row.name]]
    timed = [row for row in fit if row.tokens_per_s is not None and row.name in as_asked]
    if not students:
        return None, "the bundle has no student variant"
    if not fit:
        return None, "each fails a line: " + "; ".join(f"{name} {', '.join(lines)}" for name, lines in failed.items())
    if not timed:
        return None, "none that may be shipped was timed at its precision"
    order = sorted(timed, key=lambda row: -_rate(row))
    best = order[0]
    parts = [f"generates fastest of {len(timed)} that may be shipped: {number(_rate(best))} tokens/s"]
    if order[1:]:
        parts[0] += f", next {order[1].name} {number(_rate(order[1]))}"
    if out := [f"{name} (fails {', '.join(lines)})" for name, lines in failed.items() if lines]:
        parts.append(f"out: {', '.join(out)}")
    if grounds.differences:
        parts.append("chosen on this machine, which is not the profile's device: measure there before you ship")
    return best.name, "; ".join(parts)


def _rate(row: LanguageRow) -> float:
    assert row.tokens_per_s is not None
    return row.tokens_per_s.value
