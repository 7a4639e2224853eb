"""Queries, keys and values of networks of transformers, by the names of their layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.projections import projections_of

transformers: Any = pytest.importorskip("transformers")

SIZES = {"vocab_size": 40, "num_labels": 3}
BERT = {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 32}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(num_hidden_layers=3, **BERT, **SIZES),
    "albert": lambda: transformers.AlbertConfig(num_hidden_layers=3, embedding_size=8, **BERT, **SIZES),
    "mpnet": lambda: transformers.MPNetConfig(num_hidden_layers=3, **BERT, **SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(n_layers=3, dim=16, n_heads=4, hidden_dim=32, **SIZES),
}


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_block_shows_its_queries_keys_and_values(name: str) -> None:
    """Of ALBERT, whose blocks are one, as many as it goes through."""
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS[name]()).eval()
    ids = torch.randint(2, 40, (2, 7))
    answer = model(input_ids=ids, output_hidden_states=True)
    before = hooks(model)  # transformers leaves some of its own
    tensors: list[Tensor] = []
    with projections_of(model, tensors):
        model(input_ids=ids)
    assert [tuple(tensor.shape) for tensor in tensors] == [(2, 3, 7, 16)] * 3
    assert hooks(model) == before
    if name == "bert":
        for block, states, tensor in zip(model.bert.encoder.layer, answer.hidden_states, tensors, strict=False):
            own = block.attention.self
            expected = torch.stack([own.query(states), own.key(states), own.value(states)], 1)
            assert torch.allclose(tensor, expected, atol=1e-6)


def test_gradients_reach_the_student() -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS["bert"]())
    tensors: list[Tensor] = []
    with projections_of(model, tensors):
        model(input_ids=torch.ones(1, 4, dtype=torch.int64))
    tensors[-1].sum().backward()  # type: ignore[no-untyped-call]
    assert model.bert.encoder.layer[-1].attention.self.query.weight.grad is not None


def test_networks_without_such_layers_say_so() -> None:
    with pytest.raises(KdcError, match="Linear shows no queries, keys and values"), projections_of(nn.Linear(2, 2), []):
        pass


def test_keys_narrower_than_queries_are_refused() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, states: Tensor) -> Tensor:
            summed: Tensor = self.v_proj(states) + self.k_proj(states) + self.q_proj(states).sum()
            return summed

    network = Grouped()
    with pytest.raises(KdcError, match="queries are 8 wide and its keys 4"), projections_of(network, []):
        network(torch.zeros(1, 3, 8))
    assert hooks(network) == 0
