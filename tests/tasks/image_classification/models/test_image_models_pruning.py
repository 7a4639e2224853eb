"""Channels pruned by structure: which go, that the rest answers as it should, and is built without the pruner."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from compressor.errors import EXIT_MISSING, KdcError
from compressor.install import install_line
from compressor.models import LoadedModel, load_model, load_run
from compressor.models.timm_weights import architecture_of, base_of
from compressor.tasks.image_classification import candidates
from compressor.tasks.image_classification.models import pruning
from compressor.tasks.image_classification.models.channels import read_channels, save_channels
from compressor.tasks.image_classification.models.lookup import require_student
from compressor.tasks.image_classification.models.merging import merged
from compressor.tasks.image_classification.models.narrowing import is_narrower, shapes_of, widths
from compressor.tasks.image_classification.models.pruning import kept_of, prune
from compressor.tasks.image_classification.models.students import create_student, create_trainee
from compressor.tasks.image_classification.models.surgery import width_of
from compressor.tasks.image_classification.models.timm_models import create
from tests.forked import python
from tests.kit import TRAINING, Ended

Kdc = Callable[..., Ended]
NAMES = ("a", "b", "c")
SIDE = 32


@pytest.fixture
def pruner() -> None:
    pytest.importorskip("torch_pruning", reason=install_line("torch-pruning"))


@pytest.fixture
def without_pruner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)


needs_pruner = pytest.mark.usefixtures("pruner")


def made(name: str, init: str = "random") -> LoadedModel:
    torch.manual_seed(0)
    return create_student(f"timm:{name}", init, NAMES, SIDE, None)


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics and branches that are not as they are drawn."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5 if name.endswith(("weight", "var")) else -0.2, 1.5, generator=generator)
    return network.eval()


def answers(network: nn.Module, batch: int = 2) -> Tensor:
    images = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits: Tensor = network.eval()(images)
    return logits


def macs(network: nn.Module) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        answers(network, 1)
    return counter.get_total_flops() / 2


def test_a_name_says_what_share_is_kept() -> None:
    assert base_of("resnet18.a1_in1k+relu+width0.5") == "resnet18.a1_in1k"
    assert architecture_of("resnet18.a1_in1k+width0.25") == "resnet18+width0.25"
    assert [width_of(name) for name in ("lcnet_050", "lcnet_050+relu", "lcnet_050+relu+width0.75")] == [
        None, None, "width0.75",
    ]  # fmt: skip


@pytest.mark.parametrize("operation", ["width5", "width1.0", "width0", "width0.0", "width0.50", "width0.125"])
def test_other_shares_are_refused(operation: str) -> None:
    with pytest.raises(KdcError, match="is nothing that kdc changes") as caught:
        require_student(f"timm:test_resnet+{operation}", "random", SIDE)
    assert "+width0.5: half of the channels are kept" in caught.value.hint


def test_two_shares_are_refused() -> None:
    with pytest.raises(KdcError, match="names the same change twice"):
        require_student("timm:test_resnet+width0.5+width0.25", "random", SIDE)


@pytest.mark.parametrize(
    ("channels", "share", "groups", "kept"),
    [
        (64, 0.5, 1, 32),
        (40, 0.5, 1, 24),  # 20 lies between 16 and 24
        (36, 0.5, 1, 16),
        (16, 0.25, 1, 8),
        (16, 0.1, 1, 8),  # never fewer than eight …
        (6, 0.5, 1, 6),  # … but where there are
        (64, 0.99, 1, 64),
        (4, 0.5, 32, 2),  # 32 groups of 2: a multiple of eight together
        (8, 0.5, 3, 8),  # 3 groups of 4 would be 12
        (24, 0.5, 2, 12),
    ],
)
def test_how_many_channels_are_kept(channels: int, share: float, groups: int, kept: int) -> None:
    assert kept_of(channels, share, groups) == kept


@pytest.mark.usefixtures("without_pruner")
def test_without_torch_pruning_it_is_said_what_to_install() -> None:
    for ask in (
        lambda: require_student("timm:test_resnet+width0.5", "random", SIDE),
        lambda: made("test_resnet+width0.5"),
    ):
        with pytest.raises(KdcError, match=r"\+width0.5 needs torch_pruning, which is not installed") as caught:
            ask()
        assert (caught.value.exit_code, caught.value.hint) == (EXIT_MISSING, install_line("torch-pruning"))


class Tiny(nn.Module):
    """Two convolutions, whose channels stand one by one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, bias=False)
        self.second = nn.Conv2d(16, 8, 1, bias=False)
        self.head = nn.Linear(8, 3)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(images).relu()).relu().mean((2, 3))
        logits: Tensor = self.head(features)
        return logits


