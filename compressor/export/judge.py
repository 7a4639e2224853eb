"""Scores artefacts on validation pictures: what every choice between them is made on."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.runner import open_runner
from compressor.spec.preprocess import Preprocess
from compressor.spec.quantization import Score

__all__ = ["ValidationJudge", "machine_isa"]


def machine_isa() -> tuple[str, ...]:
    """The instruction sets of the machine that judges, as Linux names them; empty where it does not tell."""
    with open_runner("onnxruntime") as runner:
        return tuple(runner.ask("info")["machine"]["isa"])


class ValidationJudge:
    """`pictures`: a .npy file, uint8 [n, height, width, 3], ready but for normalization; `labels` int64 [n];
    `reference`: the logits [n, classes] of the student in torch, fp32. `needed`: how many of the n must be right."""

    def __init__(
        self,
        pictures: Path,
        labels: NDArray[np.int64],
        reference: NDArray[np.float32],
        preprocess: Preprocess,
        *,
        batch: int,
        threads: int,
        needed: float,
    ) -> None:
        self._pictures, self._labels = pictures.resolve(), labels
        self._top1 = reference.argmax(axis=1)
        self._preprocess, self._batch, self._threads = preprocess, batch, threads
        self.needed = needed
        self._scores: dict[tuple[Path, str, str], Score] = {}

    def __call__(self, model: Path, runtime: str, precision: str) -> Score:
        """Run the artefact on all the pictures, once. Raises RunnerError where it does not run."""
        key = (model.resolve(), runtime, precision)
        if key not in self._scores:
            self._scores[key] = self._score(model, runtime, precision)
        return self._scores[key]

    def _score(self, model: Path, runtime: str, precision: str) -> Score:
        top1 = self.logits(model, runtime, precision, len(self._labels)).argmax(axis=1)
        return Score(
            n=len(self._labels),
            correct=int((top1 == self._labels).sum()),
            reference_correct=int((self._top1 == self._labels).sum()),
            same=int((top1 == self._top1).sum()),
        )

    def holds(self, score: Score) -> bool:
        return score.correct >= self.needed

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> NDArray[np.float32]:
        """Logits [min(most, n), classes] for the first of the pictures."""
        how = self._preprocess
        with tempfile.TemporaryDirectory() as folder, open_runner(runtime) as runner:
            inputs, n = self._pictures, min(most, len(self._labels))
            if n < len(self._labels):
                inputs = Path(folder) / "pictures.npy"
                np.save(inputs, np.load(self._pictures, mmap_mode="r", allow_pickle=False)[:n])
            out, pixels = Path(folder) / "logits.npy", n * how.input_size[0] * how.input_size[1]
            fields = {"inputs": str(inputs), "mean": how.mean, "std": how.std, "batch": self._batch, "out": str(out)}
            runner.ask("load", model=str(model.resolve()), threads=self._threads, precision=precision)
            runner.ask("predict", pixels, **fields)
            logits: NDArray[np.float32] = np.load(out, allow_pickle=False)
        return logits
