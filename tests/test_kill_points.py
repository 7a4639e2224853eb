"""A few of the kills of benchmarks/kill_points.py: the commands that replace something, killed and gone on with."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import kill_points
from benchmarks.kill_cases import cases
from benchmarks.kill_points import attack
from benchmarks.warm import Warm
from tests.forked import python

pytestmark = pytest.mark.slow

WARM = """
import functools, runpy
from compressor.measure import session
session.Samples = functools.partial(session.Samples, fresh_starts=1)
runpy.run_module("benchmarks.warm", run_name="__main__")
"""
"""Which starts each contestant once, as all that the tests measure (see conftest)."""


@pytest.fixture(scope="module", autouse=True)
def _of_a_process_that_has_imported_all() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, closing(Warm([*python(), "-c", WARM])) as warm:
        patch.setattr(kill_points, "_warm", warm)
        yield


@pytest.mark.parametrize(
    ("name", "every", "students"),
    [
        ("teach", 19, True),
        ("distill --resume", 17, True),
        ("distill --overwrite", 13, True),
        ("distill --control", 60, True),
        ("predict --overwrite", 1, True),
        ("measure --baseline", 50, False),
    ],
)
def test_what_a_kill_leaves_is_sound_and_goes_on(tmp_path: Path, name: str, every: int, students: bool) -> None:
    """The last call too, and those around the renames that decide which of two states counts."""

    def points(calls: Sequence[str]) -> Sequence[int]:
        deciding = [at for at, call in enumerate(calls, 1) if call == f"os.rename {tmp_path}/place/bundle"][:1]
        return sorted({*range(1, len(calls), every), *(at + more for at in deciding for more in (0, 1, 9)), len(calls)})

    outcome = attack(name, cases(tmp_path)[name], tmp_path, points)
    assert outcome.lost == []
    assert outcome.kills >= 4
    assert outcome.same == (outcome.kills if students else 0)
