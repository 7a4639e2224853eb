"""Sound files of many kinds, and what is none."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.reading import Recording, decode
from tests.kit import Hearing
from tests.tasks.audio_classification.kit import PITCHES, RATE, encoded, tone, tones, write_sound

WAVE = tone(440, 0)


@pytest.mark.parametrize(
    ("kind", "subtype", "most"),
    [
        ("WAV", "PCM_16", 1 / 32768), ("WAV", "PCM_24", 1e-6), ("WAV", "PCM_32", 1e-6), ("WAV", "PCM_U8", 1 / 128),
        ("WAV", "FLOAT", 0.0), ("WAV", "DOUBLE", 0.0), ("FLAC", "PCM_16", 1 / 32768), ("AIFF", "PCM_16", 1 / 32768),
        ("OGG", "VORBIS", 0.4), ("MP3", "MPEG_LAYER_III", 0.5),
    ],
)  # fmt: skip
def test_formats_hold_the_same_sound(kind: str, subtype: str, most: float) -> None:
    wave, rate = tone(440, 0, 0.5, 16000), 16000
    made = decode(encoded(wave, rate, kind, subtype), "a file")
    assert (made.rate, made.channels) == (rate, 1)
    assert made.values.dtype == np.float32
    assert abs(len(made.values) - len(wave)) <= (0 if kind != "MP3" else 2304)
    if kind != "MP3":
        assert np.abs(made.values - wave).max() <= most
    assert np.sqrt(np.mean(made.values**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=0.1)


def test_channels_become_their_mean() -> None:
    left, right = tone(440, 0), tone(700, 1)
    made = decode(encoded(np.stack([left, right], 1), subtype="FLOAT"), "a file")
    assert made.channels == 2
    assert np.array_equal(made.values, ((left.astype(np.float64) + right) / 2).astype(np.float32))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a file cannot be decoded: it is empty"),
        (b"RIFF and no more", "a file cannot be decoded"),
        (b"hello" * 100, "a file cannot be decoded: it is no sound .WAV, FLAC, Ogg"),
        (encoded(np.zeros(0)), "a file holds no sound: its length is zero"),
        (encoded(WAVE)[:-400], "a file cannot be decoded: it is cut short, 1,200 of 1,600 bytes"),
        (encoded(WAVE, kind="FLAC")[:-300], "a file cannot be decoded"),
        (encoded(np.where(np.arange(800) == 5, np.nan, WAVE), subtype="FLOAT"), "no numbers, or infinite"),
        (encoded(np.where(np.arange(800) == 5, np.inf, WAVE), subtype="FLOAT"), "no numbers, or infinite"),
        (encoded(WAVE * 32768, subtype="FLOAT"), "has values up to [0-9]+,[0-9.]+, and sound is from -1 to 1"),
        (encoded(WAVE, 500), "has a sample rate of 500 Hz"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(content: bytes, said: str) -> None:
    with pytest.raises(KdcError, match=said) as caught:
        decode(content, "a file")
    assert "\n" not in str(caught.value)


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    made = decode(encoded(WAVE, kind="FLAC"), str(write_sound(tmp_path / "a.wav", WAVE, kind="FLAC")))
    assert np.abs(made.values - WAVE).max() < 1e-4


def test_a_recording_is_decoded_once_for_its_parts() -> None:
    asked: list[int] = []

    def content() -> bytes:
        asked.append(1)
        return encoded(WAVE)

    recording = Recording(content, "a file")
    assert recording.kept() is recording.kept()
    assert len(asked) == 1


def opened(folder: Path, heard: Hearing | None = None, *, skip_bad: bool = False) -> Dataset:
    return open_data(f"folder:{folder}", progress=heard or Hearing(), skip_bad=skip_bad)


def test_bad_files_are_refused_or_left_out(tmp_path: Path) -> None:
    data = tones(tmp_path / "data", 10)
    (data / "low" / "000.wav").write_bytes(b"no sound")
    (data / "high" / "003.wav").write_bytes(encoded(WAVE)[:-100])
    with pytest.raises(KdcError, match=r"003.wav cannot be decoded: it is cut short.* .and 1 more sounds.") as caught:
        opened(data)
    assert "--skip-bad" in caught.value.hint
    heard = Hearing()
    kept = opened(data, heard, skip_bad=True)
    assert kept.info.skipped == ("high/003.wav", "low/000.wav")
    assert sum(kept.info.counts.values()) == 28
    assert sum("left out: " in line for line in heard.warnings) == 2


def test_rates_channels_silence_and_groups_are_said(tmp_path: Path) -> None:
    data = tones(tmp_path / "data", 10)
    write_sound(data / "low" / "stereo.wav", np.stack([WAVE, WAVE], 1), 8000)
    write_sound(data / "low" / "silent.wav", np.zeros(800))
    heard = Hearing()
    opened(data, heard)
    assert "sample rates: 4,000 Hz (31), 8,000 Hz (1)" in heard.notes
    assert "channels: 1 of 2 channels; the mean of a sound's channels counts" in heard.notes
    assert "1 sounds are digital silence: all of their values are the same" in heard.notes
    assert any("a speaker may be in train and in test" in note for note in heard.notes)


def test_copies_are_found_in_other_formats_and_stay_in_one_split(tmp_path: Path) -> None:
    data = tones(tmp_path / "data", 10)
    values = decode((data / "low" / "000.wav").read_bytes(), "x").values
    for number in range(8):
        write_sound(data / "low" / f"copy{number}.flac", values, kind="FLAC")
    shutil.copy(data / "high" / "000.wav", data / "middle" / "wrong.wav")
    heard = Hearing()
    made = opened(data, heard)
    copies = {"low/000.wav", *(f"low/copy{number}.flac" for number in range(8))}
    assert any(copies <= {*split.ids} for split in (made.train, made.validation, made.test))
    assert any("under several labels" in note and "wrong.wav" in note for note in heard.notes)


def test_the_same_sounds_have_one_fingerprint_whatever_holds_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    tones(first, 6)
    for path in first.rglob("*.wav"):
        values = decode(path.read_bytes(), str(path)).values
        write_sound(second / path.parent.name / f"x{path.stem}.flac", values, kind="FLAC")
    before, after = opened(first).info, opened(second).info
    assert before.fingerprint == after.fingerprint
    assert before.counts == after.counts == {"train": 12, "validation": 3, "test": 3}


def test_splits_and_classes_of_folders(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        tones(tmp_path / split, 4, first=100 * number)
    made = opened(tmp_path)
    assert made.info.class_names == tuple(sorted(PITCHES))
    assert made.info.counts == {"train": 12, "validation": 12, "test": 12}
    write_sound(tmp_path / "test" / "odd" / "0.wav", tone(100, 9))
    with pytest.raises(KdcError, match="label odd is outside the classes"):
        opened(tmp_path)


def test_a_clip_says_where_its_file_was_changed(tmp_path: Path) -> None:
    made = opened(tones(tmp_path, 6))
    clip = made.train.read(0)
    assert (clip.rate, clip.length, len(clip.values())) == (RATE, 800, 800)
    path = tmp_path / made.train.ids[0]
    write_sound(path, tone(300, 1, 0.1))
    with pytest.raises(KdcError, match="was changed while it was used"):
        clip.values()


def test_a_class_of_files_that_are_not_read_says_what_they_are(tmp_path: Path) -> None:
    tones(tmp_path, 4)
    (tmp_path / "phone").mkdir()
    for name in ("a.m4a", "b.AMR", "README"):
        (tmp_path / "phone" / name).write_bytes(b"x")
    with pytest.raises(KdcError, match=r"phone holds no sounds, but files that end in .AMR, .m4a") as caught:
        opened(tmp_path)
    assert ".flac" in caught.value.hint
