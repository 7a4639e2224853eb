"""A teacher's answers, kept: the same numbers as from the teacher itself, or an error; never something else."""

import errno
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.distill.teacher import cache
from compressor.distill.teacher.cache import ABSENT, DAMAGED, WHOLE, AnswerStore
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.sources import Cached, Online
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.recipe import TeacherAnswers
from compressor.tasks.base import Batch, BatchModel
from tests.kit import Hearing

N, VIEWS, CLASSES, SIZE = 50, 3, 7, 8


class Numbers:
    """A task whose input is a function of sample and view; counts how often it is asked for teacher's input."""

    batch_size = SIZE
    steps_per_epoch = N // SIZE

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def input_of(self, key: str, samples: NDArray[np.int64], view: int) -> Batch:
        self.asked.append(tuple(samples.tolist()))
        generator = np.random.default_rng(0).normal(size=(VIEWS, N, 5)).astype(np.float32)
        return {key: torch.from_numpy(generator[view, samples])}

    def batch(self, samples: list[int], view: int, keys: Collection[str]) -> Batch:
        index = np.array(samples)
        inputs = self.input_of("teacher", index, view) if "teacher" in keys else {}
        return {**inputs, "labels": torch.zeros(len(samples), dtype=torch.int64), "index": torch.from_numpy(index)}

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        return [f"image-{number}" for number in samples]


