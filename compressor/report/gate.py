"""The gate: every student variant against every line of the budget, and against kdc's own lines.

    runs         its runtime loaded it and ran it to the end
    precision    it was executed in the precision that was asked for (the table RUNTIMES says which that is)
    parity       the runtime gives the logits that torch gives (the table PARITY says how closely)
    size_mb …    the budget: p50_ms and p90_ms (judged by their whole 95 % interval), size_mb, peak_rss_mb,
                 min_accuracy and min_retention (by their interval)

Latency and memory are judged only where the machine is the profile's device and ran it as the profile says. What was
not measured is never a pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from compressor.report.text import NOT_MEASURED, estimate, megabytes, number, runtime_and_release, share
from compressor.runtimes import RUNTIMES
from compressor.spec.measurement import Machine, Measurement
from compressor.spec.profile import Profile
from compressor.spec.report import Check, Estimate, Report, Row, Verdict
from compressor.statistics import MIN_BLOCKS, judge, percentile_needs

__all__ = ["PARITY", "Parity", "checks_for", "differences", "exit_code_for", "holding", "parity_verdict", "verdict_of"]


@dataclass(frozen=True)
class Parity:
    """The lowest cosine that any sample may have, and the least share of samples with the same top-1."""

    cosine: float
    agreement: float


# By requested precision. One sample may always disagree: in a small test set a single near tie would otherwise fail
# the line, and the cosine, which every sample must hold, already bounds how far that sample's logits may be off.
PARITY = {
    "fp32": Parity(0.9999, 0.999),
    "f32": Parity(0.9999, 0.999),
    "f16": Parity(0.999, 0.995),
    "bf16": Parity(0.99, 0.98),
}

OWN_LINES = ("runs", "precision", "parity")

ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def differences(profile: Profile, measurement: Measurement, threads: set[int]) -> tuple[str, ...]:
    """How the session differs from what the profile describes, a line each; none: its latencies are the device's."""
    before, after = measurement.machine_before, measurement.machine_after
    found = list(_machine_differences(profile, before))
    if (before.arch, before.cpu, before.cores) != (after.arch, after.cpu, after.cores):
        found.append(f"the machine changed while it measured, to {after.cpu} ({after.arch}, {after.cores} cores)")
    if measurement.batch != profile.batch:
        found.append(f"batch is {measurement.batch}, the profile's {profile.batch}")
    found += [f"threads are {count}, the profile's {profile.threads}" for count in sorted(threads - {profile.threads})]
    return tuple(found)


def _machine_differences(profile: Profile, machine: Machine) -> Iterator[str]:
    expected = profile.fingerprint
    arch = machine.arch.lower()
    if ARCHITECTURES.get(arch, arch) != ARCHITECTURES.get(expected.arch.lower(), expected.arch.lower()):
        yield f"arch is {machine.arch}, the profile's {expected.arch}"
    if expected.cpu is not None and expected.cpu.lower() not in machine.cpu.lower():
        yield f"cpu is {machine.cpu}, the profile's {expected.cpu}"
    lacking = sorted({flag.lower() for flag in expected.isa} - {flag.lower() for flag in machine.isa})
    if lacking:
        yield f"isa lacks {', '.join(lacking)}"
    if expected.cores is not None and machine.cores != expected.cores:
        yield f"cores are {machine.cores}, the profile's {expected.cores}"
    if machine.usable_cores < profile.threads:
        yield f"usable cores are {machine.usable_cores}, fewer than the profile's {profile.threads} threads"


def checks_for(row: Row, profile: Profile, differences: tuple[str, ...], teacher: Row | None) -> tuple[Check, ...]:
    """Every line held against one student variant. `teacher`: its row, where the bundle has one."""
    checks = [_runs(row, differences), _precision(row, differences), _parity(row)]
    budget = profile.budget
    if budget.size_mb is not None:
        checks.append(_exact(row, "size_mb", megabytes(row.size_bytes), budget.size_mb))
    for line, figure, limit in (("p50_ms", row.p50_ms, budget.p50_ms), ("p90_ms", row.p90_ms, budget.p90_ms)):
        if limit is not None:
            why = _not_run(row) or _elsewhere(differences) or _too_few(row, line)
            checks.append(_interval(row, line, figure, f"≤ {limit:g} ms", limit, why))
    if budget.peak_rss_mb is not None:
        why = _not_run(row) or _elsewhere(differences)
        checks.append(_exact(row, "peak_rss_mb", row.peak_rss_mb, budget.peak_rss_mb, why))
    if budget.min_accuracy is not None:
        text = f"≥ {100 * budget.min_accuracy:g} %"
        checks.append(_interval(row, "min_accuracy", row.accuracy, text, budget.min_accuracy, _not_run(row)))
    if budget.min_retention is not None:
        text, why = f"≥ {100 * budget.min_retention:g} %", _not_run(row) or _no_teacher(teacher)
        checks.append(_interval(row, "min_retention", row.retention, text, budget.min_retention, why))
    return tuple(checks)


def _not_run(row: Row) -> str:
    if row.error is not None:
        return "it did not run: see the line runs"
    return "" if row.measured else "the bundle holds no measurement of it"


def _elsewhere(differences: tuple[str, ...]) -> str:
    return f"not measured on the profile's device: {'; '.join(differences)}" if differences else ""


def _too_few(row: Row, line: str) -> str:
    needed = percentile_needs({"p50_ms": 0.5, "p90_ms": 0.9}[line])
    if row.calls >= needed and getattr(row, line) is not None:
        return ""
    return f"too few samples: needs {needed} timed calls in at least {MIN_BLOCKS} blocks, found {row.calls} calls"


