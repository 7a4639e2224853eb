"""Whether a bundle's manifest and a measurement of it hold together; what does not is refused by name."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from compressor.errors import KdcError
from compressor.schema.bundle import Bundle, Variant
from compressor.schema.measurement import Block, Contestant, Measurement

__all__ = ["BASELINE", "bundle_fits", "measurement_fits"]

BASELINE = "baseline-"
"""A baseline's variant is named so, followed by the name of the student's variant that is held against it."""

MEASURE_AGAIN = "measure the bundle again with `kdc measure BUNDLE`"
EXPORT_AGAIN = "make the bundle again with `kdc export`"


def bundle_fits(bundle: Bundle, path: Path) -> None:
    """Raises KdcError where bundle.json names variants twice, or roles that contradict the rest of it."""
    if (problem := next(_bundle_problems(bundle), None)) is not None:
        raise KdcError(f"{path} {problem}", EXPORT_AGAIN)


def measurement_fits(measurement: Measurement, bundle: Bundle, where: str) -> None:
    """Raises KdcError where a measurement is not one of this bundle, contradicts itself, or holds impossible times."""
    if (problem := next(_measurement_problems(measurement, bundle), None)) is not None:
        raise KdcError(f"{where} {problem}", MEASURE_AGAIN)


def _repeated(names: Iterable[object]) -> Iterator[object]:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)


def _bundle_problems(bundle: Bundle) -> Iterator[str]:
    variants = {variant.name: variant for variant in bundle.variants}
    for name in _repeated(variant.name for variant in bundle.variants):
        yield f"names variant {name} twice"
    reference = variants.get(bundle.reference)
    if reference is None:
        yield f"names {bundle.reference} as its reference, which is none of its variants"
    elif reference.role not in ("student", "reference"):
        yield f"names {bundle.reference} as its reference, which has the role {reference.role}"
    if bundle.baseline is not None and bundle.baseline.class_names != bundle.student.class_names:
        yield "holds a baseline with other classes than the student's, so that their answers cannot be compared"
    yield from _table_problems(bundle)
    for variant in bundle.variants:
        scores = [variant.score, *(rung.score for rung in variant.rungs)]
        if any(score is not None and len(score.by_class.n) != len(bundle.student.class_names) for score in scores):
            yield f"has a score of {variant.name} by other classes than the student's"
        if variant.role == "teacher" and bundle.teacher is None:
            yield f"has the variant {variant.name} of a teacher, but says nothing of that teacher"
        if variant.role == "baseline":
            yield from _baseline_problems(variant, variants, bundle)


def _table_problems(bundle: Bundle) -> Iterator[str]:
    table = bundle.teacher_table
    if table is None:
        return
    if bundle.teacher is None:
        yield "has a table of a teacher's answers, but says nothing of that teacher"
    if any(variant.role == "teacher" for variant in bundle.variants):
        yield "has both a table of a teacher's answers and a variant of the teacher"
    if (table.answers is None) != (table.kind is None) or (table.answers is None) == (table.missing is None):
        yield "must say of a table of a teacher's answers either its kind and where they are, or why they are missing"


def _baseline_problems(variant: Variant, variants: dict[str, Variant], bundle: Bundle) -> Iterator[str]:
    if bundle.baseline is None:
        yield f"has the variant {variant.name} of a baseline, but says nothing of that baseline"
    if not variant.name.startswith(BASELINE):
        yield f"has the variant {variant.name} of a baseline, whose name must begin with {BASELINE}"
    ours = variants.get(variant.name.removeprefix(BASELINE))
    if ours is not None and (ours.runtime, ours.precision) != (variant.runtime, variant.precision):
        ran = f"{variant.precision} on {variant.runtime}, not {ours.precision} on {ours.runtime}"
        yield f"holds {ours.name} against {variant.name}, which is {ran}"


def _measurement_problems(measurement: Measurement, bundle: Bundle) -> Iterator[str]:
    if measurement.batch < 1:
        yield f"has a batch of {measurement.batch}"
    for name in _repeated(contestant.variant for contestant in measurement.contestants):
        yield f"measures variant {name} twice"
    for contestant in measurement.contestants:
        yield from _contestant_problems(contestant, bundle)
        yield from _time_problems(contestant)
    if sum(contestant.copy_of is not None for contestant in measurement.contestants) > 1:
        yield "has more than one second copy of the reference"
    for number in _repeated(played.number for played in measurement.rounds):
        yield f"lists round {number} twice"
    for played in measurement.rounds:
        if played.wall_s < 0:
            yield f"has a round {played.number} that took less than no time"
    yield from _blocks_problems(measurement)
    yield from _length_problems(measurement, bundle)


def _contestant_problems(contestant: Contestant, bundle: Bundle) -> Iterator[str]:
    variants = {variant.name: variant for variant in bundle.variants}
    name, variant = contestant.variant, contestant.copy_of or contestant.variant
    if contestant.copy_of is not None and contestant.copy_of != bundle.reference:
        yield f"has {name} as a second copy of {contestant.copy_of}, but bundle.json's reference is {bundle.reference}"
    elif contestant.copy_of is not None and name in variants:
        yield f"has {name} as a second copy of {contestant.copy_of}, but it is a variant of its own in bundle.json"
    elif variant not in variants:
        yield f"measures variant {name}, which bundle.json does not have"
    elif contestant.requested_precision != variants[variant].precision:
        asked = f"{contestant.requested_precision}, but bundle.json says {variants[variant].precision}"
        yield f"asked {name} for precision {asked}"
    elif contestant.error is None and contestant.artefact_sha256 != variants[variant].artefact_sha256:
        yield f"measures other files of {name} than those that bundle.json lists"


def _time_problems(contestant: Contestant) -> Iterator[str]:
    name = contestant.variant
    for start in contestant.starts:
        if min(start.start_ms, start.load_ms, start.first_ms) <= 0:
            yield f"has a start of {name} with a time that is not above 0"
    for mode in contestant.throughput:
        if mode.streams < 1 or mode.threads < 1:
            yield f"has a throughput of {name} with {mode.streams} streams on {mode.threads} threads"
        for window in mode.windows:
            if window.seconds <= 0 or window.calls < 0 or (window.joules or 0) < 0:
                yield f"has an impossible throughput of {name}: {window.calls} calls in {window.seconds:g} s"


def _blocks_problems(measurement: Measurement) -> Iterator[str]:
    names = {contestant.variant for contestant in measurement.contestants}
    rounds = {played.number for played in measurement.rounds}
    for block in measurement.blocks:
        if block.variant not in names:
            yield f"has a block of {block.variant}, which is none of its contestants"
        elif block.round not in rounds:
            yield f"has a block of {block.variant} in round {block.round}, which is none of its rounds"
        else:
            yield from _block_problems(block, measurement)
    for name, number in _repeated_blocks(measurement):
        yield f"has two blocks of {name} in round {number}"


def _length_problems(measurement: Measurement, bundle: Bundle) -> Iterator[str]:
    names, seen = {contestant.variant for contestant in measurement.contestants}, set[tuple[str, int, int]]()
    for block in measurement.by_length:
        key = (block.variant, block.length, block.round)
        if block.variant not in names or block.length not in bundle.lengths:
            yield f"has a block of {block.variant} at {block.length} tokens, at which it is not measured"
        if key in seen:
            yield f"has two blocks of {block.variant} at {block.length} tokens in round {block.round}"
        if min((*block.dropped_ms, *block.wall_ms), default=0.0) <= 0:
            yield f"has a time that is not above 0 of {block.variant} at {block.length} tokens"
        seen.add(key)
    for told in measurement.preprocessing:
        if not 0 <= told.cut <= told.n or not 0 <= told.differ <= told.n or min(told.wall_ms, default=0.0) < 0:
            yield f"says of {told.n} samples that {told.cut} are cut and {told.differ} differ"


def _repeated_blocks(measurement: Measurement) -> Iterator[tuple[str, int]]:
    seen: set[tuple[str, int]] = set()
    for block in measurement.blocks:
        key = (block.variant, block.round)
        if key in seen:
            yield key
        seen.add(key)


def _block_problems(block: Block, measurement: Measurement) -> Iterator[str]:
    where = f"round {block.round} of {block.variant}"
    lengths = (len(block.dropped_ms), len(block.wall_ms), len(block.cpu_ms))
    timed = measurement.block_length - measurement.block_dropped
    if min((*block.dropped_ms, *block.wall_ms), default=1.0) <= 0 or min(block.cpu_ms, default=0.0) < 0:
        yield f"has a time that is not above 0 in {where}"
    if lengths != (measurement.block_dropped, timed, timed):
        counts = f"{lengths[0]} dropped, {lengths[1]} wall and {lengths[2]} CPU times"
        yield f"has {counts} in {where}, but blocks of {measurement.block_length}, {measurement.block_dropped} dropped"
