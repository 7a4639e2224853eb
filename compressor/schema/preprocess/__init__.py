"""Preprocess: how a sample becomes the input of one model. It travels with the weights; one class a task."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, WithJsonSchema

from compressor.schema.preprocess.base import PixelRange, Preprocess
from compressor.schema.preprocess.images import ImagePreprocess, Interpolation, Three
from compressor.schema.preprocess.sounds import AudioPreprocess
from compressor.schema.preprocess.texts import LanguagePreprocess, TextPreprocess

__all__ = [
    "PREPROCESS",
    "AudioPreprocess",
    "ImagePreprocess",
    "Interpolation",
    "LanguagePreprocess",
    "OfTask",
    "PixelRange",
    "Preprocess",
    "TaskName",
    "TextPreprocess",
    "Three",
]

PREPROCESS: dict[str, type[Preprocess]] = {
    kind.task: kind for kind in (ImagePreprocess, TextPreprocess, AudioPreprocess, LanguagePreprocess)
}
"""The class of each task. A task adds its own."""


def _of_task(value: Any, info: ValidationInfo) -> Any:
    """A Preprocess of the task that the noun around it names."""
    if isinstance(value, Preprocess):
        return value
    if "task" not in info.data:
        raise ValueError("the task that it belongs to is not known")
    kind = PREPROCESS.get(info.data["task"])
    if kind is None:
        raise ValueError(f"there is no task {info.data.get('task')!r}; known: {', '.join(PREPROCESS)}")
    return kind.model_validate(value)


TaskName = Annotated[str, Field(json_schema_extra={"enum": [*PREPROCESS]})]
"""Its schema names the tasks that come with kdc; others may be added."""

OfTask = Annotated[
    SerializeAsAny[Preprocess],
    BeforeValidator(_of_task),
    WithJsonSchema({"anyOf": [kind.model_json_schema() for kind in PREPROCESS.values()]}),
]
"""In a noun with a field `task` before it."""
