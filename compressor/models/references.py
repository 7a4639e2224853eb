"""`--teacher`: the spellings of a model's whereabouts, and the loader for each."""

from dataclasses import replace
from pathlib import Path

from compressor.errors import KdcError, did_you_mean
from compressor.files.reading import read_bytes
from compressor.models import runs, specialists
from compressor.models.classes import headless
from compressor.models.loaded import LoadedModel, outputs_of
from compressor.names import class_fault, escaped, lines_of, spelt
from compressor.references import Reference
from compressor.tasks.table import TASKS, task_of_model

__all__ = ["NO_MODEL", "SPELLINGS", "TABLE", "is_table", "load_model", "with_class_file"]

MOST_BYTES = 100_000_000

NO_MODEL = ("self", "peers")
"""`--teacher self`: the student of the epoch before, or its own last layer. `--teacher peers`: those of the recipe."""

TABLE = "outputs:"
"""`--teacher outputs:FILE`: a table of a teacher's answers, which has no network."""

SPELLINGS = "timm:NAME, timm:NAME@CHECKPOINT, timm:local-dir:PATH, hf:REPO_OR_PATH, run:DIR, specialists:DIR"
OWN = ("run", "specialists")


def is_table(reference: str) -> bool:
    return Reference.parse(reference).folder("outputs") is not None


def load_model(reference: str, input_size: int | None = None) -> LoadedModel:
    """The model that `reference` names (see SPELLINGS); `input_size`, in pixels, overrides its own where it can.

    Raises KdcError where it cannot be found, read safely, or used at that size.
    """
    if is_table(reference):
        raise KdcError(f"{reference} is a table of answers, not a model", "only kdc distill learns from one")
    parsed = Reference.parse(reference)
    scheme = parsed.scheme
    known = [*dict.fromkeys(name for row in TASKS.values() for name in row.models), *OWN]
    if scheme not in known or not parsed.rest:
        near = did_you_mean(scheme, known) if parsed.rest is not None else ""
        raise KdcError(f"teacher {reference!r} is not one of {SPELLINGS}{near}", "for example --teacher timm:resnet50")
    if scheme in OWN:
        if input_size is not None:
            raise KdcError(f"{reference} keeps the input size that it was trained at", "leave out --input-size")
        return (
            runs.load_run(Path(parsed.rest))[0]
            if scheme == "run"
            else specialists.combined(Path(parsed.rest), load_model)
        )
    task = task_of_model(scheme)
    assert task is not None
    return task.load_model(reference, input_size)


def with_class_file(model: LoadedModel, file: Path) -> LoadedModel:
    """`model` with the class names in `file`: one a line, in the order of its outputs."""
    if model.headless:
        raise headless(model, "there are no outputs that --teacher-classes could name")
    try:
        lines = lines_of(read_bytes(file, most=MOST_BYTES).decode("utf-8-sig"))
    except (KdcError, UnicodeDecodeError) as error:
        raise KdcError(
            f"--teacher-classes {file} cannot be read: {error}", "a text file, one class name a line"
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip() and (fault := class_fault(line)):
            raise KdcError(f"--teacher-classes {file} line {number}: the class name {escaped(line)} {fault}")
    names = [spelt(line) for line in lines if line.strip()]
    outputs = outputs_of(model)
    if len(names) != outputs or len(set(names)) != outputs:
        raise KdcError(
            f"--teacher-classes {file} has {len(set(names))} different names, the teacher has {outputs} outputs",
            "one name a line, in the order of the outputs",
        )
    return replace(model, class_names=tuple((name,) for name in names))
