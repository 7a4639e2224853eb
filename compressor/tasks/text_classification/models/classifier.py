"""A transformers classifier of texts as a network of kdc."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.features import Staged
from compressor.tasks.text_classification.models.masked_lm import MaskedLm, fits, head_for, names_of
from compressor.tasks.text_classification.models.scores import raw_scores

__all__ = ["Member", "TextClassifier", "padding_matters", "position_limit", "token_types"]

SHORT = 7
"""Tokens."""


class TextClassifier(Staged):
    """AutoModelForSequenceClassification as a network: ids, kinds of tokens where it is told them, mask -> logits.

    `tokenizer`: the text of its tokenizer.json, which its run keeps (`tokenization.TextTokenizer.text`). `head`: the
    weights of the head over the vocabulary that came with it (`masked_lm.Weights`); it is built where it is needed.
    """

    def __init__(self, model: nn.Module, tokenizer: str, head: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.head = head
        self.masked_lm: MaskedLm | None = None
        model.config.return_dict = True  # type: ignore[union-attr]

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**_named(inputs)).logits
        return logits

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        answer: Any = self.model(**_named(inputs), output_hidden_states=True)
        if answer.hidden_states is None:
            raise KdcError(f"{type(self.model).__name__} gives no hidden states", "name modules by their path")
        return answer.logits, list(answer.hidden_states)

    @contextmanager
    def scores(self, matrices: list[Tensor]) -> Iterator[None]:
        with raw_scores(self.model, matrices):
            yield
        if not matrices:
            raise KdcError(f"{type(self.model).__name__} shows no attention scores", "choose a loss on hidden states")

    def vocabulary(self, states: Tensor) -> Tensor:
        if self.masked_lm is None:
            return super().vocabulary(states)
        logits: Tensor = self.masked_lm(states)
        return logits

    def give_vocabulary(self, like: Staged | None, *, drawn: bool) -> str:
        head, which = self.head, "its own"
        if head is None and isinstance(like, TextClassifier) and like.head is not None:
            alike = like.tokenizer == self.tokenizer and fits(like.head, self.model)
            head, which = (like.head, "that of its teacher") if alike else (None, "")
        if head is None and not drawn:
            missing = names_of(self.model)
            raise KdcError(f"its weights lack {missing[0]} and {len(missing) - 1} more of a masked-LM head")
        self.masked_lm = head_for(self.model, head)
        return which if head is not None else "drawn at random"

    def leave_vocabulary(self, *, keep: bool) -> None:
        if self.masked_lm is not None:
            self.head = self.masked_lm.weights()
        self.head, self.masked_lm = self.head if keep else None, None


class Member(nn.Module):
    """One of several teachers, for inputs as another of them reads them. `untold`: it is not told the kinds of tokens,
    which these have; `single`: it was taught single texts, and is not to be shown pairs."""

    def __init__(self, network: nn.Module, *, untold: bool, single: bool) -> None:
        super().__init__()
        self.network, self.untold, self.single = network, untold, single

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs[0], inputs[-1]) if self.untold else self.network(*inputs)
        return logits


def _named(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    names = ("input_ids", "attention_mask") if len(inputs) == 2 else ("input_ids", "token_type_ids", "attention_mask")
    return dict(zip(names, inputs, strict=True))


def token_types(model: nn.Module) -> int:
    """How many kinds of tokens the model tells apart; 0 where it is not told."""
    count = getattr(model.config, "type_vocab_size", 0) or 0
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    return int(count) if takes and count > 1 else 0


def position_limit(model: nn.Module, otherwise: int) -> int:
    """The most tokens that the model takes. RoBERTa and its like count positions from behind their padding's."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    stated = getattr(model.config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else otherwise


def padding_matters(network: TextClassifier, inputs: tuple[Tensor, ...], pad_id: int, *, drawn: bool = False) -> bool:
    """Whether logits change where the same ids, all of them or the first few, are filled up with `pad_id` that the mask
    leaves out. `drawn`: the weights are, and so small that what they answer hardly hangs on anything."""
    if drawn:
        network = _enlarged(network)
    # An odd number: where tokens are pooled in twos, an even one has nothing of what fills it up in its last two.
    return any(
        _changed(network, tuple(tensor[:, :count] for tensor in inputs), pad_id)
        for count in (inputs[0].shape[1], SHORT)
    )


def _changed(network: TextClassifier, inputs: tuple[Tensor, ...], pad_id: int) -> bool:
    with torch.no_grad():
        alone = network(*inputs)
        fills = [pad_id, *[0] * (len(inputs) - 1)]
        filled = [
            torch.nn.functional.pad(tensor, (0, 5), value=fill) for tensor, fill in zip(inputs, fills, strict=True)
        ]
        padded = network(*filled)
    return bool((alone - padded).abs().max() > 1e-4 * alone.abs().max() + 1e-6)


def _enlarged(network: TextClassifier) -> TextClassifier:
    """A copy with larger weights, as trained ones are."""
    larger = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in larger.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10.0)
    return larger
