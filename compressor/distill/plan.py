"""One training, as everything but the loop sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Dataset
from compressor.distill.features.connectors import LayerPairs
from compressor.distill.features.layers import layer_pairs_of
from compressor.distill.loop.learner import Term, bind_losses
from compressor.models import LoadedModel
from compressor.models.prediction_table import LoadedTable
from compressor.schema.accuracy import Score
from compressor.schema.preprocess import Preprocess
from compressor.schema.quantization import Quantization
from compressor.schema.race import LossRace, Race
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request, Specialty, Weights
from compressor.tasks.base import Feed

__all__ = ["Origin", "TrainingPlan"]


@dataclass(frozen=True)
class Origin:
    """The teacher that a chain of assistants began with, its validation accuracy, and the assistants."""

    teacher: Weights
    validation: Score
    assistants: tuple[Weights, ...]


@dataclass(frozen=True)
class TrainingPlan:
    """One training. `recipe`: how, from the request. `quantize`: makes the student one that rounds, once there are
    images to find its ranges on. `origin`: the student of a chain has its teacher from there; `teacher` is the last
    assistant. `table`: a teacher's answers, in place of a teacher; `written_by`: whose completions the training data
    are. `race`, `losses`: how the student was chosen, and how its losses are weighed; `learned`: the recipe with those,
    that the run records, where it is not the request's. `passes`: steps of an epoch, however few samples there are;
    None: once through the data. `stage`: which one of the request's recipe this is, from 1, where others follow; None:
    the last, or the only one. `stage_data`: of each of these before the last what it learns from; None: `data`."""

    request: Request
    recipe: Recipe
    data: Dataset
    student: LoadedModel
    teacher: LoadedModel | None
    init: str
    quantize: Callable[[Feed], tuple[LoadedModel, Quantization]] | None = None
    peers: tuple[LoadedModel, ...] = ()
    table: LoadedTable | None = None
    written_by: Weights | None = None
    specialty: Specialty | None = None
    origin: Origin | None = None
    race: Race | None = None
    losses: LossRace | None = None
    learned: Recipe | None = None
    passes: int | None = None
    stage: int | None = None
    stage_data: tuple[Dataset | None, ...] = ()

    @property
    def classes(self) -> int:
        """What an answer has a value for: classes, or the tokens of a vocabulary."""
        return len(self.data.info.class_names) or (self.student.preprocess.every_token or 0)

    @property
    def learned_from(self) -> NDArray[np.uint64]:
        """What the samples show that are learned from, in all stages (`Split.contents`)."""
        return np.concatenate([data.train.contents for data in (self.data, *self.stage_data) if data is not None])

    @property
    def taught_by(self) -> Weights | None:
        source = self.teacher or self.table
        return source.weights if source else self.written_by

    @property
    def inputs(self) -> dict[str, Preprocess]:
        """Each model's key in a batch, and how its images are prepared; peers share the student's where they can."""
        inputs = {"student": self.student.preprocess}
        if self.teacher is not None:
            inputs["teacher"] = self.teacher.preprocess
        return inputs | {key: peer.preprocess for key, peer in zip(self.peer_keys, self.peers, strict=True)}

    @property
    def peer_keys(self) -> list[str]:
        preprocess = self.student.preprocess
        return ["student" if peer.preprocess == preprocess else f"peer{n}" for n, peer in enumerate(self.peers, 1)]

    @property
    def sides(self) -> dict[str, LayerPairs]:
        return self._looking[0]

    @property
    def left_out(self) -> dict[str, str]:
        """The losses that find nothing to look at, and why."""
        return self._looking[1]

    @property
    def terms(self) -> list[Term]:
        """The losses, without those that are left out."""
        return [term for term in self._bound if term.name not in self.left_out]

    @cached_property
    def _looking(self) -> tuple[dict[str, LayerPairs], dict[str, str]]:
        samples = len(self.data.train)
        return layer_pairs_of(self._bound, self.student, self.teacher, classes=self.classes, samples=samples)

    @property
    def _bound(self) -> list[Term]:
        teaches = self.request.command == "distill" and self.request.teacher != "peers"
        return bind_losses(self.recipe, has_teacher=teaches, stage=self.stage)
