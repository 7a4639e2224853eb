"""Devices: where a bundle is measured. `--device local`, `ssh://…` or `adb:…`; what is measured is the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.measure.devices.doctor import diagnose_device, missing_on, to_text
from compressor.measure.devices.link import Link
from compressor.measure.devices.local import local_link
from compressor.measure.devices.machines import same_machines
from compressor.measure.devices.naming import NamedDevice, parse_devices
from compressor.measure.devices.pipe import LostConnection
from compressor.measure.devices.remote import DEFAULT_PYTHON, remote_link
from compressor.measure.devices.url import DeviceUrl, Kind, parse_device, refuse_python_here
from compressor.progress import Progress
from compressor.schema.bundle import Bundle
from compressor.schema.students import Field

__all__ = [
    "DeviceUrl",
    "Kind",
    "Link",
    "LostConnection",
    "NamedDevice",
    "diagnose_device",
    "missing_on",
    "open_link",
    "parse_device",
    "parse_devices",
    "refuse_python_here",
    "same_machines",
    "to_text",
]


@contextmanager
def open_link(
    url: DeviceUrl, bundle: Path, manifest: Bundle | Field, *, python: str | None, progress: Progress
) -> Iterator[Link]:
    """The device at `url` with `bundle` on it. `python`: the interpreter there (None: python3; here: this one).

    Raises KdcError where it cannot be reached, LostConnection from within where it is lost. Whatever happens, at the
    end nothing of the bundle is left there and nothing runs.
    """
    if url.kind == "local":
        with local_link(bundle, python) as here:
            yield here
    else:
        with remote_link(url, bundle, manifest, python or DEFAULT_PYTHON, progress) as there:
            yield there
