"""A causal language model of transformers as a network of kdc."""

from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.features import Staged
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer

__all__ = ["CausalLm", "block_limit", "looks_ahead", "position_limit"]


class CausalLm(Staged):
    """AutoModelForCausalLM as a network: ids, mask -> logits [B, N, vocabulary], of which row i tells token i + 1.

    `tokenizer`: what its run keeps beside it.
    """

    def __init__(self, model: nn.Module, tokenizer: DocumentTokenizer) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        model.config.return_dict = True  # type: ignore[union-attr]

    def forward(self, *inputs: Tensor) -> Tensor:
        ids, mask = inputs
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        ids, mask = inputs
        answer: Any = self.model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
        if answer.hidden_states is None:
            raise KdcError(f"{type(self.model).__name__} gives no hidden states", "name modules by their path")
        return answer.logits, list(answer.hidden_states)


def position_limit(model: nn.Module) -> int | None:
    """The most tokens that the model takes; None where nothing says so."""
    config: Any = model.config
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        stated = getattr(config, name, None)
        if isinstance(stated, int) and stated > 0:
            return stated
    return None


def block_limit(model: nn.Module) -> int | None:
    """The most tokens of a block, None where nothing says so. Beyond the length that it was trained on first, a model
    with LongRoPE (Phi-3) answers otherwise to all tokens of a batch, the short ones among them."""
    config: Any = model.config
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    limit = position_limit(model)
    if "longrope" not in (scaling.get("rope_type"), scaling.get("type")):
        return limit
    first = scaling.get("original_max_position_embeddings", getattr(config, "original_max_position_embeddings", None))
    return min(first, limit or first) if isinstance(first, int) else limit


def looks_ahead(network: CausalLm, ids: Tensor) -> bool:
    """Whether what is answered to `ids` [1, N] changes where others follow, filled up or real: then the model is no
    causal one, or cannot learn in batches."""
    mask = torch.ones_like(ids)
    with torch.no_grad():
        alone = network(ids, mask)
        filled = network(nn.functional.pad(ids, (0, 3)), nn.functional.pad(mask, (0, 3)))
        longer = network(nn.functional.pad(ids, (0, 3)), nn.functional.pad(mask, (0, 3), value=1))
    count, most = ids.shape[1], 1e-4 * float(alone.abs().max()) + 1e-6
    return any(float((alone - other[:, :count]).abs().max()) > most for other in (filled, longer))
