"""How kdc fails: one exception for everything that a user can cause or mend, and the exit codes, named.

KdcError                 message (what is wrong, and where), hint (what to type next), exit_code
EXIT_PASS = 0            all gates pass
EXIT_GATE_FAILED = 1     a gate failed
EXIT_USAGE = 2           wrong usage, configuration or input
EXIT_INCONCLUSIVE = 3    inconclusive or unmeasured
EXIT_MISSING = 4         a needed runtime or tool is missing
EXIT_INTERRUPTED = 130   interrupted; the state is saved
"""

import difflib
import errno
import importlib
import os
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "EXIT_GATE_FAILED",
    "EXIT_INCONCLUSIVE",
    "EXIT_INTERRUPTED",
    "EXIT_MISSING",
    "EXIT_PASS",
    "EXIT_USAGE",
    "KdcError",
    "KdcWarning",
    "did_you_mean",
    "explained",
    "first_line",
    "limit_error",
    "needs",
    "os_error",
]

EXIT_PASS = 0
EXIT_GATE_FAILED = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_MISSING = 4
EXIT_INTERRUPTED = 130


MOST_WORDS = 5_000
LONGEST_WORD = 200
"""Beyond these, looking for a misspelling takes seconds to hours."""


class KdcError(Exception):
    """Something that the user can mend. `message` says what is wrong and where; `hint` what to type next."""

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class KdcWarning(UserWarning):
    """What a call of the Python API warns of, where no `progress` is told."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean X?"` for the known word nearest to `word`, or `""` where none is near."""
    words = list(known)
    if len(words) > MOST_WORDS or len(word) > LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing: for other libraries' errors."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def needs(module: str, install: str, purpose: str) -> ModuleType:
    """Import an optional `module` now, or raise KdcError (exit 4) with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise KdcError(f"{purpose} needs {module}, which is not installed", install, EXIT_MISSING) from error


LIMITS = {
    errno.EFBIG: ("a file may not become so large", "raise the limit: ulimit -f"),
    errno.EMFILE: ("this process may open no more files", "raise the limit: ulimit -n"),
    errno.ENFILE: ("this machine can open no more files", "end what holds many open"),
    errno.ENOMEM: ("there is no memory left", "free some memory, or raise the limit: ulimit -v"),
    errno.EAGAIN: ("no more processes or threads may be started", "raise the limit: ulimit -u"),
    errno.EROFS: ("the file system is read-only", "choose another --out"),
}


def os_error(error: OSError, doing: str) -> KdcError:
    """The KdcError for an operating-system error met while `doing` something, e.g. "writing run/student.json"."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KdcError(f"no space left on the device while {doing}", "free some space, or choose another --out")
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in LIMITS:
        limit, hint = LIMITS[error.errno]
        return KdcError(f"{limit}: {error.strerror} while {doing}{where}", hint)
    reason = error.strerror or str(error)
    return KdcError(f"{reason} while {doing}{where}", "check the path and its permissions")


def explained(error: Exception) -> KdcError:
    """Whatever ended a command, as what the user is told: what no part of kdc expected is a bug, and called so."""
    if isinstance(error, KdcError):
        return error
    if not _folder_is_there():
        return KdcError("the current folder does not exist any more", "cd to a folder that does")
    if isinstance(error, OSError):
        return os_error(error, "working")
    if (limit := limit_error(error)) is not None:
        return limit
    if isinstance(error, RecursionError):
        return KdcError(f"an input is nested too deeply ({first_line(error)})", "KDC_DEBUG=1 shows which")
    text = f"{type(error).__name__}: {first_line(error) if str(error).strip() else ''}"
    return KdcError(f"unexpected: {text}", "this is a bug in kdc; KDC_DEBUG=1 shows where")


def _folder_is_there() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  (Path.cwd, but no Path is made)
    except OSError:
        return False
    return True


def limit_error(error: Exception) -> KdcError | None:
    """The KdcError for an error of another library's that says that a limit of this process or machine was reached."""
    said = first_line(error)
    # torch raises a RuntimeError of its own for the CPU's memory, and torch.OutOfMemoryError for a GPU's.
    names_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if names_memory or any(text in said for text in OUT_OF_MEMORY):
        hint = "smaller sizes need less: --batch-size, --input-size; or free some, or raise the limit: ulimit -v"
        return KdcError(f"not enough memory: {said}", hint)
    if "can't start new thread" in said:
        return KdcError(f"no more threads may be started: {said}", "raise the limit: ulimit -u, ulimit -v")
    if any(text in said for text in NO_MORE_FILES):
        return KdcError(f"this process may open no more files: {said}", "raise the limit: ulimit -n")
    return None


OUT_OF_MEMORY = ("can't allocate memory", "annot allocate memory", "failed to map segment", "std::bad_alloc")
NO_MORE_FILES = ("Too many open files",)
