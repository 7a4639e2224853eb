"""The average of the weights and the clipping of a step: timm's and torch's numbers, bit for bit."""

from pathlib import Path

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from compressor.distill.loop.average import Average, clip_gradients


def student() -> nn.Module:
    """With batch statistics, and with buffers that are no floats."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_efficientnet", num_classes=4)
    return model


def drift(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.01)
            else:
                tensor.add_(1)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_average_is_timms(tmp_path: Path) -> None:
    """From the first step, through the warm-up, to the full decay; under the same names on disk, each way."""
    model = student()
    ours, theirs = Average(model, 0.9), ModelEmaV3(model, decay=0.9, use_warmup=True)
    for step in [*range(40), 1000]:
        drift(model, step)
        ours.update(model, step)
        theirs.update(model, step=step)
        assert ours.decay_at(step) == theirs.get_decay(step)
        assert same(ours.state_dict(), theirs.state_dict()), step
    assert ours.decay_at(1000) == 0.9
    again = Average(student(), 0.9)
    again.load_state_dict(theirs.state_dict())
    assert same(again.state_dict(), ours.state_dict())


def test_a_tensor_that_takes_another_ones_place_is_averaged() -> None:
    """A module may bind a buffer, or load weights, anew."""
    model = student()
    average = Average(model, 0.5)
    average.update(model, 0)
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    before = average.state_dict()
    norm.running_mean = torch.full_like(norm.running_mean, 8.0)  # type: ignore[arg-type]
    average.update(model, 100)
    name = next(key for key, module in model.named_modules() if module is norm)
    expected = torch.lerp(torch.zeros_like(norm.running_mean), norm.running_mean, 0.5)
    assert torch.equal(average.state_dict()[f"module.{name}.running_mean"], expected)
    assert before.keys() == average.state_dict().keys()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.leave = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.leave.weight = self.embed.weight


def test_a_tensor_with_two_names_is_averaged_once() -> None:
    model = Tied()
    average = Average(model, 0.5)
    with torch.no_grad():
        model.embed.weight.fill_(1.0)
        average.module.embed.weight.fill_(0.0)
    average.update(model, 100)
    assert average.module.leave.weight.flatten().tolist() == [0.5] * 12


@pytest.mark.parametrize(
    ("most", "scale"), [(1e6, 1.0), (1.0, 1.0), (1.0, float("nan")), (1.0, float("inf"))],
    ids=["below", "above", "not a number", "infinite"],
)  # fmt: skip
def test_gradients_are_clipped_as_torch_does(most: float, scale: float) -> None:
    models = student(), student()
    for model in models:
        model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))).square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        gradients[3].mul_(scale)
    clip_gradients(models[0].parameters(), most)
    nn.utils.clip_grad_norm_(models[1].parameters(), most)
    pairs = list(zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert all(torch.equal(a.grad.isnan(), b.grad.isnan()) for a, b in pairs)  # type: ignore[union-attr]
    assert all(torch.equal(a.grad.nan_to_num(), b.grad.nan_to_num()) for a, b in pairs)  # type: ignore[union-attr]
    if scale == 1.0 and most == 1.0:
        norm = nn.utils.get_total_norm([p.grad for p in models[0].parameters() if p.grad is not None])
        assert norm.item() == pytest.approx(1.0, rel=1e-5)
    clip_gradients([], most)
