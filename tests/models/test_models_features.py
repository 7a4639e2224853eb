"""What comes out of a network's layers, beside its logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models import LoadedModel, with_classes
from compressor.models.features import Taps
from compressor.models.stages import Layer, layers_of, match, named_layer, same_strides, taps_for
from compressor.tasks.image_classification.models.students import create_student

NAMES = ("a", "b", "c")


def model(name: str, size: int = 32) -> LoadedModel:
    torch.manual_seed(0)
    return create_student(f"timm:{name}", "random", NAMES, size, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_efficientnet", [(24, 8, 8), (32, 4, 4), (48, 2, 2), (64, 1, 1)]),
        ("test_resnet", [(32, 8, 8), (48, 4, 4), (192, 2, 2), (96, 1, 1)]),
        ("test_vit", [(64, 2, 2)] * 6),
    ],
)
def test_the_stages_of_a_network(name: str, expected: list[tuple[int, ...]]) -> None:
    layers = layers_of(model(name), "maps")
    assert [layer.shape for layer in layers] == expected
    assert [layer.stride for layer in layers] == [32 / shape[1] for shape in expected]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit", "mobilenetv3_small_050"])
@pytest.mark.parametrize("training", [False, True])
def test_looking_into_a_network_does_not_change_what_it_answers(name: str, training: bool) -> None:
    loaded = model(name)
    images = torch.randn(4, 3, 32, 32)
    names = ["stage-1", "pooled", *(["attention1"] if name == "test_vit" else [])]
    before = {key: value.clone() for key, value in loaded.network.state_dict().items()}
    loaded.network.train(training)
    torch.manual_seed(1)
    expected = loaded.network(images)
    after = {key: value.clone() for key, value in loaded.network.state_dict().items()}
    loaded.network.load_state_dict(before)
    torch.manual_seed(1)
    logits, features = taps_for(loaded, names)(loaded.network, (images,))
    assert torch.allclose(logits, expected, atol=1e-5)
    assert list(features) == names
    assert all(torch.allclose(value, after[key]) for key, value in loaded.network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.network.modules())


def test_pooled_features_are_what_the_classifier_takes() -> None:
    loaded = model("test_resnet")
    network: Any = loaded.network.eval()
    logits, features = taps_for(loaded, ["pooled"])(network, (torch.randn(2, 3, 32, 32),))
    assert torch.allclose(network.get_classifier()(features["pooled"]), logits, atol=1e-6)


def test_attention_is_what_the_block_weighs_its_tokens_with() -> None:
    """Computed again by hand, from the block's own queries and keys."""
    loaded = model("vit_tiny_patch16_224")
    network: Any = loaded.network.eval()
    seen: list[Tensor] = []
    handle = network.blocks[1].attn.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    _, features = taps_for(loaded, ["attention2"])(network, (torch.randn(2, 3, 32, 32),))
    handle.remove()
    attention = network.blocks[1].attn
    tokens = seen[-1]
    qkv = attention.qkv(tokens).reshape(2, tokens.shape[1], 3, attention.num_heads, attention.head_dim)
    query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    expected = (attention.q_norm(query) * attention.scale @ attention.k_norm(key).transpose(-2, -1)).softmax(-1)
    assert torch.allclose(features["attention2"], expected, atol=1e-6)
    assert torch.allclose(features["attention2"].sum(-1), torch.ones(2, attention.num_heads, tokens.shape[1]))


def test_a_module_by_its_path_even_where_the_next_works_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
            self.head = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.act(self.conv(images)).mean((2, 3)))
            return logits

    network = InPlace()
    images = torch.randn(2, 3, 5, 5)
    _, features = Taps(network, ["conv"], 3)(network, (images,))
    assert torch.allclose(features["conv"], network.conv(images))
    assert (features["conv"] < 0).any(), "from before the activation"


def test_a_selection_of_classes_is_looked_through() -> None:
    loaded = model("test_resnet")
    chosen = with_classes(with_classes(loaded, [2, 0], ["c", "a"]), [1, 0], ["a", "c"])
    images = torch.randn(2, 3, 32, 32)
    logits, features = taps_for(chosen, ["stage3"])(chosen.network, (images,))
    assert torch.allclose(logits, chosen.network(images), atol=1e-6)
    assert torch.allclose(logits, loaded.network(images)[:, [0, 2]], atol=1e-6)
    assert features["stage3"].shape == (2, 48, 4, 4)


