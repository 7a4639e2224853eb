"""How far a command is: time left of all its trainings, and lines of the data that are said once."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import pytest

from compressor import progress as telling
from compressor.pipeline import _epochs_in_all
from compressor.progress import InAll, Muted, Part, Silent, TimeLeft, note_once
from compressor.schema.quantization import Scheme
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request
from compressor.terminal import console
from compressor.terminal.console import progress_for
from tests.kit import Hearing

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(telling, "time", clock)
    monkeypatch.setattr(console, "time", clock)
    return clock


def epoch(number: int, of: int = 10) -> Part:
    return Part(f"epoch {number}/{of}", number, of, "epochs")


def test_the_time_left_is_that_of_all_epochs_with_what_lies_between_them(clock: Clock) -> None:
    time = TimeLeft()
    time.begin(epoch(1))
    assert time.left(0.0) == ""
    clock.now += 60
    assert time.left(0.5) == "19 min left of 10 epochs", "60 s for half an epoch: 1140 s for nine and a half"
    clock.now += 60
    time.begin("scoring")
    assert time.left(0.5) == "", "no part of the epochs"
    clock.now += 30
    time.begin(epoch(2))
    assert time.left(0.0) == "22 min left of 10 epochs", "150 s for each, validation included: 1350 s"
    clock.now += 150
    time.begin(epoch(3))
    assert time.left(0.0) == "20 min left of 10 epochs"


def test_a_resumed_training_goes_by_its_own_epochs(clock: Clock) -> None:
    time = TimeLeft()
    time.begin(epoch(8))
    clock.now += 10
    assert time.left(0.5) == "50 s left of 10 epochs", "20 s an epoch, 8 to 10 are its own"
    time.begin(epoch(1))
    assert time.left(0.0) == "", "another training"
    clock.now += 3 * 3600
    assert time.left(0.9999) == "27.0 h left of 10 epochs"


class Tracked(Silent):
    def __init__(self) -> None:
        self.parts: list[str] = []

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        self.parts.append(f"{doing}: {doing.number} of {doing.of}" if isinstance(doing, Part) else doing)
        yield from items


def test_several_trainings_are_counted_together() -> None:
    shown = Tracked()
    training = InAll(shown, 5)
    for of in (2, 3):
        for number in range(1, of + 1):
            assert list(training.track([1, 2], 2, epoch(number, of))) == [1, 2]
            list(training.track([], 0, "scoring"))
    parts = [part for part in shown.parts if part != "scoring"]
    assert parts == [
        "epoch 1/2: 1 of 5", "epoch 2/2: 2 of 5", "epoch 1/3: 3 of 5", "epoch 2/3: 4 of 5", "epoch 3/3: 5 of 5",
    ]  # fmt: skip
    list(training.track([], 0, epoch(1, 4)))
    assert shown.parts[-1] == "epoch 1/4: 6 of 9", "a training that nobody counted on"


def test_all_trainings_of_a_command_are_counted() -> None:
    recipe = Recipe.model_validate({"epochs": 10, "qat": {"epochs": 3}, "losses": [{"name": "kd"}]})
    request = Request(
        task="image-classification", command="distill", teacher="timm:a", student="timm:b", init="random",
        data="digits", skip_bad=False, input_size=32, recipe=recipe,
    )  # fmt: skip
    assert _epochs_in_all(request) == 10
    assert _epochs_in_all(request.model_copy(update={"assistants": ("timm:c", "timm:d")})) == 30
    assert _epochs_in_all(request.model_copy(update={"control": True})) == 20
    scheme = Scheme.model_construct()
    assert _epochs_in_all(request.model_copy(update={"control": True, "qat": scheme})) == 26


def test_a_log_says_the_time_left_of_all(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = progress_for(quiet=False)
    for number in (1, 2):
        for _ in plain.track(range(4), 4, epoch(number)):
            clock.now += 10
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["epoch 1/10: 2/4; 6 min left of 10 epochs", "epoch 2/10: 2/4; 6 min left of 10 epochs"]


def test_what_is_said_of_the_data_is_said_once_to_each() -> None:
    first, second = Hearing(), Hearing()
    for listener in (first, first, second):
        note_once(listener, "test: 20 % of train split off")
    note_once(first, "validation: 10 % of train split off")
    note_once(Muted(first), "for nobody")
    assert first.notes == ["test: 20 % of train split off", "validation: 10 % of train split off"]
    assert second.notes == ["test: 20 % of train split off"]


def test_a_bar_with_the_time_left_fits_80_columns() -> None:
    from rich.console import Console

    bar = console._Live()._new_bar()
    bar.add_task("epoch 12/15, validation 93.10%", total=2300, completed=450, whole="12 min left of 30 epochs")
    bar.add_task("decoding train", total=2300, completed=450, whole="")
    shown = Console(width=80)
    with shown.capture() as capture:
        shown.print(bar.get_renderable())
    first, second = capture.get().splitlines()
    for part in ("epoch 12/15, validation 93.10%", "450/2300", "12 min left of 30 epochs"):
        assert part in first
    assert second.startswith("decoding train")
    assert "-:--:--" in second
