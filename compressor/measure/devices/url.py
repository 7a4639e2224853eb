"""`--device`: local, ssh://[user@]host[:port][/folder] or adb:SERIAL[/folder], parsed with suspicion.

A host is handed to the ssh program, so what could be read as an option, or as anything but a name, is refused here.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

from compressor.errors import KdcError, did_you_mean

__all__ = ["PERMITTED", "SCHEME", "DeviceUrl", "Kind", "parse_device", "refuse_python_here"]

Kind = Literal["local", "ssh", "adb"]

PERMITTED = "local, ssh://[user@]host[:port][/folder] or adb:SERIAL[/folder]"
NAME = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")
SCHEME = re.compile(r"(ssh|adb):/*|[A-Za-z]+:/+")
ADB_PORT = re.compile(r":[0-9]{1,5}")  # the serial of a phone in the network is its address


@dataclass(frozen=True)
class DeviceUrl:
    """Where to measure. `host` may be an alias of ~/.ssh/config. `folder`: where the session's folder is made,
    absolute, or from "~/" on in the home directory; None for the device's own place for temporary files."""

    kind: Kind
    user: str | None = None
    host: str | None = None
    port: int | None = None
    serial: str | None = None
    folder: str | None = None

    @property
    def name(self) -> str:
        """The device in a sentence."""
        return self.host or self.serial or "this machine"


def refuse_python_here(url: DeviceUrl, python: str | None) -> None:
    """Raise KdcError where an interpreter is named and there is no device that it could be on."""
    if url.kind == "local" and python is not None:
        raise KdcError(
            "--device-python names an interpreter on a device, and there is no --device",
            "--device ssh://HOST --device-python EXE; here kdc's own Python is used",
        )


def parse_device(url: str) -> DeviceUrl:
    """The device that `url` names; raises KdcError for everything that is not exactly one of the permitted forms."""
    if any(unicodedata.category(sign) == "Cc" for sign in url):
        raise _refusal(url, "holds control characters")
    if _holds_password(url):
        # The message does not repeat it: messages stand in logs.
        raise KdcError(
            f"the URL of --device holds a password, which every list of processes would show; permitted: {PERMITTED}",
            "use a key or an agent instead: ssh-copy-id USER@HOST, then --device ssh://USER@HOST",
        )
    if url == "local":
        return DeviceUrl("local")
    if "?" in url or "#" in url:
        raise _refusal(url, "has a query or a fragment", "in a folder's name, write ? as %3F and # as %23")
    if url.startswith("ssh://"):
        return _ssh(url)
    if url.startswith("adb:") and not url.startswith("adb://"):
        serial, slash, path = url.removeprefix("adb:").partition("/")
        return DeviceUrl("adb", serial=_serial(url, serial), folder=_folder(url, slash + path))
    scheme = url.partition(":")[0]
    if scheme in ("ssh", "adb"):
        form = "ssh://HOST" if scheme == "ssh" else "adb:SERIAL"
        raise _refusal(url, f"is not written as {form}", f"--device {form}")
    if "@" in url and "/" not in url:
        raise _refusal(url, "has no scheme", f"--device ssh://{url}")
    raise _refusal(url, f"is no device that kdc knows{did_you_mean(scheme, ['local', 'ssh', 'adb'])}")


def _holds_password(url: str) -> bool:
    """Whether a ":" stands before an "@", however the rest is mistyped, or written as %3A."""
    location = SCHEME.sub("", url, count=1) if SCHEME.match(url) else url
    authority = unquote_to_bytes(location.partition("/")[0]).decode("utf-8", "replace")
    # A port may stand before a folder that holds an "@".
    return re.search(r":(?!\d{1,5}/).*@", location) is not None or re.search(r":.*@", authority) is not None


def _ssh(url: str) -> DeviceUrl:
    authority, slash, path = url.removeprefix("ssh://").partition("/")
    user, at, address = authority.rpartition("@")
    if at and not NAME.fullmatch(user):
        raise _refusal(url, f"has the user {user!r}; permitted: letters, digits, . _ and -, and no - in front")
    host, colon, port = _split(url, address)
    return DeviceUrl("ssh", user or None, host, _port(url, port) if colon else None, folder=_folder(url, slash + path))


def _split(url: str, address: str) -> tuple[str, str, str]:
    """Host, ":" where there is one, and port."""
    if not address.startswith("["):
        host, colon, port = address.partition(":")
        if not host:
            raise _refusal(url, "names no host", "--device ssh://HOST")
        if not NAME.fullmatch(host):
            raise _refusal(url, f"has the host {host!r}; permitted: letters, digits, . _ and -, and no - in front")
        return host, colon, port
    inside, end, suffix = address[1:].partition("]")
    plain, percent, zone = inside.partition("%25")
    try:
        host = str(ipaddress.IPv6Address(plain if end else ""))
    except ValueError:
        raise _refusal(url, f"has no IPv6 address in its brackets: {inside!r}") from None
    if (percent and not NAME.fullmatch(zone)) or suffix[:1] not in ("", ":"):
        raise _refusal(url, f"has the host {address!r}", "--device ssh://[fe80::1%25eth0]:22")
    return (f"{host}%{zone}" if zone else host), suffix[:1], suffix[1:]


def _port(url: str, port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise _refusal(url, f"has the port {port!r}; permitted: 1 to 65535")
    return int(port)


def _serial(url: str, serial: str) -> str:
    name, colon, port = serial.partition(":")
    if not name:
        raise _refusal(url, "names no phone", "adb devices")
    if not NAME.fullmatch(name) or (colon and not ADB_PORT.fullmatch(colon + port)):
        raise _refusal(url, f"has the serial {serial!r}; permitted: letters, digits, . _ and -", "adb devices")
    return serial


def _folder(url: str, path: str) -> str | None:
    """The path behind the device, percent-decoded. "/~/x" is x in the home directory; "/" alone says nothing."""
    if path in ("", "/"):
        return None
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise _refusal(
            url, "has a % that is not followed by two hexadecimal digits", "in a folder's name, write % as %25"
        )
    try:
        folder = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise _refusal(url, "has a folder whose name is not UTF-8") from None
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs") for sign in folder):
        raise _refusal(url, "has a folder whose name holds control characters or line ends")
    return folder[1:] if folder == "/~" or folder.startswith("/~/") else folder


def _refusal(url: str, problem: str, hint: str = "") -> KdcError:
    return KdcError(f"--device {url!r} {problem}; permitted: {PERMITTED}", hint or "kdc measure --help")
