"""What a student writes in on-policy steps (GKD: Agarwal et al. 2024, arXiv 2306.13649): drawn from its own answers, by
numbers that are a function of the seed, the step and the block, whatever is written beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.modes import evaluating
from compressor.schema.on_policy import OnPolicy
from compressor.schema.preprocess import LanguagePreprocess
from compressor.tasks.base import BatchModel
from compressor.tasks.causal_lm.encoding import Block, Encoded
from compressor.tasks.causal_lm.generation import stops_of
from compressor.tasks.causal_lm.models.network import CausalLm

__all__ = ["continued", "is_on_policy", "prompt_of"]


def is_on_policy(policy: OnPolicy, seed: int, step: int) -> bool:
    """Whether the student writes in a step, counted from the start of the training."""
    return policy.share > 0 and float(keyed_uniform(seed, np.array([step]), 0, 1)[0, 0]) < policy.share


def prompt_of(sample: Encoded, block: Block, most: int) -> NDArray[np.int32]:
    """The tokens of a block that the student goes on from: those before the first that counts; or where that is the
    first of all, as in a text without a prompt, the first `most`."""
    before = 1 + int(sample.learned[block.start + 1 : block.stop + 1].argmax())
    count = before if before > 1 else min(most, block.stop - block.start)
    return sample.ids[block.start : block.start + count]


def continued(
    student: BatchModel, prompts: Sequence[NDArray[np.int32]], policy: OnPolicy, reads: LanguagePreprocess,
    drawn: tuple[int, NDArray[np.int64], int],
) -> list[Encoded]:  # fmt: skip
    """The prompts with what the student writes behind each, which alone counts: until a token that ends documents,
    `max_new_tokens`, or as many as the last block may hold.

    Args:
        policy: the recipe's.
        reads: how the student reads.
        drawn: what the tokens are drawn by: the seed, a number for each prompt, int64 [N], and the step.
    """
    network: Any = student.network
    assert isinstance(network, CausalLm)
    seed, samples, step = drawn
    rooms = [min(policy.max_new_tokens, reads.max_length + 1 - len(prompt)) for prompt in prompts]
    draws = torch.from_numpy(keyed_uniform(seed, samples, step + 1, max(rooms)))
    stops, width = stops_of(network), max(len(prompt) for prompt in prompts)
    ids, mask = (np.full((len(prompts), width), fill, np.int64) for fill in (reads.pad_id, 0))
    for row, prompt in enumerate(prompts):  # filled up in front: what is written follows the prompt
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
    rows = network.tokenizer.size
    with evaluating(student):
        drawing = _Drawing(draws, width, rows, policy.sampling_temperature)
        made = _generated(network, ids, mask, stops, drawing, max(rooms))
    texts = []
    for prompt, tokens, room in zip(prompts, made[:, width:], rooms, strict=True):
        ends = np.flatnonzero(np.isin(tokens[:room], sorted(stops)))
        written = tokens[: int(ends[0]) + 1 if len(ends) else room]
        counts = np.arange(len(prompt) + len(written)) >= len(prompt)
        texts.append(Encoded(np.concatenate([prompt, written]).astype(np.int32), counts, counts, 0))
    return texts


class _Drawing:
    """Draws the next token of each text: the first whose cumulated probability is above the number for it, of those
    that the tokenizer has. As a logits processor of transformers: its score is 0, and that of all others -inf."""

    def __init__(self, draws: Tensor, width: int, rows: int, temperature: float) -> None:
        self.draws, self.width, self.rows, self.temperature = draws, width, rows, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chances = (scores[:, : self.rows].double() / self.temperature).softmax(-1).cumsum(-1)
        numbers = self.draws[:, input_ids.shape[1] - self.width].to(scores.device)[:, None] * chances[:, -1:]
        tokens = (chances <= numbers).sum(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens, 0.0)


def _generated(
    network: CausalLm, ids: NDArray[np.int64], mask: NDArray[np.int64], stops: frozenset[int], drawing: _Drawing,
    most: int,
) -> NDArray[np.int64]:  # fmt: skip
    """By transformers' own generation, told of everything: what a model's files say of sampling is not asked for."""
    from transformers import GenerationConfig

    model: Any = network.model
    device = next(model.parameters()).device
    config = GenerationConfig(
        do_sample=False, max_new_tokens=most, eos_token_id=sorted(stops), pad_token_id=network.tokenizer.pad_id
    )
    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with torch.no_grad():
            out: Tensor = model.generate(
                torch.from_numpy(ids).to(device), attention_mask=torch.from_numpy(mask).to(device),
                generation_config=config, logits_processor=[drawing],
            )  # fmt: skip
    finally:
        model.generation_config = before
    return out.cpu().numpy()
