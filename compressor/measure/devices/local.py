"""This machine as a device: kdc's own bench.py in a process of its own, and never a script that lies in a bundle."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compressor.assets import runner_scripts
from compressor.errors import KdcError, os_error
from compressor.files.atomic import write_atomically
from compressor.files.bundle_change import new_folder
from compressor.measure.devices.link import raise_for
from compressor.measure.devices.pipe import Pipe, PipeError, as_object
from compressor.measure.devices.url import Kind
from compressor.processes.child_environment import child_environment

__all__ = ["LocalLink", "local_link"]

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
        script = runner_scripts()["bench.py"]
        command = [self._python, str(script), str(self._bundle), "--json", "--out", str(self._out), *arguments]
        try:
            pipe = Pipe(command, child_environment())
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
    """A link to this machine; bench.py's unfinished files lie in BUNDLE/measurements/ meanwhile."""
    measurements = bundle / "measurements"
    try:
        out = new_folder(measurements, "running")
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
