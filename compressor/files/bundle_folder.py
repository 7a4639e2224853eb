"""What lies in the folder of a bundle, and which of its states counts; bundle_change.py says how it changes."""

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from compressor.errors import KdcError, os_error
from compressor.files.atomic import is_temporary
from compressor.files.locks import is_lock
from compressor.files.reading import JSON_BYTES, json_value, read_bytes

__all__ = [
    "BEST",
    "DEVICE",
    "DEVICES",
    "MATRIX",
    "MEASUREMENT",
    "NEXT",
    "REMADE",
    "SUMS",
    "UNMEASURED",
    "claim",
    "counted",
    "device_folders",
    "files_of",
    "holds_bundle",
    "is_working",
    "must_hold_a_bundle",
    "own_files",
    "read_steadily",
    "remade_in",
    "remove_strays",
    "stray",
]

SUMS = "SHA256SUMS"
BEST = "best"
NEXT, UNMEASURED = ".kdc-next", ".kdc-unmeasured"
WORKING = ".kdc-"

DEVICES, DEVICE = "devices", "device.json"
MATRIX = ("devices.json", "devices.md")
"""Of a bundle that was measured on several devices: each has a folder in the one, with the other in it, and its
session, its report and its best/; and what is said of all of them."""

MEASUREMENT = "measurements/measurement.json"
REMADE = ("measurements/", "best/", "report.json", "report.md", "report.html", "junit.xml", "README.md")
"""What a measurement on the device replaces, and what is then made from it."""

MEASURED = re.compile(rf"({DEVICES}/[^/]+/)?measurements/")
"""What is kdc's whatever lies in it: sessions that were copied from a device are in no list yet."""