def _no_teacher(teacher: Row | None) -> str:
    if teacher is None or not teacher.measured or teacher.accuracy is None:
        return f"the teacher was not measured{f': {teacher.error}' if teacher is not None and teacher.error else ''}"
    if teacher.accuracy.value == 0:
        return "the teacher is right on no test sample"
    verdict, reason = parity_verdict(teacher)
    return f"the teacher's own parity does not hold: {reason}" if verdict != "pass" else ""


def _check(row: Row, line: str, limit: str, value: str, verdict: Verdict, reason: str) -> Check:
    return Check(variant=row.name, line=line, limit=limit, value=value, verdict=verdict, reason=reason)


def _here(differences: tuple[str, ...]) -> str:
    return " (on this machine, which is not the profile's device)" if differences else ""


def _runs(row: Row, differences: tuple[str, ...]) -> Check:
    if row.error is not None:
        return _check(row, "runs", "runs to the end", "failed", "fail", f"{row.error}{_here(differences)}")
    if not row.measured:
        return _check(row, "runs", "runs to the end", NOT_MEASURED, "unmeasured", _not_run(row))
    return _check(row, "runs", "runs to the end", "ran", "pass", f"{runtime_and_release(row)} ran it to the end")


def _precision(row: Row, differences: tuple[str, ...]) -> Check:
    runtime = RUNTIMES.get(row.runtime)
    wanted = runtime.precisions.get(row.precision) if runtime is not None else None
    if wanted is None:
        why = f"this version of kdc does not know {row.precision} on {row.runtime}"
    else:
        why = _not_run(row) or ("" if row.executed_precision else "the runner did not tell what it executed")
    limit = f"executed {wanted}" if wanted else f"as {row.precision} asks"
    if why or row.executed_precision is None:
        return _check(row, "precision", limit, row.executed_precision or NOT_MEASURED, "unmeasured", why)
    reason = f"asked {row.precision}, executed {row.executed_precision}"
    if row.executed_precision == wanted:
        return _check(row, "precision", limit, row.executed_precision, "pass", reason)
    # A precision that the profile's device has may be one that this machine lacks.
    verdict: Verdict = "unmeasured" if differences else "fail"
    return _check(row, "precision", limit, row.executed_precision, verdict, reason + _here(differences))


def _parity(row: Row) -> Check:
    wanted = PARITY.get(row.precision)
    limit = f"cosine ≥ {wanted.cosine:g}, same top-1 ≥ {100 * wanted.agreement:g} %" if wanted else "close to torch"
    verdict, reason = parity_verdict(row)
    value = NOT_MEASURED
    if row.parity_cosine is not None and row.parity_agreement is not None:
        n = row.accuracy.n if row.accuracy is not None else 0
        value = f"cosine {row.parity_cosine:.6f}, same top-1 {share(row.parity_agreement)} % (n = {n})"
    return _check(row, "parity", limit, value, verdict, reason)


def parity_verdict(row: Row) -> tuple[Verdict, str]:
    """Whether a variant's logits are torch's, and why. At most `1 - agreement` of the samples may have another top-1,
    and one always may; every sample must hold the cosine; a sample that is not finite fails."""
    wanted = PARITY.get(row.precision)
    if why := _not_run(row):
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


def _interval(row: Row, line: str, figure: Estimate | None, limit: str, bound: float, why: str) -> Check:
    latency = line in ("p50_ms", "p90_ms")
    value = NOT_MEASURED
    if figure is not None:
        value = f"{estimate(figure, percent=not latency)} {'ms' if latency else '%'} (n = {figure.n} {figure.of})"
    if why or figure is None:
        return _check(row, line, limit, value, "unmeasured", why or "the runner left no logits")
    verdict = judge(figure.low, figure.high, bound, at_most=latency)
    return _check(row, line, limit, value, verdict, REASONS[verdict])


def broken(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The failed lines that no other variant makes up for: an artefact that was asked for is not what it says it is."""
    return tuple(check for check in checks if check.line in OWN_LINES and check.verdict == "fail")


def verdict_of(checks: tuple[Check, ...], variants: tuple[str, ...]) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict over all student `variants`, and which of them pass every line.

    fail: a variant does not run, not at the precision asked for, or not with torch's answers; or each fails a line of
    the budget. pass: at least one passes every line. Otherwise the best that is still open: inconclusive or unmeasured.
    unmeasured where there is no student variant at all.
    """
    lines = {name: {check.verdict for check in checks if check.variant == name} for name in variants}
    holds = tuple(name for name, verdicts in lines.items() if verdicts == {"pass"})
    if broken(checks):
        return "fail", holds
    if holds:
        return "pass", holds
    still_open = [verdicts for verdicts in lines.values() if "fail" not in verdicts]
    if lines and not still_open:
        return "fail", ()
    return ("inconclusive" if any("inconclusive" in verdicts for verdicts in still_open) else "unmeasured"), ()


def holding(report: Report, allow_unmeasured: bool = False) -> tuple[str, ...]:
    """The student variants that hold every judged line; unmeasured lines count as not judged only where allowed."""
    accepted: set[Verdict] = {"pass", "unmeasured"} if allow_unmeasured else {"pass"}
    names = [row.name for row in report.rows if row.role == "student"]
    lines = {name: {check.verdict for check in report.checks if check.variant == name} for name in names}
    return tuple(name for name in names if lines[name] and lines[name] <= accepted)


def exit_code_for(report: Report, allow_unmeasured: bool = False) -> int:
    """0, 1 or 3: what `verdict_of` says, pass, fail, or still open.

    `allow_unmeasured` leaves unmeasured lines out; it never makes a failed or an inconclusive line a pass.
    """
    if report.verdict == "fail":
        return EXIT_GATE_FAILED
    return EXIT_PASS if report.verdict == "pass" or holding(report, allow_unmeasured) else EXIT_INCONCLUSIVE
