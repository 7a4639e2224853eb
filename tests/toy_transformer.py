"""A small transformer encoder for the second task of the tests, that shows all that losses on tokens look at."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.models.features import Staged
from compressor.models.loaded import LoadedModel
from compressor.models.weights import tensors_sha256
from compressor.schema.student import Weights
from tests.toy_task import LONGEST, NAMES, TOKENS, ToyPreprocess

__all__ = ["Encoder", "encoder_of"]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The next states, and what was computed on the way to them."""
        query, key, value = (side.unflatten(-1, (self.heads, -1)) for side in self.qkv(states).chunk(3, -1))
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        raw = query @ key.mT / math.sqrt(query.shape[-1])
        scores = raw.masked_fill(mask[:, None, None] == 0, torch.finfo(raw.dtype).min)
        attention = scores.softmax(-1)
        states = self.norms[0](states + self.out((attention @ value).transpose(1, 2).flatten(2)))
        states = self.norms[1](states + self.narrow(self.wide(states).relu()))
        sides = [side.transpose(1, 2).flatten(2) for side in (query, key, value)]
        return states, {"attention": attention, "scores": scores, "projections": torch.stack(sides, 1)}


class Encoder(Staged):
    """`depth` blocks of `heads`; the mean of what counts is classified, and the embedding is the head over the
    vocabulary."""

    def __init__(self, width: int, depth: int, heads: int = 4, classes: int = len(NAMES), tokens: int = TOKENS) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = nn.Linear(width, classes)
        self._looking: dict[str, list[Tensor]] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.stages(*inputs)[0]

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        ids, _, mask = inputs
        states = [self.tokens(ids)]
        for block in self.blocks:
            state, computed = block(states[-1], mask)
            states.append(state)
            for kind, tensors in self._looking.items():
                tensors.append(computed[kind])
        counts = mask.unsqueeze(-1).to(states[-1].dtype)
        return self.head((states[-1] * counts).sum(1) / counts.sum(1)), states

    @contextmanager
    def _looked_at(self, kind: str, tensors: list[Tensor]) -> Iterator[None]:
        self._looking[kind] = tensors
        try:
            yield
        finally:
            del self._looking[kind]

    def attention(self, matrices: list[Tensor]):  # type: ignore[no-untyped-def]
        return self._looked_at("attention", matrices)

    def scores(self, matrices: list[Tensor]):  # type: ignore[no-untyped-def]
        return self._looked_at("scores", matrices)

    def projections(self, tensors: list[Tensor]):  # type: ignore[no-untyped-def]
        return self._looked_at("projections", tensors)

    def vocabulary(self, states: Tensor) -> Tensor:
        return states @ self.tokens.weight.T


def encoder_of(width: int, depth: int, *, heads: int = 4, seed: int = 0, tokens: int = TOKENS) -> LoadedModel:
    torch.manual_seed(seed)
    network = Encoder(width, depth, heads, tokens=tokens)
    weights = Weights(
        source=f"toy:{width}", architecture=str(width), sha256=tensors_sha256(network.state_dict()), licence="none",
        parameters=sum(one.numel() for one in network.parameters()),
    )  # fmt: skip
    return LoadedModel(network, ToyPreprocess(most=LONGEST), tuple((name,) for name in NAMES), weights, "toy")