class Counting(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(5, CLASSES)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.layer(x)
        return result


def online(codec: Codec | None = None, seed: int = 0) -> Online:
    model = BatchModel(Counting(seed), "teacher").eval()
    return Online(model.requires_grad_(False), codec or Codec(CLASSES))


def counting(teacher: Online) -> Counting:
    network = teacher.model.network
    assert isinstance(network, Counting)
    return network


def store_in(folder: Path, codec: Codec | None = None, **key: Any) -> AnswerStore:
    return AnswerStore(folder, {"teacher": "a", **key}, views=VIEWS, samples=N, size=(codec or Codec(CLASSES)).bytes)


def cached(folder: Path, teacher: Online | None = None, progress: Silent | None = None) -> tuple[Cached, Numbers]:
    teacher, task = teacher or online(), Numbers()
    return Cached(teacher, store_in(folder, teacher.codec), task, progress or Silent()), task  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("top_k", [None, 1, 3, CLASSES - 1])
def test_an_answer_comes_back_as_it_was_encoded(dtype: torch.dtype, top_k: int | None) -> None:
    codec = Codec(CLASSES, dtype, top_k)
    logits = torch.randn(9, CLASSES, generator=torch.Generator().manual_seed(0)) * 5
    encoded = codec.encode(logits)
    raw = codec.to_bytes(encoded)
    assert raw.dtype == np.uint8
    assert raw.shape == (9, codec.bytes)
    assert torch.equal(codec.from_bytes(raw), encoded)
    decoded = codec.decode(encoded)
    assert decoded.shape == logits.shape
    tolerance = 1e-6 if dtype == torch.float32 else 3e-3
    expected = logits.softmax(-1)
    if top_k is None:
        torch.testing.assert_close(decoded, logits, rtol=tolerance, atol=tolerance)
    else:
        top, numbers = expected.topk(top_k)
        rest = (1 - top.sum(-1, keepdim=True)) / (CLASSES - top_k)
        spread = rest.expand(-1, CLASSES).scatter(-1, numbers, top)
        torch.testing.assert_close(decoded.softmax(-1), spread, rtol=0, atol=2 * tolerance)


def test_class_numbers_beyond_16_bits_are_kept() -> None:
    codec = Codec(70_000, torch.float16, 2)
    logits = torch.zeros(1, 70_000)
    logits[0, 69_999], logits[0, 40_000] = 30.0, 29.0
    numbers = codec.from_bytes(codec.to_bytes(codec.encode(logits)))[0, :2]
    assert numbers.tolist() == [69_999.0, 40_000.0]


def test_a_rest_without_mass_leaves_numbers() -> None:
    codec = Codec(CLASSES, torch.float16, 1)
    decoded = codec.decode(codec.from_bytes(codec.to_bytes(codec.encode(torch.tensor([[1e4] + [-1e4] * 6])))))
    assert decoded.isfinite().all()
    torch.testing.assert_close(decoded.softmax(-1)[0], torch.tensor([1.0] + [0.0] * 6))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_answers_that_cannot_be_kept_are_refused(value: float) -> None:
    codec = Codec(2, torch.float16)
    with pytest.raises(KdcError, match="do not fit into float16, or are not finite"):
        codec.to_bytes(codec.encode(torch.tensor([[0.0, value]])))


def test_a_top_k_of_all_classes_is_refused() -> None:
    assert Codec.of(TeacherAnswers(dtype="float16", top_k=2), 3) == Codec(3, torch.float16, 2)
    with pytest.raises(KdcError, match=r"top_k=3 keeps as many classes as there are \(3\)"):
        Codec.of(TeacherAnswers(top_k=3), 3)


def test_records_are_absent_whole_or_damaged(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    answers = np.random.default_rng(0).integers(0, 256, (2, 28), np.uint8)
    store.write(1, np.array([4, 9]), answers)
    found = store.read(1, np.array([9, 4, 5]))
    assert found.states.tolist() == [WHOLE, WHOLE, ABSENT]
    np.testing.assert_array_equal(found.answers[:2], answers[::-1])
    assert not store.read(0, np.array([4])).complete
    assert store.missing(1).tolist() == [n for n in range(N) if n not in (4, 9)]
    path = store.folder / "records"
    raw = bytearray(path.read_bytes())
    for place in ((N + 4) * 36 + 3, (N + 9) * 36 + 35):  # of the checksum of 4, of the answer of 9
        raw[place] ^= 1
    path.write_bytes(raw)
    assert store_in(tmp_path).read(1, np.array([4, 9])).states.tolist() == [DAMAGED, DAMAGED]


def test_every_single_byte_that_changes_is_noticed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write(0, np.array([0]), np.arange(28, dtype=np.uint8)[None])
    path = store.folder / "records"
    whole = path.read_bytes()
    for place in range(36):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        assert store_in(tmp_path).read(0, np.array([0])).states.tolist() == [DAMAGED]


def test_a_record_in_another_place_is_damaged(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write(0, np.array([3]), np.ones((1, 28), np.uint8))
    path = store.folder / "records"
    raw = bytearray(path.read_bytes())
    raw[5 * 36 : 6 * 36] = raw[3 * 36 : 4 * 36]
    path.write_bytes(raw)
    assert store_in(tmp_path).read(0, np.array([3, 5])).states.tolist() == [WHOLE, DAMAGED]


def test_another_key_is_another_folder_and_says_what_differs(tmp_path: Path) -> None:
    first = store_in(tmp_path, images={"crop": 0.5, "seed": 1})
    assert (first.new, first.nearest) == (True, None)
    store_in(tmp_path, images={"crop": 0.7, "seed": 9})
    other = store_in(tmp_path, images={"crop": 0.5, "seed": 2})
    assert other.folder != first.folder
    assert other.nearest == ["images.seed"]
    assert not store_in(tmp_path, images={"crop": 0.5, "seed": 1}).new


def test_a_disk_that_is_too_small_is_found_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(KdcError, match=r"no space left on the device while making room for 0\.0 MB") as caught:
        store_in(tmp_path)
    assert "--teacher-cache off" in caught.value.hint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_up_while_writing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = store_in(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(KdcError, match=r"no space left on the device while writing .*records"):
        store.write(0, np.array([0]), np.ones((1, 28), np.uint8))


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with (store.folder / "records").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(KdcError, match="records is damaged: it ends within row 2"):
        store.read(0, np.array([2]))
    with pytest.raises(KdcError, match="records is damaged: 100 bytes, expected 5,400"):
        store_in(tmp_path)


def test_two_runs_share_a_folder(tmp_path: Path) -> None:
    one, other = store_in(tmp_path), store_in(tmp_path)
    assert one.folder == other.folder
    one.write(2, np.array([1]), np.full((1, 28), 7, np.uint8))
    assert other.read(2, np.array([1])).complete
    # The slower of two that make room at once leaves the other's answers.
    cache._make_room(one.folder / "records", one.bytes)
    assert other.read(2, np.array([1])).complete
    assert sorted(path.name for path in one.folder.iterdir()) == ["key.json", "records"]


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store = store_in(tmp_path)
    store.write(0, np.array([1]), np.ones((1, 28), np.uint8))
    assert store_in(tmp_path).read(0, np.array([1])).complete
    assert sorted(path.name for path in store.folder.iterdir()) == ["key.json", "records"]


@pytest.mark.parametrize("codec", [Codec(CLASSES), Codec(CLASSES, torch.float16), Codec(CLASSES, torch.float16, 2)])
def test_kept_answers_are_the_teachers_and_spare_it(tmp_path: Path, codec: Codec) -> None:
    teacher = online(codec)
    signal, task = cached(tmp_path, teacher)
    network = counting(teacher)
    batches = np.random.default_rng(1).permutation(N)[: SIZE * (N // SIZE)].reshape(-1, SIZE).tolist()
    assert signal.wants(0)
    first = [signal.answers(task.batch(samples, 0, ["teacher"]), 0).logits for samples in batches]
    for samples, logits in zip(batches, first, strict=True):
        assert torch.equal(logits, online(codec).answers(task.batch(samples, 0, ["teacher"]), 0).logits)
    calls = network.calls
    signal.end(0, teacher.model)
    assert network.calls == calls + 1, "the two samples that filled no batch, in one of their own"
    assert not Cached(teacher, store_in(tmp_path, codec), task, Silent()).wants(VIEWS)  # type: ignore[arg-type]
    task.asked.clear()
    order = np.random.default_rng(2).permutation(N)[:SIZE].tolist()
    again = signal.answers(task.batch(order, 0, []), VIEWS).logits
    assert network.calls == calls + 1
    assert task.asked == []
    expected = online(codec).answers(task.batch(order, 0, ["teacher"]), 0).logits
    torch.testing.assert_close(again, expected, rtol=1e-6, atol=1e-6)


def test_a_damaged_answer_is_named_and_answered_again(tmp_path: Path) -> None:
    progress = Hearing()
    signal, task = cached(tmp_path, progress=progress)
    signal.precompute()
    assert not signal.wants(1)
    assert not signal.wants(1 + VIEWS)
    path = signal._store.folder / "records"
    raw = bytearray(path.read_bytes())
    raw[(N + 7) * 36 + 20] ^= 4
    path.write_bytes(raw)
    samples = [5, 6, 7, 8, 9, 10, 11, 12]
    again = signal.answers(task.batch(samples, 1, []), 1).logits
    assert torch.equal(again, online().answers(task.batch(samples, 1, ["teacher"]), 1).logits)
    assert len(progress.warnings) == 1
    assert "sample image-7, view 1" in progress.warnings[0]
    assert store_in(tmp_path).read(1, np.array(samples)).complete, "and it is whole again"


def test_precomputing_answers_what_is_missing_and_no_more(tmp_path: Path) -> None:
    teacher = online()
    signal, _ = cached(tmp_path, teacher)
    signal.precompute()
    assert counting(teacher).calls == VIEWS * -(-N // SIZE)
    signal.precompute()
    assert counting(teacher).calls == VIEWS * -(-N // SIZE)
    assert all(len(store_in(tmp_path).missing(view)) == 0 for view in range(VIEWS))


def test_processes_share_the_filling(tmp_path: Path) -> None:
    task = Numbers()
    for rank in range(2):
        Cached(online(), store_in(tmp_path), task, Silent(), share=(rank, 2)).precompute()  # type: ignore[arg-type]
        left = sum(len(store_in(tmp_path).missing(view)) for view in range(VIEWS))
        assert left == (VIEWS * N // 2 if rank == 0 else 0)


def test_a_replay_finds_a_teacher_that_answers_otherwise(tmp_path: Path) -> None:
    """A poisoned file whose checksums are right, or a key that misses something."""
    signal, _ = cached(tmp_path)
    assert signal.replay() == 0
    signal.precompute()
    assert signal.replay() == 8 * VIEWS
    changed, _ = cached(tmp_path, online(seed=1))
    with pytest.raises(KdcError, match=r"answers otherwise now than .*: sample image-\d+, view 0") as caught:
        changed.replay()
    assert "remove that folder" in caught.value.hint


def test_what_is_not_a_number_is_no_agreement(tmp_path: Path) -> None:
    signal, _ = cached(tmp_path)
    signal.precompute()
    broken = online()
    nn.init.constant_(counting(broken).layer.bias, torch.nan)
    with pytest.raises(KdcError, match="answers otherwise now"):
        cached(tmp_path, broken)[0].replay()


def test_a_teacher_in_training_mode_is_refused() -> None:
    with pytest.raises(AssertionError, match="batch statistics would drift"):
        Online(BatchModel(Counting(), "teacher"), Codec(CLASSES))
