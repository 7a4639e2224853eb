"""Several teachers that answer as one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.errors import KdcError
from compressor.models import LoadedModel
from compressor.models.ensemble import combined, resized_members
from compressor.schema.recipe import Ensemble
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.models.students import create_student
from compressor.tasks.image_classification.preprocessing import of_images


def member(seed: int, name: str = "test_resnet", size: int = 32) -> LoadedModel:
    """Random, and sure enough of its answers that their mean differs from them."""
    torch.manual_seed(seed)
    made = create_student(f"timm:{name}", "random", ("a", "b", "c"), size, None)
    with torch.no_grad():
        for parameter in made.network.get_classifier().parameters():  # type: ignore[operator]
            torch.nn.init.normal_(parameter, std=1.0)
    sha256 = made.weights.model_copy(update={"sha256": f"{seed}", "source": f"timm:{name}{seed}"})
    return replace(made, network=made.network.eval(), weights=sha256)


@pytest.fixture
def images() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), np.uint8)
    return [Image.fromarray(pixels).resize((64, 56)) for pixels in noise]


def test_the_mean_of_probabilities(images: list[Image.Image]) -> None:
    one, other = member(1), member(2)
    answers = logits_of(combined([one, other], Ensemble()), images)
    expected = (logits_of(one, images).softmax(-1) + logits_of(other, images).softmax(-1)) / 2
    assert torch.allclose(answers.exp(), expected, atol=1e-6)


def test_weights_count_in_their_order(images: list[Image.Image]) -> None:
    one, other = member(1), member(2)
    answers = logits_of(combined([one, other], Ensemble(weights=(3.0, 1.0))), images)
    expected = 0.75 * logits_of(one, images).softmax(-1) + 0.25 * logits_of(other, images).softmax(-1)
    assert torch.allclose(answers.exp(), expected, atol=1e-6)


def test_the_mean_of_logits_is_taken_where_it_is_asked_for(images: list[Image.Image]) -> None:
    one, other = member(1), member(2)
    answers = logits_of(combined([one, other], Ensemble(of="logits")), images)
    expected = ((logits_of(one, images) + logits_of(other, images)) / 2).softmax(-1)
    assert torch.allclose(answers.softmax(-1), expected, atol=1e-6)


def test_each_member_normalises_its_own_way(images: list[Image.Image]) -> None:
    """Pitfalls, "Another model's preprocessing": the same network under another normalization, twice, is the same
    network."""
    one = member(1)
    how = of_images(one.preprocess).model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7)})

    class Undone(torch.nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (how.mean, how.std))
            own = [
                torch.tensor(values).reshape(3, 1, 1)
                for values in (of_images(one.preprocess).mean, of_images(one.preprocess).std)
            ]
            logits: torch.Tensor = one.network((given * std + mean - own[0]) / own[1])
            return logits

    other = replace(one, network=Undone(), preprocess=how)
    both = combined([one, other], Ensemble())
    assert torch.allclose(logits_of(both, images).exp(), logits_of(one, images).softmax(-1), atol=1e-5)
    assert resized_members([one, other], both) == []


def test_a_member_of_another_size_gets_the_images_at_its_own(images: list[Image.Image]) -> None:
    small, large = member(1, "test_vit", 16), member(2, size=64)
    both = combined([small, large], Ensemble())
    assert both.preprocess == large.preprocess
    assert logits_of(both, images).shape == (4, 3)
    (line,) = resized_members([small, large], both)
    assert "timm:test_vit1" in line
    assert "16 px" in line


def test_its_identity_is_that_of_all_members_and_their_weights() -> None:
    one, other = member(1), member(2)
    identities = {
        combined(models, how).weights.sha256
        for models, how in [
            ([one, other], Ensemble()), ([other, one], Ensemble()), ([one, other], Ensemble(of="logits")),
            ([one, other], Ensemble(weights=(1.0, 2.0))), ([one, member(3)], Ensemble()),
        ]
    }  # fmt: skip
    assert len(identities) == 5
    weights = combined([one, other], Ensemble()).weights
    assert weights.parameters == one.weights.parameters + other.weights.parameters
    assert weights.source == "timm:test_resnet1 + timm:test_resnet2"


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(KdcError, match=r"ensemble\.weights has"):
        combined([member(1), member(2)], Ensemble(weights=weights))


def test_one_teacher_is_itself() -> None:
    alone = member(1)
    assert combined([alone], Ensemble()) is alone
