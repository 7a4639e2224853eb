"""How a teacher's answer is kept: all logits, or the k largest probabilities and the mass of the rest; where losses
look at them, its pooled features too."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.errors import KdcError
from compressor.schema.recipe import TeacherAnswers

__all__ = ["Codec"]

NUMPY = {torch.float32: np.float32, torch.float16: np.float16}


@dataclass(frozen=True)
class Codec:
    """`encode`: logits [B, C] at temperature 1 -> float [B, size]; `decode`: back to logits, float32 [B, C];
    `pooled_of`: back to the pooled features [B, `pooled`].

    Without `top_k` the logits themselves. With it, the log-probabilities of the k most probable classes (Shen & Xing
    2021, arXiv 2112.01528, keep them so), and the mass of all others, which `decode` spreads evenly over them; class
    numbers are kept as float32, exact up to 2^24. Any temperature can be applied afterwards. `dtype`: of what is kept.
    """

    classes: int
    dtype: torch.dtype = torch.float32
    top_k: int | None = None
    pooled: int = 0

    @classmethod
    def of(cls, settings: TeacherAnswers, classes: int, pooled: int = 0) -> "Codec":
        """The recipe's; raises KdcError for a top_k that the classes do not allow."""
        if settings.top_k is not None and settings.top_k >= classes:
            raise KdcError(
                f"recipe teacher_answers.top_k={settings.top_k} keeps as many classes as there are ({classes})",
                "leave top_k out: all logits are kept then",
            )
        return cls(classes, torch.float16 if settings.dtype == "float16" else torch.float32, settings.top_k, pooled)

    @property
    def bytes(self) -> int:
        """What one answer takes."""
        width = torch.finfo(self.dtype).bits // 8
        answer = self.classes * width if self.top_k is None else self.top_k * 4 + (self.top_k + 1) * width
        return answer + self.pooled * width

    def encode(self, logits: Tensor, pooled: Tensor | None = None) -> Tensor:
        """float32 [B, C], or [B, 2k + 1]: class numbers, log-probabilities, log of the rest's mass; the pooled features
        after them. Rounded to `dtype`."""
        answer = self._answer(logits.float())
        if not self.pooled:
            return answer
        assert pooled is not None
        return torch.cat([answer, pooled.float().to(self.dtype).float()], -1)

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

    def pooled_of(self, encoded: Tensor) -> Tensor:
        return encoded[:, encoded.shape[1] - self.pooled :]

    def to_bytes(self, encoded: Tensor) -> NDArray[np.uint8]:
        """uint8 [B, bytes] of what `encode` gave (on CPU)."""
        values = encoded.numpy()
        if not np.isfinite(values).all():
            raise KdcError(
                f"the teacher's answers do not fit into {str(self.dtype).removeprefix('torch.')}, or are not finite",
                "--set teacher_answers.dtype=float32",
            )
        if self.top_k is None:
            return np.ascontiguousarray(values.astype(NUMPY[self.dtype])).view(np.uint8)
        numbers = np.ascontiguousarray(values[:, : self.top_k].astype("<i4")).view(np.uint8)
        kept = np.ascontiguousarray(values[:, self.top_k :].astype(NUMPY[self.dtype])).view(np.uint8)
        return np.concatenate([numbers, kept], 1)

    def from_bytes(self, raw: NDArray[np.uint8]) -> Tensor:
        """What `encode` gave."""
        if self.top_k is None:
            return torch.from_numpy(np.ascontiguousarray(raw).view(NUMPY[self.dtype]).astype(np.float32))
        numbers = np.ascontiguousarray(raw[:, : self.top_k * 4]).view("<i4").astype(np.float32)
        kept = np.ascontiguousarray(raw[:, self.top_k * 4 :]).view(NUMPY[self.dtype]).astype(np.float32)
        return torch.from_numpy(np.concatenate([numbers, kept], 1))

    def apart(self, before: Tensor, now: Tensor) -> Tensor:
        """How far two encoded answers lie apart, [B]: as a share of the largest logit, or in probability with `top_k`
        (where two classes that are about as probable may change places); the same of pooled features."""
        logits = self._logits_apart(before, now)
        if not self.pooled:
            return logits
        return torch.maximum(logits, _share(self.pooled_of(before), self.pooled_of(now)))

    def _logits_apart(self, before: Tensor, now: Tensor) -> Tensor:
        logits_before, logits_now = self.decode(before), self.decode(now)
        if self.top_k is not None:
            return (logits_before.softmax(-1) - logits_now.softmax(-1)).abs().amax(-1)
        return _share(logits_before, logits_now)


def _share(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().amax(-1) / second.abs().amax(-1).clamp(min=1)
