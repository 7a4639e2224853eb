"""The artefacts of one model: what the profile asks for, each scored on validation, int8 by way of the ladder."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from compressor.errors import KdcError
from compressor.export.base import QatModel, Source, TopRung
from compressor.export.builders import builder_of
from compressor.export.bundle.explaining import Subject, explain
from compressor.export.bundle.identity import public
from compressor.export.bundle.macs import count_macs
from compressor.export.bundle.sizes import compressed_bytes, weight_bytes
from compressor.export.judge import ValidationJudge
from compressor.export.ladder import climb
from compressor.files.atomic import file_sha256
from compressor.models import LoadedModel
from compressor.processes.runner import RunnerDiedError, RunnerError
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES, of_classifiers
from compressor.schema.bundle import FileEntry, RawFiles, Role, Variant
from compressor.schema.preprocess import Preprocess
from compressor.schema.profile import Profile
from compressor.schema.quantization import Rung, Score
from compressor.schema.student import Weights
from compressor.tasks.table import shipping_of

__all__ = ["REFERENCE", "Delivery", "ExportItem", "entry", "variants_of"]

REFERENCE = ("onnxruntime", "fp32")
"""What runs along in every measurement, as itself and as a second copy, whether the profile asks for it or not."""


@dataclass(frozen=True)
class Delivery:
    """What is built in on request. `bake`: the normalization, so that the model takes uint8 images; of
    sound the front end, so that it takes a waveform. `dynamic_batch`:
    a batch that may vary from call to call. `trim`: of the vocabulary, what training uses alone. `explain` builds
    nothing in: the bundle says what int8 costs each layer."""

    bake: bool = False
    dynamic_batch: bool = False
    explain: bool = False
    trim: bool = False

    def require_possible(self, profile: Profile, preprocess: Preprocess | None = None) -> None:
        """Raises KdcError where a target of the profile cannot have what was asked for. The batch of tokens always
        varies."""
        for target in profile.targets:
            builder = builder_of(target.runtime)
            if self.bake and builder.bake is None:  # whatever normalizes prepends, and the other way round
                able = ", ".join(name for name in of_classifiers() if builder_of(name).bake is not None)
                raise _impossible("--bake-preprocessing", target.runtime, able)
            fixed = self.dynamic_batch and (preprocess is None or preprocess.mask is None)
            if fixed and not set(target.precisions) <= set(builder.dynamic_batch):
                raise _impossible("--dynamic-batch", target.runtime, _with_dynamic_batch())

    def require_normalization(self, preprocess: Preprocess) -> None:
        """Raises KdcError where there is no normalization to build in, or no vocabulary to trim."""
        if self.trim and preprocess.mask is None:
            raise KdcError(f"--trim-vocabulary: {preprocess.described} have no vocabulary", "leave it out")
        if self.bake and preprocess.normalization is None and preprocess.before is None:
            raise KdcError(f"--bake-preprocessing: {preprocess.described} have no normalization", "leave it out")


def _with_dynamic_batch() -> str:
    """E.g. "onnxruntime, and openvino but for int8"."""
    able = []
    for name in of_classifiers():
        row = RUNTIMES[name]
        lacking = [precision for precision in row.precisions if precision not in builder_of(name).dynamic_batch]
        if len(lacking) < len(row.precisions):
            able.append(f"{name} but for {', '.join(lacking)}" if lacking else name)
    return ", and ".join(able)


def _impossible(flag: str, runtime: str, able: str) -> KdcError:
    return KdcError(
        f"{flag}: not for {runtime} as the profile asks for it; possible: {able}", "narrow it with --target"
    )


@dataclass(frozen=True)
class ExportItem:
    """A model on its way into a bundle. `images`, `reference`: where its test inputs and torch's answers lie,
    relative to the bundle `root`; `judge`: of its answers on validation, for the student alone.
    `top`: where its top rung comes from; `work`: for what does not ship; `sequence_length`: see
    `schema.bundle.Bundle`; `raw`: see `schema.bundle.Variant`; `before`: where the test inputs lie of a model that does
    part of its preprocessing itself, as `Preprocess.before` says."""

    root: Path
    role: Role
    model: LoadedModel
    source: Source
    images: str
    reference: str
    judge: ValidationJudge | None
    top: TopRung
    delivery: Delivery
    write_reference: Callable[[nn.Module, str], None]
    work: Path
    sequence_length: int | None = None
    raw: RawFiles | None = None
    before: str | None = None


def variants_of(item: ExportItem, profile: Profile, progress: Progress) -> Iterator[Variant]:
    """Every runtime and precision for the student, and the fp32 reference; for the teacher the first float one."""
    asked = [(target.runtime, precision) for target in profile.targets for precision in target.precisions]
    if item.role == "teacher":
        asked = [row for row in asked if row[1] != "int8"][:1] or [REFERENCE]
    for runtime, precision in asked:
        yield _variant(item, runtime, precision, item.role, progress)
    if item.role == "student" and REFERENCE not in asked:
        yield _variant(item, *REFERENCE, "reference", progress)


@dataclass(frozen=True)
class _Made:
    model: Path
    description: str
    score: Score | None
    rungs: tuple[Rung, ...] = ()
    qat: QatModel | None = None


def _variant(item: ExportItem, runtime: str, precision: str, role: Role, progress: Progress) -> Variant:
    name, root = f"{runtime}-{precision}", item.root
    shown = f"teacher-{name}" if role == "teacher" else name
    made = _made(item, runtime, precision, item.source.onnx_file.parent / name, progress)
    if item.delivery.explain:
        subject = Subject(shown, runtime, precision, made.model, item.source, made.qat)
        explain(subject, item.judge, root, item.work, progress)
    baked = item.delivery.bake and role == "student"
    if baked:
        made = _baked(made, item, runtime, item.source.onnx_file.parent / name)
    files = [made.model] if made.model == item.source.onnx_file else sorted(made.model.parent.iterdir())
    model, preprocess, inputs = item.model, item.model.preprocess, item.images
    if baked and item.before is not None and preprocess.before is not None:
        preprocess, inputs = preprocess.before, item.before
    return Variant(
        task=model.preprocess.task,
        name=shown,
        role=role,
        runtime=runtime,
        precision=precision,
        runner=RUNTIMES[runtime].runner,
        model=made.model.relative_to(root).as_posix(),
        files=tuple(entry(root, path.relative_to(root).as_posix()) for path in files),
        inputs=inputs,
        reference_logits=_reference(item, made.qat),
        preprocess=preprocess,
        parameters=model.weights.parameters,
        macs=count_macs(item.source.network, model.preprocess.inputs, item.sequence_length),
        made=made.description,
        weight_bytes=weight_bytes(builder_of(runtime).constants(made.model)),
        compressed_bytes=compressed_bytes(files),
        weights=_weights(item, made.qat),
        score=made.score,
        rungs=made.rungs,
        build=RUNTIMES[runtime].build,
        baked=baked,
        dynamic_batch=(item.delivery.dynamic_batch or item.source.takes_tokens) and role == "student",
        mask=model.preprocess.mask,
        raw=item.raw,
    )


def _made(item: ExportItem, runtime: str, precision: str, folder: Path, progress: Progress) -> _Made:
    builder, judge = builder_of(runtime), item.judge
    if precision != "int8":
        artefact = builder.convert(item.source, precision, folder)
        return _Made(artefact.model, artefact.made, _score(judge, artefact.model, runtime, precision, progress))
    assert builder.quantizer is not None, "the table of runtimes names int8 only where there is a quantizer"
    assert judge is not None, "a teacher is not quantized"
    progress.note(f"{folder.name}: climbing the ladder")
    taken = climb(item.source, runtime, builder.quantizer, folder, judge, item.top, progress)
    description = f"{taken.candidate.rung}: {taken.candidate.description}"
    return _Made(taken.candidate.model, description, taken.score, taken.rungs, taken.qat)


def _baked(made: _Made, item: ExportItem, runtime: str, folder: Path) -> _Made:
    """The same artefact with the normalization in it, in the variant's folder."""
    builder, preprocess = builder_of(runtime), item.model.preprocess
    temporary = folder.with_name(f".{folder.name}.baked")
    temporary.mkdir()
    model = temporary / made.model.name
    if preprocess.before is not None:
        assert builder.prepend is not None, "Delivery.require_possible has looked"
        front_end = shipping_of(preprocess.task).front_end(preprocess, item.source.profile.opset)
        builder.prepend(made.model, front_end, model)
    else:
        assert builder.bake is not None, "Delivery.require_possible has looked"
        assert preprocess.normalization is not None, "Delivery.require_normalization has looked"
        builder.bake(made.model, preprocess.normalization, model)
    what = "normalization" if preprocess.before is None else "front end"
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    return replace(made, model=folder / model.name, description=f"{made.description}; {what} built in")


