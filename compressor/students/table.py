"""The answer: what the budget admits, ranks, the front; as a table, and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

from compressor.schema.profile import Budget
from compressor.schema.report import Estimate
from compressor.schema.students import Figures, Student, Students
from compressor.terminal.tables import table

__all__ = ["answered", "over_budget", "rank_agreement", "to_csv", "to_text", "unjudged"]

LATENCY = ("p50_ms", "p90_ms")
COSTS = ("size_mb", "peak_rss_mb", "model_rss_mb")


def over_budget(figures: Figures, budget: Budget) -> tuple[bool | None, tuple[str, ...]]:
    """Whether it holds all lines that need no training (None: an interval leaves one open), and those that it does
    not hold. What was not measured holds nothing."""
    if figures.error is not None:
        return False, (figures.error,)
    over, is_open = [], False
    for name in (*LATENCY, *COSTS):
        limit, value = getattr(budget, name), getattr(figures, name)
        if limit is None:
            continue
        low, high = (value.low, value.high) if isinstance(value, Estimate) else (value, value)
        if value is None:
            over.append(f"{name} was not measured")
        elif low > limit:
            over.append(f"{name} {low:.3g} > {limit:g}")
        elif high > limit:
            is_open = True
    return (False if over else None if is_open else True), tuple(over)


def unjudged(budget: Budget) -> tuple[str, ...]:
    """The lines of the budget that only a trained student can be held to, the defaults on classes among them."""
    given = [name for name in Budget.model_fields if getattr(budget, name) is not None]
    by_default = budget.class_lines(against_teacher=True)
    return tuple(name for name in dict.fromkeys([*given, *by_default]) if name not in (*LATENCY, *COSTS))


def answered(rows: Sequence[Figures], budget: Budget) -> tuple[Student, ...]:
    """Each with its rank within its variant and whether it lies on the front, the fastest first."""
    ran = [row for row in rows if row.p50_ms is not None]
    ranks: dict[int, int] = {}
    for variant in {row.variant for row in ran}:
        ordered = sorted((row for row in ran if row.variant == variant), key=_p50)
        ranks |= {id(row): number for number, row in enumerate(ordered, 1)}
    answer = []
    for row in sorted(rows, key=lambda row: (_p50(row), row.student, row.variant)):
        admitted, over = over_budget(row, budget)
        answer.append(
            Student(figures=row, rank=ranks.get(id(row)), admitted=admitted, over=over, on_front=_on_front(row, ran))
        )
    return tuple(answer)


def _on_front(row: Figures, ran: Iterable[Figures]) -> bool:
    """Whether no other of its variant computes at least as much in less time, or more in the same."""
    if row.p50_ms is None:
        return False
    return not any(
        other.variant == row.variant
        and _macs(other) >= _macs(row)
        and _p50(other) <= _p50(row)
        and (_macs(other) > _macs(row) or _p50(other) < _p50(row))
        for other in ran
    )


def rank_agreement(rows: Sequence[Figures]) -> dict[str, tuple[float, int]]:
    """Spearman's rank correlation of each variant's p50 with the first one's, over what both have, and of how
    many; those of fewer than three are left out."""
    from scipy.stats import spearmanr

    variants = list(dict.fromkeys(row.variant for row in rows))
    times = {
        variant: {(row.student, row.input_size): _p50(row) for row in rows if row.variant == variant and row.p50_ms}
        for variant in variants
    }
    agreement = {}
    for variant in variants[1:]:
        both = [key for key in times[variants[0]] if key in times[variant]]
        if len(both) >= 3:
            pairs = [times[variants[0]][key] for key in both], [times[variant][key] for key in both]
            agreement[variant] = round(float(spearmanr(*pairs).statistic), 4), len(both)
    return agreement


def _macs(row: Figures) -> int:
    return row.macs or 0


def _p50(row: Figures) -> float:
    return row.p50_ms.value if row.p50_ms is not None else float("inf")


def to_text(answer: Students) -> str:
    """For a terminal and a log: a line a candidate and variant, the fastest first, and what the columns mean."""
    header = (
        "student",
        answer.unit,
        "variant",
        "rank",
        "p50 ms",
        "p90 ms",
        "MB",
        "params M",
        "MMACs",
        "model MB",
        "budget",
    )
    rows = [header, *(_cells(row) for row in answer.rows)]
    lines = [
        table(rows), "",
        f"{answer.device}: {answer.machine}; batch {answer.batch}, {answer.threads} threads, {answer.classes} classes; "
        "weights drawn, so no accuracy.",
        f"p50 [95 % interval], of {_blocks(answer)} blocks; "
        "model MB: memory above what the runner held before it loaded the model; "
        "* nothing else of that variant computes as much (MACs) in less time.",
    ]  # fmt: skip
    if answer.rank_agreement:
        told = ", ".join(f"{variant} {value:.3f} (n = {n})" for variant, (value, n) in answer.rank_agreement.items())
        lines.append(f"ranks by p50 against {answer.ranked_against}, Spearman: {told}.")
    days = sorted({row.figures.measured for row in answer.rows if row.figures.error is None})
    if answer.kept:
        lines.append(
            f"{answer.kept} of {len(answer.rows)} rows were kept from an earlier call; measured "
            f"{days[0]}{f' to {days[-1]}' if days[-1] != days[0] else ''}. --fresh measures them again."
        )
    if answer.drift is not None:
        lines.append(f"the reference ran in {answer.sessions} sessions: slowest p50 / fastest p50 {answer.drift:.3f}.")
    if answer.not_screened:
        reasons = dict.fromkeys(answer.not_screened.values())
        named = {why: ", ".join(name for name, of in answer.not_screened.items() if of == why) for why in reasons}
        lines += [f"not screened: {names}: {why}." for why, names in named.items()]
    if answer.not_judged:
        lines.append(f"not judged before training: {', '.join(answer.not_judged)}.")
    return "\n".join(lines) + "\n"


def _blocks(answer: Students) -> str:
    numbers = sorted({row.figures.p50_ms.n for row in answer.rows if row.figures.p50_ms is not None})
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _cells(row: Student) -> tuple[str, ...]:
    figures, admitted = row.figures, row.admitted
    verdict = "holds" if admitted else "open" if admitted is None else "; ".join(row.over)
    if figures.p50_ms is None:
        return (figures.student, str(figures.input_size), figures.variant, *["-"] * 7, verdict)
    p50, p90 = figures.p50_ms, figures.p90_ms
    return (
        figures.student,
        str(figures.input_size),
        figures.variant,
        f"{row.rank}{'*' if row.on_front else ''}",
        f"{p50.value:.3g} [{p50.low:.3g}, {p50.high:.3g}]",
        "-" if p90 is None else f"{p90.value:.3g}",
        f"{figures.size_mb or 0:.2f}",
        f"{(figures.parameters or 0) / 1e6:.2f}",
        f"{_macs(figures) / 1e6:.0f}",
        "-" if figures.model_rss_mb is None else f"{figures.model_rss_mb:.0f}",
        verdict,
    )


def to_csv(answer: Students) -> str:
    """A line a candidate and variant, all figures; the first line names them."""
    columns = (
        "student", "family", "input_size", "classes", "runtime", "runtime_version", "precision", "executed_precision",
        "rank", "admitted", "on_front", "p50_ms", "p50_low", "p50_high", "p90_ms", "p90_low", "p90_high", "blocks",
        "size_mb", "parameters", "macs", "peak_rss_mb", "model_rss_mb", "measured", "error",
    )  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in answer.rows:
        values = row.figures.model_dump() | row.model_dump(include={"rank", "admitted", "on_front"})
        for name in ("p50", "p90"):
            estimate = values[f"{name}_ms"]
            values |= {f"{name}_low": estimate and estimate["low"], f"{name}_high": estimate and estimate["high"]}
            values[f"{name}_ms"] = estimate and estimate["value"]
        p50 = row.figures.p50_ms
        values["blocks"] = p50.n if p50 is not None else None
        writer.writerow({name: "" if values[name] is None else values[name] for name in columns})
    return text.getvalue()
