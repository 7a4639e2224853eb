"""The tables of the page: cells that name the figure that they show, so that every number can be looked up."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

from compressor.report.html.text import shown
from compressor.report.render.race import UNITS, rank_of, rank_score
from compressor.report.render.text import (
    NOT_MEASURED,
    estimate,
    megabytes,
    number,
    p_value,
    points,
    runtime_and_release,
    share,
    spread,
)
from compressor.schema.language.report import LanguageReport
from compressor.schema.race import LossRace, Race
from compressor.schema.report import ClassShare, Estimate, Report, Row
from compressor.stats import closeness

__all__ = ["Table", "checks_table", "figure", "tables_of", "weights_text"]

Column = tuple[str, str, Callable[[Row], str]]
"""What it is called, the figure's name, and the text."""
INTERVAL = re.compile(r"(\[[^\[\]]{1,40}\])")
ROLES = {"student": "", "teacher": "teacher", "reference": "fp32 reference", "baseline": "baseline"}


@dataclass(frozen=True)
class Table:
    """`rows`: a name, its tag, and the cells below `head`, in which the name's column has no title."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Markup | str, ...]], ...]
    first: str = "variant"


def figure(of: str, text: str) -> Markup:
    """A figure that is measured or counted; `of`: which. No line breaks within its interval."""
    parts = [Markup('<span class="whole">{}</span>').format(part) if part[:1] == "[" else escape(part)
             for part in INTERVAL.split(text)]  # fmt: skip
    return Markup('<span class="f" data-of="{}">{}</span>').format(of, Markup("").join(parts))


def tables_of(report: Report) -> dict[str, Table]:
    """By name, those that there is something to say in."""
    windows = "median [lowest–highest] of n"
    tables = {
        "variants": _table("All variants", _intervals(report), report, _costs(report)),
        "sizes": _table("Sizes", "megabytes are 10^6 bytes", report, SIZES),
        "starting": _table("Starting, CPU, memory and throughput", f"{windows} processes or windows", report, STARTING),
        "answers": _table("Accuracy beside the teacher", _samples(report), report, ANSWERS),
        "parity": _table("Parity with torch", f"n = {report.test_n} test samples", report, PARITY),
    }
    if not any(row.measured for row in report.rows):
        tables = {name: table for name, table in tables.items() if name in ("variants", "sizes")}
    if any(row.rungs for row in report.rows):
        tables["ladder"] = _ladder(report)
    if report.race is not None:
        tables["race"] = _race(report.race)
    if report.losses is not None:
        tables["losses"] = _losses(report.losses)
    tables["checks"] = checks_table(report)
    return tables


def _table(title: str, note: str, report: Report, columns: list[Column]) -> Table:
    rows = []
    for index, row in enumerate(report.rows):
        cells = tuple(figure(f"row/{index}/{name}", text(row)) for _, name, text in columns)
        rows.append((f"{index + 1}. {shown(row.name)}", _tag(row, report), cells))
    return Table(title, note, tuple(title for title, _, _ in columns), tuple(rows))


def _tag(row: Row, report: Report) -> str:
    return "ships" if row.name == report.winner else ROLES[row.role]


def _intervals(report: Report) -> str:
    counted = {
        "p50 and p90": next((row.p50_ms for row in report.rows if row.p50_ms), None),
        "ratios": next((ratio for row in report.rows if (ratio := row.p50_ratio or row.fp32_ratio)), None),
        "shares": next((row.accuracy for row in report.rows if row.accuracy), None),
    }  # fmt: skip
    parts = [f"{name}: n = {sample.n} {sample.of}" for name, sample in counted.items() if sample is not None]
    return "; ".join(["[low–high] are 95 % intervals", *parts])


def _samples(report: Report) -> str:
    return f"n = {report.test_n} test samples; the worst of many classes looks worse than it is"


def _estimate(name: str, percent: bool = False) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value: Estimate | None = getattr(row, name)
        return estimate(value, percent=percent)

    return cell


def _costs(report: Report) -> list[Column]:
    columns: list[Column] = [
        ("size, MB", "size", lambda row: number(megabytes(row.size_bytes))),
        ("p50, ms", "p50_ms", _estimate("p50_ms")),
        ("p90, ms", "p90_ms", _estimate("p90_ms")),
        ("times as fast as the teacher", "p50_ratio", _or_dash("p50_ratio")),
        ("times as fast as fp32", "fp32_ratio", _or_dash("fp32_ratio")),
        ("accuracy, %", "accuracy", _estimate("accuracy", percent=True)),
        ("balanced, %", "balanced_accuracy", _estimate("balanced_accuracy", percent=True)),
        ("retention, %", "retention", _or_dash("retention", percent=True)),
        (
            "ran as",
            "executed",
            lambda row: shown(row.executed_precision or ("failed" if row.error else NOT_MEASURED), 30),
        ),
    ]
    if any(row.role == "baseline" for row in report.rows):
        columns.insert(5, ("p50 / the baseline's", "slowdown", _or_dash("slowdown")))
    if len(report.class_names) == 2:
        columns.insert(-2, ("AUC", "auc", _estimate("auc")))
    return columns


def _ran_as(row: Row) -> str:
    return shown(row.executed_precision or ("failed" if row.error else NOT_MEASURED), 30)


def _or_dash(name: str, percent: bool = False) -> Callable[[Row], str]:
    """A figure that some rows cannot have: what it would compare is the same model, or is not there."""
    return lambda row: "–" if getattr(row, name) is None else estimate(getattr(row, name), percent=percent)


def weights_text(weights: Mapping[str, int]) -> str:
    """`float32 0.600, int64 < 0.001`: MB of the stored weights by their type."""
    kinds = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{shown(kind, 24)} {number(megabytes(size)) if size >= 1000 else '< 0.001'}" for kind, size in kinds[:4]]
    return ", ".join(listed) or "none stored"


SIZES: list[Column] = [
    ("files, MB", "size", lambda row: number(megabytes(row.size_bytes))),
    ("compressed, MB", "compressed", lambda row: number(megabytes(row.compressed_bytes))),
    ("weights, MB by type", "weights", lambda row: weights_text(row.weight_bytes)),
    ("parameters, M", "parameters", lambda row: number(row.parameters / 1e6)),
    ("MACs, M", "macs", lambda row: number(row.macs / 1e6)),
]


def _tilt(row: Row) -> str:
    if row.throughput is None:
        return NOT_MEASURED
    streams, threads = row.throughput.streams, row.throughput.threads
    return f"{spread(row.throughput.images_per_s)} ({streams} × {threads} threads)"


def _memory(row: Row) -> str:
    sides = (NOT_MEASURED if side is None else number(side) for side in (row.idle_rss_mb, row.peak_rss_mb))
    return NOT_MEASURED if row.idle_rss_mb is None and row.peak_rss_mb is None else " → ".join(sides)


STARTING: list[Column] = [
    ("runtime", "runtime", lambda row: shown(runtime_and_release(row), 30)),
    ("start, ms", "start_ms", lambda row: spread(row.start_ms)),
    ("of which load, ms", "load_ms", lambda row: spread(row.load_ms)),
    ("first call, ms", "first_ms", lambda row: spread(row.first_ms)),
    ("CPU ms a call", "cpu_p50_ms", _estimate("cpu_p50_ms")),
    ("RSS, MB: idle → peak", "memory", _memory),
    ("samples/s", "throughput", _tilt),
    ("J/sample, all of it", "joules", lambda row: spread(row.throughput.joules_per_image if row.throughput else None)),
]


def _class(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        worst: ClassShare | None = getattr(row, name)
        if worst is None:
            return "–"
        return f"{shown(worst.class_name, 24)}: {estimate(worst.share, percent=True)}, n = {worst.share.n}"

    return cell


ANSWERS: list[Column] = [
    ("balanced retention, %", "balanced_retention", _or_dash("balanced_retention", percent=True)),
    ("difference, points", "difference", lambda row: "–" if row.difference is None else points(row.difference)),
    ("McNemar p", "mcnemar", lambda row: "–" if row.mcnemar_p is None else p_value(row.mcnemar_p)),
    ("top-1 as the teacher, %", "agreement", _or_dash("agreement", percent=True)),
    ("least retained class, %", "worst_retention", _class("worst_retention")),
    ("lowest recall, %", "worst_class", _class("worst_class")),
]
PARITY: list[Column] = [
    ("lowest cosine", "cosine", lambda row: _told(row.parity_cosine, "{:.6f}".format)),
    ("SQNR, dB", "sqnr", lambda row: _told(row.parity_sqnr_db, "{:.1f}".format)),
    ("top-1 as torch, %", "same", lambda row: _told(row.parity_agreement, share)),
]


def _told(value: float | None, spelled: Callable[[float], str]) -> str:
    return NOT_MEASURED if value is None else spelled(value)


def _ladder(report: Report) -> Table:
    rows = []
    for index, row in enumerate(report.rows):
        for step, rung in enumerate(row.rungs):
            at, score = f"rung/{index}/{step}", rung.score
            lost = (f"{100 * drop:+.2f}".replace("-", "−") for drop in (score.drop, score.balanced_drop))
            by = f" (by {shown(score.stand_in, 40)})" if score.stand_in else ""
            cells = (
                shown(rung.how, 300),
                figure(f"{at}/right", f"{score.correct} of {score.n}{by}"),
                *(figure(f"{at}/{name}", drop) for name, drop in zip(("drop", "balanced"), lost, strict=True)),
                figure(f"{at}/close", closeness(score)),
                figure(f"{at}/seconds", f"{rung.seconds:.0f}"),
                figure(f"{at}/size", number(megabytes(rung.bytes))),
            )
            name = f"{shown(row.name)}: {rung.rung}"
            rows.append((name, "taken" if rung.taken else "", cells))
    head = ("how", "right", "points lost against fp32", "balanced points lost", "against torch", "made in, s", "MB")
    note = "scores on validation; one after the other until one held"
    return Table("The ladder to int8", note, head, tuple(rows), "variant: rung")


def _race(race: Race) -> Table:
    scores = [{trial.student: trial for trial in trials} for trials in race.rounds]
    head = ["ran as", "p50, ms", "size, MB"]
    head += [f"validation, {UNITS[trials[0].ranked_by]}, after {trials[0].epochs} epochs" for trials in race.rounds]
    order = sorted(race.contenders, key=lambda contender: rank_of(contender, race))
    rows = []
    for contender in order:
        at = f"race/{race.contenders.index(contender)}"
        cells: list[Markup | str] = [
            shown(contender.variant or NOT_MEASURED),
            figure(f"{at}/p50", estimate(contender.p50_ms)),
            figure(f"{at}/size", NOT_MEASURED if contender.size_mb is None else number(contender.size_mb)),
        ]
        for turn, trials in enumerate(scores):
            cells.append(figure(f"{at}/{turn}", rank_score(trials.get(contender.student))))
        rows.append((shown(contender.student), "taken" if contender.student == race.winner else "", tuple(cells)))
    failed = "".join(f"; {shown(name, 60)} could not learn: {shown(why)}" for name, why in race.failed.items())
    note = f"{len(race.contenders)} students: {shown(race.why, 300)}. Taken: {shown(race.reason, 300)}{failed}"
    return Table("The race of students", note, tuple(head), tuple(rows), "student")


def _losses(losses: LossRace) -> Table:
    names = list(next(iter(losses.arms.values())))
    rows = []
    in_full = {trial.arm: trial for trial in losses.in_full}
    for index, trial in enumerate(losses.trials):
        weights = losses.arms.get(trial.arm or "", {})
        cells = (
            *(figure(f"losses/{index}/{name}", f"{weights.get(name, 0.0):g}") for name in names),
            figure(f"losses/{index}/accuracy", rank_score(trial)),
            *((figure(f"losses/{index}/full", rank_score(in_full.get(trial.arm))),) if in_full else ()),
        )
        rows.append((shown(trial.arm or "default"), "taken" if trial.arm == losses.winner else "", cells))
    failed = "".join(f"; {shown(arm, 60)} could not learn: {shown(why)}" for arm, why in losses.failed.items())
    unit = UNITS[losses.trials[0].ranked_by]
    after = [losses.epochs, *(trial.epochs for trial in losses.in_full[:1])]
    head = (
        *(f"weight of {shown(name, 40)}" for name in names),
        *(f"validation, {unit}, after {epochs} epochs" for epochs in after),
    )
    note = f"on validation, before the training. Taken: {shown(losses.reason, 300)}{failed}"
    return Table("How the losses are weighed", note, head, tuple(rows), "losses")


def checks_table(report: Report | LanguageReport) -> Table:
    """The budget, line by line."""
    rows = tuple(
        (
            f"{shown(check.variant)}: {check.line}",
            check.verdict,
            (shown(check.limit), figure(f"check/{index}", shown(check.value, 300)), shown(check.reason, 500)),
        )
        for index, check in enumerate(report.checks)
    )
    return Table("The budget, line by line", "as the report judges it", ("limit", "measured", "reason"), rows, "line")
