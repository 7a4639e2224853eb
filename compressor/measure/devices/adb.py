"""Android's adb: a shell on a phone, over USB or the network. The phone needs a Python of its own."""

import re
import shlex
import shutil
from collections.abc import Sequence

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, KdcError
from compressor.measure.devices.url import DeviceUrl
from compressor.measure.machine import last_line

__all__ = ["FOLDER", "command", "explain"]

FOLDER = "/data/local/tmp"  # the one place where adb's user may write and run; Android has no /tmp


def command(url: DeviceUrl, remote: Sequence[str]) -> list[str]:
    """The adb that runs `remote` on the phone; raises KdcError (exit 4) where there is no adb."""
    if shutil.which("adb") is None:
        raise KdcError("--device adb:… needs Android's adb", "apt install adb", EXIT_MISSING)
    assert url.serial is not None
    # Without a terminal of its own, so that the pipe carries bytes as they are.
    return ["adb", "-s", url.serial, "shell", "-T", shlex.join(remote)]


def explain(url: DeviceUrl, python: str, code: int, said: str) -> KdcError:
    """Why adb ended with `code` before Python began, from what it `said` on stderr."""
    where = url.name
    if code == 127 or code == 126:
        return KdcError(
            f"{where} has no {python}: {last_line(said)}",
            "Android brings no Python: install Termux and `pkg install python` in it, or put a static one there, "
            "then name it: --device-python PATH",
            EXIT_MISSING,
        )
    if re.search(r"device (\S+ )?not found|no devices", said):
        return KdcError(f"adb knows no device {where}", "see which there are: adb devices")
    if "unauthorized" in said:
        return KdcError(
            f"{where} has not permitted this computer yet", "unlock it, and permit USB debugging on its screen"
        )
    if re.search(r"offline|cannot connect to daemon|failed to connect|closed", said):
        return KdcError(
            f"{where} cannot be reached: nothing was measured ({last_line(said)})",
            "plug it in again, or: adb reconnect",
            EXIT_INCONCLUSIVE,
        )
    return KdcError(f"{python} did not start on {where} (exit code {code}): {last_line(said)}", "adb devices")
