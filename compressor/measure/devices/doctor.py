"""`kdc doctor --device …`: what works on a device, and the lines that install the rest, as they are typed there."""

import shlex
from collections.abc import Mapping
from typing import Any

from compressor import __version__
from compressor.assets import runner_scripts
from compressor.errors import EXIT_MISSING, KdcError
from compressor.measure.devices.agent import SOURCES
from compressor.measure.devices.remote import DEFAULT_PYTHON, Parcel, connected, parcel, send
from compressor.measure.devices.url import DeviceUrl
from compressor.measure.doctor import NEEDS_ONE_OF
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES, Runtime
from compressor.schema.base import parse
from compressor.schema.doctor import DeviceDiagnosis, PackageCheck, RuntimeCheck
from compressor.schema.measurement import Machine
from compressor.schema.profile import Profile
from compressor.terminal.printable import one_line
from compressor.terminal.tables import table

__all__ = ["diagnose_device", "missing_on", "to_text"]

GB = 10**9


def diagnose_device(url: DeviceUrl, *, python: str | None, progress: Progress) -> DeviceDiagnosis:
    """Send the scripts of targets/ to `url`, ask them, and remove them. Takes some seconds; nothing stays there."""
    interpreter = python or DEFAULT_PYTHON
    with connected(url, interpreter) as agent:
        free = send(agent, url, _scripts(), progress)
        reply = agent.probe([runtime.runner for runtime in RUNTIMES.values()])
    if not isinstance(reply.get("machine"), dict):
        raise KdcError(
            f"{url.name} does not say what it is: {one_line(reply.get('machine_problem'))}", "", EXIT_MISSING
        )
    machine = parse(Machine, reply["machine"], f"bench.py --info on {url.name}")
    managed = bool(reply.get("externally_managed"))
    answers = reply.get("runners")
    runners = answers if isinstance(answers, dict) else {}
    return DeviceDiagnosis(
        kdc=__version__,
        device=url.name,
        machine=machine,
        python=interpreter,
        externally_managed=managed,
        free_bytes=free,
        numpy=PackageCheck(
            name="numpy",
            purpose="measure",
            version=None if reply.get("numpy") is None else one_line(reply["numpy"]),
            install=_install(interpreter, managed, "numpy"),
        ),
        runtimes=tuple(
            _check(runtime, runners.get(runtime.runner), machine, _install_runtime(interpreter, managed, runtime))
            for runtime in RUNTIMES.values()
        ),
    )


def missing_on(profile: Profile, diagnosis: DeviceDiagnosis) -> tuple[str, ...]:
    """The lines that install, on the device, what `profile` needs and what does not work there; empty for nothing."""
    numpy = (diagnosis.numpy.install,) if diagnosis.numpy.version is None else ()
    broken = {check.name: check.install for check in diagnosis.runtimes if not check.works}
    return numpy + tuple(broken[target.runtime] for target in profile.targets if target.runtime in broken)


def to_text(diagnosis: DeviceDiagnosis) -> str:
    """A diagnosis of a device as plain text for people."""
    machine, numpy = diagnosis.machine, diagnosis.numpy
    available = "" if machine.memory_available_gb is None else f", {machine.memory_available_gb:.1f} available"
    facts = [
        ("device", f"{diagnosis.device}, {machine.system}"),
        ("cpu", f"{machine.cpu} ({machine.arch}), {machine.cores} cores, {machine.usable_cores} usable"),
        ("isa", " ".join(machine.isa) or "unknown"),
        ("memory", f"{machine.memory_gb:.1f} GiB{available}"),
        ("disk", f"{diagnosis.free_bytes / GB:.1f} GB free"),
        ("python", f"{machine.python} ({diagnosis.python})"),
        ("numpy", numpy.version or f"missing; on the device: {numpy.install}"),
    ]
    runtimes = [(check.name, _state(check)) for check in diagnosis.runtimes]
    parts = [table(facts), "", "runtimes", table(runtimes, indent="  ")]
    broken = numpy.version is None or any(not check.works for check in diagnosis.runtimes)
    if diagnosis.externally_managed and broken:
        parts += ["", f"the system keeps that Python for itself; then measure with --device-python '{VENV}/bin/python'"]
    return "\n".join(parts) + "\n"


VENV = "~/kdc-venv"


def _install(python: str, managed: bool, package: str) -> str:
    """The line to type on the device. A Python that the system keeps for itself (Debian, Raspberry Pi OS) refuses pip,
    so there it goes into a virtual environment."""
    # A quoted "~/" would be no home; the rest may need its quotes.
    program = f"~/{shlex.quote(python[2:])}" if python.startswith("~/") else shlex.quote(python)
    if managed:
        return f"{program} -m venv {VENV} && {VENV}/bin/pip install {package}"
    return f"{program} -m pip install {package}"


def _install_runtime(python: str, managed: bool, runtime: Runtime) -> str:
    return _install(python, managed, runtime.package) if runtime.package else runtime.install


def _scripts() -> list[Parcel]:
    scripts = {name: path for name, path in runner_scripts().items() if path.suffix == ".py"}
    return [parcel(path, f"runners/{name}") for name, path in scripts.items() if path.stem not in SOURCES]


def _check(runtime: Runtime, told: object, machine: Machine, install: str) -> RuntimeCheck:
    answer = told if isinstance(told, dict) else {}
    works = answer.get("ok") is True
    told_precisions = answer.get("precisions")
    precisions = told_precisions if works and isinstance(told_precisions, list) else []
    missing = [name for name in runtime.precisions if name not in precisions] if works else []
    return RuntimeCheck(
        name=runtime.name,
        works=works,
        version=str(answer.get("version")) if works else None,
        precisions=tuple(name for name in runtime.precisions if name in precisions),
        unavailable={name: _why_not(name, runtime, machine) for name in missing},
        problem=None if works else _problem(answer),
        install=install,
    )


def _problem(answer: Mapping[str, Any]) -> str:
    """Why a runtime does not work, without "pip install …": the line to type on that device is told apart."""
    message = one_line(answer.get("message") or "it gave no reason")
    return message[message.find("(") + 1 :].removesuffix(")") if answer.get("kind") == "missing" else message


def _why_not(precision: str, runtime: Runtime, machine: Machine) -> str:
    if runtime.on_gpu and not machine.gpus:
        return "needs an NVIDIA GPU and its driver"
    flags = NEEDS_ONE_OF.get(precision, ())
    if flags and not set(flags) & set(machine.isa):
        return f"needs {' or '.join(flags)}, which this CPU does not have"
    return "the runtime does not offer it on this machine"


def _state(check: RuntimeCheck) -> str:
    if not check.works:
        return f"does not work: {check.problem}; on the device: {check.install}"
    not_there = "".join(f"; {name} not: {why}" for name, why in check.unavailable.items())
    return f"works, {(check.version or '').split('-')[0]}: {', '.join(check.precisions)}{not_there}"
