"""Which layers of two transformers a loss on tokens compares, and what is refused by name before any training."""

from typing import Any

import pytest
import torch

from compressor.distill.features.layers import described, layer_pairs_of
from compressor.distill.loop.learner import bind_losses
from compressor.errors import KdcError
from compressor.models import LoadedModel
from compressor.models.features import Taps
from compressor.models.layer_map import even_map
from compressor.models.stages import layers_of, taps_for
from compressor.schema.recipe import Recipe
from tests.toy_transformer import Encoder, encoder_of


def pairs(loss: dict[str, Any], student: LoadedModel, teacher: LoadedModel) -> list[tuple[str, str]]:
    recipe = Recipe.model_validate({"schema": 1, "losses": [loss, {"name": "kd"}]})
    sides, _ = layer_pairs_of(bind_losses(recipe, has_teacher=True), student, teacher, classes=3, samples=20)
    return [(ours.name, theirs.name) for ours, theirs in sides[loss["name"]].pairs]


@pytest.mark.parametrize(
    ("student", "teacher", "hidden", "attention"),
    [
        (3, 6, [0, 2, 4, 6], [1, 3, 5]),
        (2, 6, [0, 3, 6], [2, 5]),
        (4, 12, [0, 3, 6, 9, 12], [2, 5, 8, 11]),
        (6, 6, [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5]),
        (1, 6, [0, 6], [5]),
    ],
)
def test_the_layer_map_is_that_of_tinybert(student: int, teacher: int, hidden: list[int], attention: list[int]) -> None:
    """Hidden state i learns from i k, the embedding being 0; attention i from (i + 1) k - 1."""
    layers = even_map(student, teacher)
    assert layers.hidden == tuple(enumerate(hidden))
    assert layers.attention == tuple(enumerate(attention))


def test_the_layer_map_says_what_it_is() -> None:
    assert str(even_map(3, 6)) == (
        "hidden states 0 from 0, 1 from 2, 2 from 4, 3 from 6 (0: the embedding); "
        "attention 0 from 1, 1 from 3, 2 from 5 (0: the first block)"
    )


@pytest.mark.parametrize(("student", "teacher"), [(4, 6), (5, 12), (8, 6), (0, 6)])
def test_layers_that_do_not_come_out_even_are_for_the_user_to_name(student: int, teacher: int) -> None:
    with pytest.raises(KdcError, match=rf"{student} blocks do not share out the teacher's {teacher} evenly .*at: \[\["):
        even_map(student, teacher)


EVEN = [("stage1", "stage2"), ("stage2", "stage4"), ("stage3", "stage6")]


def test_each_loss_finds_its_layers() -> None:
    """The map is the paper's; the last hidden state is compared alone by the cosine, the last block's by relations."""
    student, teacher = encoder_of(16, 3), encoder_of(32, 6, seed=1)
    assert pairs({"name": "hidden_states"}, student, teacher) == [("embedding", "embedding"), *EVEN]
    assert pairs({"name": "hint"}, student, teacher) == EVEN
    scores = [("scores1", "scores2"), ("scores2", "scores4"), ("scores3", "scores6")]
    assert pairs({"name": "attention_scores"}, student, teacher) == scores
    maps = [(f"attention{n}", f"attention{2 * n}") for n in (1, 2, 3)]
    assert pairs({"name": "attention_maps"}, student, teacher) == maps
    relations = {"name": "relations", "relation_heads": 8}
    assert pairs(relations, student, teacher) == [("projections3", "projections6")]
    assert pairs({"name": "relations"}, student, teacher) == [("projections3", "projections6")]
    assert pairs({"name": "token_kd"}, student, teacher) == [("vocabulary", "vocabulary")]
    assert pairs({"name": "pooled"}, student, teacher) == [("pooled", "pooled")]
    assert pairs({"name": "token_cosine"}, encoder_of(32, 3), teacher) == [("stage3", "stage6")]


def test_layers_may_be_named() -> None:
    """0 is the embedding, 1 what comes out of the first block, -1 the last: of 24, MiniLM takes one before."""
    student, teacher = encoder_of(16, 4), encoder_of(32, 6, seed=1)
    at = [["embedding", "embedding"], ["stage1", "stage1"], ["stage-1", "stage-2"]]
    assert pairs({"name": "hidden_states", "at": at}, student, teacher) == [tuple(pair) for pair in at]
    at = [["projections-1", "projections-2"]]
    assert pairs({"name": "relations", "at": at, "relation_heads": 4}, student, teacher) == [tuple(at[0])]


