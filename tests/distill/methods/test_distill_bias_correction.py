"""Biases of classes that training left out, unlabelled images and transfer sets, from a request to a run on disk."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from compressor.data.samples import Dataset
from compressor.distill import distill, distill_quantized, quantization_aware, teach
from compressor.distill.methods.bias_correction import add_to_bias, fit_bias, require_correctable, unseen_recall
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.models.lineage import data_of
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json
from compressor.schema.quantization import Scheme
from compressor.schema.recipe import Transfer
from compressor.schema.student import Request, Student
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.feed import ImageFeed
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.models.students import create_student
from compressor.tasks.image_classification.preprocessing import of_images
from tests.distill.conftest import recipe
from tests.kit import Hearing

Ask = Callable[..., Request]
KD = [{"name": "kd"}]


def cross_entropy(logits: Any, labels: Any) -> float:
    return float(nn.functional.cross_entropy(torch.as_tensor(logits), torch.as_tensor(labels)))


def drawn(n: int, classes: int, seed: int = 0) -> tuple[Any, Any]:
    """Logits, and labels that follow their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    noise = rng.gumbel(size=(n, classes))
    return logits, (logits + noise).argmax(axis=1)


def test_the_fit_is_the_best_of_a_grid() -> None:
    logits, labels = drawn(300, 5)
    logits[:, 2] -= 3.0
    (found,) = fit_bias(logits, labels, [2])
    grid = np.linspace(0, 6, 6001)
    column = np.arange(5) == 2
    values = [cross_entropy(logits + constant * column, labels) for constant in grid]
    assert found == pytest.approx(grid[int(np.argmin(values))], abs=1e-3)


def test_two_classes_are_fitted_together() -> None:
    logits, labels = drawn(400, 4, seed=1)
    logits[:, [1, 3]] -= [2.0, 1.0]
    found = fit_bias(logits, labels, [3, 1])
    steps = np.linspace(-0.06, 0.06, 13)
    shifted = logits.copy()
    shifted[:, [3, 1]] += found
    best = cross_entropy(shifted, labels)
    for one in steps:
        for other in steps:
            near = shifted.copy()
            near[:, [3, 1]] += [one, other]
            assert cross_entropy(near, labels) >= best - 1e-12
    probabilities = torch.softmax(torch.from_numpy(shifted), 1).numpy().mean(axis=0)
    counts = np.bincount(labels, minlength=4) / len(labels)
    assert probabilities[[1, 3]] == pytest.approx(counts[[1, 3]], abs=1e-7), "where the gradient is zero"


def test_what_was_taken_off_a_bias_is_found_again() -> None:
    logits, labels = drawn(200_000, 3, seed=2)
    logits[:, 0] -= 3.5
    assert fit_bias(logits.astype(np.float32), labels, [0])[0] == pytest.approx(3.5, abs=0.03)
    assert fit_bias(logits + 1e4, labels, [0])[0] == pytest.approx(3.5, abs=0.03), "however large the logits"


def test_far_and_hopeless_fits() -> None:
    logits, labels = drawn(500, 3, seed=3)
    near = fit_bias(logits, labels, [1])[0]
    logits[:, 1] -= 300.0
    assert fit_bias(logits, labels, [1])[0] == pytest.approx(near + 300, abs=1e-4)
    logits[7, 0] = np.nan
    with pytest.raises(KdcError, match="answers to validation are not all finite"):
        fit_bias(logits, labels, [1])


class Tiny(nn.Module):
    """A classifier with or without a bias, whose logits may be scaled after it."""

    def __init__(self, bias: bool = True, scale: float = 1.0) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4, bias=bias)
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(images.mean(dim=(2, 3)))
        return logits * self.scale


@pytest.fixture(scope="module")
def data(digits4: str) -> Dataset:
    return open_data(digits4)


@pytest.fixture(scope="module")
def student(data: Dataset) -> LoadedModel:
    return create_student("timm:mobilenetv3_small_050", "random", data.info.class_names, 32, None)


def without(data: Dataset, *names: str) -> Dataset:
    """With a validation split that lacks these classes."""
    numbers = [data.info.class_names.index(name) for name in names]
    rows = np.flatnonzero(~np.isin(data.validation.labels, numbers))
    return replace(data, validation=data.validation.part(rows))


