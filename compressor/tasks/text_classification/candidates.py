"""The candidates that `kdc students` measures of texts: what may be made of a teacher, from 1 to all of its layers in
several widths, and tables of its tokens."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.records import StoredRecords, write_records
from compressor.models.features import inner_of
from compressor.models.layer_stack import stack_of
from compressor.models.loaded import LoadedModel, check_input
from compressor.schema.preprocess import Preprocess
from compressor.schema.student import Weights
from compressor.tasks.text_classification.lengths import MOST
from compressor.tasks.text_classification.models import static
from compressor.tasks.text_classification.models.classifier import TextClassifier
from compressor.tasks.text_classification.models.cutting import cut, one_teacher
from compressor.tasks.text_classification.models.hf_models import with_new_classifier
from compressor.tasks.text_classification.models.narrowing import shape_of
from compressor.tasks.text_classification.models.students import require_student
from compressor.tasks.text_classification.tokenization import of_texts

__all__ = ["base_of", "catalogue_of", "create", "drawn", "identity", "is_known", "length_of", "possible"]

PARTS = (2, 4)
"""Of the teacher's width: half, and a quarter of it."""
TABLES = (64, 128, 256, 512)
"""Numbers a token."""


def catalogue_of(teacher: LoadedModel) -> dict[str, tuple[str, ...]]:
    """Family -> its candidates, from small to large. Raises KdcError for a teacher that nothing is cut out of."""
    network = one_teacher(teacher, "layers:N")
    shape, (_, count) = shape_of(network), stack_of(network, network.model)
    widths = [shape.width // part for part in PARTS if shape.heads % part == 0]
    families = {"static": tuple(f"static:{width}" for width in TABLES if width <= shape.width)}
    for width in reversed(widths):
        families[f"{width} wide"] = tuple(f"layers:{number},width:{width}" for number in range(1, count + 1))
    return families | {f"{shape.width} wide": tuple(f"layers:{number}" for number in range(1, count + 1))}


def is_known(name: str) -> bool:
    """Whether a student may be called so, which is made of its teacher. Raises KdcError for one that is spelt wrong."""
    require_student(name, "random")
    return name.startswith(("layers:", "static:"))


def base_of(name: str) -> str:
    return name


def possible(name: str) -> tuple[str, ...]:
    """What it may be changed to for speed."""
    return ()


def identity(teacher: LoadedModel) -> str:
    """All of a teacher that the time of a candidate depends on: how it is built, and not its weights."""
    network = inner_of(teacher.network)
    assert isinstance(network, TextClassifier)
    model: Any = network.model
    facts = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    for key in ("id2label", "label2id", "kept", "transformers_version"):
        facts.pop(key, None)
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def length_of(teacher: LoadedModel, sequence_length: int | None) -> int:
    """The tokens of a sample that is measured: as a profile says, or as many as students of texts read at most without
    `--max-length`; never more than the teacher."""
    return min(sequence_length or MOST, of_texts(teacher.preprocess).max_length)


def create(name: str, classes: int, length: int, teacher: LoadedModel) -> LoadedModel:
    """The candidate with drawn weights, for texts of `length` tokens. Raises KdcError."""
    family = "hf"
    if name.startswith("static:"):
        network: Any = static.drawn(name, classes, teacher)
        family = static.FAMILY
    else:
        network = with_new_classifier(cut(teacher, name, drawn=True).network, classes)
    before = of_texts(teacher.preprocess)
    changes: dict[str, object] = {"max_length": length}
    if before.pair is None or family == static.FAMILY:
        changes |= {"pair": False, "token_types": 0}
    weights = Weights(
        source=f"random:{name}",
        architecture=name,
        sha256="",
        licence="none (drawn)",
        parameters=sum(p.numel() for p in network.parameters()),
    )
    model = LoadedModel(network.eval(), before.model_copy(update=changes), None, weights, family)
    return check_input(model)


def drawn(preprocess: Preprocess, count: int, path: Path) -> StoredRecords:
    """`count` texts of drawn tokens, all as long as texts are at most, in the new .npy file `path`: how long a network
    takes depends on no word."""
    texts, rng = of_texts(preprocess), np.random.default_rng(0)
    shape = texts.max_length
    like = {spec.name: np.zeros(shape, np.int64) for spec in texts.inputs}
    rows = (
        {spec.name: np.ones(shape, np.int64) if spec.mask else rng.integers(0, spec.high or 1, shape, np.int64)
         for spec in texts.inputs}
        for _ in range(count)
    )  # fmt: skip
    return write_records(rows, like, path, texts.mask)
