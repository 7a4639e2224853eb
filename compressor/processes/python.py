"""Python programs of their own, started so that nothing is imported from the folder that the user stands in.

`python -m` and `python -c` put that folder before all libraries: a file sklearn.py there would run. Python's own -P is
not in 3.10.
"""

import sys
from pathlib import Path

__all__ = ["kdc_code", "kdc_command", "python_command"]

ROOT = Path(__file__).resolve().parent.parent
SAFE = "import sys; sys.path[:] = [place for place in sys.path if place]"


def python_command(code: str) -> list[str]:
    """The command that runs `code` in an interpreter like this one."""
    return [sys.executable, "-c", f"{SAFE}\n{code}"]


def kdc_command(*arguments: str) -> list[str]:
    """The command that runs this kdc, wherever it was started from."""
    return [*kdc_code("from compressor.__main__ import main\nmain()"), *arguments]


def kdc_code(code: str) -> list[str]:
    """The command that runs `code`, which imports this kdc; a checkout comes after what is installed."""
    return python_command(f"sys.path.append({str(ROOT)!r})\n{code}")
