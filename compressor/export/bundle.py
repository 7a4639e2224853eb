"""The bundle: every variant that the profile asks for, the teacher, and all that is needed to measure them anywhere."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from compressor import __version__
from compressor.assets import asset_dir
from compressor.data import open_data
from compressor.errors import KdcError, needs, os_error
from compressor.export.eval_set import write_labels, write_pictures, write_reference
from compressor.export.macs import count_macs
from compressor.export.onnx_graph import metadata_json, to_onnx
from compressor.export.openvino_ir import to_openvino
from compressor.export.sizes import compressed_bytes, weight_bytes
from compressor.models import LoadedModel, load_model, load_run, map_classes, with_classes
from compressor.models.references import with_class_file
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.spec.base import file_sha256, read_json, write_json
from compressor.spec.bundle import Bundle, EvalSet, FileEntry, Role, Variant
from compressor.spec.profile import Profile
from compressor.spec.student import Request, Student, Weights

__all__ = ["export_bundle"]

Build = Callable[[Path, str, Path], tuple[Path, str]]


def _as_is(onnx_file: Path, precision: str, folder: Path) -> tuple[Path, str]:
    """ONNX Runtime runs the fp32 reference itself."""
    return onnx_file, "torch.onnx.export(dynamo=True)"


BUILDERS: dict[str, Build] = {"onnxruntime": _as_is, "openvino": to_openvino}
"""Runtime -> how its artefact is made: (ONNX file, precision, folder of the variant) -> (model file, how, in words)."""

REFERENCE = ("onnxruntime", "fp32")
"""What runs along in every measurement, as itself and as a second copy, whether the profile asks for it or not."""


@dataclass(frozen=True)
class _Source:
    """A model to be exported, with where its files go and where its inputs lie (relative to the bundle)."""

    role: Role
    model: LoadedModel
    folder: str
    pictures: str
    reference: str


def export_bundle(
    run: Path, profile: Profile, out: Path, *, teacher: str | None, overwrite: bool, progress: Progress
) -> Bundle:
    """Export the run's student (and its teacher) for `profile` into the new folder `out`.

    All of it is made under a temporary name beside `out` and renamed at the end, so `out` is whole or not there.
    `teacher`: where the teacher lies now, if it was moved since the distillation. Raises KdcError.
    """
    _claim(out, overwrite)
    for target in profile.targets:
        row = RUNTIMES[target.runtime]
        needs(row.module, row.install, f"profile {profile.name}")
    student, record = load_run(run)
    if record.made_by != "distill":
        raise KdcError(
            f"{run} was made by kdc {record.made_by}: there is no teacher to hold it against",
            f"kdc distill --teacher run:{run} --data … --out run",
        )
    request = read_json(run / "run.json", Request)
    teacher_model = _teacher(request, record, teacher)
    temporary = out.parent / f".{out.name}.part"
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        bundle = _fill(temporary, profile, student, record, teacher_model, request, progress)
        write_json(temporary / "bundle.json", bundle)
        _swap(temporary, out)
        return bundle
    except OSError as error:
        raise os_error(error, f"writing {out}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _claim(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "bundle.json").is_file():
        raise KdcError(f"--out {out} exists and is no bundle of kdc, so it is left alone", "choose another --out")
    if not overwrite:
        raise KdcError(f"--out {out} holds a bundle", "--overwrite to replace it, or another --out")


def _swap(temporary: Path, out: Path) -> None:
    """Put the new bundle in the place of the old one, which goes only then."""
    old = out.parent / f".{out.name}.old"
    if out.exists():
        if old.exists():
            shutil.rmtree(old)
        out.rename(old)
    temporary.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _teacher(request: Request, record: Student, moved_to: str | None) -> LoadedModel:
    """The teacher that the student was distilled from: its weights must be the same ones, wherever they lie now."""
    assert record.teacher is not None
    reference = moved_to or request.teacher
    try:
        model = load_model(reference)
    except KdcError as error:
        if moved_to:
            raise
        hint = "if it lies elsewhere now: kdc export … --teacher REFERENCE"
        raise KdcError(f"the teacher of this run: {error.message}", hint, error.exit_code) from None
    if model.weights.sha256 != record.teacher.sha256:
        raise KdcError(f"{reference} is not the teacher that this student was distilled from (its weights differ)")
    if request.teacher_classes is not None:
        model = with_class_file(model, Path(request.teacher_classes))
    return with_classes(model, map_classes(model, record.class_names), record.class_names)


def _fill(
    folder: Path,
    profile: Profile,
    student: LoadedModel,
    record: Student,
    teacher: LoadedModel,
    request: Request,
    progress: Progress,
) -> Bundle:
    data = open_data(request.data, skip_bad=request.skip_bad, progress=progress, class_names=record.class_names)
    if data.info.fingerprint != record.data.fingerprint:
        raise KdcError(
            f"{request.data} is not the data that this student was trained on (its fingerprint differs)",
            "its test split might hold training samples: put the data back, or distill again",
        )
    (folder / "eval").mkdir()
    write_labels(data.test, folder / "eval")
    record = _without_paths(record)
    sources = [_Source("student", student, ".", "eval/student_inputs.npy", "eval/student_reference.npy")]
    same = teacher.preprocess == student.preprocess
    teacher_pictures = sources[0].pictures if same else "eval/teacher_inputs.npy"
    sources.append(_Source("teacher", teacher, "teacher", teacher_pictures, "eval/teacher_reference.npy"))
    variants: list[Variant] = []
    for source in sources:
        if not (folder / source.pictures).exists():
            write_pictures(data.test, source.model.preprocess, folder / source.pictures, progress)
        write_reference(source.model, folder / source.pictures, folder / source.reference, progress)
        variants += _variants(folder, profile, source, record, progress)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in record.class_names), encoding="utf-8")
    shutil.copytree(asset_dir("targets"), folder / "runners", ignore=shutil.ignore_patterns("__pycache__", "__init__*"))
    shipped = {entry.path for variant in variants for entry in variant.files}
    support = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return Bundle(
        profile=profile,
        student=record,
        teacher=record.teacher or _public(teacher.weights),
        reference="-".join(REFERENCE),
        eval=EvalSet(split="test", n=len(data.test), labels="eval/labels.npy", ids="eval/ids.txt"),
        variants=tuple(variants),
        support=tuple(_entry(folder, path) for path in support if path not in shipped),
    )


def _variants(folder: Path, profile: Profile, source: _Source, record: Student, progress: Progress) -> list[Variant]:
    """The artefacts of one model: every runtime and precision for the student, the first of them for the teacher."""
    place = folder / source.folder
    place.mkdir(exist_ok=True)
    onnx_file = place / "model.onnx"
    progress.note(f"exporting the {source.role} ({source.model.weights.architecture}) to ONNX opset {profile.opset}")
    torch.manual_seed(0)
    size = source.model.preprocess.input_size
    to_onnx(source.model.network, size, profile.batch, profile.opset, _metadata(source, record), onnx_file)
    asked = [(target.runtime, precision) for target in profile.targets for precision in target.precisions]
    if source.role == "teacher":
        asked = asked[:1]
    variants = [_variant(folder, source, *row, source.role, onnx_file) for row in asked]
    if source.role == "student" and REFERENCE not in asked:
        variants.append(_variant(folder, source, *REFERENCE, "reference", onnx_file))
    return variants


def _variant(folder: Path, source: _Source, runtime: str, precision: str, role: Role, onnx_file: Path) -> Variant:
    name = f"{runtime}-{precision}"
    model, how = BUILDERS[runtime](onnx_file, precision, folder / source.folder / name)
    own = [model] if model == onnx_file else sorted(model.parent.iterdir())
    return Variant(
        name=f"teacher-{name}" if role == "teacher" else name,
        role=role,
        runtime=runtime,
        precision=precision,
        runner=RUNTIMES[runtime].runner,
        model=model.relative_to(folder).as_posix(),
        files=tuple(_entry(folder, path.relative_to(folder).as_posix()) for path in own),
        inputs=source.pictures,
        reference_logits=source.reference,
        preprocess=source.model.preprocess,
        parameters=source.model.weights.parameters,
        macs=count_macs(source.model.network, source.model.preprocess.input_size),
        made=how,
        weight_bytes=weight_bytes(model),
        compressed_bytes=compressed_bytes(own),
    )


def _metadata(source: _Source, record: Student) -> dict[str, str]:
    """What a model must say of itself wherever it turns up."""
    weights = _public(source.model.weights)
    metadata = {
        "kdc_version": __version__,
        "architecture": weights.architecture,
        "class_names": metadata_json(list(record.class_names)),
        "preprocess": metadata_json(source.model.preprocess.model_dump(mode="json")),
        "weights_sha256": weights.sha256,
        "licence": weights.licence,
    }
    if source.role == "student" and record.teacher is not None:
        teacher = record.teacher
        metadata["teacher"] = metadata_json(
            {"architecture": teacher.architecture, "sha256": teacher.sha256, "licence": teacher.licence}
        )
    return metadata


def _public(weights: Weights) -> Weights:
    """Weights without the folder in which they lay: a bundle travels, and paths tell about the machine."""
    return weights.model_copy(update={"source": _last_part(weights.source)})


def _without_paths(record: Student) -> Student:
    data = record.data.model_copy(update={"source": _last_part(record.data.source)})
    teacher = _public(record.teacher) if record.teacher else None
    weights = _public(record.weights)
    return record.model_copy(
        update={"data": data, "teacher": teacher, "weights": weights, "init": _last_part(record.init)}
    )


def _last_part(reference: str) -> str:
    """`scheme:/some/where/name` -> `scheme:name`; a name of the hub, `hf:owner/name`, stays as it is."""
    scheme, colon, rest = reference.rpartition(":")
    if scheme == "hf" and rest.count("/") == 1 and not rest.startswith((".", "/")) and not Path(rest).exists():
        return reference
    architecture, at, checkpoint = rest.rpartition("@")
    return f"{scheme}{colon}{architecture}{at}{Path(checkpoint).name or checkpoint}"


def _entry(folder: Path, path: str) -> FileEntry:
    file = folder / path
    return FileEntry(path=path, sha256=file_sha256(file), bytes=file.stat().st_size)
