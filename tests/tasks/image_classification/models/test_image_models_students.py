"""Students and trainees: where their weights start, how small their new classifier is, at which size they run."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model
from compressor.models.weights import head_parameters, heads, small_head
from compressor.tasks.image_classification.models.students import create_student, create_trainee
from compressor.tasks.image_classification.preprocessing import of_images

TWO, THREE = ["cat", "dog"], ["cat", "dog", "sea lion"]


def first_loss(model: LoadedModel, classes: int) -> float:
    height, width = of_images(model.preprocess).input_size
    images = torch.randn(32, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return F.cross_entropy(model.network.train()(images), torch.arange(32) % classes).item()


@pytest.mark.parametrize("classes", [2, 10])
def test_a_new_student_starts_by_guessing(classes: int) -> None:
    """timm alone draws the classifier from U(±1/√classes): with two classes the loss starts far above ln 2."""
    names = [str(label) for label in range(classes)]
    torch.manual_seed(0)
    model = create_student("timm:mobilenetv3_small_050", "random", names, 32, None)
    assert first_loss(model, classes) == pytest.approx(math.log(classes), rel=0.1)
    assert model.class_names == tuple((name,) for name in names)
    assert model.weights.licence == "none (trained from scratch)"


def test_the_same_seed_draws_the_same_student() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(create_student("timm:mobilenetv3_small_050", "random", TWO, 32, None).weights.sha256)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "resnet10t", "test_byobnet"])
def test_students_of_many_kinds_at_64_pixels_have_a_small_head(name: str) -> None:
    torch.manual_seed(0)
    model = create_student(f"timm:{name}", "random", THREE, 64, None)
    assert of_images(model.preprocess).input_size == (64, 64)
    found = heads(model.network, 3)
    assert found
    assert all(layer.weight.std().item() < 0.013 for layer in found)
    assert head_parameters(model.network, 3)
    assert first_loss(model, 3) == pytest.approx(math.log(3), rel=0.15)


def test_crop_pct_overrides_the_models_own() -> None:
    whole = create_student("timm:mobilenetv3_small_050", "random", TWO, 32, 1.0)
    assert of_images(whole.preprocess).resize == (32, 32)
    own = create_student("timm:mobilenetv3_small_050", "random", TWO, 32, None)
    assert of_images(own.preprocess).resize == (36, 36)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_checkpoint_with_other_classes_keeps_its_backbone_and_gets_a_small_head(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    file = tmp_path / f"own.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    model = create_student("timm:test_resnet", str(file), THREE, 32, None)
    loaded = model.network.state_dict()
    differing = {
        name for name in state if state[name].shape != loaded[name].shape or not torch.equal(state[name], loaded[name])
    }
    assert differing == {"fc.weight", "fc.bias"}
    assert loaded["fc.weight"].std() < 0.013
    assert (model.weights.source, model.weights.licence) == (f"test_resnet@own.{suffix}", "unknown")


def test_a_checkpoint_with_two_heads_of_other_classes(tmp_path: Path) -> None:
    torch.save(timm.create_model("levit_128s", num_classes=7, img_size=64).state_dict(), tmp_path / "own.pth")
    model = create_student("timm:levit_128s", str(tmp_path / "own.pth"), THREE, 64, None)
    with torch.no_grad():
        assert model.network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert [tuple(layer.weight.shape) for layer in heads(model.network, 3)] == [(3, 384), (3, 384)]
    assert all(layer.weight.std() < 0.013 for layer in heads(model.network, 3))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "own.pth")
    with pytest.raises(KdcError, match=r"--student-init .*own.pth does not fit resnet10t: "):
        create_student("timm:resnet10t", str(tmp_path / "own.pth"), TWO, 32, None)
    with pytest.raises(KdcError, match=r"--student-init .*none.pth does not exist") as caught:
        create_student("timm:resnet10t", str(tmp_path / "none.pth"), TWO, 32, None)
    assert caught.value.hint == "pretrained, random, or the path of a checkpoint"


@pytest.mark.parametrize("reference", ["resnet18", "hf:somewhere/model", "timm:", "timm:resnet18@x.pth", "run:dir"])
def test_students_are_timm_models(reference: str) -> None:
    with pytest.raises(KdcError, match=r"is not timm:NAME or timm:local-dir:PATH"):
        create_student(reference, "random", TWO, 32, None)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("timm:resnet1O", "timm has no model resnet1O; did you mean resnet"),
        ("timm:resnet18.none", "timm:resnet18.none: "),
    ],
)
def test_an_unknown_student_is_refused(reference: str, message: str) -> None:
    with pytest.raises(KdcError) as caught:
        create_student(reference, "random", TWO, 32, None)
    assert message in caught.value.message


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(KdcError, match="test_vit does not take images of 8×8: ") as caught:
        create_student("timm:test_vit", "random", TWO, 8, None)
    assert "--input-size" in caught.value.hint


def test_a_pretrained_student_from_a_folder_keeps_all_but_its_head(timm_folder: Callable[..., Path]) -> None:
    folder = timm_folder("test_resnet", 7)
    before = load_model(f"timm:local-dir:{folder}").network.state_dict()
    student = create_student(f"timm:local-dir:{folder}", "pretrained", THREE, 32, None)
    after = student.network.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    random = create_student(f"timm:local-dir:{folder}", "random", THREE, 32, None).network.state_dict()
    assert not torch.equal(random["conv1.0.weight"], before["conv1.0.weight"])


def test_a_folder_whose_architecture_is_changed_by_arguments_cannot_be_trained(
    timm_folder: Callable[..., Path],
) -> None:
    """Its run would be loaded by the architecture's name alone."""
    folder = timm_folder("test_resnet", 3, model_args={"act_layer": "silu"})
    model = load_model(f"timm:local-dir:{folder}")
    with pytest.raises(KdcError, match="is not the test_resnet that timm builds by that name"):
        create_trainee(model, TWO, None)


