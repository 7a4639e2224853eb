"""A network that torch.onnx.export has followed is not followed again for other weights, and for nothing else."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import timm
import torch
from torch import nn

from tests.kept_graphs import KEPT_GRAPHS, _keys, kept

OPTIONS = {
    "dynamo": True, "opset_version": 18, "input_names": ["input"], "output_names": ["logits"], "verbose": False,
    "external_data": False,
}  # fmt: skip
EXAMPLE = (torch.zeros(2, 3, 32, 32),)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made: nn.Module = timm.create_model("test_resnet", num_classes=4).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return made


def content(program: Any) -> bytes:
    """Without the numbers of nodes that torch merges."""
    model = onnx.ModelProto()
    model.CopyFrom(program.model_proto)
    for node in model.graph.node:
        node.name = ""
    written: bytes = model.SerializeToString(deterministic=True)
    return written


@pytest.mark.slow
@pytest.mark.usefixtures("real_exports")
def test_other_weights_give_what_torch_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms are folded into the weights, which is done for each."""
    real = torch.onnx.export
    expected = content(real(network(2), EXAMPLE, **OPTIONS))  # type: ignore[arg-type]
    monkeypatch.setenv(KEPT_GRAPHS, str(tmp_path))
    followed = []

    def export(first: object, *others: Any, **options: Any) -> Any:
        followed.append(isinstance(first, nn.Module))
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(KEPT_GRAPHS)
            return real(first, *others, **options)  # type: ignore[arg-type]

    once = kept(export)
    assert content(once(network(1), EXAMPLE, **OPTIONS)) != expected
    assert content(once(network(2), EXAMPLE, **OPTIONS)) == expected
    assert content(once(network(2), EXAMPLE, **OPTIONS)) == expected
    assert followed == [True, False]


class Config:
    """As those of transformers."""

    heads = 2

    def to_dict(self) -> dict[str, int]:
        return {"heads": self.heads}


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.factor, self.table = 2.0, torch.ones(2)
        self.act, self.config = partial(nn.functional.elu, alpha=1.0), Config()


def tied(module: Scaled) -> None:
    module.second.weight = module.first.weight


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "factor", 3.0),
        lambda module: setattr(module, "table", torch.tensor([1.0, 2.0])),
        lambda module: setattr(module, "act", partial(nn.functional.elu, alpha=2.0)),
        lambda module: setattr(module.config, "heads", 4),
        lambda module: module.train(),
        lambda module: setattr(module, "second", nn.Linear(2, 3)),
        tied,
    ],
)
def test_what_else_differs_is_followed(change: Callable[[Any], object]) -> None:
    module = Scaled().eval()
    other, changed = copy.deepcopy(module), copy.deepcopy(module)
    with torch.no_grad():
        other.first.weight += 1
    change(changed)
    keys, others, differing = (_keys(each, EXAMPLE, OPTIONS) for each in (module, other, changed))
    assert keys is not None
    assert others is not None
    assert differing is not None
    assert (keys[0] != others[0], keys[1] == others[1]) == (True, True)
    assert keys[1] != differing[1]


def test_hooks_cannot_be_told_apart() -> None:
    module = Scaled()
    module.register_forward_hook(lambda *_: None)
    assert _keys(module, EXAMPLE, OPTIONS) is None
