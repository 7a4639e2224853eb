"""Quantization: how numbers are rounded, what a quantization-aware student learned, and what each rung cost."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from compressor.schema.base import Noun

__all__ = ["ByClass", "Quantization", "Rung", "RungName", "Scheme", "Score"]

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


class ByClass(Noun):
    """Counts of samples by class: all, those that the student in fp32 has right, the artefact, and both of them."""

    n: tuple[int, ...]
    reference: tuple[int, ...]
    correct: tuple[int, ...]
    both: tuple[int, ...]


class Score(Noun):
    """An artefact on the validation samples that choices are made on. `correct` of `n` are right; the student in torch
    in fp32 is right on `reference_correct` of the same. `by_class`: the same counts by class. Against torch's logits
    (those of the retrained student, for what was made of it): `same` of the n have the same top-1; `cosine`: the lowest
    over samples, but for near ties (`stats.Parity`); `sqnr_db`: the energy of torch's over that of the difference,
    decibels (null where nothing differs); `not_finite`: samples with a NaN or an infinity. `stand_in`: what computed
    it, where it was not the artefact's own runtime."""

    n: Annotated[int, Field(ge=1)]
    correct: int
    reference_correct: int
    same: int
    by_class: ByClass
    cosine: float | None
    sqnr_db: float | None
    not_finite: int
    stand_in: str | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> "Score":
        parts = (self.by_class.n, self.by_class.reference, self.by_class.correct, self.by_class.both)
        totals = (self.n, self.reference_correct, self.correct)
        if tuple(map(sum, parts[:3])) != totals or len({len(part) for part in parts}) != 1:
            raise ValueError("by_class does not add up to n, reference_correct and correct")
        for n, reference, correct, both in zip(*parts, strict=True):
            if not max(0, reference + correct - n) <= both <= min(reference, correct) <= max(reference, correct) <= n:
                raise ValueError("by_class has counts of a class that contradict each other")
        return self

    @property
    def drop(self) -> float:
        """Share of accuracy lost against the student in fp32; negative where it gained."""
        return (self.reference_correct - self.correct) / self.n

    @property
    def balanced_drop(self) -> float:
        """Share of balanced accuracy (mean recall over the classes that have samples) lost likewise."""
        by_class = self.by_class
        rows = [(n, was - now) for n, was, now in zip(by_class.n, by_class.reference, by_class.correct, strict=True)]
        lost = [fewer / n for n, fewer in rows if n]
        return sum(lost) / len(lost)


class Rung(Noun):
    """One candidate on the ladder, whether it was taken or not. `how`: what was done, in one line. `seconds`: what it
    took to make. `bytes`: its files."""

    rung: RungName
    how: str
    score: Score
    seconds: float
    bytes: int
    taken: bool
