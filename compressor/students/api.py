"""`kdc students`: candidates for a device, measured on it before any is trained."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, KdcError, did_you_mean, os_error
from compressor.export.builders import builder_of
from compressor.files.cache import cache_folder
from compressor.files.locks import is_lock, locked
from compressor.measure.devices import DeviceUrl, diagnose_device, missing_on
from compressor.measure.doctor import diagnose, missing_for
from compressor.models import load_model
from compressor.models.loaded import LoadedModel
from compressor.processes.cores import usable_cores
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.schema.base import write_json
from compressor.schema.measurement import Machine, Measurement
from compressor.schema.profile import Profile
from compressor.schema.students import Entrant, Field, Figures, Students, Wish
from compressor.students.exporting import entry
from compressor.students.figures import failures, figures_of
from compressor.students.kept import Kept, machine_line, shelf
from compressor.students.measuring import ROUNDS, SLOWER, disturbed, measure_field, sessions_of
from compressor.students.skeletons import MEASURED, make_skeletons
from compressor.students.table import answered, rank_agreement, unjudged
from compressor.tasks.table import DEFAULT, TASKS, candidates_of

__all__ = ["Wanted", "entries_of", "screened", "students", "tell_impossible"]


@dataclass(frozen=True)
class Wanted:
    """What to measure. `names`: candidates, as "timm:NAME" or NAME; none: the whole catalogue. `input_sizes`: pixels;
    none: the profile's. `fresh`: measure what is kept, too. `beside`: more networks, each at its input size.
    `rounds`: blocks of each artefact; what is kept of fewer is measured again. `surgery`: the catalogue's networks
    changed for speed, too. `teacher`: a reference to the model that they are made of, where a task's are."""

    classes: int = 1000
    input_sizes: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    fresh: bool = False
    task: str = DEFAULT
    beside: tuple[tuple[str, int], ...] = ()
    rounds: int = ROUNDS
    surgery: bool = False
    teacher: str | None = None


def students(profile: Profile, wanted: Wanted, url: DeviceUrl, *, python: str | None, progress: Progress) -> Students:
    """Measure the candidates for `profile` on the device at `url`: latency, size and memory, of drawn weights.

    What is kept of the same machine, runtimes and settings is not measured again. Raises KdcError: for a name that
    nobody knows, before anything is made; exit 4 where a runtime is missing on the device.
    """
    teacher = None if wanted.teacher is None else load_model(wanted.teacher, task=wanted.task)
    entries, variants = entries_of(wanted, profile, teacher), screened(profile, TASKS[wanted.task].runtimes)
    if not variants:
        reason = f"profile {profile.name} has nothing that can be measured before training"
        raise KdcError(reason, "add a float precision to one of its targets")
    runtimes = {runtime for runtime, _ in variants}
    targets = tuple(target for target in profile.targets if target.runtime in runtimes)
    machine, versions = _device(profile.model_copy(update={"targets": targets}), url, python, progress)
    tell_impossible(wanted, progress)
    made_of = "" if teacher is None else candidates_of(wanted.task).identity(teacher)
    kept = Kept(shelf(wanted.task), machine, profile, versions, made_of)
    figures, wishes = _known(wanted, kept, entries, variants)
    known = len(figures)
    progress.note(
        f"{len(entries)} candidates, each as {', '.join('-'.join(variant) for variant in variants)}; "
        f"{len(wishes)} are to be exported and measured, of the others all figures are kept"
    )
    references: list[_Reference] = []
    told = _measured(wishes, profile, url, python, references, wanted.rounds, progress) if wishes else ()
    for row, reference in told:
        kept.add(row, reference)
        figures[row.student.removeprefix("timm:"), row.input_size, row.runtime, row.precision] = row
    drift = [reference[1] for reference in references if reference is not None]
    rows = [figures[(name, size, *variant)] for variant, (name, size) in product(variants, entries)]
    if not any(row.p50_ms is not None for row in rows):
        reasons = "; ".join(dict.fromkeys(row.error for row in rows if row.error))
        raise KdcError(f"none of the candidates could be measured: {reasons}", exit_code=EXIT_INCONCLUSIVE)
    return Students(
        profile=profile.name,
        device="this machine" if url.kind == "local" else url.name,
        machine=machine_line(machine),
        batch=profile.batch,
        threads=profile.threads,
        classes=wanted.classes,
        rows=answered(rows, profile.budget),
        not_judged=unjudged(profile.budget),
        not_screened=_left_out(profile, variants, TASKS[wanted.task].runtimes),
        ranked_against="-".join(variants[0]),
        rank_agreement=rank_agreement(rows),
        kept=known,
        sessions=len(drift),
        drift=max(drift) / min(drift) if len(drift) > 1 else None,
        unit="px" if teacher is None else "tokens",
    )


