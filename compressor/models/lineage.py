"""What a student is made from: its teacher, when it is trained; and the same teacher and data, found again."""

from importlib.metadata import version
from pathlib import Path

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.models.classes import map_classes
from compressor.models.ensemble import TOGETHER, combined, resized_members
from compressor.models.loaded import LoadedModel, with_classes
from compressor.models.references import NO_MODEL, is_table, load_model, with_class_file
from compressor.names import line_fault
from compressor.progress import Progress, Silent
from compressor.schema.provenance import NOBODYS, UNKNOWN, Ancestor
from compressor.schema.student import DataInfo, Request, Student, Weights
from compressor.tasks.table import task_named

__all__ = ["cut_from", "data_of", "last_part", "load_teacher", "public", "stated", "teacher_of", "told"]

SILENT = Silent()


def public(weights: Weights) -> Weights:
    """Weights without the folders in which they, and what they were made of, lay: a bundle travels, and paths tell
    about the machine."""
    return weights.model_copy(
        update={"source": last_part(weights.source), "ancestors": tuple(map(_public_ancestor, weights.ancestors))}
    )


def _public_ancestor(ancestor: Ancestor) -> Ancestor:
    """Servers of one's own call a model by the file that it lies in."""
    model = Path(ancestor.model).name if ancestor.model.startswith("/") else ancestor.model
    return ancestor.model_copy(update={"source": last_part(ancestor.source), "model": model})


def stated(weights: Weights, licence: str | None, terms: str | None) -> Weights:
    """`weights` with the licence and terms that somebody states of what they answer. Raises KdcError where they say
    otherwise themselves."""
    changes: dict[str, object] = {}
    for name, text in (("licence", licence), ("terms", terms)):
        told = getattr(weights, name)
        if text is None or text == told:
            continue
        if told != UNKNOWN and not told.startswith(NOBODYS):
            raise KdcError(f"--{name} {text}: {weights.source} says itself that it is {told}", "leave it out")
        if (fault := line_fault(text)) or not text.strip():
            raise KdcError(f"--{name} {fault or 'is empty'}", "a name, a link, a sentence")
        changes[name] = text
    changed = weights.model_copy(update=changes)
    if changes and weights.ancestors:
        alone = changed.model_copy(update={"ancestors": ()})
        changed = changed.model_copy(update={"ancestors": (*alone.provenance, *weights.ancestors)})
    return changed


def last_part(reference: str) -> str:
    """`scheme:/some/where/name` -> `scheme:name`; a name of the hub, `hf:owner/name`, stays as it is; of several joined
    by " + ", each."""
    if TOGETHER in reference:
        return TOGETHER.join(last_part(member) for member in reference.split(TOGETHER))
    scheme, colon, path = reference.rpartition(":")
    if scheme == "hf" and path.count("/") == 1 and not path.startswith((".", "/")) and not Path(path).exists():
        return reference
    architecture, at, checkpoint = path.rpartition("@")
    return f"{scheme}{colon}{architecture}{at}{Path(checkpoint).name or checkpoint}"


def load_teacher(
    request: Request, class_names: tuple[str, ...], *, moved_to: str | None = None, progress: Progress = SILENT
) -> LoadedModel | None:
    """The teacher that a request names, answering `class_names` in that order: one model, or several as one. None where
    there is none apart from the student: it teaches itself, or its peers do; and where it is a table of answers.

    `moved_to`: where the (only) teacher lies now, if it is elsewhere.
    """
    if request.teacher in NO_MODEL or is_table(request.teacher):
        return None
    references = (moved_to or request.teacher, *request.other_teachers)
    if moved_to and request.other_teachers:
        raise KdcError("the teacher of this run is an ensemble, so that one place is not enough", "put them back")
    models = []
    for model in told(
        progress,
        *_named([load_model(reference, task=request.task) for reference in references], request.teacher_classes),
    ):
        index = map_classes(model, class_names) if class_names else ()
        chosen = with_classes(model, index, class_names)
        models.append(task_named(request.task).with_range(chosen, request.recipe.pixel_range, progress))
    ensemble = combined(models, request.recipe.ensemble)
    for line in resized_members(models, ensemble):
        progress.note(line)
    return ensemble


