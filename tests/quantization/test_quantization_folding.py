"""BatchNorms folded into the convolutions before them: the same logits, and nothing folded that must not be."""

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from compressor.quantization.folding import fold_batchnorm, unfolded

torch.set_num_threads(1)


def settled(network: nn.Module) -> nn.Module:
    """The network as if it had been trained: no BatchNorm is near the identity any more."""
    torch.manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.3, 3.0)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, std=0.3)
    return network.eval()


def same(before: nn.Module, after: nn.Module, size: int) -> bool:
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        wanted, found = before(images), after(images)
    assert wanted.std() > 1e-6, "a comparison of nothing"
    return bool((wanted - found).abs().max() <= 1e-4 * wanted.abs().max())


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_resnet", 32),
        ("mobilenetv3_small_050", 32),
        pytest.param("mobilenetv4_conv_small", 64, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 64, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_lite0", 64, marks=pytest.mark.slow),
        pytest.param("resnet18", 64, marks=pytest.mark.slow),
        pytest.param("mobilenetv2_100", 64, marks=pytest.mark.slow),
    ],
)
def test_networks_compute_the_same_without_batchnorm(name: str, size: int) -> None:
    network = settled(timm.create_model(name, num_classes=5))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batchnorm(network, (torch.zeros(1, 3, size, size),))
    assert unfolded(network)
    assert not unfolded(folded)
    assert same(network, folded, size)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "a copy was folded"


def test_a_network_without_batchnorm_stays_as_it_is() -> None:
    network = timm.create_model("test_vit", num_classes=5, img_size=32).eval()
    folded = fold_batchnorm(network, (torch.zeros(1, 3, 32, 32),))
    assert folded.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), network.parameters(), strict=True))


def test_the_numbers() -> None:
    """w = 2, γ = 3, σ² + ε = 4, μ = 5, b = 1, β = 7: w' = 2·3/2 = 3 and b' = (1 − 5)·3/2 + 7 = 1."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1, eps=1.0))
    for tensor, value in (
        (network[0].weight, 2.0),
        (network[0].bias, 1.0),
        (network[1].weight, 3.0),
        (network[1].bias, 7.0),
        (network[1].running_mean, 5.0),
        (network[1].running_var, 3.0),
    ):
        nn.init.constant_(tensor, value)  # type: ignore[arg-type]
    folded = fold_batchnorm(network, (torch.zeros(1, 3, 2, 2),))
    layer = folded.get_submodule("0")
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    assert layer.weight.flatten().tolist() == [3.0, 3.0, 3.0]
    assert layer.bias.tolist() == [1.0]


def test_the_activation_of_timms_batchnorm_remains() -> None:
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), BatchNormAct2d(4, act_layer=nn.Hardswish)))
    folded = fold_batchnorm(network, (torch.zeros(1, 3, 4, 4),))
    assert isinstance(folded.get_submodule("1"), nn.Hardswish)
    assert same(network, folded, 4)


class Awkward(nn.Module):
    """One BatchNorm that can be folded (`one`), and those that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.read_twice, self.beside = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.shared, self.after_shared = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.after_sum = nn.BatchNorm2d(4)
        self.last, self.overwritten = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.first(x))
        y = self.read_twice(x)
        x = self.beside(y) + y  # what the convolution answers is needed as it is
        x = self.shared(self.after_shared(self.shared(x)))
        x = self.after_sum(x + 1)
        return self.overwritten(self.last(x).relu_()).mean((2, 3))  # type: ignore[no-any-return]


def test_what_cannot_be_folded_stays_and_is_said() -> None:
    network = settled(Awkward())
    folded = fold_batchnorm(network, (torch.zeros(1, 3, 8, 8),))
    assert unfolded(folded) == ("beside", "after_shared", "after_sum", "overwritten")
    assert same(network, folded, 8)


def test_a_batchnorm_without_statistics_or_weights() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),
    )
    nn.init.uniform_(network[1].running_var, 0.3, 3.0)  # type: ignore[arg-type]
    network.eval()
    folded = fold_batchnorm(network, (torch.zeros(1, 3, 4, 4),))
    assert unfolded(folded) == ("3",)
    assert same(network, folded, 4)
