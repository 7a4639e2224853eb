"""Why slow, why lost: the layers that take the time, and those that int8 costs most (--explain)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.text import estimate, number, share
from compressor.schema.explain import LostLayer, LostVariant, Quartiles, TimedLayer, TimedVariant
from compressor.schema.report import Report
from compressor.stats import EIGHT_BITS_DB
from compressor.terminal.printable import one_line

__all__ = [
    "explained_line",
    "explained_section",
    "first_ones",
    "lost_note",
    "quartiles",
    "ran_as",
    "ratio_db",
    "timed_note",
]

V = TypeVar("V", TimedVariant, LostVariant)
SHOWN, VARIANTS = 10, 3
"""Layers a table, and variants."""
LONGEST = 60


def explained_section(report: Report) -> Iterator[str]:
    """One folded block; none where it was not asked for."""
    if report.explained is None:
        return
    timed, lost = first_ones(report, report.explained.timed), first_ones(report, report.explained.lost)
    blocks = [block for variant in timed[:VARIANTS] for block in _timed(variant)]
    blocks += [block for variant in lost[:VARIANTS] for block in _lost(variant)]
    more = [*(told.variant for told in timed[VARIANTS:]), *(told.variant for told in lost[VARIANTS:])]
    if more:
        blocks.append(f"The layers of {', '.join(map(code, dict.fromkeys(more)))} are in report.json.")
    yield fold("Why slow, why lost: layer by layer", blocks)


def first_ones(report: Report, variants: Sequence[V]) -> list[V]:
    """The one that ships first, then the other students; the teacher and the reference last."""
    order: list[str | None] = [report.winner, *(row.name for row in report.rows if row.role == "student")]
    return sorted(variants, key=lambda told: order.index(told.variant) if told.variant in order else len(order))


def quartiles(figure: Quartiles | None) -> str:
    """`12.3 [11.9–12.8]`: the median and the quarters beside it."""
    return "–" if figure is None else f"{number(figure.median)} [{number(figure.lower)}–{number(figure.upper)}]"


def ratio_db(value: float | None) -> str:
    """An SQNR; of what does not differ at all there is none."""
    return "no noise" if value is None else f"{value:.1f}".replace("-", "−")


def ran_as(layer: TimedLayer) -> str:
    """What its data are, and where it computes in float for want of an int8 kernel."""
    return (layer.precision or "not told") + (", between int8 layers" if layer.among_int8 else "")


def _without_a_module(modules: Iterable[str]) -> list[str]:
    """What a dash in the column of modules means, where there is one."""
    said = (
        "Module –: the name leads back to no module that kdc export --explain has kept; such are the layers that a "
        "runtime puts in itself"
    )
    return [] if all(modules) else [said]


def timed_note(variant: TimedVariant, shown: int | None = None) -> list[str]:
    """What the times are of, and what they are not: a sentence each. `shown`: how many layers are, None: all."""
    nodes, calls = quartiles(variant.nodes_ms), quartiles(variant.calls_ms)
    n = variant.calls_ms.n if variant.calls_ms is not None else 0
    counted = f"n = {n} calls" if variant.each == 1 else f"n = {n} means of {variant.each} calls"
    return [
        f"By {variant.profiler}, {counted} in a run of its own, after the session and on its machine; medians and "
        "[quarters]",
        f"{variant.of} layers take {nodes} ms of a profiled call of {calls} ms; without the profiler p50 is "
        f"{estimate(variant.p50_ms)} ms",
        "A profiler slows down what it watches: read the shares, not the times",
        *_without_a_module("".join(layer.modules) for layer in variant.layers[:shown]),
    ]


def lost_note(variant: LostVariant, shown: int | None = None) -> list[str]:
    """What the ratios are of: a sentence each. `shown`: see `timed_note`."""
    silent = f"; {variant.silent} more give only zeros" if variant.silent else ""
    return [
        "SQNR = 10·log10(Σx² / Σ(x − x̂)²) of what each layer gives, behind its rounding, all samples together",
        f"Against {variant.against}, n = {variant.n} samples of {variant.split}, none of the test; {variant.of} layers "
        f"are compared{silent}",
        f"Lost here: how far it falls short of the lowest among what it reads, or of the {EIGHT_BITS_DB:.1f} dB that 8 "
        "bits can give",
        *_without_a_module(layer.module or "" for layer in variant.layers[:shown]),
    ]


def _sentences(note: Iterable[str]) -> str:
    return " ".join(f"{text(sentence)}." for sentence in note)


def _timed(variant: TimedVariant) -> Iterator[str]:
    title = f"**Where the time goes: {code(variant.variant)}**"
    if variant.missing is not None:
        yield f"{title}: {text(variant.missing)}."
        return
    yield f"{title} (the {min(SHOWN, len(variant.layers))} slowest of {variant.of} layers)"
    rows = [
        [code(layer.name), _modules(layer.modules), text(_type(layer)), text(ran_as(layer)), share(layer.share),
         quartiles(layer.us)]
        for layer in variant.layers[:SHOWN]
    ]  # fmt: skip
    yield table(["layer", "module", "type", "reads", "share %", "µs a call"], rows, 2)
    yield _sentences(timed_note(variant, SHOWN))


def _type(layer: TimedLayer) -> str:
    return f"{layer.op}, fused of {' + '.join(layer.fused)}" if layer.fused else layer.op


def _modules(modules: Iterable[str]) -> str:
    return " + ".join(map(code, modules)) or "–"


def _lost(variant: LostVariant) -> Iterator[str]:
    title = f"**What int8 costs: {code(variant.variant)}**"
    if variant.missing is not None:
        yield f"{title}: {text(variant.missing)}."
        return
    yield f"{title} (the {min(SHOWN, len(variant.layers))} lowest of {variant.of} layers)"
    rows = [
        [code(layer.name), _modules(filter(None, (layer.module,))), text(layer.op), ratio_db(layer.sqnr_db),
         ratio_db(layer.before_db), ratio_db(layer.lost_db), quartiles(layer.calls_db)]
        for layer in variant.layers[:SHOWN]
    ]  # fmt: skip
    yield table(["layer", "module", "type", "SQNR dB", "reads dB", "lost here dB", "dB of single calls"], rows, 4)
    most = "No layer differs" if variant.most is None else f"Most is lost in {code(variant.most.name)}"
    yield f"{most}. {_sentences(lost_note(variant, SHOWN))}"


def explained_line(report: Report) -> str:
    """The slowest layer, and the one that loses most: of the variant that ships, where it was told; else of the first.
    Empty where nothing was asked for."""
    if report.explained is None:
        return ""
    timed = [variant for variant in first_ones(report, report.explained.timed) if variant.layers]
    lost = [variant for variant in first_ones(report, report.explained.lost) if variant.most is not None]
    said = []
    if timed:
        layer = timed[0].layers[0]
        said.append(
            f"slowest of {timed[0].variant}: {_short(layer.modules, layer)}, {share(layer.share)} % of the time"
        )
    if lost and (most := lost[0].most) is not None:
        named = _short(filter(None, (most.module,)), most)
        said.append(
            f"most is lost by {lost[0].variant} in {named}: {ratio_db(most.lost_db)} dB, to {ratio_db(most.sqnr_db)}"
        )
    missing = [told.missing for told in report.explained.timed] + [told.missing for told in report.explained.lost]
    return "; ".join(said or [*filter(None, missing)][:1])


def _short(modules: Iterable[str], layer: TimedLayer | LostLayer) -> str:
    name = one_line(next(iter(modules), layer.name))
    return f"{name if len(name) <= LONGEST else name[: LONGEST - 1] + '…'} ({one_line(layer.op)[:LONGEST]})"
