"""RUN/, the folder of one training: who may write there, and what a resumed run must agree with."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from compressor.distill.checkpoint import is_saved
from compressor.errors import KdcError, os_error
from compressor.models.checkpoints import split_key
from compressor.spec.base import flat, read_json, write_json, write_text
from compressor.spec.specialists import SpecialistsRequest
from compressor.spec.student import Request

__all__ = ["RUN", "SPECIALISTS", "Kind", "abandon", "claim", "settle", "start"]

LEAVES = (
    "run.json", "student.json", "student.safetensors", "history.jsonl", "checkpoint", "hf", "float", "tracker",
    "assistants",
)  # fmt: skip
"""What lies in a run's folder."""

PARTS = ("float", "assistants", "specialists")
"""Runs within a run, which are trained first."""

BEFORE = ".before"
"""What --overwrite replaces, in the run's own folder (which may be a mount point), until the new run is finished."""

WORDS = ("self", "peers", "pretrained", "random", "digits")
"""What requests name that is no file."""


@dataclass(frozen=True)
class Kind:
    """What a folder is of: its request's noun, the file that is written last, all that lies in it."""

    request: type[Request] | type[SpecialistsRequest]
    last: str
    leaves: tuple[str, ...]


RUN = Kind(Request, "student.json", LEAVES)
SPECIALISTS = Kind(
    SpecialistsRequest, "specialists.json", ("run.json", "recipe.yaml", "specialists.json", "specialists")
)


def claim(
    folder: Path, request: Request | SpecialistsRequest, *, resume: bool, overwrite: bool, kind: Kind = RUN
) -> bool:
    """Whether `folder` holds a finished run of this very request, which `resume` then has nothing to do for.

    Raises KdcError where the folder may not be written: it is not a run, a run stands there and neither --resume nor
    --overwrite was given, other files lie in the run to overwrite, or something that the request names; or the run to
    resume was started with another request. Changes nothing.
    """
    request_file = folder / "run.json"
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        if resume:
            raise KdcError(f"--resume: there is no run in {folder}", "leave --resume out to start one")
        return False
    if not folder.is_dir() or not request_file.is_file():
        raise KdcError(f"--out {folder} exists and is no run of kdc, so it is left alone", "choose another --out")
    _refuse_other_command(folder, request, kind, resume=resume)
    finished = (folder / kind.last).is_file()
    if overwrite:
        _refuse_foreign(folder, kind.leaves)
        _refuse_needed(folder, request)
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
            "give the same command again, or choose another --out",
        )
    return finished


