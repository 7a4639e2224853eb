"""What a student was made from, found again: only the same teacher and the same data will do."""

from pathlib import Path

from compressor.data import ImageData, open_data
from compressor.errors import KdcError
from compressor.models.classes import map_classes
from compressor.models.loaded import LoadedModel, with_classes
from compressor.models.references import load_model, with_class_file
from compressor.progress import Progress
from compressor.spec.student import DataInfo, Request, Student

__all__ = ["data_of", "teacher_of"]


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


def data_of(request: Request, record: Student, progress: Progress, *, unlabelled: bool = False) -> ImageData:
    """The data that the student was trained on, in the same splits; with its `unlabelled` pictures, if it had some,
    only for who trains on."""
    more = request.unlabelled if unlabelled else None
    data = open_data(
        request.data, skip_bad=request.skip_bad, progress=progress, class_names=record.class_names, unlabelled=more
    )
    if data.info.fingerprint != record.data.fingerprint:
        raise KdcError(
            f"{request.data} is not the data that this student was trained on (its fingerprint differs)",
            "its test split might hold training samples: put the data back, or distill again",
        )
    if unlabelled and _fingerprint(data.info) != _fingerprint(record.data):
        raise KdcError(
            f"--unlabelled {more} is not what this student was trained on (its fingerprint differs)",
            "put the pictures back, or distill again",
        )
    return data


def _fingerprint(info: DataInfo) -> str | None:
    return info.unlabelled.fingerprint if info.unlabelled else None
