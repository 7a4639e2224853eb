"""What a batch is turned into: every loss of the recipe, of the student and of its peers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.distill.features.connectors import CONNECTORS, Contrast, LayerPairs
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.losses.logits import cross_entropy, kd
from compressor.models.stages import Layer
from compressor.schema.base import parse
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel, Outputs

B, C = 6, 4


def recipe(*losses: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe.model_validate({"schema": 1, "losses": list(losses), **changes})


def network(seed: int, key: str = "student") -> BatchModel:
    torch.manual_seed(seed)
    return BatchModel(nn.Linear(5, C), key)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "student": torch.randn(B, 5, generator=generator),
        "labels": torch.randint(0, C, (B,), generator=generator),
        "index": torch.arange(B),
    }


@pytest.fixture
def answers() -> Outputs:
    return Outputs(torch.randn(B, C, generator=torch.Generator().manual_seed(1)))


def test_every_loss_by_name_and_what_it_weighs(batch: dict[str, Tensor], answers: Outputs) -> None:
    how = recipe(
        {"name": "kd", "weight": {"from": 0.0, "to": 0.8}, "temperature": 2.0},
        {"name": "cross_entropy", "weight": {"from": 1.0, "to": 0.0, "shape": "cosine"}},
    )
    student = network(1)
    learner = Learner(student, bind_losses(how, has_teacher=True))
    losses = learner(batch, answers)
    logits = student.network(batch["student"])
    assert torch.equal(losses["kd"], kd(logits, answers.logits, temperature=2.0))
    assert torch.equal(losses["cross_entropy"], cross_entropy(logits, batch["labels"]))
    assert learner.weights(0.0) == {"kd": 0.0, "cross_entropy": 1.0}
    assert learner.weights(0.25) == pytest.approx({"kd": 0.2, "cross_entropy": 0.5 + 0.5 * 0.5**0.5})
    assert learner.weights(1.0) == pytest.approx({"kd": 0.8, "cross_entropy": 0.0})


def test_only_labelled_samples_count_for_losses_on_labels(batch: dict[str, Tensor], answers: Outputs) -> None:
    learner = Learner(network(1), bind_losses(recipe({"name": "kd"}, {"name": "cross_entropy"}), has_teacher=True))
    whole = learner(batch, answers)
    labels, share = torch.where(torch.arange(B) < 2, batch["labels"], -1), torch.tensor(1.5)
    some = {**batch, "labels": labels, "labelled": torch.arange(2), "labelled_share": share}
    few = {name: value[:2] for name, value in batch.items()}
    losses = learner(some, answers)
    assert torch.equal(losses["kd"], whole["kd"])
    assert torch.allclose(losses["cross_entropy"], 1.5 * learner(few, Outputs(answers.logits[:2]))["cross_entropy"])
    none = {**batch, "labels": torch.full((B,), -1), "labelled": torch.arange(0)}
    losses = learner(none, answers)
    assert losses["cross_entropy"] == 0
    sum(losses.values()).backward()
    assert learner.student.network.weight.grad.isfinite().all()  # type: ignore[union-attr, operator]


def test_peers_learn_from_one_another_and_no_gradient_crosses(batch: dict[str, Tensor]) -> None:
    """Pitfalls, "Peers that are not detached": each one's target is detached."""
    how = recipe({"name": "mutual", "temperature": 1.0}, {"name": "cross_entropy"}, peers=[{"student": "timm:a"}] * 2)
    learner = Learner(network(1), bind_losses(how, has_teacher=False), peers=[network(2), network(3, "peer2")])
    assert learner.keys == {"student", "peer2"}
    batch["peer2"] = batch["student"]
    losses = learner(batch, None)
    assert list(losses) == [
        "mutual", "cross_entropy", "peer1 mutual", "peer1 cross_entropy", "peer2 mutual", "peer2 cross_entropy",
    ]  # fmt: skip
    assert list(losses) == list(learner.weights(0.5))
    own, first, second = (model(batch).logits for model in (learner.student, *learner.peers))
    expected = (kd(first, own, temperature=1.0) + kd(first, second, temperature=1.0)) / 2
    assert torch.allclose(losses["peer1 mutual"], expected)
    losses["mutual"].backward()
    assert learner.student.network.weight.grad is not None
    assert all(parameter.grad is None for peer in learner.peers for parameter in peer.parameters())