def _refuse_other_command(folder: Path, request: Request | SpecialistsRequest, kind: Kind, *, resume: bool) -> None:
    """What teach made distill may replace, and the other way round; else a folder is of one command."""
    try:
        command = json.loads((folder / "run.json").read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # it is damaged: --resume says how
    commands = get_args(kind.request.model_fields["command"].annotation)
    if command != request.command and (resume or command not in commands):
        raise KdcError(
            f"--out {folder} holds a run of kdc {command}, not of kdc {request.command}", "choose another --out"
        )


def _refuse_needed(folder: Path, request: Request | SpecialistsRequest) -> None:
    """Nothing that the new run is made from may go with the old one."""
    named = [request.teacher, request.data]
    if isinstance(request, Request):
        optional = (request.student, request.init, request.unlabelled, request.teacher_classes)
        named += [*request.other_teachers, *request.assistants, *(text for text in optional if text)]
    named += [text for peer in request.recipe.peers for text in (peer.student, peer.init)]
    for reference in [*named, *filter(None, map(_generalist, named))]:
        place = _place(reference)
        if place is not None and place.exists() and place.resolve().is_relative_to(folder.resolve()):
            raise KdcError(
                f"--overwrite: {reference} lies in --out {folder}, and would be removed", "choose another --out"
            )


def _generalist(reference: str) -> str | None:
    """Whom the specialists of `specialists:DIR` stand beside."""
    scheme, _, rest = reference.partition(":")
    if scheme != "specialists":
        return None
    try:
        source: str = json.loads((Path(rest) / "specialists.json").read_text(encoding="utf-8"))["generalist"]["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it cannot be loaded either, and that says why
    return source


def _place(reference: str) -> Path | None:
    """Where it lies, if it is a file or folder here."""
    scheme, colon, rest = reference.partition(":")
    if not colon:
        return None if reference in WORDS else split_key(reference)[0]
    if scheme == "hf" and not Path(rest).exists():
        rest = rest.partition("@")[0]  # a data set's configuration
    if scheme != "timm":
        return Path(rest)
    local, checkpoint = rest.removeprefix("local-dir:"), rest.partition("@")[2]
    return Path(local) if local != rest else split_key(checkpoint)[0] if checkpoint else None


def _refuse_foreign(folder: Path, leaves: tuple[str, ...]) -> None:
    """A bundle or notes may have been put into a run's folder: --overwrite replaces what kdc made, and no more."""
    left = tuple(f".{leaf}." for leaf in leaves)  # by a process that was killed while writing
    foreign = sorted(
        path.name for path in folder.iterdir() if path.name not in (*leaves, BEFORE) and not path.name.startswith(left)
    )
    if foreign:
        raise KdcError(
            f"--overwrite: {folder} holds {foreign[0]} too, which is no part of the run, so it is left alone",
            "move it away, or choose another --out",
        )


def start(folder: Path, request: Request | SpecialistsRequest, *, resume: bool) -> None:
    """Make the folder ready to be trained in: emptied unless resumed, with run.json. What stood there is kept in it
    until `settle`, or comes back with `abandon`; of two, what is worth more, a finished run before one that can go on.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if resume:
            return
        if (folder / "run.json").exists():
            _set_aside(folder)
        write_json(folder / "run.json", request)
    except BaseException as error:
        if not resume and (folder / BEFORE).exists():  # a run to go on with is no failure of this command
            abandon(folder)
        if isinstance(error, OSError):
            raise os_error(error, f"preparing {folder}") from error
        raise


def _set_aside(folder: Path) -> None:
    """run.json goes last, and stays: as long as it is not there too, what lies aside is not the whole run."""
    aside = folder / BEFORE
    replaced = [path for path in folder.iterdir() if path.name not in ("run.json", BEFORE)]
    whole = (aside / "run.json").exists()
    if whole and _worth(aside) > _worth(folder):
        _remove(replaced)
        return
    if whole:
        shutil.rmtree(aside)
    aside.mkdir(exist_ok=True)
    for path in replaced:
        path.rename(aside / path.name)
    write_text(aside / "run.json", (folder / "run.json").read_text(encoding="utf-8"))


def _worth(folder: Path) -> int:
    if any((folder / kind.last).exists() for kind in (RUN, SPECIALISTS)):
        return 2
    return int(is_saved(folder / "checkpoint") or any((folder / name).exists() for name in PARTS))


def settle(folder: Path) -> None:
    """What the run in `folder` replaced is not needed any more."""
    shutil.rmtree(folder / BEFORE, ignore_errors=True)


def abandon(folder: Path) -> None:
    """Nothing came of the run in `folder`: it goes, and what it was to replace is there again."""
    aside = folder / BEFORE
    if not aside.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    if (aside / "run.json").exists():
        _remove([path for path in folder.iterdir() if path.name not in ("run.json", BEFORE)])
    # run.json first: what is stopped amid this is taken up by `_set_aside`.
    for path in sorted(aside.iterdir(), key=lambda path: path.name != "run.json"):
        path.replace(folder / path.name)
    aside.rmdir()


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _differences(before: Request | SpecialistsRequest, now: Request | SpecialistsRequest) -> list[str]:
    old, new = flat(before.model_dump(mode="json")), flat(now.model_dump(mode="json"))
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
