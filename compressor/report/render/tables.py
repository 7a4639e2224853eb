"""The tables of the report: one that fits a pull request, the budget line by line, and the details behind both."""

from collections.abc import Callable, Iterable, Mapping

from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.race import chosen_by_trials
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
from compressor.schema.quantization import Rung
from compressor.schema.report import Check, ClassShare, Report, Row, Session, TableRow
from compressor.stats import closeness

__all__ = ["check_table", "details", "named", "rows_table"]

Column = tuple[str, Callable[[Row], str]]

ROLES = {"student": "", "teacher": " (teacher)", "reference": " (fp32 reference)", "baseline": " (baseline)"}


def named(row: Row) -> str:
    """The row's name, and its role where it is not judged."""
    return code(row.name) + ROLES[row.role]


def _is_base(row: Row) -> bool:
    """Whether the others are compared with this row (it alone is a measured teacher without a ratio to another)."""
    return row.role == "teacher" and row.measured and row.accuracy is not None and row.retention is None


def _table(report: Report, columns: list[Column], texts: int = 0, of_table: Mapping[str, str] | None = None) -> str:
    """A row a variant; the first `texts` columns after its name hold words, the others figures. `of_table`: by column,
    what is known of a teacher that is a table; of the others, nothing can be."""
    body = [[named(row), *(figure(row) for _, figure in columns)] for row in report.rows]
    if of_table and report.teacher_table is not None:
        known = [of_table.get(title, NOT_MEASURED) for title, _ in columns]
        body.append([code(report.teacher_table.source) + ROLES["teacher"], *known])
    return table(["variant", *(title for title, _ in columns)], body, len(columns) - texts)


def _ran_as(row: Row) -> str:
    return text(row.executed_precision or ("failed" if row.error else NOT_MEASURED))


def rows_table(report: Report) -> list[str]:
    """What each variant costs and keeps, at most 12 columns, and the n of each figure."""
    disturbed = " **(disturbed)**" if report.session is not None and report.session.disturbed else ""
    columns: list[Column] = [
        ("size (MB)", lambda row: number(megabytes(row.size_bytes))),
        (f"p50 ms{disturbed}", lambda row: estimate(row.p50_ms)),
        (f"p90 ms{disturbed}", lambda row: estimate(row.p90_ms)),
        ("times as fast", lambda row: "1" if _is_base(row) else estimate(row.p50_ratio)),
        ("times as fast as fp32", lambda row: _beside_fp32(row, report.session)),
    ]
    if _has_baseline(report):
        columns.append(("p50 / baseline's", lambda row: _beside_baseline(row, estimate(row.slowdown))))
    if _has_throughput(report):
        columns.append((f"{text(report.sample)}s/s{disturbed}", _images_per_s))
    columns += [
        ("accuracy %", lambda row: estimate(row.accuracy, percent=True)),
        (f"balanced %{'; AUC' if _two(report) else ''}", lambda row: _balanced(row, _two(report))),
        ("retention %", lambda row: "100" if _is_base(row) else estimate(row.retention, percent=True)),
        ("ran as", _ran_as),
    ]
    return [_table(report, columns, of_table=_table_keeps(report.teacher_table)), _sample_sizes(report)]


def _two(report: Report) -> bool:
    return len(report.class_names) == 2


def _balanced(row: Row | TableRow, and_auc: bool) -> str:
    """Both in one cell: the table stays narrow."""
    return estimate(row.balanced_accuracy, percent=True) + (f"; {estimate(row.auc)}" if and_auc else "")


def _table_keeps(table: TableRow | None) -> dict[str, str]:
    if table is None:
        return {}
    return {
        "times as fast as fp32": "–",
        "p50 / baseline's": "–",
        "accuracy %": estimate(table.accuracy, percent=True),
        "balanced %": _balanced(table, False),
        "balanced %; AUC": _balanced(table, True),
        "retention %": "100",
        "ran as": f"a table: {table.kind}",
    }


def _beside_fp32(row: Row, session: Session | None) -> str:
    """How many times as fast as the student's fp32 reference; what is slower says so, where that is more than noise
    alone makes in this session."""
    if row.role in ("teacher", "baseline") or row.fp32_ratio is None:
        return "–"
    ratio, noise = row.fp32_ratio, session.smallest_effect if session is not None else None
    slower = noise is not None and ratio.high < 1 and 1 / ratio.value - 1 > noise
    return estimate(ratio) + (" **slower**" if slower else "")


def _has_baseline(report: Report) -> bool:
    return any(row.role == "baseline" for row in report.rows)


