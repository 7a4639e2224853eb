"""Specialists: what `kdc specialists` leaves on disk, DIR/run.json and DIR/specialists.json."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.class_names import ClassNames
from compressor.schema.preprocess import TaskName
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy, DataInfo, Weights, trained_anew

__all__ = ["Specialist", "Specialists", "SpecialistsRequest"]


class SpecialistsRequest(Noun):
    """DIR/run.json, written first: what was asked for, wholly resolved. `--resume` continues only the same request.
    References are as typed. `count`: how many specialists; `recipe`: how each is trained."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: TaskName
    command: Literal["specialists"] = "specialists"
    teacher: str
    data: str
    skip_bad: bool
    input_size: int | None
    count: Annotated[int, Field(ge=1)]
    recipe: Recipe

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return trained_anew(path)


class Specialist(Noun):
    """One specialist: the classes it knows, its run's folder within DIR, the sha256 of its weights, and how it does on
    the validation split, where all other classes are one."""

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    run: str
    sha256: str
    validation: Accuracy


class Specialists(Noun):
    """DIR/specialists.json, written last: a generalist and its specialists, which together are a teacher.

    `generalist`: a reference as typed (`source`), and whose weights those were; `input_size`: what it was loaded at.
    `alone`: classes that the generalist answers without a specialist. `generalist_validation` and `validation`: its
    accuracy, and that of all together, on the same samples.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: TaskName
    made_by: Literal["specialists"] = "specialists"
    generalist: Weights
    input_size: int | None
    class_names: ClassNames
    specialists: Annotated[tuple[Specialist, ...], Field(min_length=1)]
    alone: tuple[str, ...]
    data: DataInfo
    recipe: Recipe
    generalist_validation: Accuracy
    validation: Accuracy

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return trained_anew(path)
