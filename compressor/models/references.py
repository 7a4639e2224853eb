"""`--teacher`: the spellings of a model's whereabouts, and the loader for each."""

from dataclasses import replace
from pathlib import Path

from compressor.data.completion_files import ENDING
from compressor.errors import KdcError, did_you_mean
from compressor.files.reading import read_bytes
from compressor.models import runs, specialists
from compressor.models.classes import headless
from compressor.models.loaded import LoadedModel, outputs_of
from compressor.names import class_fault, escaped, lines_of, spelt
from compressor.references import MODELS, Reference
from compressor.schema.preprocess import Preprocess
from compressor.tasks.inference import task_of_model
from compressor.tasks.table import TASKS

__all__ = [
    "NO_MODEL",
    "TABLE",
    "class_file_names",
    "holds_completions",
    "is_table",
    "load_model",
    "parsed_model",
    "require_own_size",
    "with_class_file",
]

MOST_BYTES = 100_000_000

NO_MODEL = ("self", "peers")
"""`--teacher self`: the student of the epoch before, or its own last layer. `--teacher peers`: those of the recipe."""

TABLE = "outputs:"
"""`--teacher outputs:FILE`: a table of a teacher's answers, which has no network."""

OWN = ("run", "specialists")


def is_table(reference: str) -> bool:
    return Reference.parse(reference).folder("outputs") is not None


def holds_completions(reference: str) -> bool:
    """Whether it is a table of a language model's completions, which teach by being learned."""
    table = Reference.parse(reference).folder("outputs")
    return table is not None and table.suffix.lower() == ENDING


def load_model(reference: str, input_size: int | None = None, task: str | None = None) -> LoadedModel:
    """The model that `reference` names (see MODELS); `input_size`, in pixels or tokens, overrides its own where it can.
    `task`: what it is for, where its reference does not tell.

    Raises KdcError where it cannot be found, read safely, or used at that size.
    """
    parsed = parsed_model(reference)
    if (run := parsed.folder("run")) is not None:
        require_own_size(reference, runs.read_student(run).preprocess, input_size)
        return runs.load_run(run)[0]
    if (folder := parsed.folder("specialists")) is not None:
        model = specialists.combined(folder, load_model)
        require_own_size(reference, model.preprocess, input_size)
        return model
    model_task = task_of_model(reference, task)
    assert model_task is not None
    return model_task.load_model(reference, input_size)


def parsed_model(reference: str, permitted: str = MODELS) -> Reference:
    """`reference`, whose scheme is that of a model; raises KdcError that names all that is `permitted`."""
    if is_table(reference):
        raise KdcError(f"{reference} is a table of answers, not a model", "only kdc distill learns from one")
    parsed = Reference.parse(reference)
    if parsed.scheme == "api":
        raise KdcError(
            f"{reference} is asked by kdc predict alone, once for each prompt",
            "kdc predict --teacher api:… --out completions.jsonl, then --teacher outputs:completions.jsonl",
        )
    known = [*dict.fromkeys(name for row in TASKS.values() for name in row.models), *OWN]
    if parsed.scheme not in known or not parsed.rest:
        meant = [word for word in (*known, "outputs", *NO_MODEL) if word in permitted]
        near = did_you_mean(parsed.scheme, [word for word in meant if (word in NO_MODEL) == (parsed.rest is None)])
        raise KdcError(f"teacher {reference!r} is not one of {permitted}{near}", "for example --teacher timm:resnet50")
    return parsed


def require_own_size(reference: str, preprocess: Preprocess, input_size: int | None) -> None:
    """Raise KdcError where a model that kdc trained is asked for another input size than its own."""
    if input_size not in (None, preprocess.size):
        raise KdcError(
            f"{reference} keeps the input size that it was trained at: {preprocess.described}",
            "leave out --input-size (of texts, --max-length; of sounds, --clip-seconds)",
        )


def with_class_file(model: LoadedModel, file: Path) -> LoadedModel:
    """`model` with the class names in `file`: one a line, in the order of its outputs."""
    if model.headless:
        raise headless(model, "there are no outputs that --teacher-classes could name")
    names = class_file_names(file)
    outputs = outputs_of(model)
    if len(names) != outputs or len(set(names)) != outputs:
        raise KdcError(
            f"--teacher-classes {file} has {len(set(names))} different names, the teacher has {outputs} outputs",
            "one name a line, in the order of the outputs",
        )
    return replace(model, class_names=tuple((name,) for name in names))


def class_file_names(file: Path) -> list[str]:
    """The names in a file of `--teacher-classes`; raises KdcError where it cannot be read, or one is no name."""
    try:
        lines = lines_of(read_bytes(file, most=MOST_BYTES).decode("utf-8-sig"))
    except (KdcError, UnicodeDecodeError) as error:
        raise KdcError(
            f"--teacher-classes {file} cannot be read: {error}", "a text file, one class name a line"
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip() and (fault := class_fault(line)):
            raise KdcError(f"--teacher-classes {file} line {number}: the class name {escaped(line)} {fault}")
    return [spelt(line) for line in lines if line.strip()]
