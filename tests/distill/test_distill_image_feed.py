"""Image classification through the seam: same view for both, each with its own size and normalization."""

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.losses.logits import kd
from compressor.modes import freeze
from compressor.progress import Silent
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from compressor.tasks.image_classification import feed, open_data
from compressor.tasks.image_classification.feed import ImageFeed
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.models.students import create_student
from compressor.tasks.image_classification.preprocessing import of_images
from compressor.tasks.image_classification.views import random_views
from compressor.tasks.plain_feed import batch_size_of

CPU = torch.device("cpu")


def how(size: int, resize: int | None = None, mean: float = 0.5, std: float = 0.5) -> ImagePreprocess:
    side = (resize or size,) * 2
    return ImagePreprocess(input_size=(size, size), resize=side, mean=(mean,) * 3, std=(std,) * 3)


@pytest.fixture(scope="session")
def data(digits4: str) -> Dataset:
    return open_data(digits4)


def task_of(data: Dataset, inputs: dict[str, ImagePreprocess], store: Path, **changes: Any) -> ImageFeed:
    values = {"schema": 1, "epochs": 2, "batch_size": 50, "losses": [{"name": "cross_entropy"}]}
    return ImageFeed(data, inputs, Recipe.model_validate({**values, **changes}), store, CPU, Silent())


def seen(pixels: Tensor, preprocess: ImagePreprocess) -> Tensor:
    """Undo a model's normalization."""
    return pixels * preprocess.std[0] + preprocess.mean[0]


def test_a_pair_that_is_the_same_has_no_divergence_through_the_whole_pipeline(data: Dataset, tmp_path: Path) -> None:
    """Pitfalls, "Another model's preprocessing"."""
    torch.manual_seed(0)
    model = create_student("timm:mobilenetv3_small_050", "random", data.info.class_names, 32, None)
    # Answers that differ from image to image.
    nn.init.normal_(model.network.get_parameter("classifier.weight"), std=20)
    teacher, student = freeze(BatchModel(model.network, "teacher")), BatchModel(model.network, "student").eval()
    task = task_of(data, {"teacher": of_images(model.preprocess), "student": of_images(model.preprocess)}, tmp_path)
    losses = []
    for batch in task.batches(0, 0):
        answers = teacher(batch).logits, student(batch).logits
        assert answers[0].std() > 0.1
        losses.append(kd(answers[1], answers[0]).item())
    assert losses
    assert max(losses) <= 1e-6


def test_each_model_gets_the_same_view_in_its_own_normalization(data: Dataset, tmp_path: Path) -> None:
    inputs = {"teacher": how(32, 36, mean=0.2, std=0.4), "student": how(32, 36, mean=0.5, std=0.25)}
    for batch in task_of(data, inputs, tmp_path).batches(0, 0):
        views = {name: seen(batch[name], preprocess) for name, preprocess in inputs.items()}
        assert not torch.allclose(batch["teacher"], batch["student"])
        torch.testing.assert_close(views["teacher"], views["student"], rtol=0, atol=1e-6)
        assert views["teacher"].min() >= -1e-6
        assert views["teacher"].max() <= 1 + 1e-6


@pytest.mark.parametrize(("teacher", "student"), [(48, 24), (24, 48)])
def test_each_model_gets_the_same_view_at_its_own_size(
    data: Dataset, tmp_path: Path, teacher: int, student: int
) -> None:
    """The larger one's view, shrunk with antialiasing: a block of 2×2 pixels becomes their weighted mean."""
    inputs = {"teacher": how(teacher), "student": how(student)}
    batch = next(task_of(data, inputs, tmp_path).batches(0, 0))
    assert batch["teacher"].shape == (50, 3, teacher, teacher)
    assert batch["student"].shape == (50, 3, student, student)
    small, large = sorted((batch["teacher"], batch["student"]), key=lambda views: views.shape[-1])
    pooled = nn.functional.avg_pool2d(large, 2)
    assert (pooled - small).abs().mean() < 0.05
    apart = (pooled.roll(1, 0) - small).abs().mean()  # another image's view
    assert apart > 5 * (pooled - small).abs().mean()