def _has_throughput(report: Report) -> bool:
    """False where it was left out on request, and `Session.with_throughput` says so: then a column would be empty."""
    return report.session is None or report.session.with_throughput or any(row.throughput for row in report.rows)


def _beside_baseline(row: Row, figure: str) -> str:
    """A figure that only student variants have; the others are not compared with the baseline."""
    return figure if row.role == "student" else "–"


def _images_per_s(row: Row) -> str:
    return NOT_MEASURED if row.throughput is None else number(row.throughput.images_per_s.median)


def _sample_sizes(report: Report) -> str:
    """Every figure says its n: here for all variants that have the same, and one by one where they differ."""
    parts = []
    fields = {
        "p50 and p90": "p50_ms",
        "times as fast": "p50_ratio",
        "times as fast as fp32": "fp32_ratio",
        "p50 / baseline's": "slowdown",
        f"accuracy, balanced, {'AUC, ' if _two(report) else ''}retention": "accuracy",
    }
    for label, field in fields.items():
        sizes = {row.name: getattr(row, field) for row in report.rows if getattr(row, field) is not None}
        said = {name: f"n = {figure.n} {text(figure.of)}" for name, figure in sizes.items()}
        if len(set(said.values())) == 1:
            parts.append(f"{label}: {next(iter(said.values()))}")
        elif said:
            parts.append(f"{label}: " + ", ".join(f"{code(name)} {sample}" for name, sample in said.items()))
    windows = {row.throughput.images_per_s.n for row in report.rows if row.throughput is not None}
    if windows:
        counted = "–".join(map(str, sorted(windows)))
        parts.append(f"{text(report.sample)}s/s: median of n = {counted} windows, spread in the details")
    return f"[low–high] are 95 % intervals. Samples: {'; '.join(parts) or 'nothing was measured'}."


def check_table(checks: Iterable[Check]) -> str:
    """Lines of the budget and kdc's own, a row each; what is no pass is bold."""
    return table(["variant", "line", "limit", "measured", "verdict", "reason"], map(_check_cells, checks))


def _check_cells(check: Check) -> list[str]:
    verdict = check.verdict if check.verdict == "pass" else f"**{check.verdict}**"
    return [code(check.variant), check.line, *map(text, (check.limit, check.value)), verdict, text(check.reason)]


def details(report: Report) -> str:
    """What no verdict of most pull requests turns on, folded: a table a subject. Sizes need no measurement."""
    parts = {"Sizes": _table(report, _sizes(), texts=1)}
    if any(row.measured for row in report.rows):
        starts = "Starting, CPU and memory (median [lowest–highest] of n fresh processes)"
        full_tilt = "Throughput at full tilt (median [lowest–highest] of n windows)"
        samples = f"n = {report.test_n} test samples; the worst of many classes looks worse than it is"
        answers = f"Accuracy against the teacher{_and_baseline(report)} ({samples})"
        parts[starts] = _table(report, _starting(), texts=1)
        if _has_throughput(report):
            parts[full_tilt] = _table(report, _full_tilt(report))
        parts[answers] = _table(report, _answers(report), of_table=_table_answers(report.teacher_table))
        parts[f"Parity with torch (n = {report.test_n} test samples)"] = _table(report, _parity())
    parts |= chosen_by_trials(report)
    if any(row.rungs for row in report.rows):
        parts["The ladder to int8 (scores on validation; made one after the other until one held)"] = _ladder(report)
    body = [block for title, content in parts.items() for block in (f"**{title}**", content)]
    return fold(f"Details: {_summary(list(parts))}", body)


def _summary(titles: list[str]) -> str:
    short = [title.partition(" (")[0] for title in titles]
    return ", ".join([short[0].lower(), *(title[0].lower() + title[1:] for title in short[1:])])


def _and_baseline(report: Report) -> str:
    return " and the baseline" if _has_baseline(report) else ""


def _starting() -> list[Column]:
    return [
        ("runtime", lambda row: text(runtime_and_release(row))),
        ("start ms", lambda row: spread(row.start_ms)),
        ("of which: load ms", lambda row: spread(row.load_ms)),
        ("first call ms", lambda row: spread(row.first_ms)),
        ("CPU ms a call", lambda row: estimate(row.cpu_p50_ms)),
        ("RSS MB: idle → peak", _memory),
    ]


def _memory(row: Row) -> str:
    idle, peak = (
        NOT_MEASURED if megabytes is None else number(megabytes) for megabytes in (row.idle_rss_mb, row.peak_rss_mb)
    )
    return NOT_MEASURED if row.idle_rss_mb is None and row.peak_rss_mb is None else f"{idle} → {peak}"


