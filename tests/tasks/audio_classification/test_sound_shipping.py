"""What ships of a sound classifier beside its model, and what a report shows of sounds."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from compressor.report.arrays import open_array
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification import shipping
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.shipping import SHIPPING, audio_input
from tests.tasks.audio_classification import kit

HOW = AudioPreprocess(
    sample_rate=8000, samples=4000, window=200, hop=80, fft=256, mels=20, high_hz=4000.0, mean=-5.0, std=3.0
)


def test_what_a_model_takes_is_told_in_figures_and_in_words() -> None:
    given = audio_input(HOW, 2)
    assert (given.name, given.shape, given.features) == ("input", (2, 1, 20, 48), "log-mel")
    assert (given.window, given.hop, given.fft, given.mean, given.std) == (200, 80, 256, -5.0, 3.0)
    words = "; ".join(given.steps)
    for part in (
        "is not 8000 Hz",
        "of more than 4000 values",
        "every 200 values, 80 apart",
        "in 20 triangles",
        "1e-06",
    ):
        assert part in words
    assert given.steps[-1] == "(value - -5) / 3"
    wave = HOW.before
    assert wave is not None
    given = audio_input(wave, 1)
    assert (given.shape, given.mean, given.std, len(given.steps)) == ((1, 4000), 0.0, 1.0, 4)
    assert wave.before is None


def test_a_page_shows_features_with_low_frequencies_at_the_bottom(tmp_path: Path) -> None:
    from PIL import Image

    features = np.zeros((2, 1, 20, 48), np.float32)
    features[:, 0, :3, 24:] = 5.0  # the lowest three bands, in the second half
    np.save(tmp_path / "inputs.npy", np.array([(row,) for row in features], [("input", np.float32, (1, 20, 48))]))
    stored = open_array(tmp_path / "inputs.npy")
    assert stored.shape == (2, 1, 20, 48)
    assert stored.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(stored.rows([1])[0], features[1])
    shown = SHIPPING.picture(stored.rows([1])[0], 40)
    assert shown is not None
    assert shown[0] == "image/bmp"
    pixels = np.asarray(Image.open(io.BytesIO(shown[1])))
    assert pixels.shape == (40, 40)
    assert (pixels[-6:, 20:] == 255).all()
    assert (pixels[:-6] == 0).all()
    assert (pixels[:, :20] == 0).all()
    assert SHIPPING.picture(np.zeros(4000, np.float32), 40) is None
    assert SHIPPING.picture(np.full((1, 20, 48), np.nan, np.float32), 40) is None


def test_some_test_sounds_travel_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = kit.tones(tmp_path / "data", 20, seconds=0.1)
    test = open_data(f"folder:{data}").test
    monkeypatch.setattr(shipping, "MOST", 5)
    raw = SHIPPING.write_raw(test, tmp_path / "bundle")
    listed = json.loads((tmp_path / "bundle" / raw.samples).read_text())
    assert [row for row, _ in listed] == [0, 3, 6, 8, 11]  # spread over the twelve
    for row, path in listed:
        rate, values = wavfile.read(tmp_path / "bundle" / path)
        assert (rate, values.dtype) == (kit.RATE, np.int16)
        np.testing.assert_array_equal(values / 32768, test.read(row).values())
    monkeypatch.setattr(shipping, "MOST_BYTES", 2 * (tmp_path / "bundle" / listed[0][1]).stat().st_size)
    raw = SHIPPING.write_raw(test, tmp_path / "small")
    assert len(json.loads((tmp_path / "small" / raw.samples).read_text())) == 2


def test_shipping_brings_no_torch_along() -> None:
    code = "import sys, compressor.tasks.audio_classification.shipping\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