def test_a_term_that_wants_the_teachers_features_is_not_for_peers(batch: dict[str, Tensor]) -> None:
    how = recipe({"name": "mutual"}, {"name": "early_exits"}, {"name": "kd"}, peers=[{"student": "timm:a"}])
    learner = Learner(network(1), bind_losses(how, has_teacher=True), peers=[network(2)])
    assert list(learner.weights(0.0)) == ["mutual", "early_exits", "kd", "peer1 mutual", "peer1 kd"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (recipe({"name": "kd"}), r"recipe losses\.0: kd needs a teacher"),
        (recipe({"name": "cross_entropy"}, {"name": "hint"}), r"recipe losses\.1: hint needs a teacher"),
        (recipe({"name": "mutual"}), r"recipe losses\.0: mutual needs peers"),
        (recipe({"name": "cross_entropy"}, peers=[{"student": "timm:a"}]), "recipe peers: no loss looks at them"),
        (recipe({"name": "cross_entropy", "at": [["stage1", "stage1"]]}), "cross_entropy looks at no layers"),
        (recipe({"name": "crossentropy"}), "unknown loss crossentropy; did you mean cross_entropy"),
        (recipe({"name": "cross_entropy", "temperature": 2}), "has no parameter temperature"),
    ],
)
def test_losses_that_cannot_be_had_are_refused(how: Recipe, message: str) -> None:
    with pytest.raises(KdcError, match=message):
        bind_losses(how, has_teacher=False)


def test_mixed_images_and_losses_that_need_one_class_do_not_go_together() -> None:
    """Label smoothing and mixed labels are treated right, or refused."""
    how = recipe({"name": "dkd"}, views={"mixup": 0.2})
    with pytest.raises(KdcError, match=r"losses\.0: dkd needs one class an image"):
        bind_losses(how, has_teacher=True)
    bind_losses(recipe({"name": "kd"}, {"name": "cross_entropy"}, views={"mixup": 0.2}), has_teacher=True)


MAPS = Layer("stage2", (8, 4, 4), 8.0), Layer("stage3", (16, 2, 2), 16.0)
OTHERS = Layer("stage2", (12, 8, 8), 8.0), Layer("stage3", (20, 4, 4), 16.0)
POOLED, OTHER_POOLED = (Layer("pooled", (10,)),), (Layer("pooled", (14,)),)
ATTENTION, OTHER_ATTENTION = (Layer("attention1", (2, 5, 5)),), (Layer("attention1", (4, 5, 5)),)
TOKENS = (Layer("stage1", (5, 12)), Layer("stage2", (5, 12)))
SCORES = (Layer("scores1", (2, 5, 5)),)
PROJECTIONS, OTHER_PROJECTIONS = (Layer("projections1", (3, 5, 12)),), (Layer("projections1", (3, 5, 24)),)
VOCABULARY = (Layer("vocabulary", (5, 9)),)


def sides(name: str) -> LayerPairs:
    kind = LOSSES[name].taps
    pairs = {
        "maps": (MAPS, OTHERS), "pooled": (POOLED, OTHER_POOLED), "attention": (ATTENTION, OTHER_ATTENTION),
        "tokens": (TOKENS, TOKENS), "scores": (SCORES, SCORES), "projections": (PROJECTIONS, OTHER_PROJECTIONS),
        "vocabulary": (VOCABULARY, VOCABULARY),
    }  # fmt: skip
    own, other = pairs[str(kind)]
    return LayerPairs(own, other, C, samples=20)


def drawn(layers: tuple[Layer, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, *layer.shape, generator=generator) for layer in layers]


