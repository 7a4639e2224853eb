"""The gates of squeeze-excite: the rule on small flows of values, and that torch and ONNX see the same layers."""

from collections.abc import Callable, Iterable
from pathlib import Path

import onnx
import pytest
import timm
import torch
from torch import Tensor, nn

from compressor.export.onnx.graph import to_onnx
from compressor.export.onnx.qdq_plan import heavy_layers
from compressor.quantization.folding import fold_batchnorm
from compressor.quantization.plan import quant_plan
from compressor.quantization.squeeze_excite import Operation, gates
from tests.kit import pixels

STUDENTS = ("mobilenetv3_small_100", "efficientnet_b0", "efficientnet_lite0", "mobilenetv4_conv_small")

MEAN = Operation("pool", "pool", ("x",), ("mean",))
REDUCE = Operation("reduce", "other", ("mean", "weight"), ("gate",))


def found(operations: Iterable[Operation]) -> set[str]:
    return gates(operations, ["x"])


def test_what_lies_between_a_map_and_its_product_with_itself() -> None:
    assert found([MEAN, REDUCE, Operation("scale", "product", ("x", "gate"), ("y",))]) == {"pool", "reduce"}


def test_the_map_that_is_gated_may_be_another_one() -> None:
    """As where one gate serves several branches."""
    branch = Operation("branch", "other", ("x", "w"), ("z",))
    assert found([branch, MEAN, REDUCE, Operation("scale", "product", ("gate", "z"), ("y",))]) == {"pool", "reduce"}


@pytest.mark.parametrize(
    "last",
    [
        Operation("add", "other", ("x", "gate"), ("y",)),  # no product
        Operation("scale", "product", ("gate", "weight"), ("y",)),  # with a constant
        Operation("swish", "product", ("gate", "mean"), ("y",)),  # of two pooled values: a classifier's activation
    ],
)
def test_what_is_no_gate(last: Operation) -> None:
    assert found([MEAN, REDUCE, last]) == set()


def test_a_value_that_also_depends_on_a_map_is_not_pooled() -> None:
    """Spatial attention: what is multiplied has a value for each position."""
    attention = Operation("attention", "other", ("mean", "x"), ("gate",))
    assert found([MEAN, attention, Operation("scale", "product", ("x", "gate"), ("y",))]) == set()


class Gated(nn.Module):
    """`pool`: how the gate pools. The classifier's layer and its hard-swish work on pooled values too, and are none."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.reduce, self.excite = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head, self.classifier, self.pool = nn.Conv2d(8, 6, 1), nn.Linear(6, 3), pool

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x * torch.sigmoid(self.excite(torch.relu(self.reduce(self.pool(x)))))
        logits: Tensor = self.classifier(nn.functional.hardswish(self.head(x.mean((2, 3), keepdim=True))).flatten(1))
        return logits


def left_out(
    network: nn.Module, size: int, folder: Path, batch: int | None = 1, opset: int = 18
) -> tuple[set[str], set[str]]:
    """The layers that stay in float, by the plan for training in torch, and by the one for the exported graph."""
    example = torch.zeros(1, 3, size, size)
    folded = fold_batchnorm(network.eval(), (example,))
    layers = {path for path, module in folded.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    to_onnx(network, pixels(size, size), batch, opset, {}, folder / "model.onnx")
    weights = {layer.weight for layer in heavy_layers(onnx.load(folder / "model.onnx").graph)}
    assert weights <= {f"{path}.weight" for path in layers}
    in_onnx = {path for path in layers if f"{path}.weight" not in weights}
    return layers - set(quant_plan(folded, (example,)).inputs), in_onnx


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.amax((2, 3), keepdim=True),
        lambda x: x.mean((2, 3)).view(x.shape[0], x.shape[1], 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
    ],
    ids=["mean", "max", "view", "adaptive mean", "adaptive max"],
)
@pytest.mark.parametrize("batch", [1, None])
def test_torch_and_onnx_agree_however_it_pools(
    pool: Callable[[Tensor], Tensor], batch: int | None, tmp_path: Path
) -> None:
    in_torch, in_onnx = left_out(Gated(pool), 9, tmp_path, batch)
    assert in_torch == in_onnx == {"reduce", "excite"}


def test_axes_may_be_an_attribute(tmp_path: Path) -> None:
    """As they are up to opset 17, which a Jetson reads."""
    in_torch, in_onnx = left_out(Gated(lambda x: x.mean((2, 3), keepdim=True)), 9, tmp_path, opset=17)
    assert in_torch == in_onnx == {"reduce", "excite"}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS)
def test_torch_and_onnx_agree_on_students(name: str, tmp_path: Path) -> None:
    in_torch, in_onnx = left_out(timm.create_model(name, num_classes=10), 64, tmp_path)
    assert in_torch == in_onnx
    assert bool(in_torch) is (name in ("mobilenetv3_small_100", "efficientnet_b0"))
    assert all(".se." in path for path in in_torch)
