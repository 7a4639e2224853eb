"""`--task`, and the options that only some tasks take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.api.values import several
from compressor.errors import KdcError
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.schema.student import Columns

__all__ = ["TaskAsked", "task_asked"]


@dataclass(frozen=True)
class TaskAsked:
    """As typed. `text_column`: one, or the two of a pair; `unfit`: options of images, and `decode_cache`, that were
    given, by their names."""

    task: str | None
    text_column: Sequence[str]
    label_column: str | None
    max_length: int | None
    input_size: int | None = None
    clip_seconds: float | None = None
    unfit: Sequence[str] = ()

    def named(self, data: str, teachers: Sequence[str], students: Sequence[str], heard: Progress) -> str:
        """Which task it is, said where that is not plain. Raises KdcError for options that it does not take."""
        from compressor.tasks.inference import inferred
        from compressor.tasks.table import TASKS

        told = inferred(data, teachers, students, task=self.task, stated_columns=bool(self.text_column))
        if told.said:
            heard.note(f"task {told.name} ({told.why})")
        row = TASKS[told.name]
        for option, (value, what) in self._sizes.items():
            if value is not None and option != row.size:
                hint = "leave it out, or state --task" if row.size == "--input-size" else f"{row.size} …"
                raise KdcError(f"{option} is of {what}, and this is {told.name}", hint)
        if not row.columns:
            for option, named in (("--text-column", self.text_column), ("--label-column", self.label_column)):
                if named:
                    raise KdcError(f"{option} is of texts, and this is {told.name}", "leave it out, or state --task")
        elif len(self.text_column) > 2:
            raise KdcError(
                f"--text-column is given {len(self.text_column)} times, and a sample has one text, or two",
                "one, or two",
            )
        if "--students" in row.lacks:
            unfit = [name for name in self.unfit if row.columns or name != "--decode-cache"]
            if unfit:
                raise KdcError(f"{unfit[0]} is of images, and this is {told.name}", "leave it out")
        return told.name

    @property
    def _sizes(self) -> dict[str, tuple[float | None, str]]:
        """The options that say how large a sample is, and of what."""
        return {
            "--input-size": (self.input_size, "images"),
            "--max-length": (self.max_length, "texts"),
            "--clip-seconds": (self.clip_seconds, "sounds"),
        }

    @property
    def size(self) -> int | None:
        """Of what a model takes: pixels, tokens, or milliseconds."""
        if self.clip_seconds is not None:
            return round(1000 * self.clip_seconds)
        return self.input_size if self.max_length is None else self.max_length

    @property
    def columns(self) -> "Columns":
        from compressor.schema.base import parse
        from compressor.schema.student import Columns

        return parse(Columns, {"text": tuple(self.text_column), "label": self.label_column}, "--text-column")


def task_asked(given: Mapping[str, Any]) -> TaskAsked:
    """Of the keywords of a command."""
    plain = {"decode_cache": None, "device": "local", "device_python": None, "allow_surgery": False, "race_share": 0.5}
    unfit = [f"--{name.replace('_', '-')}" for name, value in plain.items() if given.get(name, value) != value]
    columns = several(given["text_column"], "--text-column")
    return TaskAsked(
        given["task"], columns, given["label_column"], given.get("max_length"), given.get("input_size"),
        given.get("clip_seconds"), unfit,
    )  # fmt: skip