def test_hugging_face_models_have_stages_pooled_features_and_attention() -> None:
    transformers = pytest.importorskip("transformers")
    from compressor.schema.preprocess import ImagePreprocess
    from compressor.tasks.image_classification.models.hf_classifier import HfClassifier

    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    network = HfClassifier(transformers.AutoModelForImageClassification.from_config(config)).eval()
    how = ImagePreprocess(input_size=(32, 32), resize=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    loaded = LoadedModel(network, how, (("a",), ("b",), ("c",)), model("test_vit").weights, "hf")
    assert [layer.shape for layer in layers_of(loaded, "maps")] == [(32, 4, 4)] * 3
    assert [layer.shape for layer in layers_of(loaded, "attention")] == [(2, 17, 17)] * 3
    assert layers_of(loaded, "pooled") == [Layer("pooled", (32,))]
    images = torch.randn(2, 3, 32, 32)
    logits, features = taps_for(loaded, ["stage2", "attention1"])(network, (images,))
    assert torch.allclose(logits, network(images), atol=1e-5)
    assert torch.allclose(features["attention1"].sum(-1), torch.ones(2, 2, 17), atol=1e-5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: named_layer(model("test_resnet"), "stage9"), "there is no stage9: the network has 5 of them"),
        (lambda: named_layer(model("test_resnet"), "layer1.7"), r"no layer layer1.7; did you mean layer1"),
        (lambda: layers_of(model("test_resnet"), "attention"), "has no attention"),
        (lambda: named_layer(model("test_resnet"), "stage0"), "no layer stage0"),
        (lambda: named_layer(model("test_resnet"), "stage--1"), "no layer stage--1"),
        (lambda: named_layer(model("test_vit"), "blocks.0.attn.attn_drop"), "is never called"),
    ],
)
def test_layers_that_are_not_there_are_named(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(KdcError, match=message):
        ask()


def layers(kind: str, strides: list[float]) -> list[Layer]:
    return [
        Layer(f"{kind}{number}", (8, round(64 / stride), round(64 / stride)), stride)
        for number, stride in enumerate(strides)
    ]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([4, 8, 16, 32], [4, 8, 16, 32], [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ([4, 8, 16], [8, 16, 32], [(1, 0), (2, 1)]),
        ([4, 8, 16, 32], [16] * 12, [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ([16] * 12, [16] * 4, [(2, 0), (5, 1), (8, 2), (11, 3)]),
        ([4, 8], [16, 32], [(0, 0), (1, 1)]),
        ([4.0, 8.0, 16.0, 32.0], [300 / 75, 300 / 38, 300 / 19, 300 / 10], [(0, 0), (1, 1), (2, 2), (3, 3)]),
    ],
)
def test_layers_are_matched_by_stride_or_by_depth(
    student: list[float], teacher: list[float], expected: list[tuple[int, int]]
) -> None:
    pairs = match(layers("s", student), layers("t", teacher))
    assert [(own.name, other.name) for own, other in pairs] == [(f"s{one}", f"t{two}") for one, two in expected]


def test_only_networks_that_narrow_their_maps_have_stages_of_equal_stride() -> None:
    narrowing, plain = layers("s", [4, 8, 16, 32]), layers("t", [16] * 12)
    assert same_strides(narrowing, plain) == same_strides(plain, narrowing) == same_strides(plain, plain) == []
    assert same_strides(narrowing, layers("t", [64, 128])) == []
    own, other = narrowing[3], layers("t", [16, 32])[1]
    assert same_strides(narrowing, layers("t", [16, 32]))[1] == (own, other)


class Transformer(nn.Module):
    """Any module's output can be asked for; `mix` gives tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix(tokens).mean(1))
        return logits


def test_tokens_of_a_sequence_stay_a_sequence() -> None:
    """17 of them were taken for a class token and 4 by 4 patches."""
    network, tokens = Transformer(), torch.randn(2, 17, 8)
    _, found = Taps(network, ["mix"], 3, patches="none")(network, (tokens,))
    assert torch.equal(found["mix"], network.mix(tokens))
    _, folded = Taps(network, ["mix"], 3)(network, (tokens,))
    assert folded["mix"].shape == (2, 8, 4, 4)


def test_patches_of_an_image_that_is_not_square_are_not_folded() -> None:
    """21 of them, 3 by 7, were taken for 5 tokens and 4 by 4 patches."""
    network = Transformer()
    with pytest.raises(KdcError, match="21 tokens of an image that is not square do not say how they lie"):
        Taps(network, ["mix"], 3, patches="oblong")(network, (torch.randn(2, 21, 8),))
