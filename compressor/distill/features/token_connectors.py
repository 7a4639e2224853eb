"""Connectors of losses on sequences: they change nothing, and refuse by name what a loss cannot compare."""

from collections.abc import Sequence

from torch import Tensor

from compressor.distill.features.base import Connector, Given, LayerPairs
from compressor.errors import KdcError
from compressor.losses.tokens import require_same_heads

__all__ = ["SameHeads", "SameWidth", "Vocabulary"]


class SameHeads(Connector):
    """Attention scores [B, heads, N, N]: head by head."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        for student, teacher in sides.pairs:
            try:
                require_same_heads(student.shape, teacher.shape)
            except ValueError as error:
                raise KdcError(
                    f"{student.name} and {teacher.name}: {error}",
                    "relations needs neither as many heads nor the same width",
                ) from None


class SameWidth(Connector):
    """Tokens [B, N, D] of one width."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        for student, teacher in sides.pairs:
            if student.shape[-1] != teacher.shape[-1]:
                raise KdcError(
                    f"{student.name} is {student.shape[-1]} wide and {teacher.name} of the teacher {teacher.shape[-1]}"
                    ", and there is no cosine between them",
                    "hidden_states, which learns a projector, or relations, which needs none",
                )


class Vocabulary(Connector):
    """Logits over one vocabulary, [B, N, V]."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        for student, teacher in sides.pairs if sides.teacher else ():
            if student.shape[-1] != teacher.shape[-1]:
                raise KdcError(
                    f"a vocabulary of {student.shape[-1]:,} and the teacher's of {teacher.shape[-1]:,} tokens cannot "
                    "be compared token by token",
                    "a student with the teacher's tokenizer",
                )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        given: Given = {"student_token_logits": student[-1]}
        return given | ({"teacher_token_logits": teacher[-1]} if teacher else {})