def tiny() -> Tiny:
    """Channel k of the first layer has the norm k + 1 in both layers together, but for channel 0: it is the smallest in
    the first layer and by far the largest in what takes it."""
    torch.manual_seed(0)
    network = Tiny()
    size = torch.arange(1.0, 17)
    with torch.no_grad():
        network.first.weight.div_(network.first.weight.flatten(1).norm(dim=1)[:, None, None, None])
        network.second.weight.div_(network.second.weight.flatten(2).norm(dim=0)[None, :, None])
        network.first.weight.mul_(size[:, None, None, None])
        network.second.weight.mul_(size[None, :, None, None])
        network.second.weight[:, 0].mul_(100)
    return network


@needs_pruner
def test_the_smallest_channels_go_and_the_rest_answers_as_by_hand() -> None:
    whole, network = tiny(), tiny()
    said = prune(network, 0.5, (SIDE, SIDE), "tiny")
    left = torch.tensor([0, 9, 10, 11, 12, 13, 14, 15])
    assert torch.equal(network.first.weight, whole.first.weight[left])
    assert torch.equal(network.second.weight, whole.second.weight[:, left])
    assert torch.equal(network.head.weight, whole.head.weight)
    assert (network.first.in_channels, network.first.out_channels) == (3, 8)
    assert (network.second.in_channels, network.second.out_channels, network.head.in_features) == (8, 8, 8)
    parameters = (16 * 27 + 16 * 8 + 27, 8 * 27 + 8 * 8 + 27)
    assert said == (
        "16 of 24 channels are kept, those of the largest weights (L2 over all that depends on one), "
        f"and {parameters[1]} of {parameters[0]} parameters"
    )
    images = torch.rand(2, 3, SIDE, SIDE)
    heard = functional.conv2d(images, whole.first.weight).relu()
    heard[:, 1:9] = 0
    by_hand = whole.head(functional.conv2d(heard, whole.second.weight).relu().mean((2, 3)))
    torch.testing.assert_close(network(images), by_hand)
    assert not torch.allclose(network(images), whole(images), rtol=1e-3)


@needs_pruner
def test_nothing_that_is_wide_enough() -> None:
    network = tiny()
    assert prune(network, 0.9, (SIDE, SIDE), "tiny") == ""  # 14 of 16 are rounded up
    assert shapes_of(network.state_dict()) == shapes_of(tiny().state_dict())


class Shuffled(Tiny):
    """torch-pruning takes a shuffle of channels for an operation on each."""

    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images).relu()
        values = values.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        logits: Tensor = self.head(self.second(values).relu().mean((2, 3)))
        return logits


class Fixed(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(images).relu()[:, :16].reshape(-1, 16, 30, 30)).mean((2, 3)))
        return logits


class Untraceable(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError("of my own")


@needs_pruner
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Shuffled, "torch-pruning takes other channels out of one layer than out of the next"),
        (Fixed, "shape '.*' is invalid"),
        (Untraceable, "of my own"),
    ],
)
def test_a_network_that_cannot_be_pruned_is_refused_as_it_was(kind: type[Tiny], why: str) -> None:
    torch.manual_seed(0)
    network = kind()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(KdcError, match=f"timm:mine: its channels cannot be pruned: {why}") as caught:
        prune(network, 0.5, (SIDE, SIDE), "mine")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@needs_pruner
def test_a_transformer_is_refused() -> None:
    with pytest.raises(KdcError, match=r"timm:test_vit\+width0.5: its channels cannot be pruned: "):
        made("test_vit+width0.5")


