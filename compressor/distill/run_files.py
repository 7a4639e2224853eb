"""What kdc makes in the folder of a training, name by name: whatever else lies there is the user's, and stays."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compressor.files.atomic import is_temporary, link_or_copy, temporary_beside
from compressor.files.locks import is_lock
from compressor.schema.specialists import SpecialistsRequest
from compressor.schema.student import Request

__all__ = [
    "ANSWERS", "BEFORE", "PARTS", "RUN", "SPECIALISTS", "Kind", "foreign", "kind_of", "link_all", "remove",
    "remove_all", "stands_in", "sweep",
]  # fmt: skip

LEAVES = (
    "run.json", "student.json", "student.safetensors", "channels.json", "history.jsonl", "checkpoint", "hf", "float",
    "tracker", "assistants", "race", "arms", "trial.json", "failed.json", "right.npy", "margins.npy",
    "trained_on.npy", "control", "compared.npy", "stages", "answers",
)  # fmt: skip
"""What lies in a run's folder."""

ANSWERS = "answers"
"""Of the teacher, kept by default while a run is not finished. They can be asked for again."""

WITHIN = {
    "checkpoint": ("state.pt", "before.pt"),
    "hf": ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "masked_lm.safetensors"),
    "float": LEAVES,
    "control": LEAVES,
}
"""What lies in its folders. A tracker's is its own; a run each is in those of `NUMBERED`, and its log beside it."""

NUMBERED = ("assistants", "race", "arms", "stages", "specialists")

PARTS = ("float", *NUMBERED)
"""Runs within a run, which are trained first, and the trials of a race."""

BEFORE = ".before"
"""What --overwrite replaces, in the run's own folder (which may be a mount point), until the new run is finished. It is
whole as long as its run.json is there, which comes with one rename and goes first."""


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


def kind_of(request: Request | SpecialistsRequest) -> Kind:
    return SPECIALISTS if isinstance(request, SpecialistsRequest) else RUN


def stands_in(folder: Path) -> list[Path]:
    """What lies in `folder` but for locks and what a kill left unfinished."""
    return sorted(path for path in folder.iterdir() if not is_lock(path.name) and not is_temporary(path.name))


def foreign(folder: Path, leaves: Iterable[str]) -> Path | None:
    """The first thing in `folder`, at any depth, that is not of kdc."""
    ours = set(_listed(folder, leaves))
    for path in stands_in(folder):
        if path.name == BEFORE:
            continue
        inside = [path, *(sorted(path.rglob("*")) if _is_folder(path) else ())]
        stray: Path | None = next((entry for entry in inside if entry not in ours), None)
        if stray is not None:
            return stray
    return None


def remove(folder: Path, leaves: Iterable[str]) -> None:
    """Remove what kdc made in `folder`, run.json last. What else lies there stays, and the folders that it lies in."""
    _remove(list(_listed(folder, leaves)))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if _is_folder(path):
            with suppress(OSError):  # something of the user's lies in it
                path.rmdir()
        else:
            path.unlink(missing_ok=True)


def link_all(folder: Path, leaves: Iterable[str], to: Path) -> None:
    """What kdc made and finished in `folder` lies in the folder `to` as well, which has none of it but for run.json."""
    for path in _listed(folder, leaves):
        inside = path.relative_to(folder)
        if any(is_lock(part) or is_temporary(part) for part in inside.parts):
            continue
        if _is_folder(path):
            (to / inside).mkdir(parents=True, exist_ok=True)
            continue
        (to / inside).parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(to / inside.name)
        link_or_copy(path, temporary)
        temporary.replace(to / inside)
        temporary.unlink(missing_ok=True)  # it stays where both are links to one file (POSIX, rename)


def sweep(folder: Path) -> None:
    """Remove what kills left unfinished in `folder` and in what lies in it. Only for who has locked it."""
    for run_dir in (folder, *(folder / name for name in WITHIN), *(folder / name for name in NUMBERED)):
        if run_dir.is_dir() and not run_dir.is_symlink():
            for left in run_dir.iterdir():
                if is_temporary(left.name):
                    remove_all(left)


def remove_all(path: Path) -> None:
    """Remove a file, or a folder with all that lies in it."""
    _remove(list(_everything(path)))


def _listed(folder: Path, leaves: Iterable[str]) -> Iterator[Path]:
    """All that kdc made and finished in `folder`: what lies in a folder before it, run.json last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        if path.name in leaves:
            yield from _with_inside(path)


def _with_inside(path: Path) -> Iterator[Path]:
    if not _is_folder(path):
        yield path
        return
    if path.name in NUMBERED:
        for run in path.iterdir():
            if run.stem.isdigit() and _is_folder(run):
                yield from _of_run(run, LEAVES)
            elif run.stem.isdigit() and run.suffix == ".log":
                yield run
        yield path
    elif path.name in WITHIN:
        yield from _of_run(path, WITHIN[path.name])
    else:
        yield from _everything(path)


def _of_run(folder: Path, leaves: Iterable[str]) -> Iterator[Path]:
    yield from _listed(folder, leaves)
    yield from (path for path in folder.iterdir() if is_lock(path.name))
    for path in folder.iterdir():
        if is_temporary(path.name):
            yield from _everything(path)
    if _is_folder(folder / BEFORE):
        yield from _of_run(folder / BEFORE, leaves)
    yield folder


def _everything(path: Path) -> Iterator[Path]:
    if _is_folder(path):
        for inside in path.iterdir():
            yield from _everything(inside)
    yield path


def _is_folder(path: Path) -> bool:
    """A link to a folder is the user's: it goes, but not what it leads to."""
    return path.is_dir() and not path.is_symlink()
