"""`kdc students --estimate` as a function, and what it returns."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.api.call import StrPath, api_call, listener
from compressor.api.shown import Shown
from compressor.api.values import Assignments, assignments, optional_path, profile_of, several
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike
    from compressor.schema.unmeasured import Estimates

__all__ = ["EstimatesResult", "estimate_students"]


@dataclass(frozen=True, repr=False)
class EstimatesResult(Shown):
    """Candidates for a student, estimated and not measured: the `answer` as a noun, and as a table for people."""

    answer: "Estimates"
    text: str
    warnings: tuple[str, ...] = ()

    @property
    def ranking(self) -> dict[str, tuple[str, ...]]:
        """By runtime and precision, the candidates as "timm:NAME", the one that is estimated fastest first."""
        variants = dict.fromkeys(row.variant for row in self.answer.rows)
        return {name: tuple(row.student for row in self.answer.rows if row.variant == name) for name in variants}

    @property
    def summary(self) -> str:
        students = {row.student for row in self.answer.rows}
        return f"{len(students)} candidates estimated for {self.answer.profile}; nothing was measured"

    def to_dict(self) -> dict[str, Any]:
        return self.answer.model_dump(mode="json")

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}<pre>{html.escape(self.text)}</pre>"


@api_call
def estimate_students(
    *,
    profile: "ProfileLike",
    classes: int = 1000,
    input_size: int | Sequence[int] = (),
    student: str | Sequence[str] = (),
    allow_surgery: bool = False,
    set: Assignments | None = None,
    csv: StrPath | None = None,
    progress: bool | Progress = False,
) -> EstimatesResult:
    """As `students`, for a device that is not at hand: p50 is estimated, nothing is measured and nothing judged.

    Args:
        profile: name, path or Profile: its facts, and by its fingerprint the figures that are kept of the device.
        classes: of the task.
        input_size: pixels, one or several; none: the profile's.
        student: only these, as "timm:NAME"; none: the whole catalogue.
        allow_surgery: those changed for speed, too: hard-swish and SiLU to ReLU, squeeze-excite out, channels pruned.
        set: values of the profile, `{"threads": 1}` or `["threads=1"]`.
        csv: a file that all estimates are written to.

    Raises:
        KdcError: for a name that nobody knows; where the profile does not say what an estimate needs.
    """
    from compressor.files.atomic import write_text
    from compressor.students import Wanted, students_task
    from compressor.students.estimate import estimate_students as run
    from compressor.students.estimate import to_csv, to_text

    heard, out = listener(progress), optional_path(csv, "--csv")
    sizes = (input_size,) if isinstance(input_size, int) else tuple(input_size)
    names = tuple(several(student, "--student"))
    students_task(None, names, unfit={})
    wanted = Wanted(classes, sizes, names, surgery=allow_surgery)
    answer = run(profile_of(profile, assignments(set)), wanted, heard)
    if out is not None:
        write_text(out, to_csv(answer))
    return EstimatesResult(answer, to_text(answer), heard.warnings)
