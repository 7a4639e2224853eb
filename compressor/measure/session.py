"""`kdc measure`: run the bundle's own bench.py in a process of its own, and show how far it is."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from compressor.errors import EXIT_INTERRUPTED, KdcError
from compressor.measure.machine import last_line
from compressor.progress import Progress

__all__ = ["measure_bundle"]


def measure_bundle(bundle: Path, *, rounds: int, seconds: float, progress: Progress) -> None:
    """Measure every variant of `bundle` on this machine; leaves BUNDLE/measurements/measurement.json.

    `rounds` of blocks, or fewer where they take longer than `seconds` in all. The script is the bundle's own, the same
    that measures on a device where kdc is not installed. Raises KdcError where it fails.
    """
    script = bundle / "runners" / "bench.py"
    if not script.is_file():
        raise KdcError(f"{bundle} is no bundle of kdc ({script} is missing)", "kdc export RUN --profile P --out BUNDLE")
    command = [sys.executable, str(script), str(bundle), "--json", "--rounds", str(rounds), "--seconds", str(seconds)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        # A session of its own: Ctrl-C reaches it once, from here.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, encoding="utf-8", start_new_session=True
        )
        assert process.stdout is not None
        try:
            with process.stdout:
                for line in process.stdout:
                    try:
                        row = json.loads(line)
                        progress.at(row["doing"], row["progress"], row["total"])
                    except (ValueError, KeyError, TypeError):
                        raise KdcError(f"{script} said what is no progress: {line.strip()[:100]}") from None
            process.wait()
        except BaseException:
            # Not SIGINT: a job in the background of a shell has inherited that it is ignored.
            process.terminate()
            process.wait()
            raise
        complaints.seek(0)
        said = complaints.read()
    if process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode != 0:
        raise KdcError(f"measuring {bundle} failed: {last_line(said)}")
    for line in said.splitlines():
        if line.startswith("note: "):
            progress.note(line)
        else:
            progress.warn(line)
