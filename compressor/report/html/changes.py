"""Beside the baseline: what got better, worse, or cannot be told, and what was right before and is wrong now."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from compressor.report.before import before_of
from compressor.report.html.samples import pictured
from compressor.report.html.tables import Table, figure
from compressor.report.html.text import shown
from compressor.report.read import Results
from compressor.report.render.release import (
    OUTCOMES,
    TITLES,
    change_text,
    changed_classes_text,
    head_lines,
    in_words,
    release_diff_of,
    share_text,
    variants_note,
)
from compressor.report.render.text import NOT_MEASURED
from compressor.schema.release import Change, ReleaseDiff, VariantDiff
from compressor.schema.report import Report

__all__ = ["Changes", "Flips", "changes_of"]


@dataclass(frozen=True)
class Flips:
    """`count` of `n` test samples that the baseline had right and `variant` has not: a row of the report is `index`.
    `shown`: some of them, each with name, picture, label and answer. `missing`: why there are no pictures."""

    variant: str
    index: int
    count: int
    n: int
    shown: tuple[dict[str, Any], ...]
    missing: str


@dataclass(frozen=True)
class Changes:
    """`head`: what is compared with what; `words`: what changed of the variant that ships; `table`: of all."""

    head: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    table: Table | None
    flips: Flips | None


def changes_of(bundle_dir: Path, report: Report, results: Results) -> Changes | None:
    """None where there is no baseline."""
    diff = report.release
    if diff is None:
        return None
    shipped = release_diff_of(report)
    return Changes(
        head=tuple(head_lines(diff, shown, shown)),
        words=tuple((title, shown(what, 1200)) for title, what in in_words(shipped)) if shipped is not None else (),
        table=_table(diff, report) if diff.variants else None,
        flips=_flips(bundle_dir, report, results, shipped) if shipped is not None else None,
    )


def _table(diff: ReleaseDiff, report: Report) -> Table:
    head = (*TITLES.values(), "right before, wrong now, %", "wrong before, right now, %", "classes")
    rows = []
    for variant in diff.variants:
        tag = "ships" if variant.variant == report.winner else ""
        rows.append((shown(variant.variant), tag, tuple(_cells(variant, f"release/{_index(variant, report)}"))))
    return Table("Against the baseline", variants_note(diff), head, tuple(rows))


def _index(variant: VariantDiff, report: Report) -> int:
    return next(index for index, row in enumerate(report.rows) if row.name == variant.variant)


def _cells(variant: VariantDiff, at: str) -> Iterator[Markup]:
    changes: dict[str, Change] = {change.figure: change for change in variant.changes}
    for name in TITLES:
        yield _cell(changes.get(name), f"{at}/{name}")
    yield figure(f"{at}/negative", share_text(variant.negative_flips))
    yield figure(f"{at}/positive", share_text(variant.positive_flips))
    yield figure(f"{at}/classes", shown(changed_classes_text(variant), 600))


def _cell(change: Change | None, of: str) -> Markup:
    if change is None:
        return figure(of, NOT_MEASURED)
    outcome = OUTCOMES[change.outcome]
    told = Markup("<b>{}</b>").format(outcome) if change.outcome == "worse" else outcome
    return Markup("<span>{} {}</span>").format(figure(of, change_text(change)), told)


def _flips(bundle_dir: Path, report: Report, results: Results, diff: VariantDiff) -> Flips | None:
    before = before_of(results, diff.variant)
    if isinstance(before, str) or diff.negative_flips is None:
        return None
    ours, labels = results.answers[diff.variant].top1[before.rows], results.labels[before.rows]
    lost = before.rows[(before.top1 == labels) & (ours != labels)]
    listed, missing = pictured(bundle_dir, results, diff.variant, lost)
    return Flips(shown(diff.variant), _index(diff, report), len(lost), len(labels), listed, missing)
