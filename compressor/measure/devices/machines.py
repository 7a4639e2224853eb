"""Which of several devices are one and the same machine, so that measuring them at once would measure one another.

What cannot be told from here (one board with two addresses behind a router, one phone by USB and by network) the device
tells itself: bench.py holds a lock there, and waits for another measurement to end.
"""

import re
import shutil
import socket
import subprocess
from collections.abc import Sequence

from compressor.measure.devices.url import DeviceUrl

__all__ = ["HERE", "same_machines"]

HERE = "this machine"
TIMEOUT_S = 20.0


def same_machines(urls: Sequence[DeviceUrl]) -> list[list[int]]:
    """The numbers of the `urls`, those of one machine in one list; in the first list, which may be empty, those that
    are this machine. Connects to none of them; names are looked up as ssh does."""
    groups: list[tuple[set[str], list[int]]] = [({HERE}, [])]
    for number, url in enumerate(urls):
        names = _names_of(url)
        same = [group for group in groups if group[0] & names]
        first = same[0] if same else (set[str](), list[int]())
        if not same:
            groups.append(first)
        for other in same[1:]:  # two that looked different are both this one
            first[0].update(other[0])
            first[1].extend(other[1])
            groups.remove(other)
        first[0].update(names)
        first[1].append(number)
    return [sorted(numbers) for _, numbers in groups]


def _names_of(url: DeviceUrl) -> set[str]:
    """Whatever a machine may be known by: two with one of these in common are the same."""
    if url.kind == "local":
        return {HERE}
    if url.kind == "adb":
        serial = url.serial or ""
        host, _, port = serial.partition(":")
        if serial.startswith("emulator-"):
            return {HERE}
        return {f"adb {serial}"} | (_addresses(host) if port else set())
    host, way = _as_ssh_sees_it(url)
    if way:  # beyond a jump host, names mean what they mean there
        return {f"{way} {host}"}
    return {f"host {host}"} | _addresses(host)


def _as_ssh_sees_it(url: DeviceUrl) -> tuple[str, str]:
    """The host that ~/.ssh/config makes of it, with its port where there is a way to it that is not direct, and that
    way."""
    host = (url.host or "").lower()
    if shutil.which("ssh") is None:
        return host, ""
    port = ["-p", str(url.port)] if url.port else []
    user = ["-l", url.user] if url.user else []
    command = ["ssh", "-G", *port, *user, "--", url.host or ""]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return host, ""
    told = dict(re.findall(r"^(hostname|port|proxyjump|proxycommand) (.+)$", done.stdout, re.MULTILINE))
    way = next((told[key] for key in ("proxyjump", "proxycommand") if told.get(key, "none") != "none"), "")
    host = told.get("hostname", host).lower()
    return (f"{host} {told.get('port', '')}", way) if way else (host, "")


def _addresses(host: str) -> set[str]:
    """The addresses of a host, and whether one of them is this machine's."""
    try:
        known = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return set()
    names = {f"address {address[0]}" for *_, address in known}
    return names | ({HERE} if any(_is_here(family, address) for family, *_, address in known) else set())


def _is_here(family: int, address: tuple[object, ...]) -> bool:
    """Whether this machine has the address: only then can it be bound to."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address[0], 0, *address[2:]))
    except OSError:
        return False
    return True