def _known(
    wanted: Wanted, kept: Kept, entries: dict[tuple[str, int], str], variants: Sequence[tuple[str, str]]
) -> tuple[dict[tuple[str, int, str, str], Figures], list[Wish]]:
    """What is kept, by name, input size, runtime and precision; and what is to be made for the rest."""
    figures: dict[tuple[str, int, str, str], Figures] = {}
    wishes = []
    for (name, size), family in entries.items():
        known = {} if wanted.fresh else kept.find(name, size, wanted.classes, variants)
        known = {variant: row for variant, row in known.items() if row.p50_ms and row.p50_ms.n >= wanted.rounds}
        figures |= {(name, size, *variant): row for variant, row in known.items()}
        missing = tuple(variant for variant in variants if variant not in known)
        wish = Wish(
            task=wanted.task, name=name, family=family, input_size=size, classes=wanted.classes, variants=missing,
            teacher=wanted.teacher,
        )  # fmt: skip
        wishes += [wish] if missing else []
    return figures, wishes


def tell_impossible(wanted: Wanted, progress: Progress) -> None:
    """Say which changes for speed cannot be had here, where they are wanted."""
    if wanted.surgery and (why := candidates_of(wanted.task).impossible()) is not None:
        progress.note(why)


def entries_of(wanted: Wanted, profile: Profile, teacher: LoadedModel | None = None) -> dict[tuple[str, int], str]:
    """(Candidate, input size) -> its family, in the catalogue's order."""
    default = profile.input_size
    if teacher is not None:
        default = candidates_of(wanted.task).length_of(teacher, profile.sequence_length)
    sizes = tuple(dict.fromkeys(wanted.input_sizes or (default,)))
    families = _families(wanted, teacher)
    entries = {(name, size): family for size, (name, family) in product(sizes, families.items())}
    return entries | {entry: families.get(entry[0], "-") for entry in wanted.beside}


def _left_out(profile: Profile, variants: Sequence[tuple[str, str]], built: Sequence[str] = ()) -> dict[str, str]:
    """The profile's variants that are not screened, and why. `built`: the runtimes that the task's models are built
    for; none named: all."""
    pairs = [(target.runtime, precision) for target in profile.targets for precision in target.precisions]
    unbuilt = "kdc cannot build these students for it yet"
    return {
        "-".join(pair): _why_not(pair, variants) if not built or pair[0] in built else unbuilt
        for pair in pairs if pair not in variants
    }  # fmt: skip


def _why_not(pair: tuple[str, str], variants: Sequence[tuple[str, str]]) -> str:
    runtime, precision = pair
    others = [name for name, _ in variants]
    if RUNTIMES[runtime].slow_export and runtime not in others:
        return f"an export for {runtime} takes tens of seconds a candidate, and the profile has another runtime"
    if precision == "int8":
        return f"there is no quick way to {runtime}'s int8"
    return f"{'-'.join(variants[others.index(runtime)])} stands for {runtime} in float"