def test_a_head_that_timm_builds_otherwise_when_reset(timm_folder: Callable[..., Path]) -> None:
    """RepViT's has two parts, of which reset_classifier leaves one: the run could not be loaded."""
    model = load_model(f"timm:local-dir:{timm_folder('repvit_m0_9', 3)}")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    after = create_trainee(model, TWO, None).network.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"head.{part}.l.{kind}" for part in ("head", "head_dist") for kind in ("weight", "bias")}


def test_pretrained_weights_that_timm_builds_otherwise_cannot_be_trained(timm_folder: Callable[..., Path]) -> None:
    """timm gives fbnetc_100 another epsilon for pretrained weights; a run would come back with the usual one."""
    model = load_model(f"timm:local-dir:{timm_folder('fbnetc_100', 3)}")
    with pytest.raises(KdcError, match="is not the fbnetc_100 that timm builds by that name"):
        create_trainee(model, TWO, None)
    assert create_student("timm:fbnetc_100", "random", TWO, 32, None).class_names == (("cat",), ("dog",))


@pytest.mark.parametrize("classes", [TWO, THREE, ["a", "b", "c", "d", "e"]])
def test_a_hugging_face_trainee_keeps_all_but_its_head(vit_folder: Callable[..., Path], classes: list[str]) -> None:
    model = load_model(f"hf:{vit_folder(THREE)}")
    torch.manual_seed(0)
    trainee = create_trainee(model, classes, None)
    before, after = model.network.state_dict(), trainee.network.state_dict()
    changed = {
        name for name in before if before[name].shape != after[name].shape or not torch.equal(before[name], after[name])
    }
    assert changed - {"model.classifier.bias"} == {"model.classifier.weight"}
    assert len(after["model.classifier.bias"]) == len(classes)
    assert after["model.classifier.weight"].std() < 0.013
    assert trainee.class_names == tuple((name,) for name in classes)


def test_a_trainee_of_a_timm_wrapper(lite0: Path) -> None:
    trainee = create_trainee(load_model(f"hf:{lite0}", 64), TWO, 1.0)
    assert of_images(trainee.preprocess).resize == (64, 64)
    assert first_loss(trainee, 2) == pytest.approx(math.log(2), rel=0.2)


class ConvolutionalHead(nn.Module):
    """As in timm's BiT models: the classifier is a 1×1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(8, 3, 1)
        self.head = nn.Sequential(nn.Conv2d(4, 8, 1), self.last)

    def get_classifier(self) -> nn.Module:
        return self.head


def test_a_classifier_that_is_a_convolution_is_found_and_made_small() -> None:
    network = ConvolutionalHead()
    small_head(network, 3)
    assert heads(network, 3) == [network.last]
    assert network.last.weight.std() < 0.02
    assert network.stem.weight.std() > 0.05


def test_the_classifier_of_a_network_that_has_none_is_not_guessed() -> None:
    with pytest.raises(KdcError, match="the network's classifier cannot be found") as caught:
        head_parameters(nn.Linear(4, 5), 3)
    assert "head_epochs=0" in caught.value.hint
