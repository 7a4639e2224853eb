"""The same ImageNet weights through timm and through transformers, on real photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.distill import distill
from compressor.distill.run_folder import Destination
from compressor.models import LoadedModel, load_model, map_classes, with_classes
from compressor.models.stages import layers_of
from compressor.progress import Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.preprocessing import of_images


def answers(model: LoadedModel, photos: dict[str, Image.Image]) -> dict[str, str]:
    best = logits_of(model, list(photos.values())).argmax(-1)
    assert model.class_names is not None
    return {photo: model.class_names[index][0] for photo, index in zip(photos, best.tolist(), strict=True)}


def test_lite0_answers_the_same_as_a_timm_and_as_a_hugging_face_model(
    lite0: Path, lite0_model: LoadedModel, photos: dict[str, Image.Image]
) -> None:
    """Pitfalls, "Another model's preprocessing": each carries its own preprocessing, and here it must come to the
    same."""
    other = load_model(f"hf:{lite0}")
    ours, theirs = logits_of(lite0_model, list(photos.values())), logits_of(other, list(photos.values()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert other.preprocess == lite0_model.preprocess
    assert other.class_names == lite0_model.class_names
    assert (other.weights.architecture, other.weights.licence) == ("tf_efficientnet_lite0", "apache-2.0")


def test_lite0_sees_what_is_on_the_photographs(lite0_model: LoadedModel, photos: dict[str, Image.Image]) -> None:
    found = answers(lite0_model, photos)
    assert found.pop("chelsea") in ("tabby", "tiger cat", "Egyptian cat")
    assert found == {"coffee": "espresso", "rocket": "missile", "china": "palace"}


def test_kdc_preprocesses_as_timm_does(lite0_model: LoadedModel, photos: dict[str, Image.Image]) -> None:
    """Pitfalls, "Resolution, interpolation, crop": resolution, interpolation and crop are the model's own."""
    from timm.data import create_transform, resolve_model_data_config

    transform = create_transform(**resolve_model_data_config(lite0_model.network), is_training=False)
    with torch.no_grad():
        theirs = lite0_model.network(torch.stack([transform(photo) for photo in photos.values()]))
    torch.testing.assert_close(logits_of(lite0_model, list(photos.values())), theirs, rtol=0, atol=1e-4)


def test_lite0_restricted_to_classes_by_name(lite0_model: LoadedModel, photos: dict[str, Image.Image]) -> None:
    """Pitfalls, "Classes by position": another order, another spelling, the same columns."""
    names = ["Missile", "n07920052", "egyptian_cat", "palace"]  # n07920052 is espresso
    chosen = with_classes(lite0_model, map_classes(lite0_model, names), names)
    assert answers(chosen, photos) == {
        "chelsea": "egyptian_cat", "coffee": "n07920052", "rocket": "Missile", "china": "palace"
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["timm:local-dir:", "hf:"])
def test_lite0_at_another_input_size(lite0: Path, scheme: str, photos: dict[str, Image.Image]) -> None:
    model = load_model(f"{scheme}{lite0}", 160)
    assert (of_images(model.preprocess).input_size, of_images(model.preprocess).resize) == ((160, 160), (182, 182))
    assert answers(model, photos)["coffee"] == "espresso"


@pytest.mark.slow
def test_a_thousand_class_teacher_is_right_on_a_named_subset_without_being_trained(
    lite0: Path, photos: dict[str, Image.Image], tmp_path: Path
) -> None:
    """Pitfalls, "A random head" and "Classes by position": crops of photographs in folders that are named otherwise,
    and ordered otherwise, than ImageNet."""
    of = {"chelsea": "egyptian_cat", "coffee": "n07920052", "rocket": "Missile", "china": "palace"}
    chance = np.random.default_rng(0)
    for photo, name in of.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        image = photos[photo].convert("RGB")
        side = int(0.85 * min(image.size))
        for number in range(60):
            x, y = (int(chance.integers(0, size - side + 1)) for size in image.size)
            crop = image.crop((x, y, x + side, y + side)).resize((240, 240), Image.Resampling.BICUBIC)
            crop.save(tmp_path / "data" / name / f"{number}.png")
    how = {"schema": 1, "epochs": 1, "batch_size": 16, "losses": [{"name": "kd"}, {"name": "cross_entropy"}]}
    request = Request(
        task="image-classification",
        command="distill", teacher=f"timm:local-dir:{lite0}", student="timm:test_efficientnet", init="random",
        data=f"folder:{tmp_path / 'data'}", skip_bad=False, input_size=64, recipe=Recipe.model_validate(how),
    )  # fmt: skip
    student = distill(request, Destination(tmp_path / "run"), progress=Silent())
    assert student.class_names == ("Missile", "egyptian_cat", "n07920052", "palace")
    found = student.teacher_validation
    assert found is not None
    assert found.n >= 16
    assert accuracy_in(found).accuracy >= 0.9, found
    assert student.teacher is not None
    assert student.teacher.sha256 == load_model(f"timm:local-dir:{lite0}").weights.sha256, "not trained"


def test_a_timm_network_has_the_same_stages_through_transformers(lite0: Path, lite0_model: LoadedModel) -> None:
    assert layers_of(load_model(f"hf:{lite0}"), "maps") == layers_of(lite0_model, "maps")
    assert [layer.stride for layer in layers_of(lite0_model, "maps")] == [4, 8, 16, 32]
