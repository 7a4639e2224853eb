"""Artefacts of drawn weights: how fast a network is does not depend on what it has learned. Made in processes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.profile import Profile
from compressor.schema.students import Entrant

__all__ = ["CALIBRATION", "Skeleton", "Wish", "make_skeletons"]

CALIBRATION = 32
"""Drawn samples that int8 ranges come from. Their values decide nothing; runtimes want some."""
MEASURED = 8
"""Drawn samples that the runner goes through."""


@dataclass(frozen=True)
class Wish:
    """A candidate at an input size, and the (runtime, precision) pairs that are wanted of it."""

    task: str
    name: str
    family: str
    input_size: int
    classes: int
    variants: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        return f"{self.name}-{self.input_size}"


@dataclass(frozen=True)
class Skeleton:
    """What came of a wish: its entrants, and for each variant without one the reason."""

    wish: Wish
    entrants: tuple[Entrant, ...]
    failures: dict[str, str]


def make_skeletons(
    wishes: Sequence[Wish], profile: Profile, root: Path, processes: int, progress: Progress
) -> Iterator[Skeleton]:
    """Export every wish into `root`, so many at a time, as they are done. Raises KdcError where nothing can be made."""
    work = [(wish, profile.model_dump_json(), str(root)) for wish in wishes]
    if processes == 1 or len(work) == 1:
        for number, item in enumerate(work, 1):
            progress.at("exporting candidates", number - 1, len(work))
            yield _made(*item)
        progress.end()
        return
    # Spawned: a fork of a process with threads may never come to itself.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_one_thread) as pool:
        waiting = [pool.submit(_made, *item) for item in work]
        try:
            for number, future in enumerate(as_completed(waiting), 1):
                progress.at("exporting candidates", number, len(work))
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.end()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _made(wish: Wish, profile_json: str, root: str) -> Skeleton:
    from compressor.students.exporting import export_wish

    profile = Profile.model_validate_json(profile_json)
    try:
        return export_wish(wish, profile, Path(root))
    except KdcError as error:
        return Skeleton(wish, (), {f"{runtime}-{precision}": error.message for runtime, precision in wish.variants})
