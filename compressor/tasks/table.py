"""The one table of tasks. Adding a modality is a folder beside this file and a row here."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import KdcError, did_you_mean
from compressor.references import Reference
from compressor.schema.preprocess import ImagePreprocess

if TYPE_CHECKING:
    from compressor.tasks.base import Task
    from compressor.tasks.shipping import Shipping

__all__ = [
    "DEFAULT",
    "TASKS",
    "TaskRow",
    "candidates_of",
    "name_for_data",
    "shipping_of",
    "task_named",
    "task_of_data",
    "task_of_model",
]


@dataclass(frozen=True)
class TaskRow:
    """`module`: where its TASK is; imported when it is asked for, since tasks bring torch along. `data`, `models`: the
    schemes of its references, as "folder" in folder:PATH. `named`: the scheme of models that a name alone describes, so
    that they can be made at random. `shipping`: where its SHIPPING is, which brings no torch along.
    `candidates`: where its CATALOGUE of students is; "" where it has none."""

    module: str
    data: tuple[str, ...]
    models: tuple[str, ...]
    named: str
    shipping: str = "compressor.tasks.shipping"
    candidates: str = ""


TASKS: dict[str, TaskRow] = {
    "image-classification": TaskRow(
        "compressor.tasks.image_classification.task",
        ("folder", "idx", "parquet", "csv", "hf", "digits"),
        ("timm", "hf"),
        "timm",
        "compressor.tasks.image_classification.shipping",
        "compressor.tasks.image_classification.candidates",
    ),
}

DEFAULT = ImagePreprocess.task


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
    """The module with the task's CATALOGUE of students: family -> names, `create` and `drawn`. Raises KdcError."""
    if not TASKS[name].candidates:
        raise KdcError(f"there is no catalogue of students for {name}", "name one: kdc distill --student …")
    return importlib.import_module(TASKS[name].candidates)


def name_for_data(reference: str) -> str:
    """The name of the task that learns from such data; where several do, the default one. What none knows is for the
    default task to refuse."""
    scheme = Reference.parse(reference).scheme
    knowing = [name for name, row in TASKS.items() if scheme in row.data]
    return DEFAULT if DEFAULT in knowing or not knowing else knowing[0]


def task_of_data(reference: str) -> "Task":
    """The task of that name."""
    return task_named(name_for_data(reference))


def task_of_model(scheme: str) -> "Task | None":
    """The task whose models have references that begin with `scheme`; the default one where several have."""
    knowing = [name for name, row in TASKS.items() if scheme in row.models]
    return task_named(DEFAULT if DEFAULT in knowing else knowing[0]) if knowing else None
