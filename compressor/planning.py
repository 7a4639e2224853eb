"""`--plan`: what `kdc distill` and `kdc export` would do, checked as far as it can be, and told."""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.choice import Choosing, settled
from compressor.errors import EXIT_MISSING, EXIT_PASS, EXIT_USAGE
from compressor.progress import Progress
from compressor.schema.forecast import ExportForecast, Forecast
from compressor.schema.profile import Profile
from compressor.schema.student import Request
from compressor.terminal.tables import table

if TYPE_CHECKING:
    from compressor.data.samples import Split
    from compressor.distill import Destination, Resources
    from compressor.export.bundle.build import Sources
    from compressor.pipeline import Building, Measuring
    from compressor.schema.preprocess import Preprocess

__all__ = ["exit_code", "plan_distill", "plan_export", "to_text"]


def plan_distill(
    request: Request, out: "Destination", choosing: Choosing, *, resources: "Resources", progress: Progress
) -> Forecast:
    """What `pipeline.distill` with the same arguments would do, and what would stop an export for the profile then."""
    from compressor.distill.beside_run import answers_beside
    from compressor.distill.forecast import forecast

    resources = answers_beside(out.folder, request, resources)
    request, data = settled(request, choosing, out, resources, progress)
    made = forecast(request, out, progress=progress, resources=resources, data=data)
    if choosing.profile is not None:
        stops = _stops(choosing.profile, made.counts["train"])
        update = {"stops": (*made.stops, *stops), "missing": _missing(choosing.profile)}
        made = made.model_copy(update=update)
    return made


def plan_export(
    run: Path, profile: Profile, out: Path, building: "Building", measuring: "Measuring", *, teacher: str | None,
    overwrite: bool, progress: Progress,
) -> ExportForecast:  # fmt: skip
    """What `pipeline.export` would build and measure. Raises KdcError for what would stop it at once; the data is
    opened, too."""
    from compressor.distill.host.resources import free_bytes
    from compressor.export.bundle.build import sources_of
    from compressor.export.bundle.variants import REFERENCE, Delivery
    from compressor.files.bundle_folder import claim
    from compressor.models.lineage import data_of
    from compressor.pipeline import require_measurable
    from compressor.report import baseline_for

    baseline = baseline_for(measuring.baseline, profile.name)
    require_measurable(replace(measuring, baseline=baseline))
    claim(out, overwrite)
    delivery = Delivery(building.bake, building.dynamic_batch, building.explain, building.trim)
    sources = sources_of(run, profile, teacher=teacher, retrain=None, delivery=delivery)
    data = data_of(sources.request, sources.record, progress)
    asked = [(target.runtime, name) for target in profile.targets for name in target.precisions]
    notes = []
    if REFERENCE not in asked:
        notes.append(f"{'-'.join(REFERENCE)} is built and measured too, as the reference")
    if sources.teacher is not None:
        notes.append(f"the teacher {teacher or sources.request.teacher} is exported and measured beside the student")
    if profile.asks_for("int8"):
        last = "; its last rung trains the student on" if building.qat else ""
        notes.append(f"int8 climbs a ladder until accuracy holds{last}: how far is not known before")
    if len(measuring.devices) > 1:
        notes.append(f"it is measured on {len(measuring.devices)} devices: each has its own answers, report and best/")
    disk = _disk(sources, dict.fromkeys((*asked, REFERENCE)), data.test, len(measuring.devices))
    return ExportForecast(
        out=str(out),
        run=str(run),
        profile=profile.name,
        variants=tuple("-".join(pair) for pair in asked),
        disk=disk | _beside(baseline, asked, len(measuring.devices)),
        free=free_bytes(out),
        notes=tuple(notes),
        stops=tuple(_stops(profile, len(data.train))),
        missing=_missing(profile),
    )


STORED = {"int8": 1, "fp16": 2, "f16": 2, "bf16": 2}
"""Bytes of a weight, where it is not 4."""


def _disk(sources: "Sources", variants: Collection[tuple[str, str]], test: "Split", devices: int) -> dict[str, int]:
    """About what a bundle takes: every variant and the teacher, and what ships once more on each device; the test
    samples, as each kind of model takes them; torch's answers to them, and every variant's on each device, in
    float32."""
    models = [model for model in (sources.student, sources.teacher) if model is not None]
    student, *others = (sum(each.numel() for each in model.network.parameters()) for model in models)
    stored = sum(STORED.get(precision, 4) for _, precision in variants)
    inputs = {model.preprocess.model_dump_json(): _stored_bytes(model.preprocess) for model in models}
    answered = 1 + len(others) + devices * (len(variants) + len(others))
    return {
        "models": student * (stored + 4 * devices) + 4 * sum(others),
        "test samples": sum(inputs.values()) * len(test),
        "answers": 4 * len(test) * len(sources.record.class_names) * answered,
    }