def cut_from(request: Request, class_names: tuple[str, ...], teacher: LoadedModel | None) -> LoadedModel | None:
    """Whose layers a student may be made of: its teacher's, or those that `request.cut_from` names."""
    if request.cut_from is None:
        return teacher
    changes = {"teacher": request.cut_from, "other_teachers": ()}
    return load_teacher(request.model_copy(update=changes), class_names)


def told(progress: Progress, *models: LoadedModel) -> tuple[LoadedModel, ...]:
    """`models`, after it was said how they were loaded."""
    for model in models:
        for line in model.notes:
            progress.note(line)
    return models


def _named(models: list[LoadedModel], file: str | None) -> list[LoadedModel]:
    """With the names in `file`: the only teacher whatever its weights say; of several, those that say nothing."""
    if file is None:
        return models
    if len(models) == 1:
        return [with_class_file(models[0], Path(file))]
    if all(model.class_names is not None for model in models):
        raise KdcError(f"--teacher-classes {file}: the weights of every teacher name their classes", "leave it out")
    return [with_class_file(model, Path(file)) if model.class_names is None else model for model in models]


def teacher_of(request: Request, record: Student, moved_to: str | None, hint: str) -> LoadedModel | None:
    """The teacher that the student was distilled from: weights, preprocessing and classes must be the same, wherever
    they lie now.

    `moved_to`: a reference to them, where it is another than the request's. `hint`: what to type where that one cannot
    be loaded any more, which the caller knows. None where it was no model.
    """
    try:
        model = load_teacher(request, record.class_names, moved_to=moved_to)
    except KdcError as error:
        if moved_to:
            raise
        raise KdcError(f"the teacher of this run: {error.message}", hint, error.exit_code) from None
    if model is None:
        if moved_to and is_table(request.teacher):
            if not is_table(moved_to):
                raise KdcError(f"--teacher {moved_to}: this student was distilled from a table, {request.teacher}")
        elif moved_to:
            raise KdcError(f"--teacher {moved_to}: this student had no teacher apart from itself and its peers")
        return None
    assert record.teacher is not None
    changed = model.weights.changed_from(record.teacher)
    if changed is not None:
        reference = moved_to or model.weights.source
        raise KdcError(
            f"{reference} is not the teacher that this student was distilled from ({changed})",
            "put it back as it was, or distill again",
        )
    return model


def data_of(request: Request, record: Student, progress: Progress, *, unlabelled: bool = False) -> Dataset:
    """The data that the student was trained on, in the same splits; with its `unlabelled` images, if it had some,
    only for who trains on."""
    unlabelled_source = request.unlabelled if unlabelled else None
    data = task_named(request.task).open_data(
        request.data,
        skip_bad=request.skip_bad,
        progress=progress,
        class_names=record.class_names,
        unlabelled=unlabelled_source,
        pixel_range=request.recipe.pixel_range,
        columns=request.columns,
    )
    if data.info.fingerprint != record.data.fingerprint:
        raise KdcError(
            f"{request.data} is not the data that this student was trained on (its fingerprint differs)",
            f"its test split might hold training samples: put the data back, or distill again{_decoder(record)}",
        )
    if unlabelled and _fingerprint(data.info) != _fingerprint(record.data):
        raise KdcError(
            f"--unlabelled {unlabelled_source} is not what this student was trained on (its fingerprint differs)",
            "put it back as it was, or distill again",
        )
    return data


def _decoder(record: Student) -> str:
    """A fingerprint is of decoded pixels, which of JPEG and other files with loss may hang on who decodes them."""
    before, now = record.environment.packages.get("pillow"), version("pillow")
    return "" if before in (None, now) else f"; or install pillow=={before}, which decoded it then (this is {now})"


def _fingerprint(info: DataInfo) -> str | None:
    return info.unlabelled.fingerprint if info.unlabelled else None