def test_batches_are_a_function_of_seed_epoch_and_step(data: Dataset, tmp_path: Path) -> None:
    inputs = {"student": how(16)}
    task, again = task_of(data, inputs, tmp_path / "1"), task_of(data, inputs, tmp_path / "2")
    whole = list(task.batches(1, 0))
    torch.rand(7)  # whatever else draws numbers
    rest = list(again.batches(1, 2))
    assert len(whole) == task.steps_per_epoch == 4
    assert len(rest) == 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    for changed in (task.batches(0, 0), task_of(data, inputs, tmp_path / "3", seed=1).batches(1, 0)):
        assert not torch.equal(next(changed)["student"], whole[0]["student"])


def test_a_image_is_seen_otherwise_in_every_epoch(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.tasks.mixed_feed.keyed_order", lambda seed, n, epoch: np.arange(n))
    task = task_of(data, {"student": how(16)}, tmp_path)
    first, second = next(task.batches(0, 0)), next(task.batches(1, 0))
    assert torch.equal(first["labels"], second["labels"])
    assert not any(torch.equal(*views) for views in zip(first["student"], second["student"], strict=True))


def test_labels_belong_to_their_images(data: Dataset, tmp_path: Path) -> None:
    """Whole images at their own size: each must be found in the data, with that label."""
    task = task_of(data, {"student": how(8)}, tmp_path, views={"scale": (1, 1), "ratio": (1, 1), "hflip": False})
    label_of = {np.asarray(data.train.read(i)).tobytes(): data.train.labels[i] for i in range(len(data.train))}
    assert len(label_of) == len(data.train)
    count = 0
    for batch in task.batches(0, 0):
        pixels = (seen(batch["student"], how(8)) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        for image, label in zip(pixels, batch["labels"], strict=True):
            assert label_of[image.contiguous().numpy().tobytes()] == label
            count += 1
    assert count == 200


def test_the_rest_that_fills_no_batch_changes_from_epoch_to_epoch(data: Dataset, tmp_path: Path) -> None:
    """Pitfalls, "The denominator of a batch": every batch has the same denominator."""
    task = task_of(data, {"student": how(8)}, tmp_path, views={"scale": (1, 1), "ratio": (1, 1), "hflip": False})
    drawn = []
    for epoch in range(2):
        images = torch.cat([batch["student"] for batch in task.batches(epoch, 0)])
        drawn.append({image.numpy().tobytes() for image in images})
    assert [len(images) for images in drawn] == [200, 200]
    assert drawn[0] != drawn[1]


def test_a_batch_is_never_larger_than_the_data(data: Dataset, tmp_path: Path) -> None:
    task = task_of(data, {"student": how(8)}, tmp_path, batch_size=10_000)
    assert task.steps_per_epoch == 1
    assert len(next(task.batches(0, 0))["labels"]) == len(data.train)


class Recorder(nn.Module):
    """Answers at random, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []
        self.norm = nn.BatchNorm2d(3)

    def forward(self, pixels: Tensor) -> Tensor:
        assert not self.training
        self.shown.append(self.norm(pixels))
        return pixels.flatten(1)[:, :4]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_restores_the_mode_and_moves_no_statistics(data: Dataset, tmp_path: Path, training: bool) -> None:
    """Pitfalls, "A student in evaluation mode"."""
    network = Recorder()
    model = BatchModel(network, "student").train(training)
    score = task_of(data, {"student": how(16)}, tmp_path).evaluate(model, "test")
    assert model.training == network.training == training
    assert network.norm.num_batches_tracked == 0
    assert (score.split, score.n) == ("test", 120)
    assert not any(pixels.requires_grad for pixels in network.shown)


def test_evaluation_is_what_the_model_answers_to_the_images(data: Dataset, tmp_path: Path) -> None:
    """Pitfalls, "Resolution, interpolation, crop": resized and cropped as the model says, without augmentation, in the
    order of the labels."""
    torch.manual_seed(0)
    model = create_student("timm:mobilenetv3_small_050", "random", data.info.class_names, 32, 0.8)
    nn.init.normal_(model.network.get_parameter("classifier.weight"))
    answers = logits_of(model, images(data)).argmax(-1).numpy()
    score = task_of(data, {"student": of_images(model.preprocess)}, tmp_path).evaluate(
        BatchModel(model.network, "student"), "test"
    )
    assert score.correct == (answers == data.test.labels).sum()
    assert 0 < score.correct < 120


def images(data: Dataset) -> Sequence[Any]:
    return [data.test.read(i) for i in range(len(data.test))]


def test_each_split_is_decoded_once_for_each_preprocessing(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(data, {"teacher": how(16, 20), "student": how(16, 20)}, tmp_path)
    task.prepare()
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["train", "validation"]
    monkeypatch.setattr("compressor.tasks.image_classification.feed.decode_split", None)
    assert next(task.batches(0, 0))["student"].shape == (50, 3, 16, 16)
    task.evaluate(BatchModel(Recorder().eval(), "teacher"), "validation")


def test_a_full_disk_while_decoding_is_an_error_and_leaves_no_file(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, shape: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("compressor.tasks.image_classification.decoding._write_header", full)
    with pytest.raises(KdcError, match=r"no space left on the device while writing .*train-.*npy"):
        task_of(data, {"student": how(16)}, tmp_path).prepare()
    assert list(tmp_path.iterdir()) == []


MIXED = {"mixup": 0.4, "cutmix": 1.0, "mix_probability": 0.7, "rotation": 10, "brightness": 0.2, "erasing": 0.3}
TWO = {"teacher": how(32, 36, mean=0.2), "student": how(16)}


@pytest.mark.parametrize("views", [{}, MIXED])
def test_images_that_are_decoded_anew_give_the_same_batches(
    data: Dataset, tmp_path: Path, views: dict[str, Any]
) -> None:
    stored = task_of(data, TWO, tmp_path, views=views)
    anew = ImageFeed(data, TWO, stored._recipe, None, CPU, Silent())
    pairs = list(zip(stored.batches(1, 1), anew.batches(1, 1), strict=True))
    assert len(pairs) == 3
    for one, other in pairs:
        assert one.keys() == other.keys() == {"teacher", "student", "labels", "index"}
        assert all(torch.equal(one[name], other[name]) for name in one)
    model = BatchModel(Recorder().eval(), "student")
    assert stored.evaluate(model, "test") == anew.evaluate(model, "test")


@pytest.mark.parametrize("views", [{}, MIXED])
def test_a_models_input_is_a_function_of_sample_and_view(data: Dataset, tmp_path: Path, views: dict[str, Any]) -> None:
    """What is kept of a teacher's answers rests on this: not on the batch, its order, or whether others are shown."""
    task = task_of(data, TWO, tmp_path, views=views)
    batch = next(task.batches(3, 2))
    samples = batch["index"].numpy()
    for key in TWO:
        assert torch.equal(next(task.batches(3, 2, {key}))[key], batch[key])
        assert torch.equal(task.input_of(key, samples[[7, 3, 3]], 3)[key], batch[key][[7, 3, 3]])
        assert not torch.equal(task.input_of(key, samples, 4)[key], batch[key])


@pytest.mark.parametrize(("size", "made"), [(32, 1), (16, 2)])
def test_a_view_that_two_models_see_alike_is_made_once(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, made: int
) -> None:
    """Images of one size are decoded once, too; each model still has its own tensor, which it may change in place."""
    inputs = {"teacher": how(32, mean=0.2, std=0.4), "student": how(size)}
    task, sizes = task_of(data, inputs, tmp_path), []

    def watched(images: Tensor, numbers: Any, views: Any, size: tuple[int, int]) -> Tensor:
        sizes.append(size)
        return random_views(images, numbers, views, size)

    monkeypatch.setattr(feed, "random_views", watched)
    batch = next(task.batches(0, 0))
    assert len(sizes) == made
    assert len(list(tmp_path.glob("train-*.npy"))) == made
    before = batch["student"].clone()
    batch["teacher"].zero_()
    assert torch.equal(batch["student"], before)


def test_a_students_view_does_not_depend_on_the_size_of_the_store(data: Dataset, tmp_path: Path) -> None:
    """Each model's image is resized for it: the small one of a pair reads small images."""
    task = task_of(data, {"teacher": how(64, 72), "student": how(16, 16)}, tmp_path)
    task.prepare()
    sizes = sorted(np.load(path).shape[1:3] for path in tmp_path.glob("train-*.npy"))
    assert sizes == [(18, 18), (72, 72)]  # the same part of the image: 72/64 of the side


def test_the_views_repeat_where_they_are_limited(data: Dataset, tmp_path: Path) -> None:
    task = task_of(data, {"student": how(16)}, tmp_path, views={"distinct": 2})
    seen_in = []
    for epoch in range(3):
        images: dict[int, Tensor] = {}
        for batch in task.batches(epoch, 0):
            images |= dict(zip(batch["index"].tolist(), batch["student"], strict=True))
        seen_in.append(images)
    both = [number for number in seen_in[0] if number in seen_in[1] and number in seen_in[2]]
    assert len(both) > 100
    assert all(torch.equal(seen_in[0][number], seen_in[2][number]) for number in both)
    assert not any(torch.equal(seen_in[0][number], seen_in[1][number]) for number in both)


def test_mixed_images_have_mixed_labels(data: Dataset, tmp_path: Path) -> None:
    task = task_of(data, {"student": how(16)}, tmp_path, views={"mixup": 1.0})
    batch = next(task.batches(0, 0))
    assert batch["labels"].shape == (50, 4)
    torch.testing.assert_close(batch["labels"].sum(-1), torch.ones(50))
    own = batch["labels"][torch.arange(50), torch.from_numpy(data.train.labels)[batch["index"]]]
    assert 0 < own.min() < 0.9
    assert task_of(data, {"student": how(16)}, tmp_path)._mix(np.arange(3), 0) is None


def test_a_step_in_parts_holds_the_samples_of_the_step(data: Dataset, tmp_path: Path) -> None:
    whole = next(task_of(data, {"student": how(16)}, tmp_path).batches(0, 0))
    task = task_of(data, {"student": how(16)}, tmp_path, accumulate=5)
    assert (task.batch_size, task.steps_per_epoch) == (10, 4)
    parts = list(task.batches(0, 0))
    assert len(parts) == 20
    for name in whole:
        assert torch.equal(torch.cat([part[name] for part in parts[:5]]), whole[name])
    np.testing.assert_array_equal(task.samples_of(0, 0), whole["index"].numpy())
    rest = list(task.batches(0, 3))
    assert all(torch.equal(one["student"], other["student"]) for one, other in zip(parts[15:], rest, strict=True))


@pytest.mark.parametrize(
    ("batch", "samples", "accumulate", "processes", "expected"),
    [(128, 1000, 1, 1, (128, 128)), (128, 100, 1, 1, (100, 100)), (128, 101, 2, 2, (100, 25)), (12, 50, 3, 2, (12, 2))],
)
def test_the_size_of_a_step_and_of_its_parts(
    batch: int, samples: int, accumulate: int, processes: int, expected: tuple[int, int]
) -> None:
    assert batch_size_of(a_recipe(batch, accumulate), samples, processes) == expected


def test_a_step_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(
        KdcError, match=r"batch_size 128 cannot be shared evenly by 3 processes in parts of accumulate=1"
    ) as caught:
        batch_size_of(a_recipe(128, 1), 1000, 3)
    assert caught.value.hint == "--batch-size 129"
    with pytest.raises(KdcError, match="3 training samples are too few for 4 parts"):
        batch_size_of(a_recipe(128, 2), 3, 2)


def a_recipe(batch: int, accumulate: int) -> Recipe:
    values = {"schema": 1, "batch_size": batch, "accumulate": accumulate, "losses": [{"name": "cross_entropy"}]}
    return Recipe.model_validate(values)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"views": {"scale": (0.6, 1.0)}}, {"views": {"distinct": 4}}, {"views": {"mixup": 0.2}}],
)
def test_what_changes_the_teachers_images_changes_their_identity(
    data: Dataset, tmp_path: Path, changes: dict[str, Any]
) -> None:
    identity = task_of(data, TWO, tmp_path).identity("teacher")
    assert task_of(data, TWO, tmp_path).identity("teacher") == identity
    assert task_of(data, {**TWO, "student": how(8)}, tmp_path).identity("teacher") == identity, "its own alone"
    assert task_of(data, TWO, tmp_path, **changes).identity("teacher") != identity
    for preprocess in (how(32, 40, mean=0.2), how(32, 36), how(48, 54, mean=0.2)):
        assert task_of(data, {**TWO, "teacher": preprocess}, tmp_path).identity("teacher") != identity
    assert task_of(data, {**TWO, "student": how(64)}, tmp_path).identity("teacher") != identity, "another part"


