"""Scores artefacts on validation images: what every choice between them is made on."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.export.base import Rank
from compressor.export.bundle.eval_set import write_reference
from compressor.processes.runner import RunnerDiedError, open_runner
from compressor.progress import Silent
from compressor.schema.quantization import ByClass, Score
from compressor.stats import class_counts, keeps, parity_figures, parity_judged, parity_to_spare, score_parity, top1
from compressor.tasks.base import Arrays, Stored

__all__ = ["ValidationJudge", "machine_isa"]


def machine_isa() -> tuple[str, ...]:
    """The instruction sets of the machine that judges, as Linux names them; empty where it does not tell."""
    with open_runner("onnxruntime") as runner:
        return tuple(runner.ask("info")["machine"]["isa"])


ROWS = 8192
"""Samples that are compared with torch at a time, for memory."""


class ValidationJudge:
    """`inputs`: of n validation samples; `labels` int64 [n]; `reference`: the logits [n, classes] of the student in
    torch, fp32. `needed`: how many of the n must be right; `max_drop`: the share of accuracy, balanced accuracy
    included, that may be lost (`stats.keeps`)."""

    def __init__(
        self,
        inputs: Stored,
        labels: NDArray[np.int64],
        reference: NDArray[np.float32],
        *,
        batch: int,
        threads: int,
        needed: float,
        max_drop: float,
    ) -> None:
        self._inputs, self._labels, self._reference = inputs, labels, reference
        self._batch, self._threads = batch, threads
        self.needed, self.max_drop = needed, max_drop
        self._scores: dict[tuple[Path, str, str], Score] = {}
        self._deaths: dict[tuple[Path, str, str], RunnerDiedError] = {}

    def __call__(self, model: Path, runtime: str, precision: str, network: nn.Module | None = None) -> Score:
        """Run the artefact on all the images, once. `network`: in torch, where its logits should be those of another
        than the student in fp32. Raises RunnerError where it does not run; one whose process died is not run again."""
        key = (model.resolve(), runtime, precision)
        if key in self._deaths:
            raise self._deaths[key]
        if key not in self._scores:
            try:
                logits = self.logits(model, runtime, precision, len(self._labels))
            except RunnerDiedError as error:
                self._deaths[key] = error
                raise
            torchs = self._reference if network is None else self._torchs(network)
            self._scores[key] = self._score(logits, torchs, precision)
        return self._scores[key]

    def _score(self, logits: NDArray[np.float32], torchs: NDArray[np.float32], precision: str) -> Score:
        """Right or wrong against the student in fp32, close or not to `torchs` as `precision` has to be."""
        right, was = top1(logits) == self._labels, top1(self._reference) == self._labels
        counts = class_counts(right, self._labels, self._reference.shape[1], was)
        rows = [slice(start, start + ROWS) for start in range(0, len(logits), ROWS)]
        parity = parity_figures(((logits[chunk], torchs[chunk]) for chunk in rows), precision)
        n, was_right, is_right, both = (
            tuple(part.tolist()) for part in (counts.n, counts.base, counts.right, counts.both)
        )
        return Score(
            n=len(self._labels),
            correct=int(right.sum()),
            reference_correct=int(was.sum()),
            same=parity.same,
            by_class=ByClass(n=n, reference=was_right, correct=is_right, both=both),
            cosine=parity.cosine,
            sqnr_db=parity.sqnr_db,
            not_finite=parity.not_finite,
        )

    def _torchs(self, network: nn.Module) -> NDArray[np.float32]:
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder) / "answers.npy"
            write_reference(network, self._inputs, answers, Silent())
            logits: NDArray[np.float32] = np.load(answers, allow_pickle=False)
        return logits

    def holds(self, score: Score) -> bool:
        return (
            parity_to_spare("int8", score_parity(score))
            and score.correct >= self.needed
            and keeps(score, self.max_drop)
        )

    def rank(self, score: Score) -> Rank:
        close = parity_judged("int8", score_parity(score))[0] == "pass"
        noise = math.inf if score.sqnr_db is None else score.sqnr_db
        # More right answers than fp32 has are luck, which says nothing of other samples.
        right, balanced = min(score.correct, score.reference_correct), min(0.0, -score.balanced_drop)
        return close, keeps(score, self.max_drop), right, balanced, noise

    def batches(self, most: int) -> Iterator[Arrays]:
        """At most that many of the samples as the network takes them, a batch at a time, at least one batch; it is
        filled up from the start where there are fewer."""
        for number in range(max(1, min(most, len(self._inputs)) // self._batch)):
            yield self._inputs.fed(np.arange(number * self._batch, (number + 1) * self._batch) % len(self._inputs))

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> NDArray[np.float32]:
        """Logits [min(most, n), classes] for the first of the samples."""
        with tempfile.TemporaryDirectory() as folder, open_runner(runtime) as runner:
            inputs, out = self._inputs.first(most, Path(folder)), Path(folder) / "logits.npy"
            runner.ask("load", model=str(model.resolve()), threads=self._threads, precision=precision)
            runner.ask("predict", inputs.cost, batch=self._batch, out=str(out), **inputs.request)
            logits: NDArray[np.float32] = np.load(out, allow_pickle=False)
        return logits
