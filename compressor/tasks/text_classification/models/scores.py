"""The raw attention scores of a transformers network, QK'/sqrt(d) before the mask and the softmax.

transformers' own `output_attentions` gives probabilities, and nothing at all where the fused attention runs. A function
of ours takes the attention's place meanwhile: it computes the same, and keeps the scores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.hugging_face import transformers_library

__all__ = ["raw_scores"]

NAME = "kdc_raw_scores"
_kept: list[list[Tensor]] = []
"""Where the scores of the pass that runs go."""


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, Tensor]:
    scaling = settings.get("scaling")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * scale
    _kept[-1].append(scores)
    masked = scores if attention_mask is None else scores + attention_mask[..., : key.shape[-2]]
    weights = masked.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=settings.get("dropout") or 0.0, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


@contextmanager
def raw_scores(model: nn.Module, matrices: list[Tensor]) -> Iterator[None]:
    """Inside, a forward pass adds the scores of each layer, [B, heads, N, N], to `matrices`."""
    transformers = transformers_library()
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    transformers.AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    network: Any = model
    before = network.config._attn_implementation
    try:
        network.set_attn_implementation(NAME)
    except Exception as error:  # where a model has an attention of its own
        raise KdcError(f"{type(model).__name__} shows no attention scores: {error}", "choose another loss") from None
    _kept.append(matrices)
    try:
        yield
    finally:
        _kept.pop()
        network.set_attn_implementation(before)
