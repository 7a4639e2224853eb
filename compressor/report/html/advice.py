"""What was not measured and why, and what to try next where a budget fails or is left open."""

from collections.abc import Iterator

from compressor.report.gate import broken
from compressor.report.html.text import shown
from compressor.report.read import Results
from compressor.schema.report import Check, Report, Row

__all__ = ["next_steps", "not_measured"]

Step = tuple[str, str]
"""A command, and what for."""


def not_measured(report: Report, results: Results) -> Iterator[tuple[str, str]]:
    """What was not, and why: figures and lines, those of several variants in one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for check in report.checks:
        if check.verdict == "unmeasured":
            reasons.setdefault((check.line, check.reason), []).append(check.variant)
    for (line, reason), names in reasons.items():
        yield f"{line} of {_few(names)}", shown(reason, 300)
    if report.session is None:
        yield "latency, memory, accuracy on the device", "the bundle holds no measurement"
        return
    for row in report.rows:
        if row.error is not None:
            yield f"everything of {shown(row.name)}", shown(row.error, 300)
    if report.session.aa is None:
        yield "how far two runs of the same artefact differ (A/A)", "the session had no second copy of the reference"
    if not report.session.with_throughput:
        yield "throughput", "it was left out on request"
    measured = [row for row in report.rows if row.measured]
    if measured and not any(row.throughput and row.throughput.joules_per_image for row in measured):
        yield "energy", "the machine has no counter that can be read, or throughput was left out"
    few = [row.name for row in measured if row.p90_ms is None]
    if few:
        yield f"p90 of {_few(few)}", "too few timed calls"
    if results.bundle.student.gain is None:
        yield "what distillation gained over labels alone", "no control was trained (kdc distill --control)"


def _few(names: list[str]) -> str:
    listed = ", ".join(shown(name, 60) for name in names[:4])
    return f"{listed} and {len(names) - 4} more" if len(names) > 4 else listed


def next_steps(report: Report, results: Results, subject: Row | None) -> list[Step]:
    """What to type next, the nearest first; nothing where the budget holds. `subject`: the variant that is nearest to
    holding it."""
    if report.verdict == "pass" or subject is None:
        return []
    judged = [check for check in report.checks if check.variant == subject.name]
    judged += [check for check in broken(report.checks) if check not in judged]
    return list(dict.fromkeys(_steps(judged, report, results)))[:4]


def _steps(checks: list[Check], report: Report, results: Results) -> Iterator[Step]:
    failed, unclear, unknown = (
        {check.line for check in checks if check.verdict == verdict}
        for verdict in ("fail", "inconclusive", "unmeasured")
    )
    profile = report.profile
    if report.session is None:
        yield "kdc measure BUNDLE", "nothing was measured yet"
    elif report.differences and unknown:
        yield "kdc measure BUNDLE --device ssh://USER@HOST", "latency and memory count on the profile's device alone"
    if failed & {"runs", "precision", "parity"}:
        yield "kdc doctor", "an artefact does not run as it was asked to: see which runtimes and precisions work"
    if failed & {"p50_ms", "p90_ms", "min_speedup", "max_slowdown", "size_mb", "peak_rss_mb", "model_rss_mb"}:
        yield f"kdc students --profile {profile}", "measure smaller students, before any training"
        if not any(row.precision == "int8" for row in report.rows if row.role == "student"):
            yield f"kdc export RUN --profile {profile} --set targets=…", "let the profile ask for int8, too"
    if unclear & {"p50_ms", "p90_ms", "min_speedup", "max_slowdown"}:
        rounds = 4 * len(results.measurement.rounds) if results.measurement is not None else 120
        yield f"kdc measure BUNDLE --rounds {rounds}", "an interval straddles its limit, or the session was disturbed"
    accuracy = {check.line for check in checks if check.line.startswith(("min_accuracy", "min_", "max_drop"))}
    if failed & (accuracy - {"min_speedup", "max_drop"}):
        epochs = 2 * results.bundle.student.recipe.epochs
        yield f"kdc distill … --epochs {epochs}", "the student keeps too little: train longer, or take a larger one"
    if "max_drop" in failed:
        yield f"kdc export RUN --profile {profile} --qat", "a lower precision loses too much: train on under it"
    if unclear & (accuracy - {"min_speedup"}):
        yield "kdc distill … --data DATA", "so few test samples leave it open: test on more"
