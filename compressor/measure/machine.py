"""This machine and its runtimes, asked through the scripts of targets/, so that nothing here imports a runtime."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, KdcError, os_error
from compressor.files.reading import json_value
from compressor.processes.child_environment import child_environment
from compressor.runtimes import runtime_for
from compressor.schema.base import parse
from compressor.schema.measurement import Machine
from compressor.terminal.printable import one_line

__all__ = ["RuntimeInfo", "last_line", "run_script", "runtime_info", "this_machine"]

# A cold import of a runtime from a slow card takes tens of seconds.
TIMEOUT_S = 120.0
LONGEST_LINE = 400  # of what another program said


@dataclass(frozen=True)
class RuntimeInfo:
    """What a runner says of its runtime: version, and the precisions in which models run on this machine."""

    runtime: str
    version: str
    precisions: tuple[str, ...]


def this_machine() -> Machine:
    """The machine that this process runs on, as targets/bench.py reads it."""
    script = "bench.py"
    return parse(Machine, _json(run_script(script, ["--info"], ""), script), f"targets/{script} --info")


def runtime_info(runtime: str) -> RuntimeInfo:
    """The version of `runtime` and the precisions that work here; raises KdcError (exit 4) where it does not work."""
    row = runtime_for(runtime, "kdc")
    answer = _json(run_script(row.runner, [], '{"op": "info"}\n'), row.runner)
    if answer.get("ok") is not True:
        # "pip install … (cannot import …)" is what a runner says on a bare device; here the hint has the install line.
        message = str(answer.get("message") or "it gave no reason")
        reason = message[message.find("(") + 1 :].removesuffix(")") if answer.get("kind") == "missing" else message
        raise KdcError(f"{runtime} does not work here: {reason}", row.install, EXIT_MISSING)
    version, precisions = answer.get("version"), answer.get("precisions")
    if not isinstance(version, str) or not isinstance(precisions, list):
        raise KdcError(f"targets/{row.runner} gave an answer without version and precisions", "", EXIT_MISSING)
    return RuntimeInfo(runtime, version, tuple(str(name) for name in precisions))


def last_line(text: str) -> str:
    """The last line of a process's stderr that says something: with Python, the exception."""
    lines = [line for line in map(one_line, text.splitlines()) if line]
    return lines[-1][:LONGEST_LINE] if lines else "it said nothing"


def run_script(script: str, arguments: Sequence[str], stdin: str) -> str:
    """What targets/`script` prints, run in a fresh interpreter like this one; raises KdcError where it fails."""
    command = [sys.executable, str(asset_dir("targets") / script), *arguments]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            env=child_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KdcError(f"targets/{script} did not answer within {TIMEOUT_S:g} s", "", EXIT_MISSING) from None
    except OSError as error:
        raise os_error(error, f"starting targets/{script}") from error
    if done.returncode != 0:
        ending = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"failed ({done.returncode})"
        raise KdcError(f"targets/{script} {ending}: {last_line(done.stderr)}", "", EXIT_MISSING)
    return done.stdout


def _json(stdout: str, script: str) -> dict[str, Any]:
    """The JSON object that `stdout` holds: all of it (bench.py), or its first line (a runner's answer)."""
    for text in (stdout, stdout.partition("\n")[0]):
        try:
            answer = json_value(text, script)
        except KdcError:
            continue
        if isinstance(answer, dict):
            return answer
    raise KdcError(f"targets/{script} answered no JSON object: {stdout[:80]!r}", "", EXIT_MISSING)