FAMILIES = ("test_resnet", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002", "test_convnext")


@needs_pruner
@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_and_macs_fall(name: str) -> None:
    whole, half = made(name), made(f"{name}+width0.5")
    before, after = widths(whole.network), widths(half.network)
    assert before.keys() == after.keys()
    assert all(after[path] <= n and (after[path] % 8 == 0 or after[path] == n) for path, n in before.items())
    parameters = sum(value.numel() for value in half.network.parameters())
    assert half.weights.parameters == parameters
    assert 0.2 < parameters / whole.weights.parameters < 0.45
    assert 0.2 < macs(half.network) / macs(whole.network) < 0.65
    assert answers(half.network).shape == (2, 3)
    assert half.weights.architecture == f"{name}+width0.5"
    (note,) = half.notes
    assert note.startswith(f"{name}+width0.5: {sum(after.values()):,} of {sum(before.values()):,} channels are kept")


@needs_pruner
def test_of_a_plain_network_every_width_is_the_share() -> None:
    before, after = (widths(made(name).network) for name in ("resnet18", "resnet18+width0.25"))
    assert after == {path: n / 4 for path, n in before.items()}


@needs_pruner
@pytest.mark.parametrize("name", [*FAMILIES, "test_efficientnet+relu+no_se"])
def test_built_again_it_is_the_same_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the run's channels.json and weights, where torch-pruning is not installed."""
    student = made(f"{name}+width0.5")
    network, architecture = lively(student.network), student.weights.architecture
    save_channels(network, tmp_path)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    again = create(architecture, 3, SIDE, like=read_channels(architecture, tmp_path))
    assert shapes_of(again.state_dict()) == shapes_of(network.state_dict())
    again.load_state_dict(network.state_dict())
    assert torch.equal(answers(again), answers(network))
    save_channels(again, tmp_path / "..")
    assert (tmp_path / ".." / "channels.json").read_bytes() == (tmp_path / "channels.json").read_bytes()
    (tmp_path / ".." / "channels.json").unlink()


@needs_pruner
def test_a_record_of_another_network_is_refused(tmp_path: Path) -> None:
    assert read_channels("test_resnet+relu", tmp_path) is None
    with pytest.raises(KdcError, match=r"channels\.json does not exist"):
        read_channels("test_resnet+width0.5", tmp_path)
    save_channels(made("test_resnet+width0.5").network, tmp_path)
    with pytest.raises(KdcError, match=r"is of test_resnet\+width0.5, and the run of test_resnet\+width0.75"):
        read_channels("test_resnet+width0.75", tmp_path)
    record = json.loads((tmp_path / "channels.json").read_text())
    first = next(name for name, shape in record["shapes"].items() if len(shape) == 4)
    record["shapes"][first][0] *= 10**6  # of a hostile file nothing large is made
    (tmp_path / "channels.json").write_text(json.dumps(record))
    with pytest.raises(KdcError, match=f"{first} of shape .* is no part of it"):
        create("test_resnet+width0.5", 3, SIDE, like=read_channels("test_resnet+width0.5", tmp_path))


@needs_pruner
def test_which_channels_are_kept_depends_on_the_weights_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    teacher = lively(timm.create_model("test_resnet", num_classes=3))
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    first, second = (made("test_resnet+width0.5", str(tmp_path / "teacher.safetensors")) for _ in range(2))
    torch.manual_seed(5)
    third = create_student("timm:test_resnet+width0.5", str(tmp_path / "teacher.safetensors"), NAMES, 64, None)
    for other in (second, third):
        assert first.weights.sha256 == other.weights.sha256
    # What is left are values of the teacher, and the classifier's biases are whole.
    values = set(teacher.state_dict()["conv1.0.weight"].flatten().tolist())
    assert set(first.network.state_dict()["conv1.0.weight"].flatten().tolist()) < values
    assert torch.equal(first.network.state_dict()["fc.bias"], teacher.state_dict()["fc.bias"])
    assert first.weights.sha256 != made("test_resnet+width0.5").weights.sha256


@needs_pruner
def test_a_candidate_is_as_wide_as_the_student_that_is_cut_out_of_a_teacher(tmp_path: Path) -> None:
    """What `kdc students` measures has drawn weights."""
    save_file(lively(timm.create_model("test_resnet", num_classes=3)).state_dict(), tmp_path / "teacher.safetensors")
    student = made("test_resnet+width0.5", str(tmp_path / "teacher.safetensors"))
    candidate = candidates.create("test_resnet+width0.5", len(NAMES), SIDE)
    assert shapes_of(candidate.network.state_dict()) == shapes_of(student.network.state_dict())
    assert candidates.as_candidate(student) == ("test_resnet+width0.5", SIDE)


@needs_pruner
@pytest.mark.parametrize("kind", ["", "+no_se", "+no_se+width0.5"])
def test_weights_of_the_whole_or_of_the_changed_network(kind: str, tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    source = made(f"{name}{kind}")
    save_file(source.network.state_dict(), tmp_path / "weights.safetensors")
    student = made(f"{name}+no_se+width0.5", str(tmp_path / "weights.safetensors"))
    assert is_narrower(made(f"{name}+no_se").network, shapes_of(student.network.state_dict()))
    if kind.endswith("width0.5"):
        assert student.weights.sha256 == source.weights.sha256
    else:
        assert set(student.network.state_dict()["conv_stem.weight"].flatten().tolist()) < set(
            source.network.state_dict()["conv_stem.weight"].flatten().tolist()
        )


@needs_pruner
def test_a_pruned_checkpoint_as_a_teacher_without_torch_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = made("test_resnet+width0.5")
    lively(student.network)
    save_file(student.network.state_dict(), tmp_path / "half.safetensors")
    save_file(made("test_resnet").network.state_dict(), tmp_path / "whole.safetensors")
    save_file(made("test_resnet+width0.25").network.state_dict(), tmp_path / "quarter.safetensors")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    teacher = load_model(f"timm:test_resnet+width0.5@{tmp_path / 'half.safetensors'}", SIDE)
    assert torch.equal(answers(teacher.network), answers(student.network))
    assert teacher.weights.architecture == "test_resnet+width0.5"
    # With a new classifier, as `kdc teach` gives it.
    trainee = create_trainee(teacher, ("a", "b", "c", "d", "e"), None)
    assert answers(trainee.network).shape == (2, 5)
    with pytest.raises(KdcError, match=r"are no share of 0\.5"):
        load_model(f"timm:test_resnet+width0.5@{tmp_path / 'whole.safetensors'}", SIDE)
    with pytest.raises(KdcError, match=r"are no share of 0\.75"):
        load_model(f"timm:test_resnet+width0.75@{tmp_path / 'quarter.safetensors'}", SIDE)
    headless = {name: value for name, value in student.network.state_dict().items() if not name.startswith("fc.")}
    save_file(headless, tmp_path / "headless.safetensors")
    with pytest.raises(KdcError, match="nobody knows its channels"):
        load_model(f"timm:test_resnet+width0.5@{tmp_path / 'headless.safetensors'}", SIDE)


@needs_pruner
def test_channels_of_another_mapping_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wrong answer of torch-pruning would look like: a layer that keeps other channels than its neighbours."""
    picked_channels = pruning.picked_channels

    def shifted(network: nn.Module, share: float, example: Tensor) -> dict[str, Tensor]:
        picked = picked_channels(network, share, example)
        picked["fc.weight"] = picked["fc.weight"].roll(1, 1)
        return picked

    monkeypatch.setattr(pruning, "picked_channels", shifted)
    with pytest.raises(KdcError, match="torch-pruning takes other channels out of one layer than out of the next"):
        made("test_resnet+width0.5")


@pytest.mark.slow
@needs_pruner
@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0"])
def test_branches_still_merge(name: str) -> None:
    network = lively(made(f"{name}+width0.5").network)
    torch.testing.assert_close(answers(merged(network)), answers(network), rtol=1e-3, atol=1e-4)


def stopped_in_training(*arguments: object) -> str:
    """What `kdc` said, in a process of its own, after it was interrupted behind its first epoch."""
    command = (*python(), "-m", "compressor", *map(str, arguments))
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=one_thread, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "epoch 1/" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said: str = process.communicate()[1]
    assert process.returncode == 130
    return said


@pytest.mark.slow
@needs_pruner
def test_a_student_cut_out_of_the_teacher_is_trained_resumed_and_exported(
    kdc: Kdc, teacher_run: Path, colours: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    asked = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}",
        "--student", "timm:test_resnet+width0.5", "--student-init", teacher_run / "student.safetensors", *TRAINING,
    )  # fmt: skip
    ended = kdc(*asked, "--epochs", 6, "--out", out)
    assert ended.code == 0, ended.err
    assert "test_resnet+width0.5: " in ended.err
    assert "channels are kept, those of the largest weights" in ended.err
    model, record = load_run(out)
    teacher, _ = load_run(teacher_run)
    assert record.architecture == "test_resnet+width0.5"
    assert record.weights.parameters < 0.45 * teacher.weights.parameters
    assert record.test.accuracy > 0.6
    stopped = stopped_in_training(*asked, "--epochs", 6, "--out", tmp_path / "stopped")
    assert "--resume goes on" in stopped
    ended = kdc(*asked, "--epochs", 6, "--out", tmp_path / "stopped", "--resume")
    assert ended.code == 0, ended.err
    assert load_run(tmp_path / "stopped")[1].weights.sha256 == record.weights.sha256
    # A run needs what pruned it no more.
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    again, _ = load_run(out)
    assert torch.equal(answers(again.network), answers(model.network))
    targets = ("--target", "onnxruntime-fp32", "--target", "openvino-f32")
    exported = kdc(
        "export", out, "--profile", here, *targets, "--out", tmp_path / "bundle", "--rounds", 11, "--no-throughput"
    )
    assert exported.code in (0, 1, 3), exported.err
    report = (tmp_path / "bundle" / "report.md").read_text()
    assert "test_resnet+width0.5" in report
