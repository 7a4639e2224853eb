"""Where the profiles and the device scripts lie: inside the installed package, or at the top of a checkout."""

from pathlib import Path
from typing import Literal

__all__ = ["asset_dir"]


def asset_dir(name: Literal["profiles", "targets"]) -> Path:
    """The folder `name`, looked for in `compressor/_data/` first (wheel), then beside the package (checkout)."""
    package = Path(__file__).resolve().parent
    for place in (package / "_data" / name, package.parent / name):
        if place.is_dir():
            return place
    raise AssertionError(f"{name}/ is missing from this installation of kdc")
