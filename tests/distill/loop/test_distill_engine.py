"""The loop, on vectors: the seam knows no pixels."""

import itertools
import json
import math
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.data.randomness import keyed_order
from compressor.distill.loop import engine
from compressor.distill.loop.average import Average
from compressor.distill.loop.checkpoint import Position
from compressor.distill.loop.engine import rate, train
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.sources import Online
from compressor.errors import KdcError
from compressor.progress import Progress, Silent
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy
from compressor.stats import accuracy_of
from compressor.stats.language import Costs
from compressor.tasks.base import Batch, BatchModel, Outputs, SplitName
from tests.kit import Hearing

T = TypeVar("T")
STEPS = 5


class Vectors:
    """Random vectors, labelled by a random linear map: a whole task, without a pixel."""

    steps_per_epoch = STEPS
    batch_size = 16

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(STEPS * 16, 6, generator=generator)
        self.y = (self.x @ torch.randn(6, 3, generator=generator)).argmax(-1)
        self.evaluated: list[str] = []
        self.right: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self.costs: dict[tuple[str, str], Costs] = {}

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        for step in range(first_step, STEPS):
            for part in np.split(self.samples_of(epoch, step), 16 // self.batch_size):
                index = torch.from_numpy(part)
                yield {"vectors": self.x[index], "labels": self.y[index], "index": index}

    def prepare(self) -> None:
        pass

    def identity(self, key: str) -> dict[str, object]:
        return {"vectors": "of a seed"}

    def input_of(self, key: str, samples: NDArray[np.int64], view: int) -> Batch:
        return {"vectors": self.x[torch.from_numpy(samples)]}

    def samples_of(self, epoch: int, step: int) -> NDArray[np.int64]:
        return keyed_order(0, len(self.x), epoch)[step * 16 : (step + 1) * 16]

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        return [f"vector {number}" for number in samples]

    @torch.no_grad()
    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        training = model.training
        answers: NDArray[np.float32] = model.eval()({"vectors": self.x}).logits.numpy()
        model.train(training)
        return answers

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self.logits(model, split), self.y.numpy()

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        self.evaluated.append(split)
        return accuracy_of(*self.answers_on(model, split), split)


def mlp(seed: int, width: int = 8) -> BatchModel:
    """With batch statistics, and with dropout, which draws from torch's generator."""
    torch.manual_seed(seed)
    layers = nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3)
    return BatchModel(nn.Sequential(*layers), "vectors")


def teacher() -> BatchModel:
    model = mlp(99, width=32)
    model.eval().requires_grad_(False)
    return model


def recipe(**changes: Any) -> Recipe:
    values = {
        "schema": 1,
        "epochs": 4,
        "ema_decay": 0.9,
        "optimizer": {"lr": 0.02},
        "losses": [{"name": "kd", "weight": 0.5}, {"name": "cross_entropy", "weight": 0.5}],
    }
    return Recipe.model_validate({**values, **changes})


def run(
    folder: Path,
    how: Recipe,
    *,
    task: Vectors | None = None,
    student: BatchModel | None = None,
    teacher_model: BatchModel | None = None,
    progress: Progress | None = None,
    validation_size: int = 80,
    inputs: dict[str, str] | None = None,
) -> tuple[BatchModel, Position]:
    student = student or mlp(1)
    torch.manual_seed(5)
    learner = Learner(student, bind_losses(how, has_teacher=True))
    position = train(
        learner, Online(teacher_model or teacher(), Codec(3)), task or Vectors(), how,
        head=list(student.network[-1].parameters()),  # type: ignore[index]
        validation_size=validation_size, inputs=inputs or {"the data": "1"}, folder=folder,
        progress=progress or Silent(),
    )  # fmt: skip
    return student, position


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(position: Position) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in position.history]


