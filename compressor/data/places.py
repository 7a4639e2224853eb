"""Paths and folders that users name, and what lies in them that is nobody's data."""

from pathlib import Path

from compressor.errors import KdcError, os_error

__all__ = ["LITTER", "entries", "expanded", "present_path"]

# Left by operating systems, storage boxes and tools; no one's data. Names that begin with a dot are left out anyway.
LITTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "$recycle.bin", "recycler"),
        *("system volume information", "network trash folder", "temporary items", "lost+found", "found.000"),
        *("@eadir", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot"),
    }
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
