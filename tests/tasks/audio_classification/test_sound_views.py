"""Views of sounds: pure functions of their key, the same for all models; and the feed that makes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compressor.data.randomness import keyed_uniform
from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.views import Views
from compressor.tasks.audio_classification.feed import AudioFeed
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.views import DRAWS, Draw, louder, masked, noisy, refuse_views, shifts
from compressor.tasks.mixing import mix_of
from compressor.tasks.plain_feed import refuse_foreign_views
from tests.kit import Hearing
from tests.tasks.audio_classification.kit import RATE, tones

CPU = torch.device("cpu")
MEL = AudioPreprocess(sample_rate=RATE, samples=800, window=100, hop=40, fft=256, high_hz=RATE / 2, mean=-3, std=2)
WAVE = AudioPreprocess(sample_rate=RATE, samples=800, features="waveform")


def drawn(count: int, **chosen: float) -> NDArray[np.float64]:
    """The numbers of `count` views; those that are `chosen` have this value."""
    numbers = keyed_uniform(0, np.arange(count), 0, DRAWS)
    for name, value in chosen.items():
        numbers[:, Draw[name]] = value
    return numbers


def test_shifts_are_in_seconds_either_way() -> None:
    views = Views(time_shift=0.1)
    assert shifts(drawn(1, SHIFT=0.0), views, 8000).tolist() == [-800]
    assert shifts(drawn(1, SHIFT=0.5), views, 8000).tolist() == [0]
    assert shifts(drawn(1, SHIFT=0.75), views, 16000).tolist() == [800]
    assert not shifts(drawn(9), Views(), 8000).any()


def test_gain_is_in_decibels() -> None:
    waves = torch.ones(2, 4)
    views = Views(gain=20.0)
    assert louder(waves, drawn(2, GAIN=1.0), views) == pytest.approx(torch.full((2, 4), 10.0))
    assert louder(waves, drawn(2, GAIN=0.25), views) == pytest.approx(torch.full((2, 4), 10**-0.5))
    assert louder(waves, drawn(2), Views()) is waves


def test_noise_has_a_share_of_the_sounds_own_power() -> None:
    waves = torch.full((1, 200_000), 0.5)
    made = noisy(waves, drawn(1, NOISE=1.0), Views(noise=0.2), 0, np.array([3]), 7) - waves
    assert float(made.square().mean().sqrt()) == pytest.approx(0.1, rel=0.01)
    assert abs(float(made.mean())) < 0.001
    silent = torch.zeros(1, 100)
    assert torch.equal(noisy(silent, drawn(1), Views(noise=1.0), 0, np.array([0]), 0), silent)


def test_masks_are_stretches_of_time_and_bands() -> None:
    features = torch.ones(1, 1, 10, 20)
    numbers = drawn(1, TIME_LENGTH=1.0, TIME_START=0.0, BAND_WIDTH=1.0, BAND_START=1.0)
    made = masked(features, numbers, Views(time_masking=0.25, frequency_masking=0.3), 0.0)[0, 0]
    assert (made[:7, 5:] == 1).all()
    assert (made[:, :5] == 0).all()
    assert (made[7:] == 0).all()
    assert masked(features, numbers, Views(), 0.0) is features
    coarse = masked(torch.ones(1, 1, 5, 10), numbers, Views(time_masking=0.4, frequency_masking=0.4), 0.0)[0, 0]
    fine = masked(features, numbers, Views(time_masking=0.4, frequency_masking=0.4), 0.0)[0, 0]
    assert torch.equal(coarse, fine[::2, ::2])


@pytest.mark.parametrize(
    ("views", "inputs", "said"),
    [
        (Views(rotation=5), {"student": MEL}, "views.rotation changes images, and this is a sound"),
        (Views(cutmix=1), {"student": MEL}, "views.cutmix changes images"),
        (Views(token_dropping=0.1), {"student": MEL}, "views.token_dropping changes texts"),
        (Views(time_masking=0.1), {"student": MEL, "teacher": WAVE}, "and the teacher takes a waveform"),
        (Views(noise=0.1), {"student": MEL, "teacher": MEL.model_copy(update={"samples": 700})}, "the same noise"),
    ],
)
def test_views_that_sounds_do_not_have_are_refused(views: Views, inputs: dict[str, AudioPreprocess], said: str) -> None:
    with pytest.raises(KdcError, match=said):
        refuse_views(views, inputs)
    refuse_views(Views(mixup=0.2, gain=3, distinct=4), inputs)


@pytest.mark.parametrize("name", ["time_shift", "gain", "noise", "time_masking", "frequency_masking"])
def test_images_and_texts_refuse_views_of_sounds(name: str) -> None:
    with pytest.raises(KdcError, match=f"views.{name} changes sounds"):
        refuse_foreign_views(Views.model_validate({name: 0.1}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(f"folder:{tones(tmp_path_factory.mktemp('tones'), 20)}", progress=Hearing())


VIEWS = {"time_shift": 0.02, "gain": 6.0, "noise": 0.2, "mixup": 0.3, "time_masking": 0.2, "frequency_masking": 0.2}


def feed_of(
    data: Dataset, store: Path | None, inputs: dict[str, AudioPreprocess] | None = None, **changes: Any
) -> AudioFeed:
    values = {"schema": 1, "epochs": 2, "batch_size": 8, "losses": [{"name": "cross_entropy"}], "views": VIEWS}
    recipe = Recipe.model_validate({**values, **changes})
    feed = AudioFeed(data, inputs or {"student": MEL}, recipe, store, CPU, Silent())
    feed.prepare()
    return feed


def test_a_shift_that_leaves_silence_is_refused(data: Dataset) -> None:
    """The sounds have 0.2 s, of which 0.2 s are heard: 20 is 20 ms for somebody who takes milliseconds."""
    feed_of(data, None, views={"time_shift": 0.19})
    with pytest.raises(KdcError, match=r"views.time_shift: 20 s leave nothing of sounds of 0.2 s, of which 0.2 s"):
        feed_of(data, None, views={"time_shift": 20})


def test_what_a_teacher_does_to_the_sounds_is_said(data: Dataset) -> None:
    heard = Hearing()
    teacher = AudioPreprocess(sample_rate=8000, samples=800, features="waveform")
    recipe = Recipe.model_validate({"schema": 1, "losses": [{"name": "cross_entropy"}], "views": {}})
    for inputs in ({"student": MEL, "teacher": teacher}, {"student": MEL, "teacher": MEL}):
        AudioFeed(data, inputs, recipe, None, CPU, heard).prepare()
    count = len(data.train)
    said = f"the teacher hears 0.1 s of sound at 8,000 Hz: of {count} training sounds "
    assert heard.notes == [f"{said}{count} are cut and resampled: {count} from 4,000 Hz"]


def test_batches_are_a_pure_function_of_seed_epoch_and_step(data: Dataset, tmp_path: Path) -> None:
    """The same whether decoded to disk or anew, from the first step or a later one, by `batches` or by `input_of`."""
    stored, anew = feed_of(data, tmp_path), feed_of(data, None)
    batches, again = list(stored.batches(1, 0)), list(anew.batches(1, 2))
    assert len(batches) == stored.steps_per_epoch == len(data.train) // 8
    for ours, theirs in zip(batches[2:], again, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("student", "labels", "index"))
    third = batches[3]
    samples = third["index"].numpy()
    assert torch.equal(stored.input_of("student", samples, 1)["student"], third["student"])
    assert np.array_equal(stored.samples_of(1, 3), samples)
    lone = stored.input_of("student", samples[4:5], 1)["student"]
    assert torch.allclose(lone, third["student"][4:5], atol=1e-5)
    assert not torch.equal(next(iter(stored.batches(0, 0)))["student"], batches[0]["student"])


def test_each_view_changes_what_is_heard(data: Dataset) -> None:
    rows = np.arange(8)
    plain = feed_of(data, None, views={}).input_of("student", rows, 0)["student"]
    for name, value in VIEWS.items():
        made = feed_of(data, None, views={name: value}).input_of("student", rows, 0)["student"]
        assert made.shape == plain.shape == (8, 1, 40, MEL.frames)
        assert not torch.allclose(made, plain, atol=0.01), name
    repeated = feed_of(data, None, views={**VIEWS, "distinct": 2})
    first, second, third = (next(iter(repeated.batches(epoch, 0)))["index"] for epoch in range(3))
    assert not torch.equal(first, second)
    shown = repeated.input_of("student", rows, 0)["student"]
    (batch,) = [b for b in repeated.batches(2, 0) if int(third[0]) in b["index"].tolist()]
    row = batch["index"].tolist().index(int(third[0]))
    assert torch.allclose(
        repeated.input_of("student", third.numpy()[:1], 0)["student"], batch["student"][row : row + 1], atol=1e-5
    )
    assert shown.shape == plain.shape


def test_teacher_and_student_hear_the_same_mixture(data: Dataset) -> None:
    """The teacher takes the waveform: what the student has of it are its features."""
    from compressor.tasks.audio_classification.feed import model_input

    views = {"time_shift": 0.02, "gain": 6.0, "noise": 0.2, "mixup": 0.3}
    feed = feed_of(data, None, {"student": MEL, "teacher": WAVE}, views=views)
    batch = next(iter(feed.batches(0, 0)))
    assert torch.equal(model_input(batch["teacher"], MEL), batch["student"])
    alone = next(iter(feed.batches(0, 0, ["student"])))
    assert torch.equal(alone["student"], batch["student"])
    assert "teacher" not in alone


def test_mixed_labels_and_sounds_have_the_same_shares(data: Dataset) -> None:
    feed = feed_of(data, None, {"student": WAVE}, views={"mixup": 0.4})
    batch = next(iter(feed.batches(0, 0)))
    rows = batch["index"].numpy()
    mix = mix_of(0, rows, 0, len(data.train), Views(mixup=0.4))
    assert mix is not None
    plain = feed_of(data, None, {"student": WAVE}, views={})
    ours, theirs = (plain.input_of("student", which, 0)["student"] for which in (rows, mix.partner))
    weight = torch.from_numpy(mix.weight)[:, None]
    assert torch.allclose(batch["student"], weight * ours + (1 - weight) * theirs, atol=1e-6)
    expected = np.zeros((8, 3), np.float32)
    for row in range(8):
        expected[row, data.train.labels[rows[row]]] += mix.weight[row]
        expected[row, data.train.labels[mix.partner[row]]] += 1 - mix.weight[row]
    assert np.allclose(batch["labels"].numpy(), expected, atol=1e-6)


def test_identity_hangs_on_what_is_heard(data: Dataset) -> None:
    plain = feed_of(data, None).identity("student")
    assert plain == feed_of(data, None).identity("student")
    assert plain != feed_of(data, None, views={**VIEWS, "gain": 5.0}).identity("student")
    assert plain != feed_of(data, None, {"student": MEL.model_copy(update={"mels": 20})}).identity("student")
    assert plain != feed_of(data, None, seed=3).identity("student")
