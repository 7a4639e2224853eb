"""Tokens of several texts -> the inputs of a model."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.text_classification.tokenization import Encoded

__all__ = ["filled", "stacked"]


def stacked(samples: Sequence[Encoded], preprocess: TextPreprocess) -> dict[str, Tensor]:
    """The inputs of these samples, by name, as long as the longest of them."""
    shape = len(samples), max(1, max(len(sample.ids) for sample in samples))
    made = {spec.name: np.zeros(shape, np.int64) for spec in preprocess.inputs}
    made["input_ids"][:] = preprocess.pad_id
    for row, sample in enumerate(samples):
        count = len(sample.ids)
        made["input_ids"][row, :count] = sample.ids
        made["attention_mask"][row, :count] = 1
        if "token_type_ids" in made:
            made["token_type_ids"][row, :count] = sample.types
    return {name: torch.from_numpy(values) for name, values in made.items()}


def filled(rows: Sequence[NDArray[np.int64]], fill: int) -> Tensor:
    """int64 [rows, longest]: each row, filled up as `stacked` fills up tokens."""
    made = np.full((len(rows), max(1, max(map(len, rows)))), fill, np.int64)
    for number, row in enumerate(rows):
        made[number, : len(row)] = row
    return torch.from_numpy(made)
