"""What a student was made from, found again: only the same teacher and the same data will do."""

from pathlib import Path

from compressor.data import ImageData, open_data
from compressor.errors import KdcError
from compressor.models.classes import map_classes
from compressor.models.loaded import LoadedModel, with_classes
from compressor.models.references import load_model, with_class_file
from compressor.progress import Progress
from compressor.spec.student import Request, Student, Weights

__all__ = ["data_of", "last_part", "public", "teacher_of"]


def public(weights: Weights) -> Weights:
    """Weights without the folder in which they lay: a bundle travels, and paths tell about the machine."""
    return weights.model_copy(update={"source": last_part(weights.source)})


def last_part(reference: str) -> str:
    """`scheme:/some/where/name` -> `scheme:name`; a name of the hub, `hf:owner/name`, stays as it is."""
    scheme, colon, rest = reference.rpartition(":")
    if scheme == "hf" and rest.count("/") == 1 and not rest.startswith((".", "/")) and not Path(rest).exists():
        return reference
    architecture, at, checkpoint = rest.rpartition("@")
    return f"{scheme}{colon}{architecture}{at}{Path(checkpoint).name or checkpoint}"


def teacher_of(request: Request, record: Student, moved_to: str | None, hint: str) -> LoadedModel:
    """The teacher that the student was distilled from: its weights must be the same ones, wherever they lie now.

    `moved_to`: a reference to them, where it is another than the request's. `hint`: what to type where that one cannot
    be loaded any more, which the caller knows.
    """
    assert record.teacher is not None
    reference = moved_to or request.teacher
    try:
        model = load_model(reference)
    except KdcError as error:
        if moved_to:
            raise
        raise KdcError(f"the teacher of this run: {error.message}", hint, error.exit_code) from None
    if model.weights.sha256 != record.teacher.sha256:
        raise KdcError(f"{reference} is not the teacher that this student was distilled from (its weights differ)")
    if request.teacher_classes is not None:
        model = with_class_file(model, Path(request.teacher_classes))
    return with_classes(model, map_classes(model, record.class_names), record.class_names)


def data_of(request: Request, record: Student, progress: Progress) -> ImageData:
    """The data that the student was trained on, in the same splits."""
    data = open_data(request.data, skip_bad=request.skip_bad, progress=progress, class_names=record.class_names)
    if data.info.fingerprint != record.data.fingerprint:
        raise KdcError(
            f"{request.data} is not the data that this student was trained on (its fingerprint differs)",
            "its test split might hold training samples: put the data back, or distill again",
        )
    return data
