"""Quantization: how numbers are rounded, what a quantization-aware student learned, and what each rung cost."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.spec.base import Noun

__all__ = ["Quantization", "Rung", "RungName", "Scheme", "Score"]

RungName = Literal["ptq", "bias-correction", "fallback", "qat"]


class Scheme(Noun):
    """How a runtime's int8 kernels round. Weights: symmetric int8, a scale a channel where `per_channel`; with
    `weight_bits` 7 they use half of the range, since x86 without VNNI adds two products in 16 bits and saturates
    (onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range"). Activations, a scale a
    tensor: "uint8" with a zero point, or "int8" symmetric with zero point 0."""

    activations: Literal["uint8", "int8"]
    weight_bits: Literal[7, 8] = 8
    per_channel: bool = True


class Quantization(Noun):
    """What a quantization-aware student was trained with. Its BatchNorms are folded into the convolutions before them.
    `inputs`: path of a Conv2d or Linear in the network -> (low, high), the range to which its input is quantized;
    modules that are not listed run in float. `outputs`: likewise the range of its output, for those of them whose
    output does not go into quantized inputs alone."""

    scheme: Scheme
    inputs: dict[str, tuple[float, float]]
    outputs: dict[str, tuple[float, float]] = Field(default_factory=dict)


class Score(Noun):
    """An artefact on the validation samples that choices are made on. `correct` of `n` are right; the student in torch
    in fp32 is right on `reference_correct` of the same; `same` of them have its top-1. `stand_in`: what computed it,
    where it was not the artefact's own runtime."""

    n: Annotated[int, Field(ge=1)]
    correct: int
    reference_correct: int
    same: int
    stand_in: str | None = None

    @property
    def drop(self) -> float:
        """Share of accuracy lost against the student in fp32; negative where it gained."""
        return (self.reference_correct - self.correct) / self.n

    def keeps(self, max_drop: float) -> bool:
        """Whether it loses at most that share of accuracy. One sample may always be lost: where the samples are few, a
        single one is more than any share that is asked for."""
        return self.reference_correct - self.correct <= max(1.0, max_drop * self.n)


class Rung(Noun):
    """One candidate on the ladder, whether it was taken or not. `how`: what was done, in one line. `seconds`: what it
    took to make. `bytes`: its files."""

    rung: RungName
    how: str
    score: Score
    seconds: float
    bytes: int
    taken: bool