STRAYS = (".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".localized", "__macosx", "@eadir")
STRAYS_BEGIN = ("._", ".git", ".spotlight-", ".fseventsd", ".trash")
"""What file managers and git put into any folder, in small letters."""

TRIES = 20
PAUSE_S = 0.05

T = TypeVar("T")


def is_working(name: str, *, top: bool) -> bool:
    """Whether a file or folder of that name is kdc's own and no part of a bundle. `top`: it lies right in its folder,
    and not deeper."""
    return is_temporary(name) or is_lock(name) or (top and name.startswith(WORKING))


def stray(path: str) -> str | None:
    """What a file manager or git has left, of which `path` (forward slashes) is a part; None where it is of no such."""
    parts = path.split("/")
    for depth, part in enumerate(map(str.lower, parts), start=1):
        if part in STRAYS or part.startswith(STRAYS_BEGIN):
            return "/".join(parts[:depth])
    return None


def remove_strays(bundle: Path, strays: Sequence[str]) -> str:
    """The hint for those: which command removes them, but a repository's history, which must be kept elsewhere."""
    strays = list(dict.fromkeys(strays))
    repositories = [path for path in strays if path.split("/")[-1].lower() == ".git"]
    hints = [f"move {bundle / path} away: a repository may hold a bundle, but not lie in one" for path in repositories]
    removable_paths = [shlex.quote(str(bundle / path)) for path in strays if path not in repositories]
    return "; ".join([*([f"rm -r {' '.join(removable_paths)}"] if removable_paths else []), *hints])


def counted(bundle: Path) -> Path:
    """Where the state of `bundle` lies that counts: the folder itself, but while another state takes its place."""
    return bundle / NEXT if (bundle / NEXT).is_dir() else bundle


def device_folders(folder: Path) -> list[str]:
    """Where in the bundle what belongs to each of several devices lies, "devices/NAME/", sorted; none where the bundle
    has one session of its own, or none."""
    names = (path.parent.name for path in folder.glob(f"{DEVICES}/*/{DEVICE}"))
    return sorted(f"{DEVICES}/{name}/" for name in names if not is_temporary(name))


def remade_in(folder: Path) -> tuple[str, ...]:
    """`REMADE` in this bundle: of one session, or of each device."""
    devices = device_folders(folder)
    each = tuple(f"{device}{path}" for device in devices for path in REMADE)
    return (*MATRIX, "junit.xml", *each) if devices else REMADE


def holds_bundle(folder: Path) -> bool:
    """Whether `folder` holds a bundle, measured and sealed or not."""
    return (counted(folder) / "bundle.json").is_file()


def files_of(folder: Path) -> list[str]:
    """Every file of a bundle, relative with forward slashes and sorted, without those that are kdc's own. Links are
    named and not followed. Raises OSError for a folder that may not be read."""
    return sorted(_below(folder, ""))


def _below(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_working(entry.name, top=not prefix):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def claim(out: Path, overwrite: bool) -> None:
    """Raise KdcError where a new bundle may not be made at `out`: it is a file, holds something that is not a bundle's,
    or a bundle without `overwrite`."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise KdcError(f"--out {out} exists and is no folder, so it is left alone", "choose another --out")
    try:
        files = files_of(out)
    except OSError as error:
        raise os_error(error, f"reading {out}") from error
    if not files and not holds_bundle(out):
        return
    if not holds_bundle(out):
        raise KdcError(f"--out {out} exists and is no bundle of kdc, so it is left alone", "choose another --out")
    if not overwrite:
        raise KdcError(f"--out {out} holds a bundle", "--overwrite to replace it, or another --out")
    bundle_files = own_files(out) | own_files(counted(out))
    foreign = [path for path in files if path not in bundle_files and not MEASURED.match(path)]
    if foreign:
        suffix = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        strays = [left for path in foreign if (left := stray(path)) is not None]
        raise KdcError(
            f"--out {out} holds {foreign[0]}{suffix}, which is no file of that bundle and would be lost",
            remove_strays(out, strays) if len(strays) == len(foreign) else "put it elsewhere, or choose another --out",
        )


def own_files(bundle: Path) -> set[str]:
    """The files that are the bundle's, as its seal and its manifest name them, and what is made of measurements."""
    named = {SUMS, "bundle.json"}
    with suppress(KdcError):
        lines = read_bytes(bundle / SUMS, most=JSON_BYTES).decode("utf-8", "replace").splitlines()
        named |= {line[66:] for line in lines}
    with suppress(KdcError, KeyError, TypeError, AttributeError):
        manifest = json_value(read_bytes(bundle / "bundle.json", most=JSON_BYTES), "bundle.json")
        entries = [*manifest["support"], *(entry for variant in manifest["variants"] for entry in variant["files"])]
        named |= {str(entry["path"]) for entry in entries}
    return {path for path in files_of(bundle) if path in named or MEASURED.match(path)}


def read_steadily(bundle: Path, read: Callable[[], T]) -> T:
    """What `read` makes of a bundle that another command may be writing: tried again where that one put a new state in
    place meanwhile."""
    for left in reversed(range(TRIES)):
        before = _moment(bundle)
        try:
            result = read()
        except (KdcError, OSError):
            if left == 0 or _moment(bundle) == before:
                raise
        else:
            if left == 0 or _moment(bundle) == before:
                return result
        time.sleep(PAUSE_S)
    raise AssertionError("the last try returns or raises")


def _moment(bundle: Path) -> list[tuple[int, int, int] | None]:
    """Differs where another state counts, or is being put in place."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in (bundle / NEXT, bundle / SUMS):
        try:
            info = path.stat()
            stamps.append((info.st_ino, info.st_mtime_ns, info.st_size))
        except OSError:
            stamps.append(None)
    return stamps


def must_hold_a_bundle(bundle_dir: Path) -> None:
    """Raise KdcError where `bundle_dir` is no bundle, or one whose export waits to be measured."""
    if holds_bundle(bundle_dir):
        return
    if holds_bundle(bundle_dir / UNMEASURED):
        raise KdcError(
            f"{bundle_dir} holds an export that is not measured yet", f"`kdc measure {bundle_dir}` finishes it"
        )
    if (bundle_dir / MATRIX[0]).is_file():
        raise KdcError(f"{bundle_dir} holds the bundles of several profiles", f"name one of them: {bundle_dir}/PROFILE")
    if not bundle_dir.exists():
        raise KdcError(f"the bundle {bundle_dir} does not exist", "kdc export RUN … --out DIR makes one")
    run = bundle_dir if (bundle_dir / "student.json").is_file() else "RUN"
    raise KdcError(
        f"{bundle_dir} is no bundle: it has no bundle.json", f"`kdc export {run} --profile NAME --out DIR` makes one"
    )
