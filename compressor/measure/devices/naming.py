"""Several `--device`: each URL, and the name under which its figures stand and lie on disk."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from compressor.errors import KdcError
from compressor.measure.devices.url import SCHEME, DeviceUrl, parse_device

__all__ = ["NamedDevice", "parse_devices"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST = 32
LONGEST = 40
"""Of a part of a name that is made from a URL."""


@dataclass(frozen=True)
class NamedDevice:
    """`text`: its URL, as it was typed; `chosen`: whether the user gave the name."""

    name: str
    url: DeviceUrl
    text: str
    chosen: bool

    @property
    def option(self) -> str:
        """What `--device` takes."""
        return f"{self.name}={self.text}"


def parse_devices(texts: Sequence[str]) -> tuple[NamedDevice, ...]:
    """The devices that `--device`, each URL or NAME=URL, names; none: this machine. Names are unique, whatever the case
    of their letters, and can be those of folders. Raises KdcError."""
    given = [_split(text) for text in texts or ("local",)]
    if len(given) > MOST:
        raise KdcError(f"--device names {len(given)} devices, and {MOST} are permitted", "measure some of them first")
    taken: set[str] = set()
    for device in given:
        if device.chosen and device.name.casefold() in taken:
            raise KdcError(f"two --device are called {device.name}", f"--device OTHER={device.text}")
        taken |= {device.name.casefold()} if device.chosen else set()
    if len({device.url for device in given}) < len(given):
        twice = next(device.text for device in given if sum(other.url == device.url for other in given) > 1)
        raise KdcError(f"--device {twice} is named twice", "name each device once")
    return tuple(_named(given, taken))


def _split(text: str) -> NamedDevice:
    name, equals, url = text.partition("=")
    if not equals or SCHEME.match(name):  # a folder's name may hold one
        return NamedDevice("", parse_device(text), text, chosen=False)
    if not NAME.fullmatch(name):
        raise KdcError(
            f"--device {text!r} has the name {name!r}; permitted: up to 64 letters, digits, . _ and -, a letter or "
            "digit first",
            "--device NAME=ssh://HOST",
        )
    return NamedDevice(name, parse_device(url), url, chosen=True)


def _named(given: Sequence[NamedDevice], taken: set[str]) -> Iterator[NamedDevice]:
    """Each with its name: what the user calls the machine, and where two are called so, with what tells them apart."""
    short = [_slug("local" if device.url.kind == "local" else device.url.name) for device in given]
    for device, base in zip(given, short, strict=True):
        if device.chosen:
            yield device
            continue
        alike = sum(other.casefold() == base.casefold() for other in short) > 1
        name = base if not alike else "-".join(filter(None, _parts(device.url, base)))
        number, unique = 1, name
        while unique.casefold() in taken:
            number, unique = number + 1, f"{name}-{number + 1}"
        taken.add(unique.casefold())
        yield replace(device, name=unique)


def _parts(url: DeviceUrl, base: str) -> Iterator[str]:
    if url.user:
        yield _slug(url.user)[:12]
    yield base[:24]
    if url.port:
        yield str(url.port)
    if url.folder:
        yield _slug(url.folder.rpartition("/")[2])[:12]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("._-")[:LONGEST] or "device"
