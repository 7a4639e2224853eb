"""`kdc predict`: a teacher's answers to every sample of the data, as a table that `outputs:FILE` reads."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressor import __version__
from compressor.data.prediction_files import Column, require_ending, table_writer, written_by_kdc
from compressor.data.samples import Dataset, Split
from compressor.distill.host.device import set_up
from compressor.distill.overlap import tell_overlap
from compressor.distill.teacher.card import tell_lost_classes
from compressor.distill.teacher.setup import at_chance
from compressor.distill.trainer import log_sizes
from compressor.errors import KdcError
from compressor.files.locks import locked
from compressor.files.writing import is_stream, refuse_existing
from compressor.models import LoadedModel, load_model, map_classes, with_classes
from compressor.models.lineage import public, stated, told
from compressor.models.references import with_class_file
from compressor.models.trained_on import Images, images_of
from compressor.modes import freeze
from compressor.processes.team import team
from compressor.progress import Progress
from compressor.schema.predictions import OutputsInfo, Predictions
from compressor.schema.preprocess import PixelRange
from compressor.schema.student import Columns
from compressor.stats import accuracy_of, log_softmax
from compressor.tasks.table import task_named

__all__ = ["answers_of", "predict"]

BATCH = 256
SPLITS = ("train", "validation", "test")
Logits = NDArray[np.float32]


def predict(
    teacher: str,
    data: str,
    out: Path,
    *,
    progress: Progress,
    top_k: int | None = None,
    labels_only: bool = False,
    teacher_classes: Path | None = None,
    unlabelled: str | None = None,
    pixel_range: PixelRange | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    task: str | None = None,
    columns: Columns | None = None,
    licence: str | None = None,
    terms: str | None = None,
) -> Predictions:
    """Write what `teacher` answers to all samples of all splits, in evaluation mode, without augmentation and through
    its own preprocessing, to the file `out` (.csv or .parquet), all of it or nothing.

    Of each sample its id, its split, what it shows and whether the teacher was trained on it (where that is known), and
    the log-probabilities of all classes; of the `top_k` most probable ones and of
    the rest's mass; or with `labels_only` the most probable class. Only what is right on validation is counted.
    `pixel_range`: as in a recipe; a model that kdc trained knows its own. `task`: what the teacher is for, where its
    reference does not tell; `columns`: of the data. `licence`, `terms`: of its answers, where it does not say them
    itself. Raises KdcError.
    """
    require_ending(out, "--out")
    _refuse_other(out, overwrite)
    if labels_only and top_k is not None:
        raise KdcError("--labels-only and --top-k are two ways to say less", "give one of them")
    if team().num_processes > 1:
        raise KdcError("kdc predict runs in one process", "start it without a launcher")
    if pixel_range is not None and not -1e12 <= pixel_range[0] < pixel_range[1] <= 1e12:
        raise KdcError(f"--pixel-range {pixel_range[0]:g} {pixel_range[1]:g}: black must be below white", "0 4095")
    with ExitStack() as stack:
        if not is_stream(out):
            stack.enter_context(locked(out, "kdc predict", file=True, warn=progress.warn))
            _refuse_other(out, overwrite)
        return _predicted(
            teacher, data, out, top_k=top_k, labels_only=labels_only, teacher_classes=teacher_classes,
            unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, task=task, columns=columns,
            terms=(licence, terms), progress=progress,
        )  # fmt: skip


def _refuse_other(out: Path, overwrite: bool) -> None:
    """Raise KdcError where a file stands at `out` that is no table of kdc, or that may not be replaced."""
    if not is_stream(out) and out.exists() and not written_by_kdc(out):
        raise KdcError(
            f"--out {out} exists and is no table of kdc predict, so it is left alone", "choose another --out"
        )
    refuse_existing(out, overwrite=overwrite)


def _predicted(
    teacher: str, data: str, out: Path, *, top_k: int | None, labels_only: bool, teacher_classes: Path | None,
    unlabelled: str | None, pixel_range: PixelRange | None, skip_bad: bool, task: str | None, columns: Columns | None,
    terms: tuple[str | None, str | None], progress: Progress,
) -> Predictions:  # fmt: skip
    (model,) = told(progress, load_model(teacher, task=task))
    weights = stated(model.weights, *terms)
    model_task = task_named(model.preprocess.task)
    model_range = model.preprocess.read_with
    model = model_task.with_range(model, pixel_range or model_range, progress)
    dataset = model_task.open_data(
        data, skip_bad=skip_bad, progress=progress, unlabelled=unlabelled, pixel_range=pixel_range or model_range,
        columns=columns,
    )  # fmt: skip
    log_sizes(dataset, progress)
    names = dataset.info.class_names
    if top_k is not None and not 1 <= top_k < len(names):
        raise KdcError(f"--top-k {top_k}: the data has {len(names)} classes", "leave it out: all are written then")
    if teacher_classes is not None:
        model = with_class_file(model, teacher_classes)
    model = with_classes(model, map_classes(model, names), names)
    tell_overlap((teacher,), dataset, progress)
    info = OutputsInfo(
        kdc=__version__,
        kind="labels" if labels_only else "probabilities" if top_k is None else "top-k",
        class_names=names,
        teacher=public(weights),
        data=dataset.info.fingerprint,
    )
    validation = _write(out, model, dataset, info, top_k, images_of(teacher), progress)
    counts = dataset.info.counts | (
        {"unlabelled": len(dataset.train) - dataset.info.counts["train"]} if unlabelled else {}
    )
    scored = accuracy_of(validation, dataset.validation.labels, "validation")
    if (said := at_chance(scored, len(names))) is not None:
        progress.warn(f"{teacher} {said}: kdc distill refuses such a teacher")
    tell_lost_classes(teacher, [scored], names, progress)
    return Predictions(out=str(out), info=info, top_k=top_k, counts=counts, validation=scored)


def _write(
    out: Path, model: LoadedModel, data: Dataset, info: OutputsInfo, top_k: int | None, seen: Images | None,
    progress: Progress,
) -> Logits:  # fmt: skip
    """Write the table, split by split; returns the logits of validation. `seen`: what the teacher was trained on."""
    validation = []
    beside = ["id", "split", "content", *([] if seen is None else ["seen"])]
    with table_writer(out, info, [*beside, *_columns(info, top_k)]) as append:
        for name in SPLITS:
            split: Split = getattr(data, name)
            done = 0
            for ids, splits, logits in answers_of(model, split, f"the teacher's answers to {name}", progress):
                _refuse_not_finite(ids, logits)
                contents = split.contents[done : done + len(ids)]
                done += len(ids)
                texts = [[f"{content:016x}" for content in contents.tolist()]]
                if seen is not None:
                    texts.append(["yes" if known else "no" for known in np.isin(contents, seen)])
                append([ids, splits, *texts, *_values(logits, info, top_k)])
                if name == "validation":
                    validation.append(logits)
    return np.concatenate(validation)


def answers_of(
    model: LoadedModel, split: Split, doing: str, progress: Progress
) -> Iterator[tuple[list[str], list[str], Logits]]:
    """Ids, splits and logits float32 [B, C] of all samples, by chunks: memory does not grow with the split. The network
    is frozen, and stays on the device of this process."""
    device = set_up().device
    network = freeze(model.network).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    chunks = [range(start, min(start + BATCH, len(split))) for start in range(0, len(split), BATCH)]
    batches = task_named(model.preprocess.task).evaluation(split, model.preprocess, BATCH, device)
    for chunk, inputs in progress.track(zip(chunks, batches, strict=True), len(chunks), doing):
        with torch.no_grad():
            logits = network(*inputs).float().cpu().numpy()
        splits = [split.name if split.labels[number] >= 0 else "unlabelled" for number in chunk]
        yield [split.ids[number] for number in chunk], splits, logits


def _columns(info: OutputsInfo, top_k: int | None) -> list[str]:
    if info.kind == "labels":
        return ["label"]
    if top_k is None:
        return [f"log_probability:{name}" for name in info.class_names]
    numbers = range(1, top_k + 1)
    named = [f"class_{number}" for number in numbers]
    return [*named, *(f"log_probability_{number}" for number in numbers), "log_probability_rest"]


def _values(logits: Logits, info: OutputsInfo, top_k: int | None) -> list[Column]:
    """The values of `_columns`."""
    names, logs = info.class_names, log_softmax(logits)
    if info.kind == "labels":
        return [[names[number] for number in logits.argmax(axis=1)]]
    if top_k is None:
        return list(logs.T.astype(np.float32))
    order = np.argsort(-logs, axis=1, kind="stable")
    top, other_logs = order[:, :top_k], np.take_along_axis(logs, order[:, top_k:], axis=1)
    largest = other_logs[:, :1]
    rest = largest[:, 0] + np.log(np.exp(other_logs - largest).sum(axis=1))
    values = np.take_along_axis(logs, top, axis=1).astype(np.float32)
    return [*([names[number] for number in column] for column in top.T), *values.T, rest.astype(np.float32)]


def _refuse_not_finite(ids: Sequence[str], logits: Logits) -> None:
    wrong = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(wrong):
        raise KdcError(f"the teacher's answer to {ids[wrong[0]]} is not finite, so nothing was written")
