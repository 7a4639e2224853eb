"""What is wrong with a bundle's files: said once for each, and with what helps."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from compressor.errors import KdcError
from compressor.files.bundle_folder import DEVICES, device_folders, remade_in, remove_strays

__all__ = ["EXPORT_AGAIN", "hint_for", "raise_for"]

DAMAGED = re.compile(r"(.+?) (?:was changed after it was (?:made|measured) |has \d+ bytes, |is missing, though )")
MEASURED_HERE = re.compile(r"measurements/.* is not listed in ")
EXPORT_AGAIN = "make it again with `kdc export`, or copy it again from where it was made"


def hint_for(bundle_dir: Path, folder: Path, problems: Sequence[str], taken_up: bool) -> str:
    """What helps against the `problems` of a bundle whose state lies in `folder`. `taken_up`: what is new of
    measurements is no problem already."""
    devices = device_folders(folder)
    if devices and all(MEASURED_HERE.match(problem) for problem in problems):
        return _of_which_device(bundle_dir, devices)
    if taken_up or not all(problem.startswith(remade_in(folder)) for problem in problems):
        return EXPORT_AGAIN
    return f"if it was measured on a device: `kdc report {bundle_dir}` takes that up; else {EXPORT_AGAIN}"


def _of_which_device(bundle_dir: Path, devices: Sequence[str]) -> str:
    """The hint for a session that was made by hand where each of several devices has a folder of its own."""
    names = ", ".join(folder.split("/")[1] for folder in devices)
    of_one = f"{bundle_dir}/{DEVICES}/NAME/measurements"
    return (
        f"a session of one of its devices ({names}) belongs in {of_one}: put it there in the place of the one before, "
        f"then `kdc report {bundle_dir}` takes it up; on another device, `kdc measure {bundle_dir} --device …` does"
    )


def raise_for(bundle_dir: Path, problems: list[str], strays: list[str], hint: str) -> None:
    """Raise KdcError that names what is wrong, where something is. `hint`: for the `problems`."""
    problems = _one_a_file(problems)
    left = [f"{path} was left there by a file manager or git: it is no part of the bundle" for path in strays]
    if problems or left:
        lines = "; ".join(f"{bundle_dir}/{problem}" for problem in [*problems, *left])
        hints = [*([hint] if problems else []), *([remove_strays(bundle_dir, strays)] if strays else [])]
        raise KdcError(lines, "; and ".join(hints))


def _one_a_file(problems: Iterable[str]) -> list[str]:
    """A damaged file differs from every manifest, and is told once: by its size, where it grew, else its hash."""
    first: dict[str, str] = {}
    for problem in sorted(problems, key=lambda text: (" bytes, but " not in text, " bytes, " not in text)):
        damaged = DAMAGED.match(problem)
        first.setdefault(damaged[1] if damaged else problem, problem)
    return list(first.values())