def test_the_map_is_said_without_the_length_of_an_example() -> None:
    student, teacher = encoder_of(16, 1), encoder_of(32, 2, seed=1)
    losses = [{"name": "hidden_states"}, {"name": "attention_scores"}, {"name": "relations", "relation_heads": 8}]
    recipe = Recipe.model_validate({"schema": 1, "losses": [*losses, {"name": "masked_lm"}, {"name": "kd"}]})
    sides, _ = layer_pairs_of(bind_losses(recipe, has_teacher=True), student, teacher, classes=3, samples=20)
    given = {"relations": {"relation_heads": 8}}
    assert described("relations", sides["relations"]).endswith("from projections2 (32 wide); in 8 relation heads")
    assert [described(name, side, given.get(name)) for name, side in sides.items()] == [
        "hidden_states: embedding (16 wide) from embedding (32 wide), stage1 (16 wide) from stage2 (32 wide)",
        "attention_scores: scores1 (4 heads) from scores2 (4 heads)",
        "relations: projections1 (16 wide) from projections2 (32 wide)",
        "masked_lm looks at vocabulary (18 wide)",
    ]


STUDENT, TEACHER = {"width": 16, "depth": 2}, {"width": 32, "depth": 4}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "heads": (
        {"name": "attention_scores"}, {"heads": 2},
        "of 2 and 4 heads cannot be compared head by head: use relations .*relations needs neither",
    ),
    "widths": (
        {"name": "token_cosine"}, {}, "stage2 is 16 wide and stage4 of the teacher 32, .*hidden_states.*relations",
    ),
    "relation heads": (
        {"name": "relations", "relation_heads": 5}, {},
        "recipe losses, relations: relation_heads=5 does not divide a width of 16",
    ),
    "more relation heads": (
        {"name": "relations", "relation_heads": 12}, {}, "relations: relation_heads=12 does not divide a width of 16",
    ),
    "vocabularies": ({"name": "token_kd"}, {"tokens": 20}, "a vocabulary of 20 and the teacher's of 18 tokens"),
    "depths": ({"name": "hidden_states"}, {"depth": 3}, "recipe losses, hidden_states: 3 blocks do not share out"),
    "a kind": (
        {"name": "attention_scores", "at": [["attention1", "attention1"]]}, {},
        "attention1 of toy:16 gives .*this loss wants scores .*name scores1, scores2",
    ),
    "another kind": (
        {"name": "attention_maps", "at": [["scores1", "scores1"]]}, {}, "gives .*this loss wants attention",
    ),
    "no tokens": ({"name": "token_cosine", "at": [["pooled", "pooled"]]}, {}, "this loss wants tokens .*name a stage"),
    "a layer too many": ({"name": "hint", "at": [["stage3", "stage4"]]}, {}, "there is no stage3: .* has 2"),
    "maps": (
        {"name": "attention_transfer"}, {}, "gives tokens, .* and this loss wants maps .*losses on logits or",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(
    loss: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdcError, match=message):
        pairs(loss, encoder_of(**{**STUDENT, **changes}), encoder_of(**TEACHER, seed=1))


def test_relations_take_other_heads_and_another_width() -> None:
    student, teacher = encoder_of(16, 2, heads=2), encoder_of(32, 4, seed=1)
    assert pairs({"name": "relations", "relation_heads": 16}, student, teacher) == [("projections2", "projections4")]


def example(model: LoadedModel) -> tuple[torch.Tensor, ...]:
    ids = torch.randint(18, (3, 6), generator=torch.Generator().manual_seed(2))
    return ids, ids % 2, torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5])


def test_what_blocks_compute_comes_out_by_name() -> None:
    model = encoder_of(16, 2)
    network: Any = model.network.eval()
    inputs = example(model)
    names = ["embedding", "stage-1", "attention2", "scores2", "projections2", "vocabulary", "pooled"]
    logits, features = taps_for(model, names)(network, inputs)
    assert torch.equal(logits, network(*inputs))
    assert torch.equal(features["embedding"], network.tokens(inputs[0]))
    query, key, _ = features["projections2"].unbind(1)
    assert features["projections2"].shape == (3, 3, 6, 16)
    first = query[0, :, :4] @ key[0, :, :4].T / 4**0.5
    assert torch.allclose(features["scores2"][0, 0], first, atol=1e-6), "Q K' / sqrt(d), before the softmax"
    assert torch.allclose(features["scores2"].softmax(-1), features["attention2"], atol=1e-6)
    assert torch.allclose(features["vocabulary"], features["stage-1"] @ network.tokens.weight.T)
    assert network._looking == {}


def test_networks_that_do_not_show_it_say_so() -> None:
    from compressor.tasks.image_classification.models.students import create_student

    cnn = create_student("timm:test_resnet", "random", ("a", "b"), 32, None)
    for kind, message in (
        ("scores", "ResNet shows no scores of its attention"),
        ("projections", "ResNet shows no projections"),
        ("vocabulary", "ResNet has no head over a vocabulary"),
        ("tokens", "takes images, and this loss wants tokens"),
    ):
        with pytest.raises(KdcError, match=message):
            layers_of(cnn, kind)
    with pytest.raises(KdcError, match="ResNet gives no embedding"):
        taps_for(cnn, ["embedding"])(cnn.network.eval(), (torch.zeros(1, 3, 32, 32),))
    plain = Taps(Encoder(8, 1), ["embedding"], 3, patches="none")
    assert plain.names == ("embedding",)
