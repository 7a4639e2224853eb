"""RUN/, the folder of one training: who may write there, and what a resumed run must agree with."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from accelerate.utils import broadcast_object_list

from compressor.distill.loop.checkpoint import is_saved
from compressor.distill.run_files import (
    BEFORE,
    PARTS,
    RUN,
    SPECIALISTS,
    Kind,
    kind_of,
    link_all,
    remove,
    remove_all,
    stands_in,
    sweep,
)  # fmt: skip
from compressor.distill.run_refusals import refuse_foreign, refuse_needed, refuse_other_command, refuse_place
from compressor.errors import KdcError, os_error
from compressor.files.atomic import temporary_beside
from compressor.files.locks import is_held, locked
from compressor.processes.interruption import uninterrupted
from compressor.processes.team import team
from compressor.progress import Progress
from compressor.schema.base import flat, read_json, write_json
from compressor.schema.specialists import SpecialistsRequest
from compressor.schema.student import Request, Student

__all__ = ["Destination", "acquire", "acquired", "discard_backup", "held", "rollback", "start"]


@dataclass(frozen=True)
class Destination:
    """Where a run goes: its `folder`; whether to `resume` the one that was interrupted there, or `overwrite` what kdc
    made there earlier."""

    folder: Path
    _: KW_ONLY
    resume: bool = False
    overwrite: bool = False


@contextmanager
def acquired(out: Destination, request: Request | SpecialistsRequest, progress: Progress) -> Iterator[bool]:
    """`acquire`, and inside no other command writes there. What a kill left unfinished there is gone.

    By every process of the run before one of them changes the folder. An interruption is told what it left.
    """
    folder = out.folder
    acquire(out, request)
    is_outermost = not is_held(folder.parent) and not is_held(folder.parent.parent)  # or a part of another run
    team().wait_for_everyone()
    with held(folder, f"kdc {request.command}", progress):
        finished = acquire(out, request)
        team().wait_for_everyone()
        try:
            yield finished
        except KeyboardInterrupt:
            if is_outermost and not finished and team().is_main_process and _goes_on(folder, request):
                progress.warn(f"stopped; the state is saved in {folder}: the same command with --resume goes on")
            raise


@contextmanager
def held(out: Path, command: str, progress: Progress) -> Iterator[None]:
    """Inside, no other command writes `out`, and what a kill left unfinished in it is gone. Of several processes the
    first one sees to it; all of them hear where it cannot."""
    here = team()
    refusal: KdcError | None = None
    with ExitStack() as stack:
        if here.is_main_process:
            try:
                stack.enter_context(locked(out, command, warn=progress.warn))
                with uninterrupted():
                    sweep(out)
            except OSError as error:
                refusal = os_error(error, f"preparing {out}")
            except KdcError as error:
                refusal = error
        if here.num_processes > 1:
            said = broadcast_object_list([refusal and (refusal.message, refusal.hint, refusal.exit_code)])[0]
            refusal = KdcError(*said) if said else None
        if refusal is not None:
            raise refusal
        yield


def acquire(out: Destination, request: Request | SpecialistsRequest) -> bool:
    """Whether the folder holds a finished run of this very request, which `resume` then has nothing to do for.

    Raises KdcError where the folder may not be written: it is not a run, a run stands there and neither --resume nor
    --overwrite was given, other files lie in the run to overwrite, or something that the request names; or the run to
    resume was started with another request. With both, --resume counts: what was interrupted may have been to
    overwrite. Changes nothing.
    """
    folder, resume, overwrite = out.folder, out.resume, out.overwrite
    request_file, kind = folder / "run.json", kind_of(request)
    refuse_place(folder, request)
    if not folder.exists() or (folder.is_dir() and not stands_in(folder)):
        if resume:
            raise KdcError(f"--resume: there is no run in {folder}", "leave --resume out to start one")
        return False
    if not folder.is_dir() or not request_file.is_file():
        raise KdcError(f"--out {folder} exists and is no run of kdc, so it is left alone", "choose another --out")
    refuse_other_command(folder, request, kind, resume=resume)
    finished = (folder / kind.last).is_file() and not _awaits_control(folder, request)
    if overwrite and not resume:
        refuse_foreign(folder, kind)
        refuse_needed(folder, request)
        return False
    if not resume:
        state = "a finished run" if finished else "a run that was not finished"
        go_on = "" if finished else "--resume to go on with it, "
        kept = f"; what that was to replace is kept in {folder / BEFORE}" if (folder / BEFORE).exists() else ""
        raise KdcError(f"--out {folder} holds {state}{kept}", f"{go_on}--overwrite to replace it, or another --out")
    before = read_json(request_file, kind.request)
    differing = _differences(before, request)
    if differing:
        raise KdcError(
            f"--resume: the run in {folder} was started with other settings: {'; '.join(differing)}",
            f"{'leave --resume out to replace it' if overwrite else 'give the same command again'}, or choose another "
            "--out",
        )
    return finished


def _awaits_control(folder: Path, request: Request | SpecialistsRequest) -> bool:
    """Whether the student in `folder` is whole, and the control that was asked for is not held against it yet. Of a
    damaged student.json whoever loads it tells."""
    if not isinstance(request, Request) or not request.control:
        return False
    with suppress(KdcError):
        return read_json(folder / "student.json", Student).gain is None
    return False


def _goes_on(folder: Path, request: Request | SpecialistsRequest) -> bool:
    """Whether what lies in `folder` is a run of this request."""
    with suppress(KdcError):
        return not _differences(read_json(folder / "run.json", kind_of(request).request), request)
    return False


def start(out: Destination, request: Request | SpecialistsRequest) -> None:
    """Make the folder ready to be trained in: emptied unless resumed, with run.json. What stood there is kept in it
    until `discard_backup`, or comes back with `rollback`; of two, what is worth more, a finished run before one that
    can go on.
    """
    folder, kind = out.folder, kind_of(request)
    try:
        with uninterrupted():
            folder.mkdir(parents=True, exist_ok=True)
            if out.resume:
                return
            if (folder / "run.json").exists():
                _set_aside(folder, kind)
            write_json(folder / "run.json", request)
    except BaseException as error:
        if (
            not out.resume and (folder / BEFORE / "run.json").exists()
        ):  # a run to go on with is no failure of this command
            rollback(folder, kind)
        if isinstance(error, OSError):
            raise os_error(error, f"preparing {folder}") from error
        raise


def _set_aside(folder: Path, kind: Kind) -> None:
    """Killed at any moment, the old run is whole, in its place or aside. What is no part of a run stays where it is."""
    if _aside_is_better(folder):
        remove(folder, _but_request(kind))
        return
    _remove_aside(folder, kind)
    made = temporary_beside(folder / BEFORE)
    try:
        made.mkdir()
        link_all(folder, kind.leaves, made)
        made.rename(folder / BEFORE)
    except BaseException:
        if made.exists():
            remove_all(made)
        raise
    remove(folder, _but_request(kind))


def _aside_is_better(folder: Path) -> bool:
    """Of one and the same run, what is aside is the whole: the other is on its way there, or back."""
    aside, here = folder / BEFORE / "run.json", folder / "run.json"
    if not aside.exists():
        return False
    one_run = aside.read_bytes() == here.read_bytes()
    return _worth(aside.parent) + one_run > _worth(folder)


def _but_request(kind: Kind) -> list[str]:
    return [leaf for leaf in kind.leaves if leaf != "run.json"]


def _remove_aside(folder: Path, kind: Kind) -> None:
    aside = folder / BEFORE
    if aside.is_dir():
        (aside / "run.json").unlink(missing_ok=True)
        remove(aside, kind.leaves)
        if not any(aside.iterdir()):
            aside.rmdir()


def _worth(folder: Path) -> int:
    if any((folder / kind.last).exists() for kind in (RUN, SPECIALISTS)):
        return 2
    return int(is_saved(folder / "checkpoint") or any((folder / name).exists() for name in PARTS))


def discard_backup(folder: Path, kind: Kind = RUN) -> None:
    """The run in `folder` is finished: what it replaced, and what it would have gone on from, are not needed."""
    try:
        with uninterrupted():
            _remove_aside(folder, kind)
            for trained in (folder, *(folder / "stages").glob("[0-9]*")):
                remove(trained, ["checkpoint"])
    except OSError as error:
        raise os_error(error, f"removing what {folder} replaced") from error


def rollback(folder: Path, kind: Kind = RUN) -> None:
    """Nothing came of the run in `folder`: what kdc made of it goes, and what it was to replace is there again. What
    else lies there stays."""
    with uninterrupted():
        aside = folder / BEFORE
        if (aside / "run.json").exists():
            remove(folder, _but_request(kind))
            link_all(aside, ["run.json"], folder)  # first: `_aside_is_better` knows what it is
            link_all(aside, _but_request(kind), folder)
        else:
            remove(folder, kind.leaves)
        _remove_aside(folder, kind)


def _differences(before: Request | SpecialistsRequest, now: Request | SpecialistsRequest) -> list[str]:
    """Of the regime only what is tried: the rest says why the recipe, which is compared, is what it is."""
    old, new = (flat(request.model_dump(mode="json", exclude={"regime"})) for request in (before, now))
    for request, values in ((before, old), (now, new)):
        if isinstance(request, Request) and request.regime is not None and request.regime.arms:
            values["regime.arms"] = ", ".join(request.regime.arms)
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
