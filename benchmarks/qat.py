"""How much of what post-training quantization loses does quantization-aware distillation get back?

    python -m benchmarks.qat RUN --profile x86-avx2 [--runtime onnxruntime] [--seeds 0 1 2] [--epochs 1]

Run from where the run was distilled. Plain PTQ is the best of the ladder's first rung on validation; each seed trains
the same student on under fake quantization, with other augmentation and order, and is quantized with its trained
ranges. All are scored on the whole test split, which nothing here chooses on, by the runtime itself. Prints accuracy,
points lost against fp32, and the share of PTQ's loss that each seed gets back.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compressor.data.samples import Dataset, Split
from compressor.distill import quantization_aware
from compressor.distill.run_folder import Destination
from compressor.export.base import Quantizer, Source
from compressor.export.builders import builder_of
from compressor.export.bundle.eval_set import part_of, write_reference
from compressor.export.bundle.items import CALIBRATION, validation_size
from compressor.export.judge import ValidationJudge
from compressor.export.onnx.graph import to_onnx
from compressor.export.onnx.qat import qat_model
from compressor.models import LoadedModel, load_run
from compressor.models.lineage import data_of
from compressor.profiles import load_profile
from compressor.schema.base import read_json, write_json
from compressor.schema.profile import Profile
from compressor.schema.quantization import Score
from compressor.schema.student import Request
from compressor.tasks.table import task_named
from compressor.terminal.console import progress_for

PROGRESS = progress_for(quiet=False)


@dataclass(frozen=True)
class Trial:
    """A student, how it is quantized, and who scores it on validation and on test."""

    run: Path
    runtime: str
    quantizer: Quantizer
    source: Source
    validation: ValidationJudge
    test: ValidationJudge

    def ptq(self, folder: Path) -> tuple[str, Score]:
        """The first rung's best candidate on validation, scored on test."""
        made = []
        for candidate in self.quantizer.candidates(self.source, folder, self.validation, PROGRESS):
            if candidate is None:
                break
            score = self.validation(candidate.model, self.runtime, "int8")
            made.append((self.validation.rank(score), candidate))
        best = max(made, key=lambda pair: pair[0])[1]
        return best.description, self.test(best.model, self.runtime, "int8")

    def qat(self, seed: int, epochs: int, folder: Path) -> Score:
        """The student trained on with another seed, scored on test."""
        assert self.quantizer.from_qat is not None
        copy, out = folder / "float", folder / "run"
        copy.mkdir(parents=True)
        for path in self.run.iterdir():
            (copy / path.name).symlink_to(path.resolve())
        request = read_json(self.run / "run.json", Request)
        (copy / "run.json").unlink()
        recipe = request.recipe.model_copy(update={"seed": seed})
        write_json(copy / "run.json", request.model_copy(update={"recipe": recipe}))
        scheme = self.quantizer.scheme(self.source.profile)
        quantization_aware(copy, scheme, Destination(out), teacher=None, epochs=epochs, progress=PROGRESS)
        (folder / "artefact").mkdir()
        qat = qat_model(out, self.source.profile, self.source.profile.batch, folder / "onnx")
        candidate = self.quantizer.from_qat(self.source, qat, folder / "artefact")
        return self.test(candidate.model, self.runtime, "int8")


def trial(run: Path, profile: Profile, runtime: str, folder: Path) -> Trial:
    model, record = load_run(run)
    data = data_of(read_json(run / "run.json", Request), record, PROGRESS)
    how, onnx_file = model.preprocess, folder / "model.onnx"
    task = task_named(how.task)
    to_onnx(model.network, how.inputs, profile.batch, profile.opset, {}, onnx_file)
    calibration = task.store(part_of(data.train, CALIBRATION), how, folder / "calibration.npy", PROGRESS)
    quantizer = builder_of(runtime).quantizer
    assert quantizer is not None
    validation, test = judges(data, model, profile, folder)
    return Trial(
        run,
        runtime,
        quantizer,
        Source(model.network, onnx_file, how, calibration, profile),
        validation,
        test,
    )


def judges(data: Dataset, model: LoadedModel, profile: Profile, folder: Path) -> Iterator[ValidationJudge]:
    """Who scores on validation, and who on test."""

    def judge(split: Split) -> ValidationJudge:
        task = task_named(model.preprocess.task)
        inputs = task.store(split, model.preprocess, folder / f"{split.name}.npy", PROGRESS)
        answers = folder / f"{split.name}-answers.npy"
        write_reference(model.network, inputs, answers, PROGRESS)
        return ValidationJudge(
            inputs, split.labels, np.load(answers), batch=profile.batch, threads=profile.threads,
            needed=float("inf"), max_drop=profile.max_drop,
        )  # fmt: skip

    return map(judge, (part_of(data.validation, validation_size(model.preprocess)), data.test))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = trial(given.run, load_profile(given.profile), given.runtime, folder)
        how, ptq = made.ptq(folder / "ptq")
        print(f"{given.run.name}, {given.runtime} int8 for {given.profile}, n = {ptq.n} test samples", flush=True)
        print(f"  fp32  {100 * ptq.reference_correct / ptq.n:.2f} %")
        print(f"  ptq   {100 * ptq.correct / ptq.n:.2f} %   lost {100 * ptq.drop:+.2f} points   ({how})", flush=True)
        shares = []
        for seed in given.seeds:
            score = made.qat(seed, given.epochs, folder / f"seed-{seed}")
            share = (score.correct - ptq.correct) / (ptq.reference_correct - ptq.correct)
            shares.append(share)
            lost = f"lost {100 * score.drop:+.2f} points   got back {100 * share:.0f} %   (seed {seed})"
            print(f"  qat   {100 * score.correct / score.n:.2f} %   {lost}", flush=True)
    if len(shares) > 1:
        mean, deviation = 100 * statistics.mean(shares), 100 * statistics.stdev(shares)
        print(f"  mean {mean:.0f} %, standard deviation {deviation:.0f} %, n = {len(shares)} seeds")
    sys.exit(0 if min(shares) >= 0.5 else 1)


if __name__ == "__main__":
    main()
