"""`kdc students` as a function."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.api.call import StrPath, api_call, listener
from compressor.api.results_before import StudentsResult
from compressor.api.values import Assignments, assignments, optional_path, profile_of, several
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike

__all__ = ["students"]


@api_call
def students(
    *,
    profile: "ProfileLike",
    teacher: str | None = None,
    classes: int = 1000,
    input_size: int | Sequence[int] = (),
    student: str | Sequence[str] = (),
    allow_surgery: bool = False,
    device: str = "local",
    device_python: str | None = None,
    set: Assignments | None = None,
    fresh: bool = False,
    csv: StrPath | None = None,
    progress: bool | Progress = False,
) -> StudentsResult:
    """Candidates for a student, measured on the device before any is trained: latency, size, memory, the budget.

    Args:
        profile: name, path or Profile: what to build, how many threads, which budget.
        teacher: of texts, the model that candidates are made of: "run:DIR", "hf:REPO_OR_PATH".
        classes: of the task.
        input_size: pixels, one or several; none: the profile's. Of texts the profile says it: sequence_length.
        student: only these, as "timm:NAME"; none: the whole catalogue. Of texts "layers:N", "layers:N,width:W",
            "static:D"; none: 1 to all of the teacher's layers, in several widths, and some tables.
        allow_surgery: those changed for speed, too: hard-swish and SiLU to ReLU, squeeze-excite out, channels pruned.
        device: "local", "ssh://[USER@]HOST[:PORT][/FOLDER]" or "adb:SERIAL[/FOLDER]".
        device_python: the interpreter on the device.
        set: values of the profile, `{"budget.p90_ms": 20}` or `["budget.p90_ms=20"]`.
        fresh: measure anew what is kept, too.
        csv: a file that all figures are written to.

    Raises:
        KdcError: for a name that nobody knows, before anything is made; exit code 4 where a runtime is missing.
    """
    from compressor.files.atomic import write_text
    from compressor.measure.devices import parse_device
    from compressor.students import Wanted, students_task, to_csv, to_text
    from compressor.students import students as run

    heard, out = listener(progress), optional_path(csv, "--csv")
    chosen = profile_of(profile, assignments(set))
    sizes = (input_size,) if isinstance(input_size, int) else tuple(input_size)
    names = tuple(several(student, "--student"))
    task = students_task(teacher, names, unfit={"--input-size": sizes, "--allow-surgery": allow_surgery})
    wanted = Wanted(classes, sizes, names, fresh, task, surgery=allow_surgery, teacher=teacher)
    answer = run(chosen, wanted, parse_device(device), python=device_python, progress=heard)
    if out is not None:
        write_text(out, to_csv(answer))
    return StudentsResult(answer, to_text(answer), heard.warnings)
