"""How a teacher's answer is kept: all logits, or the k largest probabilities and the mass of the rest; where losses
look at them, its pooled features and coarse maps too."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressor.errors import KdcError
from compressor.models.stages import Layer
from compressor.schema.recipe import TeacherAnswers

__all__ = ["Codec"]

DTYPES = {"float32": torch.float32, "float16": torch.float16}
NAMED = (("answers", "dtype"), ("answers", "dtype"), ("maps", "maps_dtype"))
"""What the parts of an answer are called in errors, and the key of `teacher_answers` that says how they are rounded."""


@dataclass(frozen=True)
class Codec:
    """`encode`: logits [B, C] at temperature 1, and features by name -> float32 [B, values]; `decode`: back to logits,
    float32 [B, C]; `features_of`: back to the features.

    Without `top_k` the logits themselves. With it, the log-probabilities of the k most probable classes (Shen & Xing
    2021, arXiv 2112.01528, keep them so), and the mass of all others, which `decode` spreads evenly over them; class
    numbers are kept as float32, exact up to 2^24. Any temperature can be applied afterwards. `dtype`: of what is kept.

    `features`: layers whose outputs are kept too, each with the shape to keep: pooled ones as they are, in `dtype`;
    maps (C, h, w) brought to that size by adaptive average pooling, in `maps_dtype`.
    """

    classes: int
    dtype: torch.dtype = torch.float32
    top_k: int | None = None
    features: tuple[Layer, ...] = ()
    maps_dtype: torch.dtype = torch.float16

    @classmethod
    def of(cls, settings: TeacherAnswers, classes: int, features: Sequence[Layer] = ()) -> "Codec":
        """The recipe's; raises KdcError for a top_k that the classes do not allow."""
        if settings.top_k is not None and settings.top_k >= classes:
            raise KdcError(
                f"recipe teacher_answers.top_k={settings.top_k} keeps as many classes as there are ({classes})",
                "leave top_k out: all logits are kept then",
            )
        in_order = tuple(sorted(features, key=_is_map))
        return cls(classes, DTYPES[settings.dtype], settings.top_k, in_order, DTYPES[settings.maps_dtype])

    def __post_init__(self) -> None:
        assert list(self.features) == sorted(self.features, key=_is_map), "maps lie behind what is pooled"

    @property
    def bytes(self) -> int:
        """What one answer takes."""
        return sum(count * dtype.itemsize for count, dtype in self._parts)

    @property
    def bytes_of_maps(self) -> int:
        count, dtype = self._parts[2]
        return count * dtype.itemsize

    @property
    def _parts(self) -> tuple[tuple[int, torch.dtype], ...]:
        """How many values of which kind lie one after the other: class numbers, the answer and what is pooled, maps."""
        k = self.top_k or 0
        pooled, maps = (
            sum(math.prod(layer.shape) for layer in self.features if _is_map(layer) is wanted)
            for wanted in (False, True)
        )
        return (k, torch.int32), (self._of_answer - k + pooled, self.dtype), (maps, self.maps_dtype)

    @property
    def _of_answer(self) -> int:
        return self.classes if self.top_k is None else 2 * self.top_k + 1

    def encode(self, logits: Tensor, features: Mapping[str, Tensor] | None = None) -> Tensor:
        """float32 [B, C], or [B, 2k + 1]: class numbers, log-probabilities, log of the rest's mass; the features after
        them. Rounded to the dtypes."""
        parts = [self._answer(logits.float())]
        for layer in self.features:
            assert features is not None
            parts.append(self._kept(features[layer.name].float(), layer))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def _kept(self, feature: Tensor, layer: Layer) -> Tensor:
        """[B, values]; of a map position after position, as networks on CPU have it in memory (channels last)."""
        if not _is_map(layer):
            return feature.to(self.dtype).float()
        _, height, width = layer.shape
        if feature.shape[2:] != (height, width):
            feature = F.adaptive_avg_pool2d(feature, (height, width))
        return feature.permute(0, 2, 3, 1).flatten(1).to(self.maps_dtype).float()

    def _answer(self, logits: Tensor) -> Tensor:
        if self.top_k is None:
            return logits.to(self.dtype).float()
        log_probabilities = logits.log_softmax(-1)
        top, numbers = log_probabilities.topk(self.top_k, dim=-1)
        rest = log_probabilities.scatter(-1, numbers, -torch.inf).logsumexp(-1, keepdim=True)
        # A mass that float16 cannot tell from 0 would be minus infinity, and the loss not a number.
        kept = torch.cat([top, rest], -1).clamp(min=-60000.0).to(self.dtype).float()
        return torch.cat([numbers.float(), kept], -1)

    def decode(self, encoded: Tensor) -> Tensor:
        if self.top_k is None:
            return encoded[:, : self.classes]
        k = self.top_k
        numbers, top, rest = encoded[:, :k].long(), encoded[:, k : 2 * k], encoded[:, 2 * k : 2 * k + 1]
        return (rest - math.log(self.classes - k)).expand(-1, self.classes).scatter(-1, numbers, top)

    def features_of(self, encoded: Tensor) -> dict[str, Tensor]:
        """The features by name: pooled [B, D], maps [B, C, h, w]."""
        features, start = {}, self._of_answer
        for layer in self.features:
            values = encoded[:, start : start + math.prod(layer.shape)]
            start += values.shape[1]
            if _is_map(layer):
                channels, height, width = layer.shape
                values = values.view(-1, height, width, channels).permute(0, 3, 1, 2)
            features[layer.name] = values
        return features

    def to_bytes(self, encoded: Tensor) -> NDArray[np.uint8]:
        """uint8 [B, bytes] of what `encode` gave (on CPU)."""
        raw = []
        for values, (count, dtype), (what, key) in zip(
            torch.split(encoded, [count for count, _ in self._parts], 1), self._parts, NAMED, strict=True
        ):
            if not values.isfinite().all():
                raise KdcError(
                    f"the teacher's {what} do not fit into {str(dtype).removeprefix('torch.')}, or are not finite",
                    f"--set teacher_answers.{key}=float32",
                )
            if count:
                raw.append(np.ascontiguousarray(values.to(dtype).numpy()).view(np.uint8))
        return np.concatenate(raw, 1)

    def from_bytes(self, raw: NDArray[np.uint8]) -> Tensor:
        """What `encode` gave."""
        values, start = [], 0
        for count, dtype in self._parts:
            if count:
                end = start + count * dtype.itemsize
                values.append(torch.from_numpy(raw[:, start:end].copy()).view(dtype).float())
                start = end
        return torch.cat(values, 1)

    def apart(self, before: Tensor, now: Tensor) -> Tensor:
        """How far two encoded answers lie apart, [B]: as a share of the largest logit, or in probability with `top_k`
        (where two classes that are about as probable may change places); the same of features."""
        worst = self._logits_apart(before, now)
        features_now = self.features_of(now)
        for name, feature in self.features_of(before).items():
            worst = torch.maximum(worst, _share(feature.flatten(1), features_now[name].flatten(1)))
        return worst

    def _logits_apart(self, before: Tensor, now: Tensor) -> Tensor:
        logits_before, logits_now = self.decode(before), self.decode(now)
        if self.top_k is not None:
            return (logits_before.softmax(-1) - logits_now.softmax(-1)).abs().amax(-1)
        return _share(logits_before, logits_now)


def _share(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().amax(-1) / second.abs().amax(-1).clamp(min=1)


def _is_map(layer: Layer) -> bool:
    return len(layer.shape) == 3
