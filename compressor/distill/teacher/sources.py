"""Where the loop gets the teacher's answers from: the network itself, or what it answered to the same view before."""

import copy
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.data.randomness import keyed_uniform
from compressor.distill.teacher.cache import DAMAGED, WHOLE, AnswerStore
from compressor.distill.teacher.codec import Codec
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.tasks.base import Batch, BatchModel, Feed, Outputs, has_inputs, inputs_of

__all__ = ["Cached", "Itself", "Online", "Teacher"]

REPLAYED = 8
"""Answers of each view that are compared with the teacher's at the start."""

CANDIDATES = 64

TOLERANCE = {None: 1e-3, torch.bfloat16: 5e-2}
"""What another batch, other threads or other kernels may change in an answer (`Codec.apart`), by autocast."""

PENDING = 4


class Teacher(Protocol):
    """What the loop asks for the teacher's answers."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors of a batch that the teacher takes."""

    def wants(self, epoch: int) -> bool:
        """Whether the batches of this epoch should hold the teacher's input."""

    def answers(self, batch: Batch, epoch: int) -> Outputs:
        """The teacher's answers to a batch of this epoch, without gradients."""

    def end(self, epoch: int, student: BatchModel) -> None:
        """Called when the epoch's batches are over; `student`: as it is then."""


def outputs_of(codec: Codec, encoded: Tensor) -> Outputs:
    """What `codec` kept of answers."""
    return Outputs(codec.decode(encoded), codec.features_of(encoded))


class Online:
    """The teacher runs on every batch. What it answers goes through `codec`, so that a student learns from the same
    numbers, whether they were kept or not."""

    def __init__(self, model: BatchModel, codec: Codec, autocast: torch.dtype | None = None) -> None:
        """`model`: frozen; in training mode its batch statistics would drift. `autocast`: the precision it runs in."""
        assert not any(module.training for module in model.modules()), "its batch statistics would drift"
        self.model, self.codec, self.autocast = model, codec, autocast

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.model.key,)

    def wants(self, epoch: int) -> bool:
        return True

    def answers(self, batch: Batch, epoch: int) -> Outputs:
        answer = self._asked(batch)
        kept = outputs_of(self.codec, self._kept(answer))
        return Outputs(kept.logits, {**answer.features, **kept.features}, answer.mask)

    def end(self, epoch: int, student: BatchModel) -> None:
        pass

    def encoded(self, batch: Batch) -> Tensor:
        """The answers to a batch as `codec` keeps them."""
        return self._kept(self._asked(batch))

    def _kept(self, answer: Outputs) -> Tensor:
        return self.codec.encode(answer.logits, answer.features)

    def _asked(self, batch: Batch) -> Outputs:
        device = inputs_of(batch, self.model.key)[0].device
        with torch.no_grad(), torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            answer: Outputs = self.model(batch)
            return answer


class Itself(nn.Module):
    """The student of the epoch before is the teacher: self-distillation with progressive refinement (Kim et al. 2021,
    arXiv 2006.12000). In the first epoch it is the student as it began, which knows nothing: let the loss's weight grow
    from 0.
    """

    def __init__(self, student: BatchModel, codec: Codec, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.before = (
            BatchModel(copy.deepcopy(student.network), student.key, mask=student.mask).eval().requires_grad_(False)
        )
        self._online = Online(self.before, codec, autocast)

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.before.key,)

    def wants(self, epoch: int) -> bool:
        return True

    def answers(self, batch: Batch, epoch: int) -> Outputs:
        return self._online.answers(batch, epoch)

    def end(self, epoch: int, student: BatchModel) -> None:
        self.before.load_state_dict(student.state_dict())


