"""The system's OpenSSH client: its configuration, keys, agent, jump hosts and known hosts are the user's and count."""

import re
import shlex
import shutil
from collections.abc import Sequence

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, KdcError
from compressor.measure.devices.url import DeviceUrl
from compressor.measure.machine import last_line

__all__ = ["command", "explain"]

# Never a question that nobody answers; a device that has gone is noticed after half a minute.
OPTIONS = ("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=10", "ServerAliveCountMax=3")
FAILED = 255  # ssh itself failed; every other code is the remote command's


def command(url: DeviceUrl, remote: Sequence[str]) -> list[str]:
    """The ssh that runs `remote` on the device; raises KdcError (exit 4) where there is no ssh."""
    if shutil.which("ssh") is None:
        raise KdcError("--device ssh://… needs the OpenSSH client", "apt install openssh-client", EXIT_MISSING)
    assert url.host is not None
    program, *arguments = remote
    # ssh begins in the home directory, and "~" in quotes is no home.
    quoted = shlex.join([program.removeprefix("~/"), *arguments])
    options = [part for option in OPTIONS for part in ("-o", option)]
    port = ["-p", str(url.port)] if url.port else []
    user = ["-l", url.user] if url.user else []
    return ["ssh", "-T", *options, *port, *user, "--", url.host, quoted]


def by_hand(url: DeviceUrl) -> str:
    """What the user types to connect."""
    port = f"-p {url.port} " if url.port else ""
    return f"ssh {port}{url.user + '@' if url.user else ''}{url.host}"


def explain(url: DeviceUrl, python: str, code: int, said: str) -> KdcError:
    """Why ssh ended with `code` before Python began, from what it `said` on stderr."""
    where = url.name
    if code == 127 or code == 126:
        return KdcError(
            f"{where} has no {python}: {last_line(said)}",
            f"{by_hand(url)}, there: apt install python3; or name another interpreter of it: --device-python PATH",
            EXIT_MISSING,
        )
    if code != FAILED:
        return KdcError(f"{python} did not start on {where} (exit code {code}): {last_line(said)}", by_hand(url))
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        entry = f"'[{url.host}]:{url.port}'" if url.port and url.port != 22 else url.host
        return KdcError(
            f"the host key of {where} has CHANGED since it was last seen: another machine, a new installation, or "
            "somebody in between",
            f"if you know why it changed: ssh-keygen -R {entry}; then connect once by hand: {by_hand(url)}",
        )
    if "Host key verification failed" in said:
        return KdcError(
            f"the host key of {where} is unknown here, so it may be any machine",
            f"connect once by hand and compare the fingerprint: {by_hand(url)} (or add the output of ssh-keyscan)",
        )
    if re.search(r"Permission denied \(|Too many authentication failures", said):
        return KdcError(
            f"{where} permits no login with your keys: {last_line(said)}",
            by_hand(url).replace("ssh ", "ssh-copy-id ", 1),
        )
    if "Could not resolve hostname" in said:
        return KdcError(f"{last_line(said)}", "check the name, and ~/.ssh/config")
    if re.search(r"[Bb]ad configuration option|Bad owner or permissions|Unable to negotiate", said):
        return KdcError(f"ssh does not connect to {where}: {last_line(said)}", by_hand(url))
    return KdcError(
        f"{where} cannot be reached: nothing was measured ({last_line(said)})",
        f"is it on, and in the network? {by_hand(url)}",
        EXIT_INCONCLUSIVE,
    )
