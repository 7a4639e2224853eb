"""What a session of `kdc measure` asks of a device, wherever it is."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_MISSING, EXIT_USAGE, KdcError
from compressor.measure.devices.pipe import LostConnection
from compressor.measure.devices.url import Kind
from compressor.measure.machine import last_line

__all__ = ["Link", "raise_for"]


class Link(Protocol):
    """A device with the bundle on it. One thing at a time: `bench` until it ends, then `fetch`, then `bench` again."""

    @property
    def kind(self) -> Kind: ...

    def bench(self, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The events of `bench.py BUNDLE --json --out FOLDER` with more `arguments`, as they come. Ends when bench.py
        ends with 0; raises KdcError with its exit code and reason otherwise, LostConnection where the pipe ends."""

    def say(self, line: str) -> None:
        """Answer a look, while `bench` is going on."""

    def fetch(self, name: str, to: Path, most: int) -> None:
        """The file `name` that bench.py left in its folder, as `to`: all of it or nothing, and `most` bytes at most."""


def raise_for(code: int, said: str, where: str) -> None:
    """How bench.py ended, as an exception; none for 0. `said`: the last of its stderr."""
    line = last_line(said).removeprefix("bench.py: ")
    on = "" if where == "this machine" else f"{where}: "
    if code == 0:
        return
    if code == EXIT_INTERRUPTED:
        raise LostConnection(f"{on}bench.py was interrupted, and not by kdc: {line}")
    if code in (EXIT_USAGE, EXIT_INCONCLUSIVE, EXIT_MISSING):
        raise KdcError(f"{on}{line}", exit_code=code)
    if code < 0:
        why = "; the system kills what needs more memory than there is" if code == -9 else ""
        raise KdcError(f"{on}bench.py was ended by signal {-code}{why}", exit_code=EXIT_INCONCLUSIVE)
    raise KdcError(f"{on}bench.py failed (exit code {code}): {line}")