def screened(profile: Profile, built: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """The (runtime, precision) pairs that tell candidates apart: of each runtime the first float precision, and int8
    where it has a quick way there. Runtimes whose export takes tens of seconds a model are left out, unless the profile
    has no other. `built`: those that the candidates are built for; none named: all."""
    quick = [target for target in profile.targets if not RUNTIMES[target.runtime].slow_export]
    pairs = []
    for target in quick or profile.targets:
        floats = [precision for precision in target.precisions if precision != "int8"]
        pairs += [(target.runtime, precision) for precision in floats[:1]]
        quantizer = builder_of(target.runtime).quantizer
        if "int8" in target.precisions and quantizer is not None and quantizer.skeleton is not None:
            pairs.append((target.runtime, "int8"))
    return tuple(pair for pair in pairs if not built or pair[0] in built)


def _families(wanted: Wanted, teacher: LoadedModel | None) -> dict[str, str]:
    """Candidate -> its family, in the catalogue's order."""
    task = candidates_of(wanted.task)
    catalogue: dict[str, Sequence[str]] = task.CATALOGUE if teacher is None else task.catalogue_of(teacher)
    known = {name: family for family, names in catalogue.items() for name in names}
    chosen: dict[str, str] = {}
    for typed in wanted.names or known:
        name = typed.removeprefix("timm:")
        if name not in known and not task.is_known(name):
            raise KdcError(
                f"--student {typed} is no candidate{did_you_mean(name, known)}",
                f"the catalogue has: {', '.join(known)}"
                + ("; any other model of timm may be named too" if teacher is None else ""),
            )
        forms = (name, *task.possible(name)) if wanted.surgery and "+" not in name else (name,)
        chosen |= dict.fromkeys(forms, known.get(task.base_of(name), "-"))
    return chosen


def _device(
    profile: Profile, url: DeviceUrl, python: str | None, progress: Progress
) -> tuple[Machine, dict[str, str | None]]:
    """What machine it is, and the versions of its runtimes. Raises KdcError (exit 4) where one is missing."""
    if url.kind == "local":
        here = diagnose()
        machine, checks, missing = here.machine, here.runtimes, missing_for(profile, here)
    else:
        there = diagnose_device(url, python=python, progress=progress)
        machine, checks, missing = there.machine, there.runtimes, missing_on(profile, there)
    if missing:
        raise KdcError(
            f"profile {profile.name} needs runtimes that do not work there", "; ".join(missing), EXIT_MISSING
        )
    return machine, {check.name: check.version for check in checks}


_Reference = tuple[str, float] | None
"""The field's reference and its p50 in a session; None: it did not run."""


def _measured(
    wishes: Sequence[Wish], profile: Profile, url: DeviceUrl, python: str | None,
    references: list[_Reference], rounds: int, progress: Progress,
) -> Iterator[tuple[Figures, _Reference]]:  # fmt: skip
    """Export all, then measure session by session, and tell after each, with the session's reference; `references`
    gets those of all sessions. What is told a second time was measured again, on a quieter machine."""
    with _workshop(progress) as folder:
        made = {
            skeleton.wish: skeleton for skeleton in make_skeletons(wishes, profile, folder, usable_cores(), progress)
        }
        skeletons = [made[wish] for wish in wishes]  # in the order asked for, whichever was done first
        for skeleton in skeletons:
            yield from ((row, None) for row in failures(skeleton))
        entrants = [entrant for skeleton in skeletons for entrant in skeleton.entrants]
        if not entrants:
            return
        by_label = {wish.label: wish for wish in wishes}
        field = _field(folder, profile, wishes[0].task, entrants)
        measure = partial(measure_field, folder, field, url=url, python=python, rounds=rounds, progress=progress)
        sessions = sessions_of(field)
        for number, (group, measurement) in enumerate(measure(sessions)):
            rows = _rows(group, measurement, by_label)
            references.append(_reference(group, rows))
            yield from ((row, references[-1]) for row in (rows if number == 0 else rows[1:]))
        yield from _repeated(sessions, references, by_label, measure, progress)


def _repeated(
    sessions: Sequence[Sequence[Entrant]], references: list[_Reference], by_label: dict[str, Wish],
    measure: Callable[..., Iterator[tuple[Sequence[Entrant], Measurement]]], progress: Progress,
) -> Iterator[tuple[Figures, _Reference]]:  # fmt: skip
    """Measure disturbed sessions once more; of each the quieter one stands, as the reference says."""
    again = disturbed([reference and reference[1] for reference in references])
    if again:
        progress.note(
            f"the reference was slower by more than {SLOWER - 1:.0%} in {len(again)} of {len(sessions)} sessions: they "
            "are repeated"
        )
    try:
        for number, (group, measurement) in zip(again, measure([sessions[number] for number in again]), strict=True):
            rows = _rows(group, measurement, by_label)
            before, reference = references[number], _reference(group, rows)
            if before is not None and reference is not None and reference[1] < before[1]:
                references[number] = reference
                yield from ((row, reference) for row in (rows if number == 0 else rows[1:]) if row.error is None)
    except KdcError as error:
        if error.exit_code != EXIT_INCONCLUSIVE:
            raise
        progress.warn(f"{error.message}; what was measured before stands")


def _rows(group: Sequence[Entrant], measurement: Measurement, wishes: dict[str, Wish]) -> list[Figures]:
    return [figures_of(wishes[entrant.candidate], entrant, measurement) for entrant in group]


def _reference(group: Sequence[Entrant], rows: Sequence[Figures]) -> _Reference:
    """It is the first of its session."""
    p50 = rows[0].p50_ms
    return (group[0].name, p50.value) if p50 is not None else None


@contextmanager
def _workshop(progress: Progress) -> Iterator[Path]:
    """A folder for the artefacts, of this call alone. What a kill left of others, gigabytes perhaps, is cleared."""
    shelf = cache_folder() / "students-being-made"
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        for left in shelf.iterdir():
            with suppress(KdcError), locked(left, "kdc students"):  # one that is still at work holds its own
                _clear(left)
        folder = Path(tempfile.mkdtemp(dir=shelf))
    except OSError as error:
        raise os_error(error, f"preparing {shelf}") from error
    try:
        with locked(folder, "kdc students", warn=progress.warn):
            yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
        with suppress(OSError):  # others are at work
            shelf.rmdir()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if not is_lock(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _field(folder: Path, profile: Profile, task: str, entrants: Sequence[Entrant]) -> Field:
    """The manifest of the field, with drawn inputs beside it."""
    support = []
    for name, preprocess in {entrant.inputs: entrant.preprocess for entrant in entrants}.items():
        candidates_of(task).drawn(preprocess, max(MEASURED, profile.batch), folder / name)
        support.append(entry(folder, folder / name))
    field = Field(profile=profile, reference=entrants[0].name, variants=tuple(entrants), support=tuple(support))
    write_json(folder / "bundle.json", field)
    return field