def _stored_bytes(preprocess: "Preprocess") -> int:
    """Of a sample: images a byte a value, all else as the model takes it."""
    if preprocess.most_tokens is None:
        return sum(spec.values for spec in preprocess.inputs)
    return sum(8 * math.prod(spec.sizes(1, preprocess.most_tokens)) for spec in preprocess.inputs)


def _beside(baseline: Path | None, asked: Collection[tuple[str, str]], devices: int) -> dict[str, int]:
    """What comes of a baseline: of a bundle, its models that race, with their inputs and torch's answers, and what
    each answers on each device; of a release, that file."""
    from compressor.files.bundle_folder import counted
    from compressor.report.release import bundle_of
    from compressor.schema.base import read_json
    from compressor.schema.bundle import Bundle

    if baseline is None:
        return {}
    if not (folder := counted(bundle_of(baseline))).is_dir():
        return {"baseline": baseline.stat().st_size}
    bundle = read_json(folder / "bundle.json", Bundle)
    raced = [
        variant
        for variant in bundle.variants
        if variant.role in ("student", "reference") and (variant.runtime, variant.precision) in asked
    ]
    arrays = {path: (folder / path).stat().st_size for each in raced for path in (each.inputs, each.reference_logits)}
    answered = 4 * bundle.eval.n * len(bundle.student.class_names) * len(raced) * devices
    return {"baseline": sum(each.size_bytes for each in raced) + sum(arrays.values()) + answered}


def _stops(profile: Profile, train: int) -> Iterator[str]:
    """What of the data would stop an export for `profile`."""
    from compressor.export.calibration import FEWEST

    least = max(FEWEST, profile.batch)
    if profile.asks_for("int8") and train < least:
        yield f"kdc export: {train} training samples are too few for the calibration of int8, which takes {least}"


def _missing(profile: Profile) -> tuple[str, ...]:
    """The runtimes of `profile` that an export would miss here."""
    from compressor.measure.doctor import diagnose, missing_for

    lines = missing_for(profile, diagnose())
    return tuple(f"kdc export: a runtime of {profile.name} does not work here: {line}" for line in lines)


def exit_code(plan: Forecast | ExportForecast) -> int:
    """0; 4 where a runtime is missing; 2 where something else would stop the command, or the export after it."""
    if plan.stops:
        return EXIT_USAGE
    return EXIT_MISSING if plan.missing else EXIT_PASS


def to_text(plan: Forecast | ExportForecast) -> str:
    """For a terminal and a log."""
    from compressor.distill.host.resources import readable

    body = _of_distill(plan) if isinstance(plan, Forecast) else _of_export(plan)
    needed = ", ".join(f"{what} {readable(count)}" for what, count in plan.disk.items() if count)
    lines = [*body, f"disk, about: {needed}; {readable(plan.free)} are free for {plan.out}"]
    lines += [f"note: {note}" for note in plan.notes]
    lines += [f"would stop: {line}" for line in (*plan.missing, *plan.stops)] or [
        "nothing that can be checked now would stop it"
    ]
    return "\n".join(lines) + "\n"


def _of_distill(plan: Forecast) -> Iterator[str]:
    counts = ", ".join(f"{name} {count:,}" for name, count in plan.counts.items())
    yield f"{plan.teacher} teaches on {plan.data} ({counts})"
    rows = [("training", "student", "epochs", "steps", "s a step [lowest, highest]", "time")]
    for part in plan.parts:
        step = part.step_s
        spread = f"{step.median:.3g} [{step.lowest:.3g}, {step.highest:.3g}]"
        steps = f"{part.epochs * part.steps:,}"
        rows.append((part.name, part.student, str(part.epochs), steps, spread, _time(part.seconds)))
    yield table(rows)
    yield f"decoding {_time(plan.decode_s)}; in all {_time(plan.seconds)}. Timed {plan.timed}."


def _of_export(plan: ExportForecast) -> Iterator[str]:
    yield f"{plan.run} for {plan.profile}: {', '.join(plan.variants)}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