@pytest.mark.parametrize("views", [{}, MIXED, {"mixup": 1.0, "mix_probability": 0.5}])
def test_the_rows_that_have_a_label_are_named(data: Dataset, tmp_path: Path, views: dict[str, Any]) -> None:
    labels = data.train.labels.copy()
    labels[::3] = -1
    some = replace(data, train=data.train.part(np.arange(len(labels)), labels))
    batch = next(task_of(some, {"student": how(16)}, tmp_path / "some", views=views).batches(0, 0))
    probabilities = batch["labels"] if views else (batch["labels"] >= 0)[:, None]
    assert batch["labelled"].tolist() == probabilities.sum(1).nonzero()[:, 0].tolist()
    assert 5 < len(batch["labelled"]) < 45
    whole = next(task_of(data, {"student": how(16)}, tmp_path / "all", views=views).batches(0, 0))
    assert "labelled" not in whole
    assert torch.equal(whole["student"], batch["student"])
    assert torch.equal(whole["labels"][batch["labelled"]], batch["labels"][batch["labelled"]])


@pytest.mark.parametrize("views", [{}, MIXED])
def test_the_parts_of_a_step_have_the_mean_of_the_whole(data: Dataset, tmp_path: Path, views: dict[str, Any]) -> None:
    """Over labelled samples, of which each part has another number."""
    labels = data.train.labels.copy()
    labels[len(labels) // 5 :] = -1
    some = replace(data, train=data.train.part(np.arange(len(labels)), labels))
    loss = torch.rand(len(labels), generator=torch.Generator().manual_seed(0))
    means = {}
    for parts in (1, 4):
        batches = list(
            task_of(
                some, {"student": how(16)}, tmp_path / str(parts), views=views, batch_size=48, accumulate=parts
            ).batches(0, 0)
        )
        each = [
            float(loss[batch["index"]][batch["labelled"]].mean() * batch["labelled_share"])
            if len(batch["labelled"])
            else 0.0
            for batch in batches
        ]
        assert parts == 1 or len({len(batch["labelled"]) for batch in batches}) > 1
        means[parts] = [sum(each[at : at + parts]) / parts for at in range(0, len(each), parts)]
    assert len(means[1]) > 1
    assert means[4] == pytest.approx(means[1], rel=1e-5)
    assert means[1] != pytest.approx([float(loss.mean())] * len(means[1]))
