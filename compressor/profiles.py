"""Profiles by name or path: find, read, check against the table of runtimes, list, and write one for this machine."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from compressor import __version__
from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, KdcError, did_you_mean
from compressor.files.atomic import write_text
from compressor.files.locks import locked
from compressor.overrides import apply_overrides, yaml_mapping, yaml_text
from compressor.runtimes import RUNTIMES, of_classifiers, runtime_for
from compressor.schema.base import parse
from compressor.schema.measurement import Machine
from compressor.schema.profile import Budget, Profile
from compressor.terminal.printable import one_line

__all__ = [
    "ProfileRow",
    "budget_text",
    "free_path",
    "list_profiles",
    "load_profile",
    "profile_and_text",
    "profile_names",
    "with_overrides",
    "write_new_profile",
]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
MEASURED = "measured: read from this machine"


@dataclass(frozen=True)
class ProfileRow:
    """One line of `kdc profiles list`."""

    name: str
    kind: str
    cpu: str
    runtimes: tuple[str, ...]
    budget: str


def profile_names() -> tuple[str, ...]:
    """The names of the built-in profiles."""
    return tuple(sorted(path.stem for path in asset_dir("profiles").glob("*.yaml")))


def load_profile(reference: str, overrides: Sequence[str] = ()) -> Profile:
    """The profile that `reference` names, with `overrides` (`key.path=value`) laid over it.

    `reference` is a path (it holds a separator, or ends in .yaml or .yml), the name of a built-in profile, or the NAME
    of a NAME.yaml in the current directory.
    """
    return profile_and_text(reference, overrides)[0]


def profile_and_text(reference: str, overrides: Sequence[str] = ()) -> tuple[Profile, str]:
    """As `load_profile`, with the YAML as it is written, comments and all."""
    path, where = _find(reference)
    text = yaml_text(path)
    values = yaml_mapping(text, str(path))
    if not _is_path(reference) and values.get("name", reference) != reference:
        raise KdcError(
            f"{where}: the file {path} says name: {one_line(values['name'])[:100]}",
            f"write name: {reference} in it, or give its path: ./{path.name}",
        )
    return _checked(apply_overrides(values, overrides, where), where), text


def with_overrides(profile: Profile, overrides: Sequence[str]) -> Profile:
    """`profile` with `overrides` (`key.path=value`) laid over it, checked as one that is read from a file."""
    where = f"profile {profile.name}"
    return _checked(apply_overrides(profile.model_dump(mode="json"), overrides, where), where)


def list_profiles() -> tuple[ProfileRow, ...]:
    """The built-in profiles, one row each."""
    return tuple(_row(load_profile(str(asset_dir("profiles") / f"{name}.yaml"))) for name in profile_names())


def budget_text(budget: Budget) -> str:
    """A budget in one line, e.g. "p90 <= 33 ms, retention >= 0.95"; "none" where nothing is judged."""
    lines = (
        ("p50 <= {:g} ms", budget.p50_ms),
        ("p90 <= {:g} ms", budget.p90_ms),
        ("size <= {:g} MB", budget.size_mb),
        ("memory <= {:g} MB", budget.peak_rss_mb),
        ("memory of the model <= {:g} MB", budget.model_rss_mb),
        ("retention >= {:g}", budget.min_retention),
        ("speed-up >= {:g}", budget.min_speedup),
        ("accuracy >= {:g}", budget.min_accuracy),
        ("balanced accuracy >= {:g}", budget.min_balanced_accuracy),
        ("balanced retention >= {:g}", budget.min_balanced_retention),
        ("each class's retention >= {:g}", budget.min_class_retention),
        ("each class's recall >= {:g}", budget.min_class_recall),
        ("slowdown <= {:g}", budget.max_slowdown),
        ("growth <= {:g}", budget.max_growth),
        ("accuracy loss <= {:g}", budget.max_accuracy_loss),
        ("negative flips <= {:g}", budget.max_negative_flips),
        ("generates >= {:g} tokens/s", budget.min_tokens_per_s),
        ("reads >= {:g} tokens/s", budget.min_prompt_tokens_per_s),
    )
    return ", ".join(text.format(value) for text, value in lines if value is not None) or "none"


def write_new_profile(
    name: str,
    folder: Path,
    machine: Machine,
    available: Mapping[str, Sequence[str]],
    overrides: Sequence[str] = (),
    day: date | None = None,
    overwrite: bool = False,
    *,
    facts: Callable[[int], Mapping[str, Any]] = lambda threads: {},
) -> Path:
    """Write `folder`/NAME.yaml that describes `machine`, and return its path.

    `available`: runtime -> the precisions that really work on it. `day`: the date in the header (today's).
    `overwrite`: in place of a profile that stands there, which stays until the new one is whole. `facts`: measures
    what else is to be said of the device, with so many threads; what `overrides` say themselves stays.
    """
    path = free_path(name, folder, overwrite)
    named = [runtime for runtime in available if available[runtime] and runtime in of_classifiers()]
    targets = [{"runtime": runtime, "precisions": list(available[runtime])} for runtime in named]
    if not targets:
        lines = ", or ".join(dict.fromkeys(RUNTIMES[runtime].install for runtime in of_classifiers()))
        why = "no runtime works on this machine, so it has nothing to build for"
        raise KdcError(f"profile {name}: {why}", lines, EXIT_MISSING)
    where = f"profile {name}"
    values = apply_overrides(_values_of(name, machine, targets), overrides, where)
    if (said := values.get("name")) != name:
        raise KdcError(f"{where}: --set name={said} contradicts the name given", f"kdc profiles new {said}")
    threads = _checked(values, where).threads  # and nothing is measured for a profile that is refused
    profile = _checked(values | {"device": {**facts(threads), **values["device"]}}, where)
    with locked(path, "kdc profiles new", file=True):
        free_path(name, folder, overwrite)  # now that nobody else makes it
        write_text(path, _render(profile, day or date.today()))
    return path


def _is_path(reference: str) -> bool:
    return "/" in reference or "\\" in reference or reference.endswith((".yaml", ".yml"))


def _find(reference: str) -> tuple[Path, str]:
    """Where the profile lies, and how error messages name it."""
    where = f"profile {reference}"
    built_in = asset_dir("profiles") / f"{reference}.yaml"
    if _is_path(reference):
        path = Path(reference)
        if not path.exists() and path.name == reference and path.stem in profile_names():
            raise KdcError(
                f"{reference} does not exist here", f"the built-in profile is named without ending: {path.stem}"
            )
        return path, where
    local = Path(f"{reference}.yaml")
    if built_in.is_file() and local.is_file() and not local.samefile(built_in):
        raise KdcError(
            f"{where} is ambiguous: it is built in, and {local} lies in the current directory",
            f"for the file write ./{local}; for the built-in one rename the file, or write {built_in}",
        )
    for path in (built_in, local):
        if path.is_file():
            return path, where
    names = profile_names()
    here = [file.stem for file in Path().glob("*.yaml")]
    raise KdcError(
        f"unknown profile {reference}{did_you_mean(reference, [*names, *here])}; known: {', '.join(names)}",
        "or give the path of a YAML file; `kdc profiles new NAME` writes one for this machine",
    )


def _checked(values: Mapping[str, Any], where: str) -> Profile:
    profile = parse(Profile, values, where)
    for target in profile.targets:
        runtime = runtime_for(target.runtime, where)
        permitted = ", ".join(runtime.precisions)
        for precision in target.precisions:
            if precision not in runtime.precisions:
                # fp16 is no misspelling of fp32: only a name with the same digits is near.
                same = [name for name in runtime.precisions if _digits(name) == _digits(precision)]
                near = did_you_mean(precision, same)
                raise KdcError(
                    f"{where}: unknown precision {precision} of runtime {runtime.name}{near}; permitted: {permitted}"
                )
        if len(set(target.precisions)) != len(target.precisions):
            raise KdcError(f"{where}: names a precision of {runtime.name} twice: {', '.join(target.precisions)}")
    return profile


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isdigit())


def _row(profile: Profile) -> ProfileRow:
    runtimes = tuple(f"{target.runtime} ({', '.join(target.precisions)})" for target in profile.targets)
    return ProfileRow(
        profile.name, profile.device.kind, profile.device.cpu.value, runtimes, budget_text(profile.budget)
    )


def free_path(name: str, folder: Path, overwrite: bool) -> Path:
    """Where the new profile is to lie; raises where the name is bad or taken, with `overwrite` by what is no profile of
    that name."""
    if not NAME.fullmatch(name) or _is_path(name):
        better = re.sub(r"[^a-z0-9._-]+", "-", name.lower().removesuffix(".yaml").removesuffix(".yml")).strip("-._")
        raise KdcError(
            f"{name!r} is no name for a profile: permitted are a-z, 0-9, '.', '_' and '-', and no file ending",
            f"kdc profiles new {better or 'my-device'}",
        )
    if name in profile_names():
        raise KdcError(f"profile {name} is built in", f"choose another name, e.g. kdc profiles new my-{name}")
    path = folder / f"{name}.yaml"
    if not path.exists() and not path.is_symlink():
        return path
    if not overwrite:
        raise KdcError(f"{path} exists already", "--overwrite to replace it, or choose another name")
    if not _is_profile(path, name):
        raise KdcError(f"{path} is no file of a profile named {name}, so it is left alone", "choose another name")
    return path


def _is_profile(path: Path, name: str) -> bool:
    """Whether a profile of that name, sound or not, lies at `path` itself: not at the end of a link."""
    try:
        values = yaml_mapping(yaml_text(path), str(path))
    except KdcError:
        return False
    return not path.is_symlink() and values.get("name") == name and {"device", "targets"} <= values.keys()


def _values_of(name: str, machine: Machine, targets: list[dict[str, Any]]) -> dict[str, Any]:
    kind = _kind(machine)
    return {
        "schema": 1,
        "name": name,
        "device": {
            "kind": kind,
            "cpu": {"value": machine.cpu or machine.arch, "source": MEASURED},
            "isa": {"value": list(machine.isa), "source": MEASURED},
            "cores": {"value": machine.cores, "source": MEASURED},
            "memory_gb": {"value": machine.memory_gb, "source": MEASURED},
        },
        "targets": targets,
        "threads": max(1, min(machine.usable_cores, 4)),
        "batch": 1,
        "input_size": 224,
        # JetPack 6's TensorRT is safe up to opset 17.
        "opset": 17 if kind == "jetson" else 18,
        "budget": {"min_retention": 0.9},
        "fingerprint": {
            "arch": machine.arch,
            "cpu": None if machine.cpu in ("", "unknown") else machine.cpu,
            "isa": list(machine.isa),
            "cores": machine.cores,
        },
    }


def _kind(machine: Machine) -> str:
    if machine.arch.lower() in ("x86_64", "amd64", "i686", "i386"):
        return "x86"
    return "jetson" if "jetson" in machine.cpu.lower() or "orin" in machine.cpu.lower() else "mobile-cpu"


def _render(profile: Profile, day: date) -> str:
    values = profile.model_dump(mode="json", exclude_none=True)
    values["budget"] = profile.budget.model_dump(mode="json")  # null switches a line off that has a default
    if not values["notes"]:
        del values["notes"]
    parts = [
        f"# A profile measured on this machine: {profile.device.cpu.value}. Written by kdc {__version__} on {day}.\n"
        f"# Use it with --profile {profile.name} in this folder, or by its path from elsewhere.\n"
    ]
    for key, value in values.items():
        if key == "budget":
            parts.append(_render_budget(value))
        else:
            # Short lists on one line, but a plain value must not become {key: value}.
            style = None if isinstance(value, dict | list) else False
            parts.append(
                yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=style, allow_unicode=True, width=110)
            )
    return "".join(parts)


def _render_budget(budget: dict[str, float | None]) -> str:
    comments = {
        "p50_ms": "p50_ms: 20          # median latency of one call, milliseconds",
        "p90_ms": "p90_ms: 33          # nine calls of ten are at least this fast",
        "size_mb": "size_mb: 20         # the artefact's files, MB (10^6 bytes)",
        "peak_rss_mb": "peak_rss_mb: 300    # resident memory of the process at its peak, MB",
        "model_rss_mb": "model_rss_mb: 100   # what the model adds to that, MB: for an app without Python",
        "min_accuracy": "min_accuracy: 0.9   # top-1 accuracy",
        "min_balanced_accuracy": "min_balanced_accuracy: 0.85  # mean recall over the classes",
        "min_balanced_retention": "min_balanced_retention: 0.7  # mean recall / the teacher's; this is the default",
        "min_class_retention": "min_class_retention: 0.5     # in every class; the default, null switches it off",
        "min_class_recall": "min_class_recall: 0.1        # in every class; the default where there is no teacher",
        "max_accuracy_loss": "max_accuracy_loss: 0.01      # accuracy lost to --baseline; the default, null: off",
        "max_negative_flips": "max_negative_flips: 0.02     # share right in the baseline, wrong now",
        "max_growth": "max_growth: 1.1     # size / the baseline's",
        "max_slowdown": "max_slowdown: 1.1   # p50 / the baseline's, raced in one session",
    }
    lines = "# What an artefact may cost and must keep. A line that is not given is not judged; those on classes are.\n"
    lines += yaml.safe_dump({"budget": budget}, sort_keys=False, default_flow_style=False)
    missing = [text for key, text in comments.items() if key not in budget]
    if missing:
        lines += "  # Add what your application needs; the numbers here are examples:\n"
    return lines + "".join(f"  # {text}\n" for text in missing)
