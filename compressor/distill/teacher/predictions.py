"""A teacher that cannot be run here: its answers lie in a table, `--teacher outputs:FILE`, one a sample.

A table is read by `data.outputs`. What it says was answered to the whole image, so a student learns the same from all
views of a sample; online, a teacher answers to the very view (Beyer et al. 2022, arXiv 2106.05237, found that better).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.data.predictions import NOTHING
from compressor.data.samples import Dataset
from compressor.distill.loop.learner import Term
from compressor.distill.teacher.card import shown
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.setup import refuse_chance
from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.models.prediction_table import LoadedTable
from compressor.progress import Progress
from compressor.schema.recipe import Recipe, TeacherAnswers
from compressor.schema.student import TeacherCard
from compressor.stats import teacher_card
from compressor.tasks.base import Batch, BatchModel, Outputs

__all__ = ["Table", "require_teachable", "taught_by"]


class Table:
    """The loop's teacher: looks answers up by the samples' numbers, and needs no images."""

    def __init__(self, encoded: Tensor, codec: Codec) -> None:
        """`encoded`: the answers to the training samples in their order, [N, size], as `codec` keeps them."""
        self._encoded, self._codec = encoded, codec

    @property
    def keys(self) -> tuple[str, ...]:
        return ()

    def wants(self, epoch: int) -> bool:
        return False

    def answers(self, batch: Batch, epoch: int) -> Outputs:
        encoded = self._encoded[batch["index"]].to(batch["labels"].device, non_blocking=True)
        return Outputs(self._codec.decode(encoded))

    def end(self, epoch: int, student: BatchModel) -> None:
        pass


def require_teachable(
    table: LoadedTable, data: Dataset, terms: Sequence[Term], recipe: Recipe, progress: Progress
) -> None:
    """Raise KdcError where a table cannot give what the recipe asks of it, or lacks a training sample."""
    source, answers = table.weights.source, table.answers
    if recipe.views.mixup or recipe.views.cutmix:
        raise KdcError(
            f"{source} holds answers to images that were not mixed, so none to what mixup or cutmix make of them",
            "--set views.mixup=0 --set views.cutmix=0",
        )
    if recipe.teacher_answers != TeacherAnswers():
        raise KdcError(
            f"recipe teacher_answers says how a model's answers are kept; {source} is kept already",
            "leave it out; kdc predict --top-k makes a smaller table",
        )
    for term in terms:
        _require_learnable(term, table)
        temperature = term.loss.parameters.get("temperature", term.row.defaults.get("temperature", 1.0))
        if term.asks_teacher and answers.kind == "labels" and temperature != 1:
            progress.warn(
                f"{term.name} at temperature {temperature:g} on bare labels pushes harder and less precisely: give it "
                "temperature 1, where kd is the cross-entropy with the teacher's label"
            )
    _require_answers(table, data)
    if answers.contents is None and answers.info is not None and answers.info.data != data.info.fingerprint:
        progress.warn(
            f"{source} was made from other data than {data.info.source}: samples are matched by their ids alone"
        )


def _require_answers(table: LoadedTable, data: Dataset) -> None:
    """Raise KdcError where a training sample has no row, or another image than was answered."""
    source, answers = table.weights.source, table.answers
    missing = [
        sample_id for sample_id, name in zip(data.train.ids, answers.named(data.train), strict=True) if name is None
    ]
    if not missing:
        return
    mismatched = [sample_id for sample_id in missing if sample_id in answers.rows]
    if mismatched:
        raise KdcError(
            f"{source} answered other {data.samples} under the names of {len(mismatched):,} of {len(data.train):,} "
            f"training samples, the first {mismatched[0]}",
            "make it anew: kdc predict --data …",
        )
    rule = "matched by what they show" if answers.contents is not None else "ids are those of kdc predict --data …"
    raise KdcError(
        f"{source} has no row for {len(missing):,} of {len(data.train):,} training samples, the first {missing[0]} "
        f"(its own first id: {next(iter(answers.rows))})",
        f"{rule}; leave those {data.samples} out of the data, or add their rows",
    )


def _require_learnable(term: Term, table: LoadedTable) -> None:
    source, answers = table.weights.source, table.answers
    if not term.asks_teacher or term.loss.at == "same_stride":
        return
    if "teacher_features" in term.row.needs or term.row.taps is not None:
        raise KdcError(f"{term.name} looks at the teacher's features, and {source} holds none", "leave it out")
    if term.row.raw_logits and answers.kind != "logits":
        raise KdcError(
            f"{term.name} looks at each logit for itself, and {source} holds {answers.kind}",
            "columns logit:NAME, or kd",
        )
    if answers.zero is not None and not term.row.zero_probabilities:
        able = " or ".join(name for name, row in LOSSES.items() if row.zero_probabilities)
        content = "bare labels" if answers.kind == "labels" else f"probabilities of 0 (e.g. of {answers.zero})"
        raise KdcError(
            f"{term.name} looks at the logits of all classes, and {source} holds {content}",
            f"{able} can learn from that; or a table of log-probabilities, as kdc predict writes it",
        )


def taught_by(table: LoadedTable, data: Dataset, progress: Progress) -> tuple[Table, TeacherCard | None]:
    """The teacher, and its card where the table answers all of the validation split; said, and at chance refused."""
    answers, names = table.answers, data.info.class_names
    codec = Codec(len(names), top_k=answers.top_k)
    of = {
        "labels": "the class alone",
        "top-k": f"the top {answers.top_k}, the rest's mass spread evenly over the others",
    }
    progress.note(
        f"teacher {table.weights.source}: {len(answers.rows):,} answers ({of.get(answers.kind, answers.kind)}), to the "
        f"whole {data.samples}: all views of a sample are taught the same"
    )
    answered_ids = [name for name in answers.named(data.validation) if name is not None]
    card = None
    if len(answered_ids) == len(data.validation):
        rows = answers.of(answered_ids)
        logits, zeros = codec.decode(torch.from_numpy(rows)).numpy(), bool((rows <= NOTHING).any())
        card = teacher_card(logits, data.validation.labels, names, answers=answers.kind, zeros=zeros)
        refuse_chance(card.accuracy, len(names), table.weights.source)
        shown(card, names, progress)
    else:
        has = f"{len(answered_ids):,} of {len(data.validation):,} validation samples"
        progress.note(f"the teacher's accuracy is not measured: the table has {has}")
    rows = answers.of([name for name in answers.named(data.train) if name is not None])
    return Table(torch.from_numpy(rows), codec), card