FEATURE_LOSSES = [name for name, row in LOSSES.items() if row.taps is not None]


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_what_a_connector_gives_is_what_its_loss_takes(name: str) -> None:
    """Of every row of the table that looks at features: other channels, other sizes; a finite loss that reaches the
    student's features and all that the connector trains."""
    row, between = LOSSES[name], sides(name)
    torch.manual_seed(0)
    connector = CONNECTORS[row.connector](between)
    own, others = drawn(between.student, 1), drawn(between.teacher, 2)
    for features in own:
        features.requires_grad_(True)
    labels, index = torch.arange(B) % C, torch.arange(B)
    given = connector(own, others, labels, index)
    logits = torch.randn(B, C, requires_grad=True)
    given |= {
        "labels": labels,
        "student_logits": logits,
        "mask": None,
        "token_labels": torch.arange(B * 5).view(B, 5) % 9,
    }
    loss: Tensor = row.function(**{key: given[key] for key in row.needs})
    assert loss.isfinite()
    loss.backward()  # type: ignore[no-untyped-call]
    used = own[:-1] if "exit_logits" in row.needs else own
    assert all(features.grad is not None and features.grad.isfinite().all() for features in used)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in connector.parameters())
    assert all(features.grad is None for features in others)


def test_coarse_maps_are_half_as_long_and_seven_at_most() -> None:
    """56x28 and 112x56 at 7x7, 7x7 and 10x10 at 4x4, each the mean of its cells; and the same where the teacher's side
    comes so coarse already, as it does when it was kept."""
    own = (Layer("stage2", (3, 56, 28), 4.0), Layer("stage5", (5, 7, 7), 32.0))
    others = (Layer("stage2", (4, 112, 56), 2.0), Layer("stage5", (6, 10, 10), 16.0))
    torch.manual_seed(0)
    connector = CONNECTORS["project_coarse"](LayerPairs(own, others, C, 20))
    ours, theirs = drawn(own, 1), drawn(others, 2)
    given = connector(ours, theirs, torch.arange(B) % C, torch.arange(B))
    assert [tuple(one.shape[1:]) for one in given["student_features"]] == [(4, 7, 7), (6, 4, 4)]
    cells = theirs[0].reshape(B, 4, 7, 16, 7, 8).mean((3, 5))
    assert torch.allclose(given["teacher_features"][0], cells, atol=1e-6)
    weight, bias = next(iter(connector.parameters())), list(connector.parameters())[1]
    pooled = ours[0].reshape(B, 3, 7, 8, 7, 4).mean((3, 5))
    expected = torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], pooled) + bias[:, None, None]
    assert torch.allclose(given["student_features"][0], expected, atol=1e-5)
    shapes = [CONNECTORS["project_coarse"].coarse(*pair) for pair in zip(own, others, strict=True)]
    assert shapes == [(4, 7, 7), (6, 4, 4)]
    again = connector(ours, given["teacher_features"], torch.arange(B) % C, torch.arange(B))
    for name in ("student_features", "teacher_features"):
        assert all(torch.equal(a, b) for a, b in zip(given[name], again[name], strict=True))


def test_attention_of_other_token_counts_is_refused() -> None:
    with pytest.raises(KdcError, match="attention matrices of 5 and 17 tokens cannot be compared"):
        CONNECTORS["attention"](LayerPairs(ATTENTION, (Layer("attention1", (2, 17, 17)),), C, 20))


def test_exits_need_a_stage_before_the_last() -> None:
    with pytest.raises(KdcError, match="at least two stages"):
        CONNECTORS["exits"](LayerPairs(MAPS[:1], (), C, 20))


def contrast() -> Contrast:
    torch.manual_seed(0)
    made = CONNECTORS["contrast"](LayerPairs(POOLED, OTHER_POOLED, C, samples=20))
    assert isinstance(made, Contrast)
    return made


