"""The one table of tasks. Adding a modality is a folder beside this file and a row here."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compressor.errors import KdcError, did_you_mean
from compressor.schema.preprocess import AudioPreprocess, ImagePreprocess, LanguagePreprocess, TextPreprocess

if TYPE_CHECKING:
    from compressor.tasks.base import Task
    from compressor.tasks.shipping import Shipping

__all__ = [
    "DEFAULT",
    "TASKS",
    "TaskRow",
    "candidates_of",
    "require_able",
    "require_runtimes",
    "shipping_of",
    "task_named",
]


@dataclass(frozen=True)
class TaskRow:
    """`module`: where its TASK is; imported when it is asked for, since tasks bring torch along. `data`, `models`: the
    schemes of its references, as "folder" in folder:PATH. `named`: the schemes of models that a name alone describes,
    so that they can be made at random. `shipping`: where its SHIPPING is, which brings no torch along.
    `candidates`: where its CATALOGUE of students is; "" where it has none. `students`: the schemes of its students, and
    `student`, the default one. `teaching`: the recipe of `kdc teach` (distill/regimes/), and `regime`, that of `kdc
    distill`, where it does not go by the data; `regimes`: those of some schemes of students. `signs`: where it is told
    how its data and models are known. `columns`: whether columns of its tables may be stated. `size`: the option that
    says how large a sample is. `beside`: its files lie beside those of other tasks too, as captions do. `runtimes`:
    those that its models are built for; none named: all. `shown`: what a batch is made of, where that is parts of
    samples. `completes`: where its `answerer` is, of models that answer prompts in words, and what makes training data
    of such answers; `sequence`: the recipe for these. `lacks`: what kdc cannot do with it yet."""

    module: str
    data: tuple[str, ...]
    models: tuple[str, ...]
    named: tuple[str, ...]
    shipping: str = "compressor.tasks.shipping"
    candidates: str = ""
    students: tuple[str, ...] = ()
    student: str = ""
    teaching: str = "teach"
    regime: str = ""
    regimes: Mapping[str, str] = field(default_factory=dict)
    signs: str = ""
    columns: bool = False
    size: str = "--input-size"
    beside: bool = False
    runtimes: tuple[str, ...] = ()
    shown: str = ""
    completes: str = ""
    sequence: str = ""
    generates: str = ""
    lacks: tuple[str, ...] = ()


TASKS: dict[str, TaskRow] = {
    ImagePreprocess.task: TaskRow(
        "compressor.tasks.image_classification.task",
        ("folder", "idx", "parquet", "csv", "hf", "digits"),
        ("timm", "hf"),
        ("timm",),
        "compressor.tasks.image_classification.shipping",
        "compressor.tasks.image_classification.candidates",
        students=("timm",),
        student="timm:mobilenetv3_small_100",
        signs="compressor.tasks.image_classification.signs",
    ),
    TextPreprocess.task: TaskRow(
        "compressor.tasks.text_classification.task",
        ("csv", "parquet", "hf", "folder"),
        ("hf",),
        ("hf",),
        "compressor.tasks.text_classification.shipping",
        "compressor.tasks.text_classification.candidates",
        students=("layers", "static", "hf"),
        student="layers:half",
        teaching="text_teach",
        regime="text",
        regimes={"static": "text_static"},
        signs="compressor.tasks.text_classification.signs",
        columns=True,
        size="--max-length",
        beside=True,
        runtimes=("onnxruntime", "openvino"),
        lacks=("kdc specialists", "--qat", "--students"),
    ),
    AudioPreprocess.task: TaskRow(
        "compressor.tasks.audio_classification.task",
        ("folder", "csv", "parquet", "hf"),
        ("timm", "hf", "mlp"),
        ("timm", "mlp"),
        "compressor.tasks.audio_classification.shipping",
        students=("timm", "mlp", "hf"),
        student="timm:mobilenetv3_small_100",
        teaching="audio_teach",
        regime="audio",
        signs="compressor.tasks.audio_classification.signs",
        runtimes=("onnxruntime", "openvino"),
        size="--clip-seconds",
        lacks=("kdc specialists", "--qat", "--students", "--profile"),
    ),
    LanguagePreprocess.task: TaskRow(
        "compressor.tasks.causal_lm.task",
        ("jsonl", "csv", "parquet", "hf", "folder", "text"),
        ("hf",),
        ("hf",),
        "compressor.tasks.causal_lm.card",
        students=("layers", "hf"),
        student="layers:half",
        teaching="language_teach",
        regime="language",
        signs="compressor.tasks.causal_lm.signs",
        columns=True,
        size="--max-length",
        shown="blocks",
        completes="compressor.tasks.causal_lm.generation",
        sequence="language_sequence",
        generates="compressor.tasks.causal_lm.shipped",
        lacks=(
            *("kdc specialists", "--qat", "--students", "--profile", "--control"),
            *("--assistant", "--plan", "--precompute", "--race-losses"),
        ),
    ),
}

DEFAULT = ImagePreprocess.task

PAGES = {
    TextPreprocess.task: "text.md",
    AudioPreprocess.task: "sound.md",
    LanguagePreprocess.task: "language.md",
}
"""The page of docs/ that is about a task."""


def task_named(name: str) -> "Task":
    """The task of that name; raises KdcError where there is none."""
    if name not in TASKS:
        raise KdcError(f"there is no task {name!r}{did_you_mean(name, TASKS)}", f"known: {', '.join(TASKS)}")
    task: Task = importlib.import_module(TASKS[name].module).TASK
    return task


def shipping_of(name: str) -> "Shipping":
    """What of a bundle's best/ is this task's."""
    shipping: Shipping = importlib.import_module(TASKS[name].shipping).SHIPPING
    return shipping


def candidates_of(name: str) -> Any:
    """The module with the task's CATALOGUE of students, family -> names, or where they are made of a teacher, its
    `catalogue_of`; `create` and `drawn`. Raises KdcError."""
    if not TASKS[name].candidates:
        raise KdcError(f"there is no catalogue of students for {name}", "name one: kdc distill --student …")
    return importlib.import_module(TASKS[name].candidates)


def require_able(task: str, what: str) -> None:
    """Raise KdcError where kdc cannot do `what` with the task yet, as "kdc export"."""
    if task in TASKS and what in TASKS[task].lacks:
        page = PAGES.get(task, "usage.md")
        raise KdcError(f"{what}: kdc cannot do that for {task} yet", f"docs/{page} says what it can")


def require_runtimes(task: str, runtimes: Iterable[str]) -> None:
    """Raise KdcError where kdc cannot build the task's models for one of these yet."""
    built = TASKS[task].runtimes if task in TASKS else ()
    for runtime in runtimes if built else ():
        if runtime not in built:
            raise KdcError(
                f"kdc export: kdc cannot build {task} for {runtime} yet; it can for {', '.join(built)}",
                f"--target {built[0]}, or another --profile",
            )
