"""Networks changed for speed or cut shorter: what is changed, whose weights they have, that a run brings them back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from compressor.errors import KdcError
from compressor.models import load_model, load_run
from compressor.models.timm_weights import architecture_of, base_of
from compressor.tasks.image_classification.models.students import create_student
from compressor.tasks.image_classification.models.surgery import CURVED, possible
from tests.kit import TRAINING, Ended

NAMES = ("a", "b", "c")
WITH_SE = "mobilenetv3_small_050"


def made(name: str, init: str = "random") -> tuple[nn.Module, tuple[str, ...], str]:
    torch.manual_seed(0)
    student = create_student(f"timm:{name}", init, NAMES, 32, None)
    return student.network, student.notes, student.weights.architecture


def kinds(network: nn.Module) -> set[str]:
    return {type(module).__name__ for module in network.modules()}


def test_a_name_and_its_parts() -> None:
    assert base_of("lcnet_050.ra2_in1k+relu+no_se") == "lcnet_050.ra2_in1k"
    assert architecture_of("lcnet_050.ra2_in1k+relu+no_se") == "lcnet_050+relu+no_se"
    assert architecture_of("lcnet_050.ra2_in1k") == "lcnet_050"


def test_activations_become_relu_and_nothing_else_changes() -> None:
    plain, _, _ = made(WITH_SE)
    changed, notes, architecture = made(f"{WITH_SE}+relu")
    assert architecture == f"{WITH_SE}+relu"
    assert kinds(plain) & CURVED
    assert not kinds(changed) & CURVED
    before, after = plain.state_dict(), changed.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    replaced = sum(type(module).__name__ in CURVED for module in plain.modules())
    assert notes == (f"{WITH_SE}+relu: hard-swish and SiLU became ReLU in {replaced} places",)
    images = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(plain.eval()(images), changed.eval()(images))


def test_squeeze_excite_is_taken_out() -> None:
    plain, _, _ = made(WITH_SE)
    changed, notes, _ = made(f"{WITH_SE}+relu+no_se")
    gone = {key for key in plain.state_dict() if ".se." in key}
    assert gone
    assert changed.state_dict().keys() == plain.state_dict().keys() - gone
    assert notes[1] == f"{WITH_SE}+relu+no_se: squeeze-excite was taken out in 9 places"


def test_what_can_be_changed() -> None:
    assert possible(WITH_SE) == (f"{WITH_SE}+relu", f"{WITH_SE}+no_se", f"{WITH_SE}+relu+no_se")
    assert possible("mnasnet_small") == ("mnasnet_small+no_se",)
    assert possible("resnet18") == ()


def test_layers_of_a_transformer_are_left_out_with_their_weights(tmp_path: Path) -> None:
    """As DistilBERT begins: every other layer of its teacher."""
    torch.manual_seed(1)
    whole = timm.create_model("test_vit", num_classes=7, img_size=32)
    save_file(whole.state_dict(), tmp_path / "teacher.safetensors")
    cut, notes, architecture = made("test_vit+depth3", str(tmp_path / "teacher.safetensors"))
    assert architecture == "test_vit+depth3"
    assert "test_vit+depth3: 3 of 6 blocks are kept: 1, 3, 6" in notes
    assert "teacher.safetensors: the classifier is new" in notes
    assert isinstance(cut.blocks, nn.Sequential)
    assert len(cut.blocks) == 3
    for mine, theirs in zip(cut.blocks, (whole.blocks[0], whole.blocks[2], whole.blocks[5]), strict=True):
        for key, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value)
    assert cut(torch.rand(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("trained", "named", "said"),
    [
        ("+relu", "", True),
        ("+relu", "+relu", False),
        ("", "+relu", False),  # what is changed is said as it is
        ("", "", False),
    ],
)
def test_weights_of_a_changed_network_in_one_that_is_not(trained: str, named: str, said: bool, tmp_path: Path) -> None:
    """Their names fit. Of a run, the student.json beside its weights says whose they are."""
    network, _, architecture = made(f"{WITH_SE}{trained}")
    save_file(network.state_dict(), tmp_path / "student.safetensors")
    (tmp_path / "student.json").write_text(json.dumps({"architecture": architecture}))
    line = f"student.safetensors: these are weights of {WITH_SE}{trained}, and are loaded into {WITH_SE}{named}"
    weights = tmp_path / "student.safetensors"
    assert (line in made(f"{WITH_SE}{named}", str(weights))[1]) == said
    teacher = load_model(f"timm:{WITH_SE}{named}@{weights}", 32)
    assert (line in teacher.notes) == said
    # What is changed is said of a teacher, too.
    assert any("became ReLU" in note for note in teacher.notes) == ("+relu" in named)
    (tmp_path / "student.json").write_text("{")
    assert line not in made(f"{WITH_SE}{named}", str(weights))[1]


@pytest.mark.parametrize("whole", [True, False])
def test_weights_of_the_whole_or_of_the_changed_network(whole: bool, tmp_path: Path) -> None:
    name = f"{WITH_SE}+no_se"
    source, _, _ = made(WITH_SE if whole else name)
    with torch.no_grad():
        for value in source.parameters():
            value.mul_(0.5)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    changed, _, _ = made(name, str(tmp_path / "weights.safetensors"))
    for key, value in changed.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lcnet_050+rlu", r"\+rlu is nothing that kdc changes; did you mean relu"),
        ("lcnet_050+", r"\+ is nothing that kdc changes"),
        ("lcnet_050+relu+relu", "names the same change twice"),
        ("resnet18+relu", r"resnet18 has nothing that \+relu would change"),
        ("lcnet_050+depth3", "lcnet_050 is no plain transformer"),
        ("test_vit+depth6", "test_vit has 6 blocks"),
        ("test_vit+depth1", "test_vit has 6 blocks"),
        ("lcnt_050+relu", "did you mean lcnet_050"),
    ],
)
def test_what_is_refused(name: str, message: str) -> None:
    with pytest.raises(KdcError, match=message):
        made(name)


@pytest.mark.slow
def test_a_run_brings_it_back_and_is_exported(
    kdc: Callable[..., Ended], teacher_run: Path, colours: Path, here: Path, tmp_path: Path
) -> None:
    student = "timm:mobilenetv3_small_050+relu+no_se"
    out = tmp_path / "run"
    ended = kdc(
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student", student,
        "--student-init", "random", *TRAINING, "--epochs", 1, "--out", out,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "hard-swish and SiLU became ReLU in 19 places" in ended.err
    model, record = load_run(out)
    assert record.architecture == "mobilenetv3_small_050+relu+no_se"
    assert not kinds(model.network) & CURVED
    exported = kdc(
        "export", out, "--profile", here, "--target", "onnxruntime-fp32", "--out", tmp_path / "bundle",
        "--rounds", 11, "--no-throughput",
    )  # fmt: skip
    assert exported.code in (0, 1, 3), exported.err
    assert "mobilenetv3_small_050+relu+no_se" in (tmp_path / "bundle" / "report.md").read_text()
