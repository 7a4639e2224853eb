"""What was measured once is kept, by all that it depends on: the second call takes seconds."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from compressor.assets import runner_scripts
from compressor.errors import KdcError, os_error
from compressor.export.schemes import saturates
from compressor.files.atomic import file_sha256
from compressor.files.cache import cache_folder
from compressor.runtimes import RUNTIMES
from compressor.schema.base import read_json, write_json
from compressor.schema.measurement import Machine
from compressor.schema.profile import Profile
from compressor.schema.students import Figures, KeptFigures
from compressor.tasks.table import DEFAULT

__all__ = ["Kept", "all_kept", "machine_line", "shelf"]

SKELETONS = 2
"""Goes up when candidates are exported in another way."""


EXPORTERS = ("torch", "timm", "onnx", "onnxruntime", "openvino", "nncf")
"""Packages on whose versions it depends what is exported."""


def _pruner(name: str) -> tuple[str, ...]:
    """What chooses the channels of a network that has fewer."""
    return ("torch-pruning",) if "+width" in name else ()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Kept:
    """Figures in `folder`, of one machine and one way of measuring. `versions`: of its runtimes. `made_of`: how the
    teacher is built that the candidates are made of."""

    folder: Path
    machine: Machine
    profile: Profile
    versions: dict[str, str | None]
    made_of: str = ""

    def find(
        self, name: str, input_size: int, classes: int, variants: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], Figures]:
        """What is kept of a candidate, by (runtime, precision)."""
        figures = {}
        for variant in variants:
            path = self._path(name, input_size, classes, *variant)
            # Of another version of kdc, or damaged: measured anew.
            with suppress(KdcError):
                figures[variant] = read_json(path, KeptFigures).figures
        return figures

    def add(self, figures: Figures, reference: tuple[str, float] | None = None) -> None:
        """Keep what was measured, with the field's reference and its p50 in that session; what failed is tried again
        the next time."""
        if figures.error is None:
            path = self._path(
                figures.student.removeprefix("timm:"), figures.input_size, figures.classes, figures.runtime,
                figures.precision,
            )  # fmt: skip
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise os_error(error, f"keeping figures in {self.folder}") from error
            name, p50_ms = reference or (None, None)
            kept = KeptFigures(
                figures=figures, machine=self.machine, threads=self.profile.threads, batch=self.profile.batch,
                reference=name, reference_ms=p50_ms,
            )  # fmt: skip
            write_json(path, kept)

    def _path(self, name: str, input_size: int, classes: int, runtime: str, precision: str) -> Path:
        profile, machine, row = self.profile, self.machine, RUNTIMES[runtime]
        facts = {
            "candidate": [
                name,
                input_size,
                classes,
                runtime,
                precision,
                self.versions.get(runtime),
                *([self.made_of] if self.made_of else []),
            ],
            "profile": [profile.threads, profile.batch, profile.opset],
            "machine": [
                machine.arch,
                machine.cpu,
                machine.isa,
                machine.cores,
                machine.usable_cores,
            ],
            "power": [machine.power_mode, machine.governor],
            "gpus": machine.gpus,
            "weight_bits": 7 if saturates(profile) else 8,
            "exported_by": {
                package: _version(package)
                for package in (*EXPORTERS, *_pruner(name), *row.exports_with, *row.quantizes_with)
            },
            "made": SKELETONS,
            "scripts": {file: file_sha256(path) for file, path in sorted(runner_scripts().items())},
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name.replace(':', '-')}-{input_size}-{runtime}-{precision}-{key[:16]}.json"


def shelf(task: str = DEFAULT) -> Path:
    """The folder that figures of a task's candidates are kept in."""
    return cache_folder() / ("students" if task == DEFAULT else f"students-{task}")


def all_kept(folder: Path) -> Iterator[KeptFigures]:
    """Everything that is kept, of whatever machine; what another version of kdc wrote is left out."""
    for path in sorted(folder.glob("*.json")):
        with suppress(KdcError):
            yield read_json(path, KeptFigures)


def machine_line(machine: Machine) -> str:
    """A machine in one line."""
    return f"{machine.cpu or machine.arch}, {machine.usable_cores} of {machine.cores} cores usable, {machine.system}"