def test_the_memory_of_contrasts_holds_what_it_saw_and_takes_negatives_of_other_classes() -> None:
    connector = contrast()
    own, others = drawn(POOLED, 1), drawn(OTHER_POOLED, 2)
    labels, index = torch.tensor([0, 1, 2, 0, 1, -1]), torch.tensor([3, 7, 1, 0, 12, 19])
    connector(own, others, labels, index)
    assert connector.classes[index].tolist() == labels.tolist()
    assert torch.allclose(connector.student_memory.norm(dim=1), torch.ones(20), atol=1e-6)
    given = connector(own, others, labels, index)
    assert given["student_memory"].shape == (20, 128), "all of them, where they are few"
    negatives = given["negatives"]
    for number, (row, label) in enumerate(zip(index.tolist(), labels.tolist(), strict=True)):
        assert not negatives[number, row], "not itself"
        same = [other for other, known in zip(index.tolist(), labels.tolist(), strict=True) if known == label]
        if label >= 0:
            assert not negatives[number, same].any()
        assert negatives[number].sum() == 20 - (len(same) if label >= 0 else 1)


def test_in_evaluation_mode_nothing_is_remembered() -> None:
    connector = contrast().eval()
    before = connector.student_memory.clone()
    connector(drawn(POOLED, 1), drawn(OTHER_POOLED, 2), torch.arange(B) % C, torch.arange(B))
    assert torch.equal(connector.student_memory, before)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"at": [["stage3"]]}, r"^recipe: losses\.0\.at: must be auto, same_stride, or pairs of layers"),
        ({"at": "stage3"}, r"^recipe: losses\.0\.at: must be auto, same_stride, or pairs of layers"),
        ({"at": []}, r"^recipe: losses\.0\.at: must be auto"),
        ({"weight": -1}, r"^recipe: losses\.0\.weight: should be greater than or equal to 0, found -1"),
        ({"weight": "much"}, r"^recipe: losses\.0\.weight: should be a valid number"),
        (
            {"weight": {"from": 0, "to": 1, "shape": "cubic"}},
            r"^recipe: losses\.0\.weight\.shape: should be 'linear' or",
        ),
        ({"weight": {"from": 0}}, r"^recipe: key losses\.0\.weight\.to is missing"),
    ],
)
def test_what_is_wrong_with_a_loss_is_said_in_one_line(term: dict[str, Any], message: str) -> None:
    values = {"schema": 1, "losses": [{"name": "hint", **term}, {"name": "kd"}]}
    with pytest.raises(KdcError, match=message):
        parse(Recipe, values, "recipe")
    parse(Recipe, {"schema": 1, "losses": [{"name": "hint", "at": [["stage2", "stage3"]], "weight": 2}]}, "recipe")


@pytest.mark.parametrize("losses", [["hint"], ["early_exits"], ["hint", "early_exits", "rkd_angle"]])
def test_losses_that_never_reach_the_classifier_are_refused(losses: list[str]) -> None:
    with pytest.raises(KdcError, match="teach the student's classifier nothing"):
        bind_losses(recipe(*({"name": name} for name in losses)), has_teacher=True)


def test_a_batch_without_labels_still_reaches_all_that_is_trained(batch: dict[str, Tensor]) -> None:
    """Else several processes would wait for one another's gradients."""

    class Staged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, C)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.conv(images).mean((2, 3)))
            return logits

    def taps(network: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        maps = network.conv(*inputs)
        return network.head(maps.mean((2, 3))), {"stage2": maps, "stage3": maps}

    how = recipe({"name": "early_exits"}, {"name": "cross_entropy"})
    layers = {"early_exits": LayerPairs((MAPS[0], Layer("stage3", (8, 4, 4), 8.0)), (), C, 20)}
    learner = Learner(BatchModel(Staged(), "student", taps), bind_losses(how, has_teacher=False), layers=layers)
    batch |= {"student": torch.randn(B, 3, 4, 4), "labels": torch.full((B,), -1), "labelled": torch.arange(0)}
    total = torch.stack(list(learner(batch, None).values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert total == 0
    assert all(parameter.grad is not None for parameter in learner.parameters())


def test_logits_of_every_position_are_refused(batch: dict[str, Tensor]) -> None:
    """A task must flatten them: over positions that only fill up, a mean would mean nothing."""

    class Tagger(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features[:, None, :C].requires_grad_()

    learner = Learner(
        BatchModel(Tagger(), "student"), bind_losses(recipe({"name": "cross_entropy"}), has_teacher=False)
    )
    with pytest.raises(KdcError, match="losses take rows"):
        learner(batch, None)