def test_what_cannot_be_corrected_is_refused_before_training(data: Dataset, student: LoadedModel) -> None:
    how = Transfer(without=("three", "one"), correct_bias=True)
    before = {name: tensor.clone() for name, tensor in student.network.state_dict().items()}
    require_correctable(student, data, how)
    assert all(torch.equal(before[name], tensor) for name, tensor in student.network.state_dict().items())
    for network in (Tiny(bias=False), Tiny(scale=0.5), nn.Flatten()):
        with pytest.raises(KdcError, match="mobilenetv3_small_050 has no classifier bias that could be corrected"):
            require_correctable(replace(student, network=network), data, how)
    require_correctable(replace(student, network=Tiny()), data, how)
    with pytest.raises(KdcError, match="fitted on validation, which holds no images of three"):
        require_correctable(student, without(data, "three"), how)
    with pytest.raises(KdcError, match="validation holds no classes but three, one"):
        require_correctable(student, without(data, "zero", "two"), how)


def test_a_bias_is_added_to_the_logits_of_its_class(student: LoadedModel) -> None:
    image = [Image.new("RGB", (32, 32), (200, 30, 90))]
    before = logits_of(student, image)
    assert add_to_bias(student.network, [3, 1], np.array([2.0, -1.0]), 4)
    after = logits_of(student, image)
    add_to_bias(student.network, [3, 1], np.array([-2.0, 1.0]), 4)
    assert (after - before)[0].tolist() == pytest.approx([0, -1, 0, 2], abs=1e-5)


def test_recall_of_unseen_classes_is_told_with_n_and_interval(data: Dataset) -> None:
    logits = np.eye(4)[np.where(data.test.labels == 3, 2, data.test.labels)]
    threes = np.flatnonzero(data.test.labels == 3)
    logits[threes[0]] = np.eye(4)[3]
    n = len(threes)
    right = logits.argmax(1) == data.test.labels
    told = unseen_recall(right, data, Transfer(without=("three", "zero")))
    assert told.startswith(f"test recall of classes that were left out of training: three {1 / n:.2%} [")
    assert f"], n={n}; zero 100.00% [" in told


