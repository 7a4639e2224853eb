"""Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947): a student is trained on what a teacher wrote."""

import importlib
from collections.abc import Sequence
from dataclasses import replace

from compressor.data.completion_filters import filtered, told
from compressor.data.samples import Dataset
from compressor.models.lineage import last_part
from compressor.models.prediction_table import load_completions
from compressor.progress import Progress
from compressor.schema.completions import Completion
from compressor.schema.student import Request
from compressor.tasks.table import TASKS

__all__ = ["of_completions"]


def of_completions(request: Request, data: Dataset, progress: Progress) -> Dataset:
    """`data`, whose training split is a teacher's completions where the request names a table of them, but for those
    that the recipe's filters leave out and for what stands in validation and test; said, and counted in `info`. Raises
    KdcError where none is left."""
    written = load_completions(request)
    if written is None:
        return data
    module = importlib.import_module(TASKS[request.task].completes)
    held_out = [*module.prompts_in(data.validation), *module.prompts_in(data.test)]
    texts = [*module.texts_in(data.validation), *module.texts_in(data.test)]
    rows, counts = filtered(written[0].rows, request.recipe.completions, held_out, texts)
    note = f"train is {last_part(request.teacher)}, in place of the data's own: {told(counts)}{_without_mode(rows)}"
    progress.note(note)
    info = data.info.model_copy(update={"notes": (*data.info.notes, note), "completions": counts})
    # Answers come in any order, and the same ones are to make the same student.
    return replace(data, info=info, train=module.split_of(sorted(rows, key=lambda row: row.digest)))


def _without_mode(rows: Sequence[Completion]) -> str:
    """What a table by hand may leave out without meaning it."""
    count = sum(row.mode is None for row in rows)
    if not count:
        return ""
    return f"; {count:,} name no mode, and go on where their prompts end (mode chat: as the chat template has it)"
