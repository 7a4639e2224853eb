"""The folder of a bundle: how its state changes, so that a kill or a full disk at any moment leaves the old or the new.

A change touches many files, and no file system renames many at once. So the whole next state is made first, as a
complete bundle inside the folder: hard links to what stays (copies, where there are no links), new files for the rest,
sealed at its end. Then:

    .kdc-tmp.*/        in the making: counts for nothing, and the next command that writes there removes it
    .kdc-next/         ONE rename of the finished one: from now on this counts, whatever lies beside it
                       its files are put in the places of the old ones, each by a rename; nothing is taken out of it
    .kdc-tmp.*/        ONE rename again: from now on the bundle itself counts, which is the same by now

So at every moment exactly one complete state counts (`counted`), whoever reads needs no right to write, and `settle`,
which every command that writes begins with, goes on wherever a kill came. All of it happens inside the folder: that may
be a mount point or lie behind a link, and its parent need not be writable.

    .kdc-unmeasured/   what `kdc export --overwrite` has made, beside the bundle that it shall replace once it is
                       measured and sealed; `kdc measure BUNDLE` finishes it
    .kdc-qat-*/        students that an interrupted export was training on
    .kdc.lock          see locks.py
"""

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.atomic import TEMPORARY, is_temporary, link_or_copy, temporary_beside
from compressor.files.bundle_folder import BEST, DEVICES, NEXT, SUMS, UNMEASURED, files_of, holds_bundle, own_files

__all__ = ["deliver", "new_folder", "next_state", "promote", "settle"]

IN_BEST = re.compile(rf"({DEVICES}/[^/]+/)?{BEST}/")
STALE_S = 86_400.0
"""A session of bench.py that was started by hand holds no lock of the bundle's; after a day it has ended."""


def new_folder(bundle: Path, word: str) -> Path:
    """A new empty folder in `bundle` for what is in the making. With mkdir and not tempfile's: the umask counts."""
    folder = bundle / f"{TEMPORARY}{word}.{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    return folder


@contextmanager
def next_state(bundle: Path) -> Iterator[Path]:
    """A folder that holds what the settled `bundle` holds, but for its seal; at the end it takes the bundle's place.

    Where the inside raises, the bundle is what it was. The bundle must be locked. Raises KdcError, in which the folder
    bears the bundle's name.
    """
    try:
        folder = new_folder(bundle, "next")
    except OSError as error:
        raise os_error(error, f"writing {bundle}") from error
    try:
        for path in files_of(bundle):
            if path != SUMS:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(bundle / path, folder / path)
        yield folder
        folder.rename(bundle / NEXT)
    except OSError as error:
        raise _renamed(os_error(error, f"writing {bundle}"), folder, bundle) from error
    except KdcError as error:
        raise _renamed(error, folder, bundle) from error.__cause__
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settle(bundle)


def _renamed(error: KdcError, folder: Path, bundle: Path) -> KdcError:
    """The same error, that speaks of the bundle and not of a folder which is gone."""
    message, hint = (text.replace(os.fspath(folder), os.fspath(bundle)) for text in (error.message, error.hint))
    error.message, error.hint, error.args = message, hint, (message,)
    return error


def deliver(folder: Path, out: Path) -> Path:
    """Put the new bundle in `folder`, which lies in `out`, in its place: `out` itself, or where that holds a bundle
    already, beside that one. Returns where it is. `out` must be settled."""
    if holds_bundle(out):
        _discard(out / UNMEASURED)
        folder.rename(out / UNMEASURED)
        return out / UNMEASURED
    promote(folder, out)
    return out


def promote(folder: Path, bundle: Path) -> None:
    """`folder`, a complete state that lies in `bundle`, becomes the bundle's; the one before goes."""
    try:
        folder.rename(bundle / NEXT)
    except OSError as error:
        raise os_error(error, f"writing {bundle}") from error
    settle(bundle)


def settle(bundle: Path) -> None:
    """Finish what an earlier command left unfinished: the state that counts is put in its place, and what never became
    one is removed. The bundle must be locked. Raises KdcError; the same state counts all the same."""
    following = bundle / NEXT
    try:
        if following.is_dir():
            _take_over(following, bundle)
            _discard(following)
        for path in list(bundle.iterdir()):
            if is_temporary(path.name):
                _remove(path)
    except OSError as error:
        failed = os_error(error, f"putting the new state of {bundle} in place")
        raise KdcError(
            failed.message, f"{failed.hint}; then `kdc report {bundle}` goes on", failed.exit_code
        ) from error
    sessions = f"measurements/{TEMPORARY}*"
    for left in (*bundle.glob(sessions), *bundle.glob(f"{DEVICES}/*/{sessions}")):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > STALE_S:
                _remove(left)


def _take_over(following: Path, bundle: Path) -> None:
    """Make `bundle` what `following` is, which stays whole meanwhile. best/ goes as a whole: whoever ships it shall
    find one model or none, and never a mixture."""
    new = set(files_of(following))
    old = own_files(bundle)
    for best in sorted({f"{BEST}/", *(match[0] for path in new | old if (match := IN_BEST.match(path)))}):
        _swap(following / best, bundle / best, bundle)
    for path in sorted(old - new):
        if not IN_BEST.match(path):
            _unlink(bundle, path)
    for path in sorted(new, key=lambda path: (path == SUMS, path)):
        if not _same(following / path, bundle / path):
            (bundle / path).parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_beside(bundle / Path(path).name)  # where `settle` looks for what a kill leaves
            link_or_copy(following / path, temporary)
            temporary.replace(bundle / path)


def _swap(new: Path, old: Path, bundle: Path) -> None:
    """The folder `old` becomes a copy of `new`, of which there may be none."""
    wanted = files_of(new) if new.is_dir() else []
    if old.is_dir() and files_of(old) == wanted and all(_same(new / path, old / path) for path in wanted):
        return
    made = new_folder(bundle, BEST)
    for path in wanted:
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(new / path, made / path)
    if old.is_symlink() or old.exists():
        old.rename(bundle / f"{TEMPORARY}old.{secrets.token_hex(4)}")
    if wanted:
        old.parent.mkdir(parents=True, exist_ok=True)
        made.rename(old)


def _same(first: Path, second: Path) -> bool:
    try:
        first_stat, second_stat = first.lstat(), second.lstat()
        if os.path.samestat(first_stat, second_stat):
            return True
        if not stat.S_ISREG(second_stat.st_mode) or first_stat.st_size != second_stat.st_size:
            return False
        return _equal(first, second)
    except FileNotFoundError:
        return False


def _equal(first: Path, second: Path) -> bool:
    with first.open("rb") as first_file, second.open("rb") as second_file:
        while chunk := first_file.read(1 << 20):
            if second_file.read(len(chunk)) != chunk:
                return False
    return True


def _unlink(bundle: Path, path: str) -> None:
    (bundle / path).unlink(missing_ok=True)
    for parent in (bundle / path).parents:
        if parent == bundle:
            return
        try:
            parent.rmdir()
        except OSError:  # something else lies in it
            return


def _discard(folder: Path) -> None:
    """Remove a folder that has a meaning: by one rename it has none any more."""
    if folder.is_symlink() or folder.exists():
        temporary = folder.with_name(f"{TEMPORARY}old.{secrets.token_hex(4)}")
        folder.rename(temporary)
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
