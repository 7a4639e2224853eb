"""Why slow, why lost: a table with bars for each variant whose layers were timed or compared (--explain)."""

from dataclasses import dataclass

from markupsafe import Markup

from compressor.report.html.svg import rect
from compressor.report.html.tables import Table, figure
from compressor.report.html.text import shown
from compressor.report.render.explained import (
    first_ones,
    lost_note,
    quartiles,
    ran_as,
    ratio_db,
    timed_note,
)
from compressor.report.render.text import share
from compressor.schema.explain import LostLayer, LostVariant, TimedLayer, TimedVariant
from compressor.schema.report import Report

__all__ = ["Layers", "layers_of"]

VARIANTS = 6
"""Shown of each kind: the page stays below 1.5 MB."""


@dataclass(frozen=True)
class Layers:
    """`tables`: by an id, one a variant; `missing`: variants of which there is nothing, and why; `more`: how many are
    left out."""

    tables: dict[str, Table]
    missing: list[tuple[str, str]]
    more: int


def layers_of(report: Report) -> Layers | None:
    """None where it was not asked for."""
    if report.explained is None:
        return None
    tables: dict[str, Table] = {}
    for index, variant in enumerate(report.explained.timed):
        if variant.missing is None and variant in first_ones(report, report.explained.timed)[:VARIANTS]:
            tables[f"timed-{index}"] = _timed(variant, f"timed/{index}")
    for index, lost in enumerate(report.explained.lost):
        if lost.missing is None and lost in first_ones(report, report.explained.lost)[:VARIANTS]:
            tables[f"lost-{index}"] = _lost(lost, f"lost-layers/{index}")
    told = [(variant.variant, variant.missing) for variant in report.explained.timed]
    told += [(variant.variant, variant.missing) for variant in report.explained.lost]
    missing = [(shown(name), shown(why, 300)) for name, why in told if why is not None]
    return Layers(tables, missing, len(told) - len(missing) - len(tables))


def _bar(part: float, text: str, name: str) -> Markup:
    """A figure with a bar below it: `part` of the longest one."""
    width = 100 * min(1.0, max(0.0, part))
    drawn = Markup('<svg class="chart part" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">{}</svg>')
    bar = drawn.format(rect(0, 1, width, 4, "bar"))
    return Markup('<span class="barred">{}{}</span>').format(figure(name, text), bar)


def _timed(variant: TimedVariant, at: str) -> Table:
    longest = max((layer.share for layer in variant.layers), default=0.0) or 1.0
    rows = tuple(
        (shown(layer.name, 80), "", _timed_cells(layer, longest, f"{at}/{number}"))
        for number, layer in enumerate(variant.layers)
    )
    title = f"Where the time goes: {shown(variant.variant)}, the {len(rows)} slowest of {variant.of} layers"
    head = ("module", "type", "reads", "share, %", "µs a call")
    return Table(title, shown(". ".join(timed_note(variant)), 1100), head, rows, "layer")


def _timed_cells(layer: TimedLayer, longest: float, at: str) -> tuple[Markup | str, ...]:
    made_of = f"{layer.op}, fused of {' + '.join(layer.fused)}" if layer.fused else layer.op
    kernel = f" ({layer.kernel})" if layer.kernel else ""
    return (
        figure(f"{at}/module", shown(" + ".join(layer.modules) or "–", 120)),
        figure(f"{at}/type", shown(made_of + kernel, 160)),
        figure(f"{at}/reads", shown(ran_as(layer), 60)),
        _bar(layer.share / longest, share(layer.share), f"{at}/share"),
        figure(f"{at}/us", quartiles(layer.us)),
    )


def _lost(variant: LostVariant, at: str) -> Table:
    longest = max((layer.lost_db for layer in variant.layers), default=0.0)
    rows = tuple(
        (
            shown(layer.name, 80),
            "most lost" if variant.most is not None and layer.name == variant.most.name else "",
            _lost_cells(layer, max(longest, 1.0), f"{at}/{number}"),
        )
        for number, layer in enumerate(variant.layers)
    )
    title = f"What int8 costs: {shown(variant.variant)}, the {len(rows)} lowest of {variant.of} layers"
    head = ("module", "type", "SQNR, dB", "what it reads, dB", "lost here, dB", "dB of single calls")
    return Table(title, shown(". ".join(lost_note(variant)), 1100), head, rows, "layer")


def _lost_cells(layer: LostLayer, longest: float, at: str) -> tuple[Markup | str, ...]:
    return (
        figure(f"{at}/module", shown(layer.module or "–", 120)),
        figure(f"{at}/type", shown(layer.op, 60)),
        figure(f"{at}/sqnr", ratio_db(layer.sqnr_db)),
        figure(f"{at}/before", ratio_db(layer.before_db)),
        _bar(layer.lost_db / longest, ratio_db(layer.lost_db), f"{at}/lost"),
        figure(f"{at}/calls", quartiles(layer.calls_db)),
    )
