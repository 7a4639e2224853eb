"""What every connector is: a module between two networks' features and a loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compressor.models.stages import Layer

__all__ = ["Connector", "Given", "LayerPairs"]


@dataclass(frozen=True)
class LayerPairs:
    """What a connector connects: pairs of layers (the teacher's is None where the loss looks at the student alone), the
    number of classes and of training samples."""

    student: tuple[Layer, ...]
    teacher: tuple[Layer, ...]
    classes: int
    samples: int

    @property
    def pairs(self) -> list[tuple[Layer, Layer]]:
        return list(zip(self.student, self.teacher, strict=True))


Given = dict[str, Any]


class Connector(nn.Module):
    """Hands the features on as they are."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__()

    @classmethod
    def coarse(cls, student: Layer, teacher: Layer) -> tuple[int, ...] | None:
        """The shape that the teacher's side of a pair may be brought to before it comes here, without changing what
        goes on to the loss; None where it must come whole."""
        return teacher.shape if len(teacher.shape) == 1 else None

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        """The loss's arguments by name. `student`, `teacher`: features of each layer, [B, …]; `labels` int64 [B] (-1:
        none) or probabilities [B, C]; `index` int64 [B], the samples' numbers, on the CPU."""
        return {"student_features": list(student), "teacher_features": list(teacher)}
