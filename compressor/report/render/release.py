"""What got better, worse, or cannot be told, beside the baseline."""

from collections.abc import Callable, Iterator

from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.text import NOT_MEASURED, number, points
from compressor.schema.release import Change, ClassChange, ReleaseDiff, VariantDiff
from compressor.schema.report import Estimate, Report

__all__ = [
    "OUTCOMES",
    "TITLES",
    "beside_baseline",
    "change_text",
    "changed_classes_text",
    "head_lines",
    "in_words",
    "release_diff_of",
    "release_section",
    "share_text",
    "shared_part",
    "variants_note",
]

Said = Callable[[str], str]

OUTCOMES = {"better": "better", "worse": "worse", "same": "the same", "open": "cannot be told"}
TITLES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "size_bytes": "size", "p50_ms": "p50"}
NAMED = 3


def release_section(report: Report) -> list[str]:
    """The whole of it as markdown, folded; none where there is no baseline."""
    diff = report.release
    if diff is None:
        return []
    blocks = ["  \n".join(head_lines(diff))]
    shipped = release_diff_of(report)
    if shipped is not None:
        blocks.append("  \n".join(f"**{title}:** {text(what)}." for title, what in in_words(shipped)))
    if diff.variants:
        blocks.append(_variants(diff))
    return [fold("Against the baseline: what got better, worse, or cannot be told", [*blocks, *_flips(shipped)])]


def release_diff_of(report: Report) -> VariantDiff | None:
    """That of the variant to ship; where none is chosen, of the only one; None where there is none."""
    variants = report.release.variants if report.release is not None else ()
    if report.winner is None:
        return variants[0] if len(variants) == 1 else None
    return next((variant for variant in variants if variant.variant == report.winner), None)


def in_words(diff: VariantDiff) -> Iterator[tuple[str, str]]:
    """`("Worse", "accuracy −2.0 [−2.4 to −1.6] points")` …, of a variant."""
    for title, outcome, classes in (
        ("Worse", "worse", diff.worse_classes),
        ("Better", "better", diff.better_classes),
        ("Cannot be told", "open", ()),
    ):
        said = [
            f"{TITLES[change.figure]} {change_text(change)}" for change in diff.changes if change.outcome == outcome
        ]
        if classes:
            said.append(_classes(classes))
        if said:
            yield title, ", ".join(said)
    if same := [TITLES[change.figure] for change in diff.changes if change.outcome == "same"]:
        yield "The same", ", ".join(same)
    if diff.missing is not None:
        yield "Not compared", f"predictions: {diff.missing}"


def beside_baseline(report: Report) -> str:
    """In one line: what is compared where that is not all, and what of it is worse, better, open; empty without a
    baseline."""
    diff = release_diff_of(report)
    words = [f"{title.lower()}: {what}" for title, what in in_words(diff)] if diff is not None else []
    return "; ".join(filter(None, [shared_part(report), *words]))


def shared_part(report: Report) -> str:
    """What of it is compared, where that is not all, or by other labels; empty else."""
    diff, said = report.release, []
    if diff is None:
        return ""
    if report.winner is not None and release_diff_of(report) is None:
        said.append(f"{report.winner}, which ships, is not in the baseline: it is held against nothing there")
    if diff.added or diff.removed:
        said.append(f"predictions on the {diff.shared} test samples that both have, of {report.test_n}")
    if diff.relabelled:
        said.append(f"{diff.relabelled} samples have another label now, which judges both")
    return "; ".join(said)


def head_lines(diff: ReleaseDiff, named: Said = code, said: Said = text) -> Iterator[str]:
    """What is compared with what. `named`, `said`: how a name and another text of a bundle are made harmless."""
    made = ", ".join(filter(None, (diff.kdc and f"kdc {diff.kdc}", diff.measured and f"measured {diff.measured}")))
    whole = not diff.added and not diff.removed
    both = (
        f"all {diff.shared} test samples are in both"
        if whole
        else f"{diff.shared} test samples are in both; {diff.added} new and {diff.removed} gone ones are left out"
    )
    yield f"Baseline {named(diff.student)}{f' ({said(made)})' if made else ''}: {both}."
    if diff.relabelled:
        yield f"{diff.relabelled} of them have another label now, which judges both."
    for title, names in (("new here", diff.added_variants), ("only in the baseline", diff.removed_variants)):
        if names:
            yield f"Variants {title}: {', '.join(map(named, names))}."


def _variants(diff: ReleaseDiff) -> str:
    header = ["variant", *TITLES.values(), "right before, wrong now %", "wrong before, right now %", "classes"]
    rows = []
    for variant in diff.variants:
        changes: dict[str, Change] = {change.figure: change for change in variant.changes}
        cells = [_cell(changes.get(figure)) for figure in TITLES]
        flips = [share_text(variant.negative_flips), share_text(variant.positive_flips)]
        rows.append([code(variant.variant), *cells, *flips, text(changed_classes_text(variant))])
    return f"{table(header, rows, 0)}\n\n{variants_note(diff)}"


def variants_note(diff: ReleaseDiff) -> str:
    """Of how many samples the table is, and what its figures are."""
    n = next((variant.negative_flips.n for variant in diff.variants if variant.negative_flips is not None), 0)
    said = f"n = {n} test samples, paired; " if n else ""
    told = "accuracies in points, now less before; size and p50 now / before; [low to high] are 95 % intervals"
    return f"{said}{told}."


def _cell(change: Change | None) -> str:
    if change is None:
        return NOT_MEASURED
    outcome = OUTCOMES[change.outcome]
    return f"{text(change_text(change))} {f'**{outcome}**' if change.outcome == 'worse' else outcome}"


def change_text(change: Change) -> str:
    """`−2.0 [−2.4 to −1.6] points`, `1.05 [1.04–1.06] ×`."""
    if change.figure in ("accuracy", "balanced_accuracy"):
        return f"{points(change.change)} points"
    value, low, high = (number(part) for part in (change.change.value, change.change.low, change.change.high))
    return f"{value} ×" if low == high else f"{value} [{low}–{high}] ×"


def share_text(share: Estimate | None) -> str:
    if share is None:
        return NOT_MEASURED
    value, low, high = (number(100 * part) for part in (share.value, share.low, share.high))
    return f"{value} [{low}–{high}]"


def changed_classes_text(variant: VariantDiff) -> str:
    if variant.predictions is None:
        return NOT_MEASURED
    said = [
        f"{word}: {_classes(classes)}"
        for word, classes in (("worse", variant.worse_classes), ("better", variant.better_classes))
        if classes
    ]
    return "; ".join(said) or "none changed for certain"


def _classes(classes: tuple[ClassChange, ...]) -> str:
    named = [f"class {change.class_name} {change.before} → {change.now} of {change.n}" for change in classes[:NAMED]]
    return ", ".join([*named, *([f"{len(classes) - NAMED} more classes"] if len(classes) > NAMED else [])])


def _flips(diff: VariantDiff | None) -> Iterator[str]:
    if diff is None or not diff.flips or diff.negative_flips is None:
        return
    count = round(diff.negative_flips.value * diff.negative_flips.n)
    some = "" if count == len(diff.flips) else f"; {len(diff.flips)} of them"
    yield f"<details><summary>Right before, wrong now: {count} test samples{some}</summary>"
    rows = [[code(flip.sample), text(flip.class_name), text(flip.taken_for or "no class")] for flip in diff.flips]
    yield table(["sample", "class", "taken for"], rows)
    yield "</details>"
