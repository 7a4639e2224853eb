"""`kdc measure`: run the bundle's own bench.py in a process of its own, and show how far it is."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from compressor.errors import KdcError
from compressor.measure.machine import last_line
from compressor.progress import Progress

__all__ = ["measure_bundle"]


def measure_bundle(bundle: Path, *, rounds: int, seconds: float, progress: Progress) -> None:
    """Measure every variant of `bundle` on this machine; leaves BUNDLE/measurements/measurement.json.

    `rounds`, `seconds`: how many rounds of blocks at most, and for how long in all. The script is the bundle's own, the
    same that measures on a device where kdc is not installed. Raises KdcError where it fails.
    """
    script = bundle / "runners" / "bench.py"
    if not script.is_file():
        raise KdcError(f"{bundle} is no bundle of kdc ({script} is missing)", "kdc export RUN --profile P --out BUNDLE")
    command = [sys.executable, str(script), str(bundle), "--json", "--rounds", str(rounds), "--seconds", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for row in progress.track(_rows(process.stdout), 0, "measuring"):
                if "note" in row:
                    progress.note(str(row["note"]))
            errors = process.stderr.read()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if process.returncode == 130:
        raise KeyboardInterrupt
    if process.returncode != 0:
        raise KdcError(f"measuring {bundle} failed: {last_line(errors)}")
