"""Diagnosis: which runtimes, precisions, packages and devices work on this machine."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.measurement import Machine

__all__ = ["DeviceDiagnosis", "Diagnosis", "PackageCheck", "RuntimeCheck"]


class RuntimeCheck(Noun):
    """A runtime as its runner found it. `unavailable`: precision -> why it does not work here. `problem`: why the
    runtime itself does not work; then `version` is null and `precisions` empty."""

    name: str
    works: bool
    version: str | None
    precisions: tuple[str, ...]
    unavailable: dict[str, str]
    problem: str | None
    install: str


class PackageCheck(Noun):
    """A Python package, what kdc needs it for, its version (null where it is not installed), and its install line."""

    name: str
    purpose: str
    version: str | None
    install: str


class Diagnosis(Noun):
    """`cuda`: the devices that torch sees, in words. `hub`: whether the Hugging Face hub answers. `not_yet`: runtimes
    that kdc has no runner for -> how to use model.onnx with them by hand."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kdc: str
    machine: Machine
    cuda: str
    hub: str
    runtimes: tuple[RuntimeCheck, ...]
    packages: tuple[PackageCheck, ...]
    not_yet: dict[str, str]


class DeviceDiagnosis(Noun):
    """A device as its own scripts found it. `device`: what the command line calls it. `python`: the interpreter asked;
    `externally_managed`: the system keeps it for itself, so that pip refuses. `free_bytes`: where a bundle would lie.
    Every `install` is a line to type on the device."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kdc: str
    device: str
    machine: Machine
    python: str
    externally_managed: bool
    free_bytes: int
    numpy: PackageCheck
    runtimes: tuple[RuntimeCheck, ...]