def test_the_loss_falls_and_every_epoch_leaves_a_row(tmp_path: Path) -> None:
    student, position = run(tmp_path, recipe(epochs=12))
    losses = [row["loss"] for row in position.history]
    assert losses[-1]["cross_entropy"] < 0.6 * losses[0]["cross_entropy"]
    written = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert written == position.history
    assert [row["epoch"] for row in written] == list(range(1, 13))
    assert written[0].keys() == {"epoch", "steps", "loss", "validation", "seconds"}
    assert written[-1]["validation"]["n"] == 80
    assert written[-1]["validation"]["accuracy"] > 0.7
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_student_learns_from_its_teacher_alone(tmp_path: Path) -> None:
    how = recipe(epochs=20, losses=[{"name": "kd", "temperature": 2.0}])
    _, position = run(tmp_path, how, student=mlp(1, width=32))
    assert position.history[-1]["loss"]["kd"] < 0.3 * position.history[0]["loss"]["kd"]


def test_the_recorded_loss_is_the_mean_over_the_epochs_batches(tmp_path: Path) -> None:
    task, student = Vectors(), mlp(1)
    student.network[3].p = 0.0  # type: ignore[index]
    expected = [
        nn.functional.cross_entropy(student.train()(batch).logits, batch["labels"]).item()
        for batch in task.batches(0, 0)
    ]
    how = recipe(epochs=1, optimizer={"lr": 1e-12, "weight_decay": 0.0}, ema_decay=0)
    _, position = run(tmp_path, how, student=student)
    assert position.history[0]["loss"]["cross_entropy"] == pytest.approx(np.mean(expected), abs=2e-6)


def test_the_same_seed_gives_the_same_student(tmp_path: Path) -> None:
    one, first = run(tmp_path / "1", recipe())
    other, second = run(tmp_path / "2", recipe())
    assert equal(one, other)
    assert rows(first) == rows(second)
    third, _ = run(tmp_path / "3", recipe(), student=mlp(2))
    assert not equal(one, third)


SETTINGS: dict[str, dict[str, Any]] = {
    "average": {},
    "no average": {"ema_decay": 0},
    "head first": {"head_epochs": 2},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("step", [0, 7, 4, 12, 19])
def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, interrupt_at: Callable[[int], Progress], settings: dict[str, Any], step: int
) -> None:
    """Pitfalls, "Resumed is not the same". Steps 4 and 19 are the last of an epoch, and of all."""
    how = recipe(**settings)
    whole, expected = run(tmp_path / "whole", how)
    last = step == 4 * STEPS - 1
    if last:  # nothing is left to do: the run ends as if nobody had asked
        student, position = run(tmp_path / "parts", how, progress=interrupt_at(step))
    else:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", how, progress=interrupt_at(step))
        student, position = run(tmp_path / "parts", how, student=mlp(33))
    assert equal(student, whole)
    assert rows(position) == rows(expected)
    assert position.kept_epoch == expected.kept_epoch == 4
    written = [json.loads(line) for line in (tmp_path / "parts" / "history.jsonl").read_text().splitlines()]
    assert written == position.history


