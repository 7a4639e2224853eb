"""Where a run may not be written: what would be lost there, or stand where it does not belong."""

from pathlib import Path
from typing import Any, get_args

from compressor.distill.run_files import Kind, foreign
from compressor.errors import KdcError
from compressor.files.reading import JSON_BYTES, json_value, read_text
from compressor.models.checkpoints.state_dict import split_key
from compressor.references import Reference
from compressor.schema.specialists import SpecialistsRequest
from compressor.schema.student import Request

__all__ = ["refuse_foreign", "refuse_needed", "refuse_other_command", "refuse_place"]

SCANNED = ("folder:", "hf:")
"""Data of which all that lies in its folder is a part."""

WORDS = ("self", "peers", "pretrained", "random", "digits")
"""What requests name that is no file."""


def refuse_place(folder: Path, request: Request | SpecialistsRequest) -> None:
    """Where nothing may be written: through a link that leads nowhere, or among the data, where a run's folders
    would be classes to the next command."""
    if folder.is_symlink() and not folder.exists():
        raise KdcError(f"--out {folder} is a link to {folder.readlink()}, which does not exist", "make that folder")
    for reference in filter(None, (request.data, getattr(request, "unlabelled", None))):
        source = _local_path(reference)
        if source is None or not source.is_dir() or not (reference.startswith(SCANNED) or ":" not in reference):
            continue
        if folder.resolve().is_relative_to(source.resolve()):
            raise KdcError(f"--out {folder} lies among the data of {reference}", "choose another --out")


def refuse_other_command(folder: Path, request: Request | SpecialistsRequest, kind: Kind, *, resume: bool) -> None:
    """What teach made distill may replace, and the other way round; else a folder is of one command."""
    try:
        command = _json(folder / "run.json")["command"]
    except (KdcError, LookupError, TypeError):
        return  # it is damaged: --resume says how
    commands = get_args(kind.request.model_fields["command"].annotation)
    if command != request.command and (resume or command not in commands):
        raise KdcError(
            f"--out {folder} holds a run of kdc {command}, not of kdc {request.command}", "choose another --out"
        )


def refuse_needed(folder: Path, request: Request | SpecialistsRequest) -> None:
    """Nothing that the new run is made from may go with the old one."""
    named = [request.teacher, request.data]
    if isinstance(request, Request):
        optional = (request.student, request.init, request.unlabelled, request.teacher_classes)
        named += [*request.other_teachers, *request.assistants, *request.raced, *(text for text in optional if text)]
    named += [text for peer in request.recipe.peers for text in (peer.student, peer.init)]
    for reference in [*named, *filter(None, map(_generalist, named))]:
        source = _local_path(reference)
        if source is not None and source.exists() and source.resolve().is_relative_to(folder.resolve()):
            raise KdcError(
                f"--overwrite: {reference} lies in --out {folder}, and would be removed", "choose another --out"
            )


def _generalist(reference: str) -> str | None:
    """Whom the specialists of `specialists:DIR` stand beside."""
    folder = Reference.parse(reference).folder("specialists")
    if folder is None:
        return None
    try:
        source = _json(folder / "specialists.json")["generalist"]["source"]
    except (KdcError, LookupError, TypeError):
        return None  # it cannot be loaded either, and that says why
    return source if isinstance(source, str) else None


def _json(path: Path) -> Any:
    return json_value(read_text(path, most=JSON_BYTES), str(path))


def _local_path(reference: str) -> Path | None:
    """Where it lies, if it is a file or folder here."""
    named = Reference.parse(reference)
    if named.rest is None:
        return None if reference in WORDS else split_key(reference)[0]
    if named.scheme == "hf" and not Path(named.rest).exists():
        return Path(named.name)  # after its "@" stands a data set's configuration
    if named.scheme != "timm":
        return Path(named.rest)
    return named.local or (split_key(named.at)[0] if named.at else None)


def refuse_foreign(folder: Path, kind: Kind) -> None:
    """A bundle or notes may have been put into a run's folder: --overwrite replaces what kdc made, and no more."""
    stray = foreign(folder, kind.leaves)
    if stray is not None:
        raise KdcError(
            f"--overwrite: {folder} holds {stray.relative_to(folder)} too, which is no part of the run, so it is left "
            "alone",
            "move it away, or choose another --out",
        )