class Cached:
    """The teacher runs once on each view of a sample: what it answered is kept in `store`, and read from there.

    A batch that lacks an answer goes through the teacher as a whole, so that the teacher computes it as `Online` would.
    Answers are written by whoever computed them, in every process of a run.
    """

    def __init__(
        self, online: Online, store: AnswerStore, feed: Feed, progress: Progress, *, share: tuple[int, int] = (0, 1)
    ) -> None:
        """`share`: (rank, processes); each process looks after its share of what the batches of an epoch left out."""
        self._online, self._store, self._feed, self._progress = online, store, feed, progress
        self._rank, self._processes = share
        self._key = online.model.key
        self._wanted: tuple[int, bool] | None = None
        self._whole: set[int] = set()
        self._pending: deque[tuple[int, NDArray[np.int64], Tensor, torch.cuda.Event | None]] = deque()

    @property
    def keys(self) -> tuple[str, ...]:
        return self._online.keys

    def wants(self, epoch: int) -> bool:
        """Answered once an epoch, and of a view that was whole not again: it reads all records. One that is damaged
        afterwards costs its batch the teacher's input."""
        view = epoch % self._store.views
        if view in self._whole:
            return False
        if self._wanted is None or self._wanted[0] != epoch:
            self._wanted = epoch, self._store.lacks(view)
            if not self._wanted[1]:
                self._whole.add(view)
        return self._wanted[1]

    def answers(self, batch: Batch, epoch: int) -> Outputs:
        view, samples = epoch % self._store.views, batch["index"].numpy()
        records = self._store.read(view, samples)
        device, codec = batch["labels"].device, self._online.codec
        if records.complete:
            return outputs_of(codec, codec.from_bytes(records.answers).to(device, non_blocking=True))
        self._name_damaged(view, samples[records.states == DAMAGED])
        if not has_inputs(batch, self._key):
            batch = {**batch, **self._feed.input_of(self._key, samples, view)}
        encoded = self._online.encoded(batch)
        rows = np.flatnonzero(records.states != WHOLE)
        self._keep(view, samples[rows], encoded[torch.from_numpy(rows).to(device)])
        return outputs_of(codec, encoded)

    def end(self, epoch: int, student: BatchModel) -> None:
        """The samples that filled no batch of this epoch are answered too: else nearly every batch of a later epoch
        would hold one of them, and go through the teacher."""
        view = epoch % self._store.views
        self._write_pending(0)
        if self.wants(epoch):
            for _ in self._fill(view):
                pass

    def precompute(self) -> None:
        """Answer everything that is not there yet."""
        for view in range(self._store.views):
            left = -(-len(self._share(view)) // self._feed.batch_size)
            doing = f"the teacher's answers, view {view + 1}/{self._store.views}"
            for _ in self._progress.track(self._fill(view), left, doing):
                pass
        self._progress.note("all of the teacher's answers are there")

    def replay(self) -> int:
        """Ask the teacher again for some of the answers that are kept; returns for how many.

        Raises KdcError where it answers otherwise now: the key misses something that the answers depend on, or somebody
        changed the file and its checksums.
        """
        compared = 0
        for view in range(self._store.views):
            drawn = keyed_uniform(0, np.arange(CANDIDATES), view, 1)[:, 0] * self._store.samples
            samples = np.unique(drawn.astype(np.int64))
            records = self._store.read(view, samples)
            kept = np.flatnonzero(records.states == WHOLE)[:REPLAYED]
            if not len(kept):
                continue
            codec = self._online.codec
            before = codec.from_bytes(records.answers[kept])
            now = self._online.encoded(self._feed.input_of(self._key, samples[kept], view)).cpu()
            apart = codec.apart(before, now)
            worst = int(apart.argmax())
            if not apart[worst] <= TOLERANCE[self._online.autocast]:
                name = self._feed.names(samples[kept][worst : worst + 1])[0]
                raise KdcError(
                    f"the teacher answers otherwise now than {self._store.folder} holds: sample {name}, view {view}",
                    "remove that folder, or --teacher-cache off",
                )
            compared += len(kept)
        return compared

    def _fill(self, view: int) -> Iterable[None]:
        """Answer this process's share of what the view lacks, in batches of the size that training uses."""
        missing = self._share(view)
        size = self._feed.batch_size
        for start in range(0, len(missing), size):
            samples = missing[start : start + size]
            # The last is filled up: a smaller batch may be computed by other kernels, with other last digits.
            full_batch = np.resize(samples, size)
            encoded = self._online.encoded(self._feed.input_of(self._key, full_batch, view))
            self._keep(view, samples, encoded[: len(samples)])
            yield
        self._write_pending(0)

    def _share(self, view: int) -> NDArray[np.int64]:
        """This process's share of what is missing: by the samples' numbers, since what is missing changes meanwhile."""
        missing = self._store.missing(view)
        share: NDArray[np.int64] = missing[missing % self._processes == self._rank]
        return share

    def _keep(self, view: int, samples: NDArray[np.int64], encoded: Tensor) -> None:
        """Write answers; from a GPU a few batches later, so that no step waits for the copy."""
        event = None
        if encoded.device.type == "cuda":
            encoded, event = encoded.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._pending.append((view, samples, encoded, event))
        self._write_pending(0 if event is None else PENDING)

    def _write_pending(self, keep: int) -> None:
        while len(self._pending) > keep:
            view, samples, encoded, event = self._pending.popleft()
            if event is not None:
                event.synchronize()
            self._store.write(view, samples, self._online.codec.to_bytes(encoded))

    def _name_damaged(self, view: int, samples: NDArray[np.int64]) -> None:
        for name in self._feed.names(samples):
            where = self._store.folder / "records"
            self._progress.warn(f"{where} was damaged: sample {name}, view {view}; the teacher answers it again")
