"""This machine as a device: the bundle's own bench.py in a process of its own."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, os_error
from compressor.measure.devices.link import raise_for
from compressor.measure.devices.pipe import Pipe, PipeError, as_object
from compressor.measure.devices.url import Kind
from compressor.spec.base import write_atomically

__all__ = ["LocalLink", "fresh_folder", "local_link"]

PREFIX = ".running-"
HERE = "this machine"


class LocalLink:
    """`out`: where bench.py leaves its logits."""

    kind: Kind = "local"

    def __init__(self, bundle: Path, out: Path, python: str) -> None:
        self._bundle = bundle
        self._out = out
        self._python = python
        self._pipe: Pipe | None = None

    def bench(self, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
        script = self._bundle / "runners" / "bench.py"
        command = [self._python, str(script), str(self._bundle), "--json", "--out", str(self._out), *arguments]
        try:
            pipe = Pipe(command)
        except OSError as error:
            raise os_error(error, f"starting {script.name} with {self._python}") from error
        self._pipe = pipe
        try:
            yield from _events(pipe)
        except PipeError as ended:
            raise_for(ended.code, ended.said, HERE)
        finally:
            self.end()

    def end(self) -> None:
        """End bench.py, where whoever looked at its events has stopped looking."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            # Not SIGINT: a job in the background of a shell has inherited that it is ignored.
            pipe.process.terminate()
            pipe.hang_up()
            if os.name == "posix":
                with suppress(OSError):  # usually there is nobody left
                    os.killpg(pipe.process.pid, signal.SIGKILL)

    def say(self, line: str) -> None:
        assert self._pipe is not None, "nobody listens: bench.py is not running"
        try:
            self._pipe.write(line.encode() + b"\n")
        except PipeError as ended:
            raise_for(ended.code, ended.said, HERE)

    def fetch(self, name: str, to: Path, most: int) -> None:
        assert name == Path(name).name
        with write_atomically(to) as temporary:
            shutil.copyfile(self._out / name, temporary)


@contextmanager
def local_link(bundle: Path, python: str | None) -> Iterator[LocalLink]:
    """A link to this machine; bench.py's unfinished files lie in BUNDLE/measurements/.running-* meanwhile."""
    script = bundle / "runners" / "bench.py"
    if not script.is_file():
        raise KdcError(f"{bundle} is no bundle of kdc ({script} is missing)", "kdc export RUN --profile P --out BUNDLE")
    measurements = bundle / "measurements"
    try:
        measurements.mkdir(exist_ok=True)
        out = fresh_folder(measurements, PREFIX)
    except OSError as error:
        raise os_error(error, f"writing {measurements}") from error
    link = LocalLink(bundle, out, python or sys.executable)
    try:
        yield link
    finally:
        link.end()
        shutil.rmtree(out, ignore_errors=True)


def _events(pipe: Pipe) -> Iterator[dict[str, Any]]:
    while True:
        line = pipe.line()
        event = as_object(line)
        if event is None:
            raise KdcError(f"bench.py said what is no event: {line.decode('utf-8', 'replace').strip()[:100]!r}")
        yield event


def fresh_folder(parent: Path, prefix: str) -> Path:
    """A new folder of this process in `parent`; those of processes that were killed go."""
    if os.name == "posix":  # on Windows os.kill(…, 0) is no question: it ends the process
        for left in parent.glob(f"{prefix}*-*"):
            with suppress(ValueError, PermissionError):
                try:
                    os.kill(int(left.name.removeprefix(prefix).partition("-")[0]), 0)
                except ProcessLookupError:
                    shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))