def test_a_run_that_is_interrupted_at_every_step_still_ends_the_same(
    tmp_path: Path, interrupt_at: Callable[[int], Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MIN_TO_CHOOSE", 1)
    how = recipe(epochs=3, head_epochs=1)
    whole, expected = run(tmp_path / "whole", how)
    for count in range(3 * STEPS - 1):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", how, progress=interrupt_at(0), student=mlp(1 + count))
    student, position = run(tmp_path / "parts", how, student=mlp(34))
    assert equal(student, whole)
    assert rows(position) == rows(expected)
    assert (position.kept_epoch, position.kept_score) == (expected.kept_epoch, expected.kept_score)


def test_after_an_interruption_ctrl_c_is_what_it_was(tmp_path: Path, interrupt_at: Callable[[int], Progress]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe(), progress=interrupt_at(2))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class Twice(Silent):
    """Presses Ctrl-C twice within one step."""

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        for item in items:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            yield item


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe(), progress=Twice())
    assert not (tmp_path / "checkpoint").exists()


def test_the_teacher_is_byte_identical_after_training(tmp_path: Path) -> None:
    """Pitfalls, "A teacher in training mode" and "A teacher with gradients": batch statistics stand still, and nothing
    gets a gradient."""
    taught, untouched = teacher(), teacher()
    run(tmp_path, recipe(), teacher_model=taught)
    assert equal(taught, untouched)
    assert all(parameter.grad is None for parameter in taught.parameters())
    assert not taught.training


class Watching(Vectors):
    """Notes, at each batch, in which mode the student is."""

    def __init__(self, student: BatchModel) -> None:
        super().__init__()
        self.student = student
        self.modes: list[bool] = []

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        for batch in super().batches(epoch, first_step):
            self.modes.append(self.student.training)
            yield batch


@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_the_student_trains_again_after_an_evaluation(tmp_path: Path, ema_decay: float) -> None:
    """Pitfalls, "A student in evaluation mode"."""
    student = mlp(1)
    task = Watching(student)
    run(tmp_path, recipe(epochs=3, ema_decay=ema_decay), task=task, student=student)
    assert task.modes == [True] * 3 * STEPS


def test_test_is_never_looked_at(tmp_path: Path) -> None:
    """Pitfalls, "Selecting on test"."""
    task = Vectors()
    run(tmp_path, recipe(), task=task)
    assert task.evaluated == ["validation"] * 4


class Snapshots(Silent):
    """Copies of a model after each epoch."""

    def __init__(self, model: BatchModel) -> None:
        self.model = model
        self.states: list[dict[str, Tensor]] = []

    def note(self, text: str) -> None:
        self.states.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})


def test_in_the_head_phase_only_the_head_changes_and_batch_statistics_stand_still(tmp_path: Path) -> None:
    student = mlp(1)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    seen = Snapshots(student)
    run(tmp_path, recipe(epochs=3, head_epochs=1), student=student, progress=seen)
    head = {"network.4.weight", "network.4.bias"}
    assert {name for name in before if not torch.equal(before[name], seen.states[0][name])} == head
    unchanged = {name for name in before if torch.equal(seen.states[0][name], seen.states[1][name])}
    assert unchanged == set()


