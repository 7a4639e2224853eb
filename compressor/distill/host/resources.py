"""What a training may use beside its request, and what its student must not depend on: disk, caches, trackers."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ByteSize, TypeAdapter

from compressor.errors import KdcError, needs, os_error
from compressor.files.cache import cache_folder

__all__ = ["Resources", "free_bytes", "readable", "size_in_bytes", "taken_bytes"]

SIZE = TypeAdapter(ByteSize)
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
SHARE_OF_FREE = 0.5
SHARE_OF_ANSWERS = 0.25
"""Of the free disk, what answers may take that nobody asked to keep."""


@dataclass(frozen=True)
class Resources:
    """`decode_cache`: bytes that decoded images may take on disk beside the run; None: half of what is free; 0: they
    are decoded anew each time. `teacher_cache`: where a teacher's answers are kept; None: nowhere. `tracker`: what
    gets a row an epoch besides history.jsonl. `unnamed`: nobody said where answers are to be kept; `answers_budget`:
    bytes that all in `teacher_cache` may take, which is a run's own folder then; None: it is the user's."""

    decode_cache: int | None = None
    teacher_cache: Path | None = field(default_factory=lambda: cache_folder() / "teacher-answers")
    tracker: str | None = None
    unnamed: bool = False
    answers_budget: int | None = None

    @classmethod
    def of(cls, decode_cache: str | int | None, teacher_cache: str | None, tracker: str | None) -> "Resources":
        """From what was typed; raises KdcError."""
        if tracker is not None:
            if tracker not in TRACKERS:
                raise KdcError(f"--tracker {tracker} is not known; known: {', '.join(TRACKERS)}")
            needs(TRACKERS[tracker], f"pip install {TRACKERS[tracker]}", f"--tracker {tracker}")
        defaults = cls(tracker=tracker)
        answers = defaults.teacher_cache if teacher_cache is None else Path(teacher_cache)
        return cls(
            None if decode_cache is None else size_in_bytes(str(decode_cache), "--decode-cache"),
            None if teacher_cache == "off" else answers,
            tracker,
            unnamed=teacher_cache is None,
        )

    def within(self, folder: Path) -> "Resources":
        """With answers kept in `folder`, of a run that is not finished, and a share of the free disk for all of them.
        Raises KdcError."""
        budget = int((free_bytes(folder) + taken_bytes(folder)) * SHARE_OF_ANSWERS)
        return replace(self, teacher_cache=folder, answers_budget=budget)

    def may_decode(self, size: int, beside: Path, samples: str = "images") -> tuple[bool, str]:
        """Whether `size` bytes of decoded `samples` may lie beside a run, and a line that says why."""
        budget, rule = self.decode_cache, "--decode-cache"
        if budget is None:
            budget = int(free_bytes(beside) * SHARE_OF_FREE)
            rule = "half of what is free"
        sizes = f"{readable(size)} of decoded {samples}, {readable(budget)} permitted ({rule})"
        if size <= budget:
            return True, f"decoding once: {sizes}"
        return False, f"decoding anew in every epoch: {sizes}"


def size_in_bytes(text: str, option: str) -> int:
    """`"20GB"`, `"500 MB"` or `"off"` (0); raises KdcError that names `option`."""
    if text == "off":
        return 0
    try:
        return int(SIZE.validate_python(text))
    except (ValueError, OverflowError):  # pydantic's own is a ValueError
        raise KdcError(f"{option} {text!r} is no size", f"{option} 20GB, or {option} off") from None


def free_bytes(path: Path) -> int:
    """What is free where `path` is, or will be."""
    try:
        return shutil.disk_usage(_existing(path)).free
    except OSError as error:
        raise os_error(error, f"looking for space in {path}") from error


def taken_bytes(folder: Path) -> int:
    """What the files in `folder` take; 0 where there is none."""
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        raise os_error(error, f"looking for space in {folder}") from error


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def readable(size: int) -> str:
    """Bytes as people read them, e.g. "2.2 GB"."""
    return ByteSize(size).human_readable(decimal=True, separator=" ")