def _score(
    judge: ValidationJudge | None, model: Path, runtime: str, precision: str, progress: Progress
) -> Score | None:
    """The float artefact's answers on validation; null where its runtime is missing here, or the GPU that it needs, and
    where its process dies: a measurement tells then whether it runs."""
    if judge is None:
        return None
    try:
        return judge(model, runtime, precision)
    except RunnerDiedError as error:
        progress.warn(f"{runtime}-{precision} is not scored on validation: {error.message}")
        return None
    except RunnerError as error:
        if error.kind != "missing" and not RUNTIMES[runtime].on_gpu:
            raise  # an artefact that its runtime does not run
        progress.note(f"{runtime} {precision} does not run on this machine ({error.message}): not scored on validation")
        return None


def _weights(item: ExportItem, qat: QatModel | None) -> Weights | None:
    """See `schema.bundle.Variant`."""
    if item.delivery.trim and item.role == "student":
        return public(item.model.weights)
    return public(qat.weights) if qat is not None and qat.weights is not None else None


def _reference(item: ExportItem, qat: QatModel | None) -> str:
    """Where torch's answers for the variant lie: those of the retrained student, where it was made from that one."""
    if qat is None:
        return item.reference
    scheme = qat.record.scheme
    path = f"eval/student_qat_{scheme.activations}_w{scheme.weight_bits}_reference.npy"
    if not (item.root / path).exists():
        item.write_reference(qat.network, path)
    return path


def entry(folder: Path, path: str) -> FileEntry:
    """A file of the bundle `folder`, as the manifest lists it."""
    file = folder / path
    return FileEntry(path=path, sha256=file_sha256(file), bytes=file.stat().st_size)
