"""A device at the other end of ssh or adb: the bundle travels there, and nothing of it stays."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from compressor.assets import runner_scripts
from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.measure.devices import adb, ssh
from compressor.measure.devices.agent import Agent, bootstrap, payload
from compressor.measure.devices.link import raise_for
from compressor.measure.devices.pipe import Pipe
from compressor.measure.devices.url import DeviceUrl, Kind
from compressor.progress import Progress
from compressor.schema.bundle import Bundle, FileEntry
from compressor.schema.students import Field

__all__ = ["DEFAULT_PYTHON", "Parcel", "RemoteLink", "connected", "parcel", "remote_link", "send", "travelling"]

DEFAULT_PYTHON = "python3"
"""The interpreter on a device where none is named."""

RESERVED = ("bundle.json", "runners", "out")
MB = 10**6
Parcel = tuple[Path, FileEntry]
"""A file here, and what it is there."""


class RemoteLink:
    """A session whose bundle lies on the device."""

    def __init__(self, agent: Agent, kind: Kind) -> None:
        self.kind = kind
        self._agent = agent

    def bench(self, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
        for event in self._agent.bench([".", "--json", "--out", "out", *arguments]):
            if "ok" in event:
                raise_for(self._agent.number(event, "rc", least=-255), str(event.get("stderr")), self._agent.where)
            else:
                yield event

    def say(self, line: str) -> None:
        self._agent.say(line)

    def fetch(self, name: str, to: Path, most: int) -> None:
        self._agent.get(f"out/{name}", to, most)


@contextmanager
def remote_link(
    url: DeviceUrl, bundle: Path, manifest: Bundle | Field, python: str, progress: Progress
) -> Iterator[RemoteLink]:
    """A link to `url` with the bundle sent there. Whatever happens, the device removes it at the end."""
    parcels = travelling(bundle, manifest)
    for path, entry in parcels:
        _check(path, entry)
    with connected(url, python) as agent:
        send(agent, url, parcels, progress)
        yield RemoteLink(agent, url.kind)


@contextmanager
def connected(url: DeviceUrl, python: str) -> Iterator[Agent]:
    """The agent on the device, running; at the end told to go, or hung up on where it can no longer be told."""
    source = payload()
    remote = [python, "-c", bootstrap(len(source))]
    client = adb if url.kind == "adb" else ssh
    with Pipe(client.command(url, remote)) as pipe:
        agent = Agent(pipe, url.name)
        try:
            agent.start(source, python, partial(client.explain, url, python))
        except BaseException:
            pipe.process.kill()  # nothing is there yet to be tidied up, and a connection that hangs hears no goodbye
            raise
        try:
            yield agent
        finally:
            with suppress(KdcError):  # the end of the pipe makes the device tidy up as well
                agent.close()


def send(agent: Agent, url: DeviceUrl, parcels: Sequence[Parcel], progress: Progress) -> int:
    """Open a session's folder on the device and send the `parcels` there; how many bytes were free before."""
    free = agent.open(url.folder or (adb.FOLDER if url.kind == "adb" else None))
    total = sum(entry.bytes for _, entry in parcels)
    if total > free:
        raise KdcError(
            f"no space left on the disk of {agent.where}: {total / MB:.1f} MB are to be sent, "
            f"{free / MB:.1f} MB are free in {url.folder or 'its folder for temporary files'}",
            "free some space there, or name a folder on another disk of it: --device …/FOLDER",
        )
    done = 0

    def sent(size: int) -> None:
        nonlocal done
        done += size
        progress.at("sending", math.ceil(done / MB), math.ceil(total / MB))

    for path, entry in parcels:
        agent.put(entry.path, path, entry.bytes, entry.sha256, sent)
    return free


def travelling(bundle: Path, manifest: Bundle | Field) -> list[Parcel]:
    """What the device needs: the manifest, every variant's files and inputs, and kdc's own runners. No labels, no
    reference, and no script that lies in the bundle."""
    inputs = {variant.inputs for variant in manifest.variants}
    support = {entry.path: entry for entry in manifest.support if entry.path in inputs}
    missing = sorted(inputs - set(support))
    if missing:
        raise KdcError(f"{bundle}/bundle.json is damaged: it does not list {missing[0]}", "kdc export it again")
    entries = support | {entry.path: entry for variant in manifest.variants for entry in variant.files}
    for path in entries:
        # Python looks for modules beside the script that it runs: a file there would be run as one.
        if path.split("/")[0].casefold() in RESERVED:
            reason = "that place is kdc's own on a device"
            raise KdcError(f"{bundle}/bundle.json names the file {path!r} of a model, which is refused: {reason}")
    parcels = [parcel(bundle / "bundle.json", "bundle.json")]
    parcels += [parcel(path, f"runners/{name}") for name, path in runner_scripts().items() if path.suffix == ".py"]
    return [*parcels, *((bundle / path, entry) for path, entry in entries.items())]


def parcel(path: Path, there: str) -> Parcel:
    """A file of kdc's own, as it lies here."""
    return path, FileEntry(path=there, sha256=file_sha256(path), bytes=path.stat().st_size)


def _check(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise KdcError(f"{path} is missing", "kdc export the bundle again")
    if path.stat().st_size != entry.bytes or file_sha256(path) != entry.sha256:
        raise KdcError(f"{path} is not the file that bundle.json lists: it was changed", "kdc export the bundle again")
