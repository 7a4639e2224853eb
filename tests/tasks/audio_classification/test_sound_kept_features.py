"""Features that are kept on disk are those that are computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.data.samples import Dataset
from compressor.progress import Silent
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.views import Views
from compressor.tasks.audio_classification.features import model_input
from compressor.tasks.audio_classification.feed import AudioFeed, needed_bytes
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.waveforms import windows
from compressor.tasks.base import BatchModel
from tests.tasks.audio_classification.kit import tone, write_sound, write_table

HEARD = AudioPreprocess(
    sample_rate=8000, samples=1800, window=200, hop=80, fft=256, mels=40, high_hz=4000.0, mean=-9.0, std=3.0
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Frames of two tones, cut 10 ms apart from recordings of a second."""
    folder, rows = tmp_path_factory.mktemp("frames"), []
    for number in range(9):
        pitch, split = (500, 1500)[number % 2], ("train", "validation", "test")[number // 3]
        write_sound(folder / f"{number}.wav", tone(pitch, number, 1.0, 8000), 8000)
        rows += [(f"{number}.wav", at / 100, at / 100 + 0.225, pitch, split) for at in range(20)]
    table = write_table(folder / "frames.csv", rows, ("path", "start", "end", "label", "split"))
    return open_data(f"csv:{table}")


def feed(data: Dataset, store: Path | None, views: Views) -> AudioFeed:
    recipe = Recipe(batch_size=16, views=views, losses=(LossTerm(name="cross_entropy"),))
    made = AudioFeed(data, {"student": HEARD}, recipe, store, torch.device("cpu"), Silent())
    made.prepare()
    return made


class Mean(nn.Module):
    """Two logits that hang on all features."""

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1).mean(1, keepdim=True) * torch.tensor([1.0, -1.0])


@pytest.mark.parametrize(
    "views", [Views(distinct=1), Views(time_masking=0.4), Views(mixup=1.0), Views(gain=6.0)], ids=str
)
def test_batches_are_the_same_with_kept_features(frames: Dataset, tmp_path: Path, views: Views) -> None:
    kept, computed = feed(frames, tmp_path, views), feed(frames, None, views)
    for epoch in (0, 1):
        pairs = zip(kept.batches(epoch, 0), computed.batches(epoch, 0), strict=True)
        for mine, others in pairs:
            assert torch.equal(mine["index"], others["index"])
            torch.testing.assert_close(mine["student"], others["student"], rtol=0, atol=2e-6)
    model = BatchModel(Mean(), "student")
    for split in ("validation", "test"):
        answered = kept.logits(model, split), computed.logits(model, split)
        np.testing.assert_allclose(*answered, rtol=0, atol=2e-6)


def test_kept_features_are_those_of_the_waveform(frames: Dataset, tmp_path: Path) -> None:
    made = feed(frames, tmp_path, Views(distinct=1))
    rows = np.array([7, 0, 31])
    expected = model_input(torch.from_numpy(windows(frames.train, rows, HEARD)), HEARD)
    torch.testing.assert_close(made.input_of("student", rows, 0)["student"], expected, rtol=0, atol=2e-6)


def test_features_are_kept_where_views_leave_the_waveforms_alone(frames: Dataset, tmp_path: Path) -> None:
    feed(frames, tmp_path / "plain", Views(frequency_masking=0.5))
    feed(frames, tmp_path / "mixed", Views(mixup=1.0))
    names = {
        folder.name: sorted(path.name.split("-")[0] for path in folder.glob("*.mel")) for folder in tmp_path.iterdir()
    }
    assert names == {"plain": ["train", "validation"], "mixed": ["validation"]}
    taken = sum(path.stat().st_size for path in (tmp_path / "plain").iterdir())
    waves_of_test = 4 * 3 * 8000
    assert needed_bytes(frames, {"student": HEARD}) == taken + waves_of_test
