"""What a launcher (`accelerate launch`, torchrun) says in environment variables, checked before anybody waits for
processes that will never come."""

import os

from compressor.errors import KdcError

__all__ = ["HINT", "check_launcher", "world_size"]

NUMBERS = {"WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": -1, "GROUP_RANK": 0, "MASTER_PORT": 1}
"""Each variable with its lowest value."""
NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
HINT = "start it with `accelerate launch` or torchrun, or unset WORLD_SIZE, RANK and LOCAL_RANK"


def check_launcher() -> None:
    """Raises KdcError where the variables of a launcher contradict one another, or are not all there."""
    settings = {name: _number(name, lowest) for name, lowest in NUMBERS.items() if os.environ.get(name)}
    size = settings.get("WORLD_SIZE", 1)
    if settings.get("RANK", 0) >= size:
        told = size if "WORLD_SIZE" in settings else "which is not set"
        raise KdcError(f"RANK is {settings['RANK']}, which is not below WORLD_SIZE, {told}", HINT)
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if size > 1 and missing:
        verb = "is" if len(missing) == 1 else "are"
        raise KdcError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} {verb} not set: the other processes cannot be found", HINT
        )


def world_size() -> int:
    """The number of processes of this run; raises KdcError as `check_launcher` does."""
    check_launcher()
    return int(os.environ.get("WORLD_SIZE") or 1)


def _number(name: str, lowest: int) -> int:
    text = os.environ[name]
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= 65535:
        raise KdcError(f"the environment variable {name} is {text[:60]!r}, which is no number from {lowest} up", HINT)
    return value
