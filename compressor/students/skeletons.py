"""Artefacts of drawn weights: how fast a network is does not depend on what it has learned. Made in processes."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

from compressor.errors import EXIT_MISSING, KdcError, os_error
from compressor.processes.child_environment import child_environment
from compressor.processes.python import kdc_code
from compressor.progress import Progress
from compressor.schema.profile import Profile
from compressor.schema.students import Skeleton, Wish

__all__ = ["CALIBRATION", "MEASURED", "answer_to", "make_skeletons"]

CALIBRATION = 32
"""Drawn samples that int8 ranges come from. Their values decide nothing; runtimes want some."""
MEASURED = 8
"""Drawn samples that the runner goes through."""
WORKER = "from compressor.students.worker import main\nmain()"


def make_skeletons(
    wishes: Sequence[Wish], profile: Profile, root: Path, processes: int, progress: Progress
) -> Iterator[Skeleton]:
    """Export every wish into `root`, so many at a time, as they are done. Raises KdcError: with exit code 4 where a
    package is missing here.

    Never in this process: what a runtime compiles may end the process that it runs in.
    """
    workers = _Workers(profile, root)
    try:
        with ThreadPoolExecutor(min(processes, len(wishes))) as threads:
            waiting = [threads.submit(workers.export, wish) for wish in wishes]
            try:
                for number, future in enumerate(as_completed(waiting), 1):
                    progress.at("exporting candidates", number, len(wishes))
                    yield future.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                workers.end()  # so that no thread waits for an answer
                raise
    finally:
        workers.end()
        progress.end()


def answer_to(
    wish: Wish, profile: Profile, root: Path, tell: Callable[[str], None] = lambda variant: None
) -> dict[str, Any]:
    """What came of a wish, as JSON has it: {"skeleton": …}, or {"error": [message, hint, exit code]}. `tell`: called
    with each variant before it is made."""
    from compressor.students.exporting import export_wish

    try:
        return {"skeleton": export_wish(wish, profile, root, tell).model_dump(mode="json")}
    except KdcError as error:
        return {"error": [error.message, error.hint, error.exit_code]}


def _skeleton(wish: Wish, answer: dict[str, Any]) -> Skeleton:
    if "skeleton" in answer:
        return Skeleton.model_validate(answer["skeleton"])
    message, hint, code = answer["error"]
    if code == EXIT_MISSING:  # it is missing for all of them
        raise KdcError(message, hint, code)
    return Skeleton(wish=wish, entrants=(), failures=dict.fromkeys(wish.names, message))


class _Workers:
    """A process a thread that asks. They stand in a session of their own: a Ctrl-C is for this process, which ends
    them."""

    def __init__(self, profile: Profile, root: Path) -> None:
        self._first_line = json.dumps({"profile": profile.model_dump(mode="json"), "root": str(root)})
        self._root = root
        self._mine = threading.local()
        self._started: list[subprocess.Popen[str]] = []
        self._starting, self._over = threading.Lock(), False

    def export(self, wish: Wish) -> Skeleton:
        """What came of a wish. A variant at which the process died is left out, and the others are made anew in another
        process."""
        answer, at = self._asked(wish)
        if answer is not None:
            return _skeleton(wish, answer)
        code = self._buried()
        died = f"its process died (signal {-code})" if code < 0 else f"its process ended with exit code {code}"
        why = "; the system kills what needs more memory than there is" if code == -9 else ""
        reason = f"{died} while it was exported{why}"
        rest = tuple(variant for variant in wish.variants if "-".join(variant) != at)
        if not at or not rest:
            return Skeleton(wish=wish, entrants=(), failures=dict.fromkeys(wish.names, reason))
        shutil.rmtree(self._root / wish.label, ignore_errors=True)
        others = self.export(wish.model_copy(update={"variants": rest}))
        return Skeleton(wish=wish, entrants=others.entrants, failures={**others.failures, at: reason})

    def _asked(self, wish: Wish) -> tuple[dict[str, Any] | None, str]:
        """The answer to a wish, None where the process ended before; and the variant that it was at."""
        process = getattr(self._mine, "process", None)
        if process is None:
            process = self._mine.process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        at = ""
        with suppress(OSError):  # it has ended: it says nothing
            process.stdin.write(wish.model_dump_json() + "\n")
            process.stdin.flush()
            while (line := process.stdout.readline()).endswith("\n"):
                answer: dict[str, Any] = json.loads(line)
                if "at" not in answer:
                    return answer, at
                at = answer["at"]
        return None, at

    def _buried(self) -> int:
        """How the process of this thread ended."""
        process, self._mine.process = self._mine.process, None
        code: int = process.wait()
        return code

    def _start(self) -> "subprocess.Popen[str]":
        with self._starting:
            if self._over:
                raise KdcError("interrupted")
            try:
                process = subprocess.Popen(
                    kdc_code(WORKER),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env={**child_environment(), "OMP_NUM_THREADS": "1"},
                    start_new_session=os.name == "posix",
                )
            except OSError as error:
                raise os_error(error, "starting a process that exports candidates") from error
            self._started.append(process)
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.write(self._first_line + "\n")
        return process

    def end(self) -> None:
        """End all of them; none is started any more, in place of one that died, say."""
        with self._starting:
            self._over = True
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