def test_unlabelled_images_need_a_loss_that_can_use_them(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(losses=[{"name": "cross_entropy"}]).model_copy(update={"unlabelled": "folder:nowhere"})
    with pytest.raises(KdcError, match=r"--unlabelled folder:nowhere: every loss .*\(cross_entropy\) needs"):
        distill(request, Destination(tmp_path / "run"), progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_a_bias_is_corrected_in_float_alone(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(transfer={"without": ("three",), "correct_bias": True})
    quantized = request.model_copy(update={"qat": Scheme(activations="uint8", per_channel=True)})
    with pytest.raises(KdcError, match="correct_bias is for a student in float"):
        distill_quantized(quantized, Destination(tmp_path / "run"), progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_teaching_leaves_out_what_has_no_label(tmp_path: Path, ask_teach: Ask) -> None:
    request = ask_teach(epochs=1, transfer={"labelled": 0.5, "without": ("one",)})
    run = teach(request, Destination(tmp_path / "run"), progress=Silent())
    assert run.data.counts["train"] == 216
    assert [note.partition(":")[0] for note in run.data.notes[-3:-1]] == [
        "transfer.without", "transfer.labelled 0.5"
    ]  # fmt: skip
    assert run.data.notes[-1].endswith("are left out: only labels teach here")
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert history[0]["steps"] == (216 - 54) // 2 // 32


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, digits4: str) -> Path:
    """Digits that `digits4` does not hold, and two of its test images, in folders that mean nothing."""
    folder = tmp_path_factory.mktemp("more")
    (folder / "deep").mkdir()
    bunch: Any = load_digits()
    for number in np.flatnonzero(bunch.target < 4)[360:]:
        Image.fromarray((bunch.images[number] * 15.9).astype(np.uint8)).save(folder / "deep" / f"{number:04}.png")
    test = open_data(digits4).test
    for number in range(2):
        test.read(number).save(folder / f"{number}.png")
    return folder


def test_kept_answers_are_of_these_unlabelled_images(tmp_path: Path, digits4: str, more: Path) -> None:
    moved = Path(shutil.copytree(more, tmp_path / "more"))
    plain = open_data(digits4)

    def identity(data: Dataset) -> dict[str, object]:
        how = create_student("timm:test_resnet", "random", data.info.class_names, 32, None).preprocess
        how_trained = recipe(losses=KD)
        return ImageFeed(data, {"teacher": of_images(how)}, how_trained, None, torch.device("cpu"), Silent()).identity(
            "teacher"
        )

    first = identity(open_data(digits4, unlabelled=f"folder:{moved}"))
    assert identity(open_data(digits4, unlabelled=f"folder:{more}")) == first
    assert "unlabelled" not in identity(plain), "answers that were kept before still serve"
    one = next(iter(sorted((moved / "deep").iterdir())))
    Image.new("L", (8, 8), 9).save(one)
    changed = identity(open_data(digits4, unlabelled=f"folder:{moved}"))
    assert changed["unlabelled"] != first["unlabelled"]
    assert {**changed, "unlabelled": "", "order": ""} == {**first, "unlabelled": "", "order": ""}


def run(request: Request, out: Path, resume: bool = False, progress: Progress | None = None) -> Student:
    return distill(request, Destination(out, resume=resume), progress=progress or Silent())


def unlabelled(request: Request, folder: Path) -> Request:
    return request.model_copy(update={"unlabelled": f"folder:{folder}"})


@pytest.mark.slow
def test_unlabelled_images_the_whole_way(
    tmp_path: Path, ask_distill: Ask, more: Path, interrupt_at: Callable[[int], Progress]
) -> None:
    """Interrupted and resumed it equals one that never stopped; and it is the same with kept answers."""
    moved = Path(shutil.copytree(more, tmp_path / "more"))
    request = unlabelled(ask_distill(views={"mixup": 0.4, "distinct": 1}, transfer={"labelled": 0.3}), moved)
    whole, plain = run(request, tmp_path / "whole"), run(ask_distill(), tmp_path / "plain")
    assert whole.data.fingerprint == plain.data.fingerprint
    assert whole.data.unlabelled is not None
    count = whole.data.unlabelled.count
    assert whole.data.unlabelled.left_out_copies >= 2
    assert len(list(moved.rglob("*.png"))) == count + whole.data.unlabelled.left_out_copies
    history = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    assert history[0]["steps"] == (216 + count) // 32
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        run(request, out, progress=interrupt_at(history[0]["steps"] + 3))
    one = next(iter(sorted((moved / "deep").iterdir())))
    content = one.read_bytes()
    Image.new("L", (8, 8), 9).save(one)
    with pytest.raises(KdcError, match=r"since the run was interrupted, .*the unlabelled images changed"):
        run(request, out, resume=True)
    one.write_bytes(content)
    run(request, out, resume=True)
    weights = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "resumed", "plain")]
    assert weights[0] == weights[1] != weights[2]
    # An export needs the data alone; training on under fake quantization the unlabelled images too.
    one.unlink()
    assert len(data_of(request, whole, Silent()).train) == 216
    with pytest.raises(KdcError, match="is not what this student was trained on"):
        quantization_aware(
            tmp_path / "whole", Scheme(activations="uint8"), Destination(tmp_path / "qat"), teacher=None, epochs=1,
            progress=Silent(),
        )  # fmt: skip
    one.write_bytes(content)
    trained_on = quantization_aware(
        tmp_path / "whole", Scheme(activations="uint8"), Destination(tmp_path / "qat"), teacher=None, epochs=1,
            progress=Silent(),
    )  # fmt: skip
    assert trained_on.data == whole.data


@pytest.mark.slow
def test_an_unseen_class_is_known_after_the_correction(tmp_path: Path, ask_distill: Ask, digits4: str) -> None:
    """Hinton et al. 2015, section 3: no image of the three is shown; its bias is all that is missing."""
    how = {"losses": KD, "epochs": 30, "student": "timm:test_resnet"}
    heard = Hearing()
    before = run(ask_distill(**how, transfer={"without": ("three",)}), tmp_path / "before")
    request = ask_distill(**how, transfer={"without": ("three",), "correct_bias": True})
    after = run(request, tmp_path / "after", progress=heard)
    assert before.bias_correction is None
    assert after.bias_correction is not None
    assert list(after.bias_correction) == ["three"]
    constant = after.bias_correction["three"]
    assert constant > 0
    models = [load_run(tmp_path / name)[0] for name in ("before", "after")]
    data = open_data(digits4)
    answers = [logits_of(model, [data.test.read(i) for i in range(120)]).numpy() for model in models]
    shift = answers[1] - answers[0]
    assert shift[:, 3] == pytest.approx(np.full(120, constant), abs=1e-4)
    assert shift[:, :3] == pytest.approx(np.zeros((120, 3)), abs=1e-4)
    own = data.test.labels == 3
    recalls = [float((logits[own].argmax(axis=1) == 3).mean()) for logits in answers]
    assert recalls[1] > recalls[0] + 0.1
    assert accuracy_in(after.test).correct == (answers[1].argmax(axis=1) == data.test.labels).sum()
    assert heard.notes[-1].startswith(
        f"test recall of classes that were left out of training: three {recalls[1]:.2%} ["
    )
    rows = [json.loads(line) for line in (tmp_path / "after" / "history.jsonl").read_text().splitlines()]
    assert len(rows) == 31
    assert rows[-1]["bias_correction"] == after.bias_correction
    told = rows[-1]["validation_recall"]["three"]
    assert told["n"] == int((data.validation.labels == 3).sum())
    assert told["after"] >= told["before"]
    assert read_json(tmp_path / "after" / "student.json", Student) == after