def test_the_best_epoch_is_kept_where_validation_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.9, 0.7, 0.9])

    class Scripted(Vectors):
        def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
            return super().evaluate(model, split).model_copy(update={"accuracy": next(accuracies)})

    student = mlp(1)
    seen = Snapshots(student)
    student, position = run(
        tmp_path, recipe(ema_decay=0), task=Scripted(), student=student, progress=seen,
        validation_size=engine.MIN_TO_CHOOSE,
    )  # fmt: skip
    assert (position.kept_epoch, position.kept_score) == (2, 0.9)  # the first of equals
    assert all(torch.equal(tensor, seen.states[1][name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize(("keep_by", "kept", "score"), [("accuracy", 1, 0.9), ("balanced", 3, 0.8), ("auc", 2, 0.7)])
def test_the_epoch_is_kept_by_what_the_recipe_says(keep_by: str, kept: int, score: float, tmp_path: Path) -> None:
    figures: list[dict[str, float | None]] = [
        {"accuracy": 0.9, "balanced": 0.4, "auc": None},
        {"accuracy": 0.8, "balanced": 0.5, "auc": 0.7},
        {"accuracy": 0.7, "balanced": 0.8, "auc": 0.6},
        {"accuracy": 0.8, "balanced": 0.7, "auc": None},
    ]
    scripted = iter(figures)

    class Scripted(Vectors):
        def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
            return super().evaluate(model, split).model_copy(update=next(scripted))

    _, position = run(tmp_path, recipe(keep_by=keep_by), task=Scripted(), validation_size=engine.MIN_TO_CHOOSE)
    assert (position.kept_epoch, position.kept_score) == (kept, score)
    rows = [json.loads(line)["validation"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    expected = [{name: value for name, value in row.items() if value is not None} for row in figures]
    assert [{name: row[name] for name in row if name != "n"} for row in rows] == expected


def test_without_one_finite_auc_the_last_epoch_is_kept(tmp_path: Path) -> None:
    _, position = run(tmp_path, recipe(keep_by="auc"), validation_size=engine.MIN_TO_CHOOSE)  # of three classes
    assert (position.kept_epoch, position.kept) == (4, None)


def test_the_last_epoch_is_kept_where_validation_is_small(tmp_path: Path) -> None:
    student = mlp(1)
    seen = Snapshots(student)
    student, position = run(
        tmp_path, recipe(ema_decay=0), student=student, progress=seen, validation_size=engine.MIN_TO_CHOOSE - 1
    )
    assert position.kept_epoch == 4
    assert position.kept is None
    assert all(torch.equal(tensor, seen.states[3][name]) for name, tensor in student.state_dict().items())


def test_the_average_is_what_is_kept_and_measured(tmp_path: Path) -> None:
    task = Vectors()
    student, position = run(tmp_path, recipe(), task=task)
    raw = mlp(1)
    run(tmp_path / "raw", recipe(ema_decay=0), student=raw)
    assert not equal(student, raw)
    assert task.evaluate(student, "validation").accuracy == position.history[-1]["validation"]["accuracy"]


def test_a_step_draws_what_its_number_says() -> None:
    """On CPU, in the numbers that torch.manual_seed gives."""
    engine._seed_step(2**31 - 1, 9_999, Accelerator(cpu=True))
    drawn = torch.rand(3)
    torch.manual_seed((((2**31 - 1) << 32) + 9_999 * 4096) % 2**63)
    assert torch.equal(drawn, torch.rand(3))


def test_the_average_warms_up_over_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the steps of all epochs: beginning again with each, it would forget the earlier ones."""
    steps, update = [], Average.update

    def watched(average: Average[BatchModel], model: BatchModel, step: int) -> None:
        steps.append(step)
        update(average, model, step)

    monkeypatch.setattr(Average, "update", watched)
    run(tmp_path, recipe())
    assert steps == list(range(4 * STEPS))


@pytest.mark.parametrize("when", [0, 2, STEPS - 1])
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, when: int, interrupt_at: Callable[[int], Progress]
) -> None:
    class Spoilt(Vectors):
        def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
            for step, batch in enumerate(super().batches(epoch, first_step)):
                bad = epoch == 1 and step == when
                yield {**batch, "vectors": batch["vectors"] * (math.nan if bad else 1)}

    named = ", ".join(f"vector {number}" for number in Vectors().samples_of(1, when)[:5])
    with pytest.raises(
        KdcError, match=f"not finite at step {when + 1} of epoch 2: samples {named} and 11 more"
    ) as caught:
        run(tmp_path, recipe(), task=Spoilt())
    assert "optimizer.lr" in caught.value.hint
    saved = torch.load(tmp_path / "checkpoint" / "state.pt", weights_only=True)
    assert saved["position"]["epoch"] == 1, "the state from before is left"
    with pytest.raises(KdcError, match="not finite at step"):  # not saved by an interruption either
        run(tmp_path, recipe(), task=Spoilt(), progress=interrupt_at(when))
    assert torch.load(tmp_path / "checkpoint" / "state.pt", weights_only=True)["position"]["step"] == 0


def test_a_full_disk_while_saving_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run(tmp_path / "whole", recipe())
    real, saves = torch.save, []

    def full(state: object, file: Any) -> None:
        saves.append(0)
        if len(saves) == 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(KdcError, match=r"no space left on the device while writing .*state.pt"):
            run(tmp_path / "run", recipe())
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoint").iterdir())
    assert left == ["before.pt", "state.pt"]
    resumed, position = run(tmp_path / "run", recipe(), student=mlp(33))
    assert equal(resumed, whole)
    assert len(position.history) == 4


def test_a_really_full_device_is_reported_as_such() -> None:
    """torch reports a broken zip archive where it writes to a path itself."""
    device = Path("/dev/full")
    if not device.is_char_device():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(OSError, match="No space left on device"), device.open("wb") as file:
        torch.save({"weights": torch.zeros(1_000_000)}, file)


@pytest.mark.parametrize("content", [b"", b"no state", None])
def test_a_damaged_state_is_named(
    tmp_path: Path, interrupt_at: Callable[[int], Progress], content: bytes | None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe(), progress=interrupt_at(2))
    state = tmp_path / "checkpoint" / "state.pt"
    state.write_bytes(state.read_bytes()[:-500] if content is None else content)
    with pytest.raises(KdcError, match=r"state.pt is damaged: .") as caught:
        run(tmp_path, recipe())
    assert caught.value.hint == "start again with --overwrite"


@pytest.mark.parametrize("content", [b"", b"no state"])
def test_where_the_last_state_is_damaged_the_one_before_is_taken(
    tmp_path: Path, interrupt_at: Callable[[int], Progress], content: bytes
) -> None:
    whole, expected = run(tmp_path / "whole", recipe())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", recipe(), progress=interrupt_at(2 * STEPS + 1))
    (tmp_path / "parts" / "checkpoint" / "state.pt").write_bytes(content)
    progress = Hearing()
    student, position = run(tmp_path / "parts", recipe(), student=mlp(33), progress=progress)
    assert equal(student, whole)
    assert rows(position) == rows(expected)
    assert [text for text in progress.warnings if "state.pt is damaged" in text and "the state before" in text]
    assert "resuming at epoch 3 of 4, step 0" in progress.notes


class Killed(BaseException):
    """What a kill is to this process: nothing is saved any more."""


class KilledAt(Silent):
    def __init__(self, step: int) -> None:
        self.left = step

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        for item in items:
            if self.left == 0:
                raise Killed
            self.left -= 1
            yield item


def test_a_long_epoch_is_saved_within_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(engine, "LOOK_EVERY", 2)
    whole, expected = run(tmp_path / "whole", recipe())
    with pytest.raises(Killed):
        run(tmp_path / "parts", recipe(), progress=KilledAt(STEPS + 3))
    progress = Hearing()
    student, position = run(tmp_path / "parts", recipe(), student=mlp(33), progress=progress)
    assert "resuming at epoch 2 of 4, step 2" in progress.notes
    assert equal(student, whole)
    assert rows(position) == rows(expected)


def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    """Pitfalls, "The denominator of a batch": the mean of the parts' means is the mean. Without batch statistics, and
    without what is drawn."""
    halves = Vectors()
    halves.batch_size = 8
    results = [
        run(tmp_path / str(parts), recipe(accumulate=parts), student=plain(1), task=task)
        for parts, task in ((1, Vectors()), (2, halves))
    ]
    (one, first), (two, second) = results
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, two.state_dict()[name], rtol=0, atol=2e-5)
    for row, other in zip(rows(first), rows(second), strict=True):
        assert row["loss"]["kd"] == pytest.approx(other["loss"]["kd"], abs=1e-5)


def plain(seed: int) -> BatchModel:
    """Without batch statistics and dropout."""
    torch.manual_seed(seed)
    return BatchModel(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)), "vectors")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_try(tmp_path: Path, error: Exception) -> None:
    class Heavy(BatchModel):
        def forward(self, batch: Batch) -> Outputs:
            raise error

    with pytest.raises(KdcError, match="out of memory with batch_size 128") as caught:
        run(tmp_path, recipe(), student=Heavy(mlp(1).network, "vectors"))
    assert "--set accumulate=2" in caught.value.hint


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    class Broken(BatchModel):
        def forward(self, batch: Batch) -> Outputs:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(tmp_path, recipe(), student=Broken(mlp(1).network, "vectors"))


def test_a_run_is_not_resumed_on_other_data_or_with_another_teacher(
    tmp_path: Path, interrupt_at: Callable[[int], Progress]
) -> None:
    inputs = {"the data": "1", "the teacher": "a"}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe(), progress=interrupt_at(2), inputs=inputs)
    with pytest.raises(KdcError, match="--resume: since the run was interrupted, the teacher changed"):
        run(tmp_path, recipe(), inputs={**inputs, "the teacher": "b"})
    run(tmp_path, recipe(), inputs=inputs)


def test_losses_that_need_a_teacher_are_refused_without_one() -> None:
    with pytest.raises(KdcError, match=r"recipe losses\.0: kd needs a teacher"):
        bind_losses(recipe(), has_teacher=False)
    assert [term.name for term in bind_losses(recipe(), has_teacher=True)] == ["kd", "cross_entropy"]


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(KdcError, match="every weight is 0"):
        bind_losses(recipe(losses=[{"name": "cross_entropy", "weight": 0}]), has_teacher=False)


def test_a_loss_whose_weight_is_always_zero_is_not_computed(tmp_path: Path) -> None:
    """So that the labels alone, as a control, cost no teacher."""
    both = [{"name": "kd", "weight": 0.0}, {"name": "cross_entropy", "weight": 1.0}]

    class Unasked(nn.Module):
        def forward(self, vectors: Tensor) -> Tensor:
            raise AssertionError("nobody needs its answers")

    nobody = BatchModel(Unasked().eval(), "vectors").eval()
    with_zero, position = run(tmp_path / "1", recipe(losses=both), teacher_model=nobody)
    without, _ = run(tmp_path / "2", recipe(losses=both[1:]))
    assert equal(with_zero, without)
    assert position.history[0]["loss"].keys() == {"cross_entropy"}


def test_the_rate_rises_linearly_and_falls_along_half_a_cosine() -> None:
    how = recipe(epochs=10, optimizer={"lr": 0.1, "warmup_epochs": 0.5, "final_lr_share": 0.01})
    rates = [rate(step, 10, how) for step in range(100)]
    np.testing.assert_allclose(rates[:5], 0.1 * np.arange(1, 6) / 6)
    assert rates[5] == max(rates) == 0.1
    middle = 5 + 95 / 2
    expected = 0.1 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (math.floor(middle) - 5) / 95)))
    assert rates[math.floor(middle)] == pytest.approx(expected)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[5:]))
    assert 0.001 < rates[-1] < 0.0011
    assert rate(100, 10, how) == pytest.approx(0.001)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 50.0])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_rate_is_positive_at_every_step_of_the_shortest_runs(warmup: float, epochs: int, steps: int) -> None:
    how = recipe(epochs=epochs, optimizer={"lr": 0.1, "warmup_epochs": warmup})
    assert all(0 < rate(step, steps, how) <= 0.1 for step in range(epochs * steps))


def test_biases_and_normalization_are_not_decayed() -> None:
    decayed, free = engine._groups(mlp(1), 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    shapes = [[tuple(p.shape) for p in group["params"]] for group in (decayed, free)]  # type: ignore[attr-defined]
    assert shapes == [[(8, 6), (3, 8)], [(8,), (8,), (8,), (3,)]]


def test_the_rate_may_fall_along_a_line() -> None:
    optimizer = {"lr": 1.0, "warmup_epochs": 0.2, "final_lr_share": 0.0, "schedule": "linear"}
    made = Recipe.model_validate({"epochs": 2, "optimizer": optimizer, "losses": [{"name": "kd"}]})
    rates = [rate(step, 10, made) for step in range(20)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[2:] == pytest.approx([1 - step / 18 for step in range(18)])
