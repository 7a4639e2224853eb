"""`kdc doctor`: what works on this machine, and the install line for what does not. Nothing goes over the network."""

import subprocess
from collections.abc import Iterator
from importlib import metadata

from compressor import __version__
from compressor.errors import KdcError
from compressor.install import REQUIREMENTS, install_line
from compressor.measure.machine import last_line, runtime_info, this_machine
from compressor.processes.child_environment import child_environment
from compressor.processes.python import python_command
from compressor.runtimes import NOT_YET, RUNTIMES, Runtime
from compressor.schema.doctor import Diagnosis, PackageCheck, RuntimeCheck
from compressor.schema.measurement import Machine
from compressor.schema.profile import Profile
from compressor.terminal.tables import table

__all__ = ["diagnose", "missing_for", "to_text"]

# (package, what kdc needs it for)
PACKAGES = (
    ("torch", "teach, distill and export"),
    ("timm", "teachers and students"),
    ("transformers", "teachers hf:…"),
    ("datasets", "data hf:…"),
    ("pyarrow", "data parquet:…"),
    ("soundfile", "sounds"),
    ("tokenizers", "texts"),
)

# The CPU flags of which a precision needs one.
NEEDS_ONE_OF = {"bf16": ("avx512_bf16", "amx_bf16")}

# torch takes seconds to import and a broken driver can crash it, so it is asked in a process of its own.
ASK_TORCH = """
import torch
print(", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
"""
TORCH_TIMEOUT_S = 120.0


def diagnose() -> Diagnosis:
    """Ask every runtime, package and device of this machine. Takes some seconds."""
    machine = this_machine()
    return Diagnosis(
        kdc=__version__,
        machine=machine,
        cuda=_cuda(),
        hub="not checked",
        runtimes=tuple(_check(runtime, machine) for runtime in RUNTIMES.values()),
        packages=(
            *(_package(name, purpose, install_line(name)) for name, purpose in PACKAGES),
            *(_package(*needed) for needed in _exporters()),
        ),
        not_yet=dict(NOT_YET),
    )


def _exporters() -> Iterator[tuple[str, str, str]]:
    """The packages that exports need, as the rows of the runtimes name them: each once, for all that need it."""
    purposes: dict[str, list[str]] = {}
    installs: dict[str, str] = {}
    for row in RUNTIMES.values():
        needed = [(module, f"export to {row.name}") for module in row.exports_with]
        needed += [(module, f"int8 on {row.name}") for module in row.quantizes_with]
        for module, purpose in needed:
            package = module.replace("_", "-")
            purposes.setdefault(package, []).append(purpose)
            installs[package] = install_line(package) if package in REQUIREMENTS else row.export_install or row.install
    for package, named in purposes.items():
        yield package, ", ".join(named), installs[package]


def _package(name: str, purpose: str, install: str) -> PackageCheck:
    return PackageCheck(name=name, purpose=purpose, version=_version(name), install=install)


def missing_for(profile: Profile, diagnosis: Diagnosis) -> tuple[str, ...]:
    """The install lines of the runtimes that `profile` names and that do not work here; empty where all do."""
    broken = {check.name: check.install for check in diagnosis.runtimes if not check.works}
    return tuple(broken[target.runtime] for target in profile.targets if target.runtime in broken)


def to_text(diagnosis: Diagnosis) -> str:
    """A diagnosis as a plain table for people."""
    machine = diagnosis.machine
    cores = f"{machine.cores} cores, {machine.usable_cores} usable"
    lines = [
        f"kdc {diagnosis.kdc}, Python {machine.python}, {machine.system}",
        table(
            [
                ("cpu", f"{machine.cpu} ({machine.arch}), {cores}, {machine.memory_gb:.1f} GiB"),
                ("isa", " ".join(machine.isa) or "unknown"),
                ("cuda", diagnosis.cuda.removeprefix("cuda: ")),
                ("hub", diagnosis.hub),
            ]
        ),
        "",
        "runtimes",
        table(
            [_runtime_row(check) for check in diagnosis.runtimes]
            + [
                (name, "kdc has no runner for it yet", f"by hand: {instructions}")
                for name, instructions in diagnosis.not_yet.items()
            ],
            indent="  ",
        ),
        "",
        "packages",
        table([_package_row(check) for check in diagnosis.packages], indent="  "),
    ]
    return "\n".join(lines) + "\n"


def _check(runtime: Runtime, machine: Machine) -> RuntimeCheck:
    try:
        info = runtime_info(runtime.name)
    except KdcError as error:
        return RuntimeCheck(
            name=runtime.name,
            works=False,
            version=None,
            precisions=(),
            unavailable={},
            problem=error.message,
            install=runtime.install,
        )
    return RuntimeCheck(
        name=runtime.name,
        works=True,
        version=info.version,
        precisions=tuple(name for name in runtime.precisions if name in info.precisions),
        unavailable={
            name: _why_not(name, runtime, machine) for name in runtime.precisions if name not in info.precisions
        },
        problem=None,
        install=runtime.install,
    )


def _why_not(precision: str, runtime: Runtime, machine: Machine) -> str:
    if runtime.on_gpu and not machine.gpus:
        return "needs an NVIDIA GPU and its driver"
    flags = NEEDS_ONE_OF.get(precision, ())
    if flags and not set(flags) & set(machine.isa):
        return f"needs {' or '.join(flags)}, which this CPU does not have"
    return "the runtime does not offer it on this machine"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda() -> str:
    """The CUDA devices that torch sees: "cuda: NVIDIA H100 …", "no CUDA device", or why that cannot be told."""
    if _version("torch") is None:
        return "not checked: torch is not installed"
    try:
        done = subprocess.run(
            python_command(ASK_TORCH),
            env=child_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TORCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"unknown: torch did not answer within {TORCH_TIMEOUT_S:g} s"
    if done.returncode != 0:
        return f"unknown: torch does not start: {last_line(done.stderr)}"
    names = done.stdout.strip()
    return f"cuda: {names}" if names else "no CUDA device"


def _runtime_row(check: RuntimeCheck) -> tuple[str, ...]:
    if not check.works:
        return check.name, "does not work", f"{check.problem}; {check.install}"
    lacking: dict[str, list[str]] = {}
    for name, why in check.unavailable.items():
        lacking.setdefault(why, []).append(name)
    parts = [", ".join(check.precisions), *(f"{', '.join(names)} not: {why}" for why, names in lacking.items())]
    return check.name, f"works, {(check.version or '').split('-')[0]}", "; ".join(filter(None, parts))


def _package_row(check: PackageCheck) -> tuple[str, ...]:
    if check.version is None:
        return check.name, "missing", f"{check.purpose}: {check.install}"
    return check.name, check.version, check.purpose
