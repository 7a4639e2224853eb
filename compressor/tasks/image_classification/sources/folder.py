"""`folder:PATH`: one folder a class, directly in PATH or in its train, validation and test folders."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from compressor.data.labels import listed
from compressor.data.samples import Found, Part
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.data.splits import WANTED
from compressor.errors import KdcError, os_error
from compressor.files.reading import read_bytes, read_text
from compressor.names import lines_of, spelt
from compressor.progress import Progress
from compressor.tasks.image_classification.preprocessing import SUFFIXES
from compressor.tasks.image_classification.sources.layout import Inside, doubt, masks_told

__all__ = ["LITTER", "entries", "expanded", "find_folder", "find_images", "present_path", "read_image"]

IMAGE_BYTES = 1_000_000_000  # more than the largest image that is decoded takes on disk
EXPECTED = "expected one folder a class, with images in it, directly or under train/, validation/ and test/"
NAMED = "classes.txt"
"""Beside the class folders, it says that they are classes where they look like something else."""

# Left by operating systems, storage boxes and tools; no one's data. Names that begin with a dot are left out anyway.
LITTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "$recycle.bin", "recycler"),
        *("system volume information", "network trash folder", "temporary items", "lost+found", "found.000"),
        *("@eadir", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot"),
    }
)
TOOLS = (  # how hidden folders begin that no one misses
    *(".ipynb_checkpoints", ".appledouble", ".thumb", ".trash", ".temporaryitems", ".spotlight", ".fseventsd", "._"),
    *(".git", ".svn", ".hg", ".dvc", ".cache", ".idea", ".vscode", ".snapshot", ".@__thumb", ".kdc"),
)


@dataclass
class _Ignored:
    """What the walk leaves out, to be told in the notes."""

    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        kinds = (
            (self.files, "file", "no image by its suffix, or beside the class folders"),
            (self.links, "folder", "reached before through another link"),
            (self.hidden, "folder", "its name begins with a dot"),
        )
        return tuple(
            f"ignored {len(names)} {kind}s, e.g. {min(names)}: {why}"
            if len(names) > 1
            else f"ignored the {kind} {names[0]}: {why}"
            for names, kind, why in kinds
            if names
        )


def expanded(text: str) -> Path:
    """A path as typed; the shell leaves the ~ of `folder:~/images` alone."""
    return Path(text).expanduser() if text.startswith("~/") else Path(text)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise os_error(error, f"listing {folder}") from error


def present_path(text: str, scheme: str, *, folder: bool) -> Path:
    """The path in a reference such as `folder:PATH`, which must exist; raises KdcError that names it."""
    path = expanded(text)
    if not text:
        raise KdcError(f"{scheme}: names no path", f"{scheme}:PATH")
    try:
        path.stat()
    except FileNotFoundError:
        raise KdcError(f"{path} does not exist (from {scheme}:{text})", "check the path") from None
    except OSError as error:
        raise os_error(error, f"opening {path}") from error
    if folder and not path.is_dir():
        raise KdcError(f"{path} is a file; {scheme}: wants a folder")
    return path


def find_folder(location: str, progress: Progress) -> Found:
    """Images by suffix, in folders of any depth under the class folder; symbolic links are followed, hidden files
    left out. The classes are sorted as torchvision's ImageFolder sorts them ("10" before "2"), so that a teacher that
    was trained with it has them in the same order. Raises KdcError where folders look like splits, or like what only
    holds the class folders (`layout.doubt`), unless PATH/classes.txt names them, one a line."""
    root = present_path(location, "folder", folder=True)
    ignored = _Ignored()
    parts = {
        split: _part(root, root / name if name else root, ignored) for split, name in _layout(root, ignored).items()
    }
    class_names = tuple(sorted(set(parts["train"].labels), key=lambda name: (spelt(name), name)))
    notes = (*ignored.notes(), *masks_told([sample_id for part in parts.values() for sample_id in part.ids]))
    return Found(class_names, {name: parts[name] for name in WANTED if name in parts}, notes)


def find_images(location: str, progress: Progress) -> Found:
    """All images under a folder at any depth, whatever the folders in it mean; none has a label."""
    root = present_path(location, "folder", folder=True)
    ignored, images = _Ignored(), list[str]()
    _walk(root, "", images, ignored, set())
    if not images:
        raise KdcError(f"{root} holds no images")
    ids = sorted(images)
    held_out = _held_out(ids)
    notes = (f"the images in {listed(held_out)} are taken too",) if held_out else ()
    part = Part(
        ids=tuple(ids),
        labels=("",) * len(ids),
        content=lambda row: read_image(root / ids[row]),
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
    folders, files = _children(root)
    splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    if not folders:
        count = sum(1 for name in files if Path(name).suffix.lower() in SUFFIXES)
        content = f"{count} images and no folders" if count else "no images"
        raise KdcError(f"{root} holds {content}; {EXPECTED}")
    # One such name among others may be a class of trains, say.
    if not splits or (len(splits) == 1 and len(folders) > 1) or _are_named(root, folders):
        _refuse_doubt(root, root, folders)
        ignored.files.extend(name for name in files if name != NAMED)
        return {"train": ""}
    if len(splits) < len(folders):
        raise KdcError(
            f"{root} holds both splits ({', '.join(splits)}) and other folders "
            f"({listed(name for name in folders if name not in splits)}); {EXPECTED}",
            f"move the other folders away; or, where all of them are classes, {_naming(root)}",
        )
    twice = [name for name, count in Counter(SPLIT_NAMES[name.lower()] for name in splits).items() if count > 1]
    if twice:
        same = [name for name in splits if SPLIT_NAMES[name.lower()] == twice[0]]
        raise KdcError(f"{root} holds {' and '.join(same)}, which both mean {twice[0]}", "keep one of them")
    layout = {SPLIT_NAMES[name.lower()]: name for name in splits}
    if "train" not in layout:
        raise KdcError(f"{root} holds {', '.join(splits)} but no train folder; {EXPECTED}")
    # What lies in the other splits must be classes of this one.
    _refuse_doubt(root, root / layout["train"], _children(root / layout["train"])[0])
    ignored.files.extend(name for name in files if name != NAMED)
    return layout


def _refuse_doubt(root: Path, base: Path, folders: list[str]) -> None:
    """Raise KdcError where `folders`, those in `base`, may be no classes, and root/classes.txt does not say so."""
    inside = {name: _unwrapped(base / name) for name in folders}
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


def _unwrapped(folder: Path, most: int = 10) -> tuple[Path, Inside]:
    """The first folder, from `folder` on down, that holds more than one folder, and what lies in it."""
    outer = folder
    while True:
        folders, files = _children(folder)
        images = any(Path(file).suffix.lower() in SUFFIXES for file in files)
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
    prefix = "" if base == root else base.name + "/"
    folders, files = _children(base)
    if not folders:
        raise KdcError(f"{base} holds no folders; {EXPECTED}")
    if base != root:
        ignored.files.extend(prefix + name for name in files)
    ignored.hidden.extend(prefix + name for name in _hidden(base))
    ids: list[str] = []
    labels: list[str] = []
    for name in folders:
        images: list[str] = []
        _walk(base / name, f"{prefix}{name}", images, ignored, set())
        if not images:
            raise KdcError(f"class folder {base / name} holds no images", "remove the folder, or put images in it")
        ids.extend(sorted(images))
        labels.extend([name] * len(images))
    return Part(
        ids=tuple(ids),
        labels=tuple(labels),
        content=lambda row: read_image(root / ids[row]),
        where=lambda row: str(root / ids[row]),
        encoded=True,
    )


def _hidden(folder: Path) -> list[str]:
    """Hidden folders that no tool is known to leave: perhaps a class, .net say."""
    with os.scandir(folder) as listing:
        names = [entry.name for entry in listing if entry.name.startswith(".") and entry.is_dir()]
    # As text that can be written: nothing in it is read.
    return [os.fsencode(name).decode(errors="replace") for name in names if not name.lower().startswith(TOOLS)]


def read_image(path: Path) -> bytes:
    """The bytes of an image file, which must be a regular one, or KdcError."""
    try:
        return read_bytes(path, most=IMAGE_BYTES)
    except KdcError as error:
        if isinstance(error.__cause__, OSError):
            raise KdcError(f"{path} cannot be read: {error.__cause__.strerror or error.__cause__}") from error
        raise


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


def _walk(folder: Path, relative: str, images: list[str], ignored: _Ignored, seen: set[tuple[int, int]]) -> None:
    """Collects the images under `folder` as ids, which begin with `relative` where it is not "". No folder is entered
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
        # A dangling link is an image that cannot be read, and said to be so. A pipe would block whoever opens it.
        is_image = Path(name).suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
        (images if is_image else ignored.files).append(prefix + name)
    for name in folders:
        _walk(folder / name, prefix + name, images, ignored, seen)
