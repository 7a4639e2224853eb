"""Where the profiles and the device scripts lie: inside the installed package, or at the top of a checkout."""

from pathlib import Path
from typing import Literal

__all__ = ["asset_dir", "runner_scripts"]


def asset_dir(name: Literal["profiles", "targets"]) -> Path:
    """The folder `name`, looked for in `compressor/_data/` first (wheel), then beside the package (checkout)."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise AssertionError(f"{name}/ is missing from this installation of kdc")


def runner_scripts() -> dict[str, Path]:
    """The scripts that measure a bundle, by name: those of targets/ but the example programs, which ship in best/."""
    left_out = ("__init__", "classify_", "generate_")
    scripts = (path for path in asset_dir("targets").iterdir() if path.suffix in (".py", ".md"))
    return {path.name: path for path in sorted(scripts) if not path.name.startswith(left_out)}
