"""Epochs of another length than the samples make: which pass and step each batch comes from."""

from collections.abc import Collection, Iterator
from typing import Any, cast

import pytest
import torch

from compressor.distill.loop.passes import Passes
from compressor.tasks.base import Batch, Feed

STEPS, PARTS = 3, 2


class Three:
    """A feed of three steps an epoch, whose batches say where they come from."""

    steps_per_epoch, batch_size = STEPS, 4

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        assert keys == {"student"}
        for step in range(first_step, STEPS):
            for part in range(PARTS):
                yield {"from": torch.tensor([epoch, step, part])}

    def samples_of(self, epoch: int, step: int) -> Any:
        return epoch, step


def places(steps_per_epoch: int, epoch: int, first_step: int = 0) -> list[tuple[int, ...]]:
    feed = Passes(cast(Feed, Three()), steps_per_epoch, PARTS)
    return [tuple(batch["from"].tolist()) for batch in feed.batches(epoch, first_step, {"student"})]


def expected(*steps: tuple[int, int]) -> list[tuple[int, ...]]:
    return [(*step, part) for step in steps for part in range(PARTS)]


def test_an_epoch_goes_on_where_the_one_before_ended() -> None:
    assert places(5, 0) == expected((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
    assert places(5, 1) == expected((1, 2), (2, 0), (2, 1), (2, 2), (3, 0))
    assert places(5, 1, first_step=3) == expected((2, 2), (3, 0)), "as after an interruption"
    assert places(2, 1) == expected((0, 2), (1, 0)), "shorter than a pass"
    assert places(5, 0, first_step=5) == []


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 4, 7])
def test_no_step_is_left_out_and_none_comes_twice(steps_per_epoch: int) -> None:
    feed, epochs = Passes(cast(Feed, Three()), steps_per_epoch, PARTS), 6
    seen = [place for epoch in range(epochs) for place in places(steps_per_epoch, epoch)]
    assert seen == expected(*(divmod(step, STEPS) for step in range(epochs * steps_per_epoch)))
    of = [feed.samples_of(epoch, step) for epoch in range(epochs) for step in range(steps_per_epoch)]
    assert of == [place[:2] for place in seen[::PARTS]]