def _full_tilt(report: Report) -> list[Column]:
    return [
        (f"{text(report.sample)}s/s", lambda row: spread(row.throughput.images_per_s if row.throughput else None)),
        ("fastest as", _fastest_as),
        (
            f"J/{text(report.sample)}, all of the machine",
            lambda row: spread(row.throughput.joules_per_image if row.throughput else None),
        ),
    ]


def _fastest_as(row: Row) -> str:
    if row.throughput is None:
        return NOT_MEASURED
    streams, threads = row.throughput.streams, row.throughput.threads
    return f"{streams} stream{'s' if streams != 1 else ''} × {threads} thread{'s' if threads != 1 else ''}"


def _sizes() -> list[Column]:
    return [
        ("architecture", lambda row: text(row.architecture)),
        ("params (M)", lambda row: number(row.parameters / 1e6)),
        ("MACs (M)", lambda row: number(row.macs / 1e6)),
        ("files MB", lambda row: number(megabytes(row.size_bytes))),
        ("weights MB, by type", _weights),
        ("compressed MB", lambda row: number(megabytes(row.compressed_bytes))),
    ]


def _weights(row: Row) -> str:
    kinds = sorted(row.weight_bytes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{text(kind)} {_at_least_a_kilobyte(size)}" for kind, size in kinds) or "none stored"


def _at_least_a_kilobyte(size: int) -> str:
    """Megabytes; a few bytes of constants, as most graphs hold, are not worth seven digits."""
    return number(megabytes(size)) if size >= 1000 else "< 0.001"


def _answers(report: Report) -> list[Column]:
    compared: list[Column] = [
        ("balanced retention %", lambda row: estimate(row.balanced_retention, percent=True)),
        ("difference, points", lambda row: points(row.difference)),
        ("McNemar p", lambda row: p_value(row.mcnemar_p)),
        ("top-1 as the teacher %", lambda row: estimate(row.agreement, percent=True)),
        ("least retained class, %", lambda row: _class(row.worst_retention)),
    ]
    columns = [(title, _or_base(figure)) for title, figure in compared]
    columns.append(("lowest recall, %", lambda row: _class(row.worst_class)))
    if _has_baseline(report):
        to_baseline: Column = (
            "to the baseline, points",
            lambda row: _beside_baseline(row, points(row.baseline_difference)),
        )
        columns.append(to_baseline)
    return columns


def _table_answers(table: TableRow | None) -> dict[str, str]:
    """As of a teacher that ran: it is not compared with itself."""
    if table is None:
        return {}
    compared = (
        "balanced retention %",
        "difference, points",
        "McNemar p",
        "top-1 as the teacher %",
        "least retained class, %",
    )
    unmatched = dict.fromkeys((*compared, "to the baseline, points"), "–")
    return {**unmatched, "lowest recall, %": _class(table.worst_class)}


def _or_base(figure: Callable[[Row], str]) -> Callable[[Row], str]:
    """The figure, but for the teacher, which is not compared with itself."""
    return lambda row: "–" if _is_base(row) else figure(row)


def _class(worst: ClassShare | None) -> str:
    if worst is None:
        return NOT_MEASURED
    return f"{text(worst.class_name)}: {estimate(worst.share, percent=True)}, n = {worst.share.n}"


def _ladder(report: Report) -> str:
    lost = ["points lost against fp32", "balanced points lost", "against torch"]
    header = ["variant", "rung", "how", "taken", "right", *lost, "made in s", "MB"]
    body = [
        [code(row.name), rung.rung, text(rung.how), "yes" if rung.taken else "", *_rung_figures(rung)]
        for row in report.rows
        for rung in row.rungs
    ]
    return table(header, body, 6)


def _rung_figures(rung: Rung) -> list[str]:
    score = rung.score
    lost = [
        f"{100 * drop:+.2f}".replace("-", "−").replace("+0.00", "0.00") for drop in (score.drop, score.balanced_drop)
    ]
    by = f" (by {text(score.stand_in)})" if score.stand_in else ""
    size = number(megabytes(rung.bytes))
    return [f"{score.correct} of {score.n}{by}", *lost, closeness(score), f"{rung.seconds:.0f}", size]


def _parity() -> list[Column]:
    return [
        ("lowest cosine", lambda row: NOT_MEASURED if row.parity_cosine is None else f"{row.parity_cosine:.6f}"),
        ("SQNR dB", lambda row: NOT_MEASURED if row.parity_sqnr_db is None else f"{row.parity_sqnr_db:.1f}"),
        ("top-1 as torch %", lambda row: NOT_MEASURED if row.parity_agreement is None else share(row.parity_agreement)),
    ]
