"""Where caches lie: what can be made again, and is kept because that takes long."""

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Where caches lie: $KDC_CACHE, else the user's cache folder as the system has it, else, for a user without a home
    (as in many containers), the system's folder for temporary files."""
    if os.environ.get("KDC_CACHE"):
        return Path(os.environ["KDC_CACHE"])
    try:
        Path.home()  # platformdirs would make a folder named "~"
    except RuntimeError:
        return Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / "kdc"
    return user_cache_path("kdc", appauthor=False)
