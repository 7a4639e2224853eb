"""Folders of files, one folder a class: directly in a folder, or in its train, validation and test folders."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.data.labels import listed
from compressor.data.layout import Inside, doubt
from compressor.data.places import LITTER, present_path
from compressor.data.samples import Found, Part
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.data.splits import WANTED
from compressor.errors import KdcError, os_error
from compressor.files.reading import read_text
from compressor.names import lines_of, spelt

__all__ = ["Kind", "every_file", "find_class_folders"]

NAMED = "classes.txt"
"""Beside the class folders, it says that they are classes where they look like something else."""

TOOLS = (  # how hidden folders begin that no one misses
    *(".ipynb_checkpoints", ".appledouble", ".thumb", ".trash", ".temporaryitems", ".spotlight", ".fseventsd", "._"),
    *(".git", ".svn", ".hg", ".dvc", ".cache", ".idea", ".vscode", ".snapshot", ".@__thumb", ".kdc"),
)


@dataclass(frozen=True)
class Kind:
    """Which files are samples, by their suffixes, and what one is called, and several. `read`: its content, or
    KdcError."""

    suffixes: frozenset[str]
    sample: str
    samples: str
    read: Callable[[Path], Any]

    @property
    def expected(self) -> str:
        return (
            f"expected one folder a class, with {self.samples} in it, directly or under train/, validation/ and test/"
        )

    def has(self, name: str) -> bool:
        return Path(name).suffix.lower() in self.suffixes


@dataclass
class _Ignored:
    """What the walk for files of a kind leaves out, to be told in the notes."""

    kind: Kind
    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        left_out = (
            (self.files, "file", f"no {self.kind.sample} by its suffix, or beside the class folders"),
            (self.links, "folder", "reached before through another link"),
            (self.hidden, "folder", "its name begins with a dot"),
        )
        return tuple(
            f"ignored {len(names)} {what}s, e.g. {min(names)}: {why}"
            if len(names) > 1
            else f"ignored the {what} {names[0]}: {why}"
            for names, what, why in left_out
            if names
        )


def find_class_folders(location: str, kind: Kind) -> Found:
    """Files of a kind, in folders of any depth under the class folder; symbolic links are followed, hidden files
    left out. The classes are sorted as torchvision's ImageFolder sorts them ("10" before "2"), so that a teacher that
    was trained with it has them in the same order. Raises KdcError where folders look like splits, or like what only
    holds the class folders (`layout.doubt`), unless PATH/classes.txt names them, one a line."""
    root = present_path(location, "folder", folder=True)
    ignored = _Ignored(kind)
    parts = {
        split: _part(root, root / name if name else root, ignored) for split, name in _layout(root, ignored).items()
    }
    class_names = tuple(sorted(set(parts["train"].labels), key=lambda name: (spelt(name), name)))
    return Found(class_names, {name: parts[name] for name in WANTED if name in parts}, ignored.notes())


def every_file(location: str, kind: Kind) -> Found:
    """All files of a kind under a folder at any depth, whatever the folders in it mean; none has a label."""
    root = present_path(location, "folder", folder=True)
    ignored, files = _Ignored(kind), list[str]()
    _walk(root, "", files, ignored, set())
    if not files:
        raise KdcError(f"{root} holds no {kind.samples}")
    ids = sorted(files)
    held_out = _held_out(ids)
    notes = (f"the {kind.samples} in {listed(held_out)} are taken too",) if held_out else ()
    part = Part(
        ids=tuple(ids),
        labels=("",) * len(ids),
        content=lambda row: kind.read(root / ids[row]),
        where=lambda row: str(root / ids[row]),
        encoded=True,
    )
    return Found((), {"train": part}, (*notes, *ignored.notes()))


def _held_out(ids: list[str]) -> list[str]:
    """The folders, at any depth, that sound like a validation or test split."""
    held_out = set()
    for folder in {sample_id.rpartition("/")[0] for sample_id in ids}:
        parts = folder.split("/")
        at = next((at for at, name in enumerate(parts) if sounds_like(name) in ("validation", "test")), None)
        if at is not None:
            held_out.add("/".join(parts[: at + 1]))
    return sorted(held_out)


def _layout(root: Path, ignored: _Ignored) -> dict[str, str]:
    """`{split: folder name}`, or `{"train": ""}` where the class folders lie directly in `root`."""
    (folders, files), kind = _children(root), ignored.kind
    splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    if not folders:
        count = sum(map(kind.has, files))
        content = f"{count} {kind.samples} and no folders" if count else f"no {kind.samples}"
        raise KdcError(f"{root} holds {content}; {kind.expected}")
    # One such name among others may be a class of trains, say.
    if not splits or (len(splits) == 1 and len(folders) > 1) or _are_named(root, folders):
        _refuse_doubt(root, root, folders, kind)
        ignored.files.extend(name for name in files if name != NAMED)
        return {"train": ""}
    if len(splits) < len(folders):
        raise KdcError(
            f"{root} holds both splits ({', '.join(splits)}) and other folders "
            f"({listed(name for name in folders if name not in splits)}); {kind.expected}",
            f"move the other folders away; or, where all of them are classes, {_naming(root)}",
        )
    twice = [name for name, count in Counter(SPLIT_NAMES[name.lower()] for name in splits).items() if count > 1]
    if twice:
        same = [name for name in splits if SPLIT_NAMES[name.lower()] == twice[0]]
        raise KdcError(f"{root} holds {' and '.join(same)}, which both mean {twice[0]}", "keep one of them")
    layout = {SPLIT_NAMES[name.lower()]: name for name in splits}
    if "train" not in layout:
        raise KdcError(f"{root} holds {', '.join(splits)} but no train folder; {kind.expected}")
    # What lies in the other splits must be classes of this one.
    _refuse_doubt(root, root / layout["train"], _children(root / layout["train"])[0], kind)
    ignored.files.extend(name for name in files if name != NAMED)
    return layout


def _refuse_doubt(root: Path, base: Path, folders: list[str], kind: Kind) -> None:
    """Raise KdcError where `folders`, those in `base`, may be no classes, and root/classes.txt does not say so."""
    inside = {name: _unwrapped(base / name, kind) for name in folders}
    parent, first = inside[folders[0]] if folders else (base, Inside((), images=True))
    if len(folders) == 1 and first.folders and not first.images:
        raise KdcError(
            f"{base} holds one folder, {folders[0]}, and the folders {listed(first.folders, 4)} lie in {parent}",
            f"folder:{parent}" if base == root else f"move them to {base}",
        )
    why = doubt({name: content for name, (_, content) in inside.items()})
    if why and not _are_named(root, folders):
        raise KdcError(
            f"{base} holds {why}",
            "call the splits train, validation and test, or name the folder that holds the class folders; where "
            f"these are the classes, {_naming(root)}",
        )


def _unwrapped(folder: Path, kind: Kind, most: int = 10) -> tuple[Path, Inside]:
    """The first folder, from `folder` on down, that holds more than one folder, and what lies in it."""
    outer = folder
    while True:
        folders, files = _children(folder)
        images = any(map(kind.has, files))
        if images or len(folders) != 1 or not most:
            return folder, Inside(tuple(folders), images, folder != outer and spelt(folder.name) == spelt(outer.name))
        folder, most = folder / folders[0], most - 1


def _are_named(root: Path, folders: list[str]) -> bool:
    """Whether root/classes.txt names all these folders as classes."""
    path = root / NAMED
    if not path.is_file():
        return False
    try:
        named = {spelt(line) for line in lines_of(read_text(path, most=10_000_000).removeprefix("\ufeff"))}
    except KdcError:  # another tool's file of that name: it answers nothing
        return False
    return {spelt(name) for name in folders} <= named


def _naming(root: Path) -> str:
    return f"name them in {root / NAMED}, one a line"


def _part(root: Path, base: Path, ignored: _Ignored) -> Part:
    prefix, kind = "" if base == root else base.name + "/", ignored.kind
    folders, files = _children(base)
    if not folders:
        raise KdcError(f"{base} holds no folders; {kind.expected}")
    if base != root:
        ignored.files.extend(prefix + name for name in files)
    ignored.hidden.extend(prefix + name for name in _hidden(base))
    ids: list[str] = []
    labels: list[str] = []
    for name in folders:
        inside: list[str] = []
        _walk(base / name, f"{prefix}{name}", inside, ignored, set())
        if not inside:
            others = _endings(ignored.files, f"{prefix}{name}/")
            raise KdcError(
                f"class folder {base / name} holds no {kind.samples}{others}",
                f"remove the folder, or put {kind.samples} in it: {', '.join(sorted(kind.suffixes))}",
            )
        ids.extend(sorted(inside))
        labels.extend([name] * len(inside))
    return Part(
        ids=tuple(ids),
        labels=tuple(labels),
        content=lambda row: kind.read(root / ids[row]),
        where=lambda row: str(root / ids[row]),
        encoded=True,
    )


def _endings(files: list[str], prefix: str) -> str:
    """What files of a folder end in, as the rest of a message."""
    endings = {Path(name).suffix for name in files if name.startswith(prefix)} - {""}
    return f", but files that end in {listed(sorted(endings), 4)}" if endings else ""


def _hidden(folder: Path) -> list[str]:
    """Hidden folders that no tool is known to leave: perhaps a class, .net say."""
    with os.scandir(folder) as listing:
        names = [entry.name for entry in listing if entry.name.startswith(".") and entry.is_dir()]
    # As text that can be written: nothing in it is read.
    return [os.fsencode(name).decode(errors="replace") for name in names if not name.lower().startswith(TOOLS)]


def _children(folder: Path) -> tuple[list[str], list[str]]:
    """The names of folders and of files in `folder`, sorted, without hidden ones and litter."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if not entry.name.startswith(".") and entry.name.lower() not in LITTER:
                    _must_be_text(entry.name, folder)
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise os_error(error, f"listing {folder}") from error
    return sorted(folders), sorted(files)


def _must_be_text(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise KdcError(f"the name {name!a} in {str(folder)!a} is not UTF-8", "rename the file") from None


def _walk(folder: Path, relative: str, taken: list[str], ignored: _Ignored, seen: set[tuple[int, int]]) -> None:
    """Collects the samples under `folder` as ids, which begin with `relative` where it is not "". No folder is entered
    twice: links may form loops."""
    prefix = f"{relative}/" if relative else ""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        ignored.links.append(relative)
        return
    seen.add((status.st_dev, status.st_ino))
    folders, files = _children(folder)
    for name in files:
        path = folder / name
        # A dangling link is a sample that cannot be read, and said to be so. A pipe would block whoever opens it.
        is_sample = ignored.kind.has(name) and (path.is_file() or path.is_symlink())
        (taken if is_sample else ignored.files).append(prefix + name)
    for name in folders:
        _walk(folder / name, prefix + name, taken, ignored, seen)
