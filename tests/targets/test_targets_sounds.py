"""Sound on a device: the features of transformers and scipy, wav files of all kinds and hostile ones, and the example
programs."""

import io
import json
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from compressor.deploy import write_best
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.measurement import Measurement
from compressor.schema.preprocess import AudioPreprocess
from tests.targets.sound_bundle import (
    PREPROCESS,
    RATES,
    SOUNDS,
    SoundBundle,
    expected,
    make_sounds,
    prompts,
    spoken,
    wav,
)

if TYPE_CHECKING:
    from tests.targets.harness import Bench, Environment, LoadScript, StartRunner

WAVE = PREPROCESS.model_copy(update={"features": "waveform", "mean": 0.01, "std": 0.1})
WIDE = AudioPreprocess(sample_rate=16000, samples=24001)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SoundBundle:
    return make_sounds(tmp_path_factory.mktemp("sounds") / "bundle")


def heard(load: "LoadScript", path: Path, preprocess: AudioPreprocess) -> Any:
    return load("sound_features").FrontEnd(preprocess.model_dump()).heard(load("sound_files").read_sound(path))


def read(load: "LoadScript", folder: Path, content: bytes) -> Any:
    (folder / "sound.wav").write_bytes(content)
    return load("sound_files").read_sound(folder / "sound.wav")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("preprocess", [PREPROCESS, WAVE, WIDE], ids=["log-mel", "waveform", "16 kHz"])
def test_a_device_makes_the_features_of_transformers(
    load: "LoadScript", tmp_path: Path, preprocess: AudioPreprocess, rate: int, channels: int
) -> None:
    for number, seconds in enumerate((0.31, 1.0, 2.7)):
        values = spoken(rate, seconds, channels, seed=number)
        (tmp_path / "sound.wav").write_bytes(wav(values, rate))
        told = heard(load, tmp_path / "sound.wav", preprocess)
        assert told.input.dtype == np.float32
        assert told.input.shape == preprocess.inputs[0].sizes(1)[1:]
        np.testing.assert_allclose(told.input, expected(values, rate, preprocess)[None][0], atol=1e-4, rtol=0)
        whole = -(-len(values) * preprocess.sample_rate // rate)
        assert told.cut == max(0, whole - preprocess.samples)
        assert told.filled == max(0, preprocess.samples - whole)
        assert told.resampled == (rate != preprocess.sample_rate)


@pytest.mark.skipif(not list(prompts(1)), reason="Debian's asterisk-core-sounds-*-wav are not installed")
def test_features_of_recorded_speech_at_any_rate(load: "LoadScript", tmp_path: Path) -> None:
    for number, spoken_at_8000 in enumerate(prompts(10)):
        for rate in RATES:
            values = np.repeat(resample_poly(spoken_at_8000, rate // 50, 8000 // 50), 1 + number % 2, axis=1)
            values = np.round(values * 32768).clip(-32768, 32767) / 32768
            (tmp_path / "sound.wav").write_bytes(wav(values, rate))
            told = heard(load, tmp_path / "sound.wav", PREPROCESS).input
            assert np.abs(told - expected(values, rate, PREPROCESS)).max() < 1e-4, (number, rate)


@pytest.mark.parametrize(("rate", "to"), [(44_100, 8000), (11_025, 16_000), (7_919, 16_000), (96_000, 8000), (1000, 7)])
def test_odd_rates_resample_as_scipy_does(load: "LoadScript", rate: int, to: int) -> None:
    preprocess = WAVE.model_dump() | {"sample_rate": to, "mean": 0.0, "std": 1.0}
    values = np.random.default_rng(0).standard_normal((3001, 1)).astype(np.float32)
    whole = resample_poly(values[:, 0].astype(np.float64), to, rate).astype(np.float32)
    front_end = load("sound_features").FrontEnd({**preprocess, "samples": len(whole)})
    sound = load("sound_files").Sound(values, rate)
    np.testing.assert_allclose(front_end.heard(sound).input, whole, atol=1e-6)
    shorter = load("sound_features").FrontEnd({**preprocess, "samples": len(whole) // 3})
    start = (len(whole) - len(whole) // 3) // 2
    np.testing.assert_allclose(shorter.heard(sound).input, whole[start : start + len(whole) // 3], atol=1e-6)


def test_what_is_cut_and_filled_up(load: "LoadScript") -> None:
    """By hand: the longer one loses one value at its start and two at its end; the shorter one gets one, and two."""
    front_end = load("sound_features").FrontEnd(
        {"sample_rate": 8000, "samples": 4, "features": "waveform", "mean": 0.5, "std": 0.25}
    )
    long = load("sound_files").Sound(np.arange(7.0)[:, None], 8000)
    assert front_end.heard(long).input.tolist() == [2.0, 6.0, 10.0, 14.0]  # (1, 2, 3, 4)
    short = load("sound_files").Sound(np.array([[1.0, 3.0]]), 8000)
    assert front_end.heard(short).input.tolist() == [-2.0, 6.0, -2.0, -2.0]  # (0, 2, 0, 0)
    assert front_end.heard(short)[1:] == (0, 3, False)


def riff(kind: int, channels: int, rate: int, bits: int, data: bytes, **more: Any) -> bytes:
    """A wav by hand. `step`: bytes of a frame; `size`: of the data, as its header says; `before`: chunks before it."""
    step = more.get("step", channels * bits // 8)
    extra: bytes = more.get("extra", b"")
    before: bytes = more.get("before", b"")
    layout = struct.pack("<HHIIHH", kind, channels, rate, rate * step & 0xFFFFFFFF, step, bits) + extra
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(layout)) + layout + before
    body += b"data" + struct.pack("<I", more.get("size", len(data))) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


EXTENSIBLE = struct.pack("<HHI", 22, 16, 3) + struct.pack("<H", 1) + bytes(14)
KINDS = {
    "8 bits": (riff(1, 1, 8000, 8, bytes([0, 128, 192, 255])), [-1.0, 0.0, 0.5, 127 / 128]),
    "16 bits": (riff(1, 1, 8000, 16, struct.pack("<4h", -32768, 0, 16384, 1)), [-1.0, 0.0, 0.5, 2**-15]),
    "24 bits": (riff(1, 1, 8000, 24, b"\0\0\x80\0\0\0\0\0\x40\x01\0\0"), [-1.0, 0.0, 0.5, 2**-23]),
    "32 bits": (riff(1, 1, 8000, 32, struct.pack("<3i", -(2**31), 2**30, 1)), [-1.0, 0.5, 2**-31]),
    "float32": (riff(3, 1, 8000, 32, struct.pack("<2f", 1.5, -0.25)), [1.5, -0.25]),
    "float64": (riff(3, 1, 8000, 64, struct.pack("<2d", 1e-9, -0.25)), [1e-9, -0.25]),
    "extensible": (riff(0xFFFE, 1, 8000, 16, struct.pack("<h", 8192), extra=EXTENSIBLE), [0.25]),
    "stereo": (riff(1, 2, 8000, 16, struct.pack("<4h", 8192, 16384, -8192, 0)), [0.375, -0.125]),
    "an odd chunk": (riff(1, 1, 8000, 16, struct.pack("<h", 8192), before=b"LIST\x03\0\0\0abc\0"), [0.25]),
    "a stream": (riff(1, 1, 8000, 16, struct.pack("<h", 8192), size=0xFFFFFFFF), [0.25]),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_wav_is_read(load: "LoadScript", tmp_path: Path, name: str) -> None:
    content, values = KINDS[name]
    sound = read(load, tmp_path, content)
    assert sound.rate == 8000
    rounded = np.array(values, np.float32).tolist()
    assert sound.mono(0, len(sound)).tolist() == rounded
    assert sound.mono(-1, len(sound) + 2).tolist() == [0.0, *rounded, 0.0, 0.0]


def test_wav_as_pythons_own_module_writes_it(load: "LoadScript", tmp_path: Path) -> None:
    for width in (1, 2, 3, 4):
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setparams((2, width, 11_025, 0, "NONE", ""))
            writer.writeframes(bytes(range(240)))
        sound = read(load, tmp_path, file.getvalue())
        assert (sound.channels, sound.rate, len(sound)) == (2, 11_025, 240 // (2 * width))
        with wave.open(io.BytesIO(file.getvalue())) as reader:
            frames = reader.readframes(1)
        first = [int.from_bytes(frames[at : at + width], "little", signed=width > 1) for at in (0, width)]
        mean = sum(first) / 2 if width > 1 else sum(first) / 2 - 128
        assert sound.mono(0, 1)[0] == pytest.approx(mean / 2 ** (8 * width - 1), abs=1e-7)


HOSTILE = {
    "cut off": (riff(1, 1, 8000, 16, bytes(10), size=4000), "cut off, 10 of 4,000 bytes"),
    "half a frame": (riff(1, 2, 8000, 16, bytes(7)), "7 bytes are no whole number of 4"),
    "no data": (riff(1, 1, 8000, 16, b"")[:-8], "there are no data in it"),
    "no sound": (riff(1, 1, 8000, 16, b""), "there is no sound in it"),
    "data first": (b"RIFF\0\0\0\0WAVEdata\x04\0\0\0abcd", "its data come before"),
    "no layout": (b"RIFF\0\0\0\0WAVEfmt \x04\0\0\0abcd", "is cut off"),
    "no channel": (riff(1, 0, 8000, 16, bytes(4), step=2), "0 channels of 16 bits"),
    "wrong step": (riff(1, 2, 8000, 16, bytes(4), step=2), "2 channels of 16 bits are not 2 bytes"),
    "no rate": (riff(1, 1, 0, 16, bytes(4)), "its rate is 0 Hz; 1,000 to 384,000 are read"),
    "too high a rate": (riff(1, 1, 4_000_000_000, 16, bytes(4)), "its rate is 4,000,000,000 Hz"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_wav_is_one_line(load: "LoadScript", tmp_path: Path, name: str) -> None:
    content, said = HOSTILE[name]
    with pytest.raises(load("sound_files").SoundError, match=said) as raised:
        read(load, tmp_path, content)
    assert str(raised.value).startswith(f"{tmp_path / 'sound.wav'}: ")
    assert "\n" not in str(raised.value)


def test_no_cut_of_a_wav_is_read_as_another_sound(load: "LoadScript", tmp_path: Path) -> None:
    content = riff(1, 1, 8000, 16, struct.pack("<4h", 1, 2, 3, 4), before=b"LIST\x03\0\0\0abc\0")
    error = load("sound_files").SoundError
    for length in range(len(content)):
        with pytest.raises(error):
            read(load, tmp_path, content[:length])


def test_values_that_are_no_numbers(load: "LoadScript", tmp_path: Path) -> None:
    for value, said in ((np.nan, "not finite"), (-np.inf, "not finite"), (9000.0, "values up to 9,000")):
        for silence in (0, 40_000):  # in what the model hears, and far from it
            content = struct.pack("<3f", 0.1, value, 0.2) + bytes(4 * silence)
            (tmp_path / "sound.wav").write_bytes(riff(3, 1, 8000, 32, content))
            with pytest.raises(load("sound_files").SoundError, match=said) as raised:
                heard(load, tmp_path / "sound.wav", PREPROCESS)
            assert str(raised.value).startswith(f"{tmp_path / 'sound.wav'}: ")


def test_what_is_no_plain_wav_needs_soundfile(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = load("sound_files")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for content in (b"fLaC and more", riff(6, 1, 8000, 8, bytes(9))):
        with pytest.raises(files.SoundMissingError, match="pip install soundfile"):
            read(load, tmp_path, content)
    with pytest.raises(files.SoundError, match=r"sound.wav: it is empty"):
        read(load, tmp_path, b"")
    with pytest.raises(files.SoundError, match="is no file"):
        files.read_sound(tmp_path)


def test_flac_and_ogg_are_read_by_soundfile(load: "LoadScript", tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    values = spoken(16_000, 0.5, 2)
    for kind in ("flac", "wav"):
        soundfile.write(tmp_path / f"sound.{kind}", values, 16_000, subtype="PCM_16")
        sound = load("sound_files").read_sound(tmp_path / f"sound.{kind}")
        np.testing.assert_allclose(sound.mono(0, len(sound)), values.mean(1), atol=1e-7)
    soundfile.write(tmp_path / "sound.ogg", values, 16_000)
    assert len(load("sound_files").read_sound(tmp_path / "sound.ogg")) == len(values)
    (tmp_path / "sound.flac").write_bytes((tmp_path / "sound.flac").read_bytes()[:50])
    with pytest.raises(load("sound_files").SoundError, match="soundfile cannot read it"):
        load("sound_files").read_sound(tmp_path / "sound.flac")


def test_a_window_that_is_too_long_is_refused(load: "LoadScript") -> None:
    features, error = load("sound_features"), load("sound_files").SoundError
    for change in ({"fft": 128}, {"samples": 100}):
        with pytest.raises(error, match="a window is longer"):
            features.FrontEnd(PREPROCESS.model_dump() | change)
    with pytest.raises(error, match="makes no kaldi"):
        features.FrontEnd(PREPROCESS.model_dump() | {"features": "kaldi"})


def test_raw_sounds_are_made_to_inputs(made: SoundBundle, start: "StartRunner", tmp_path: Path) -> None:
    listed = [
        [number, str(made.folder / path)] for number, path in json.loads((made.folder / "sounds.json").read_text())
    ]
    (tmp_path / "sounds.json").write_text(json.dumps(listed))
    runner = start("run_ort.py")
    asked: dict[str, Any] = {
        "task": PREPROCESS.task,
        "samples": str(tmp_path / "sounds.json"),
        "inputs": str(made.folder / "inputs.npy"),
        "preprocess": PREPROCESS.model_dump(),
    }
    told = runner.ask("preprocess", **asked)
    assert told["ok"], told
    rates = sum(rate != 8000 for rate, _, _ in SOUNDS)
    assert (told["n"], told["differ"], told["resampled"]) == (len(SOUNDS), 0, rates)
    assert (told["cut"], told["padded"]) == (3, 2)
    assert 0 <= told["largest_difference"] < 1e-4
    assert len(told["wall_ms"]) == len(SOUNDS)
    other = PREPROCESS.model_copy(update={"low_hz": 60.0}).model_dump()
    told = runner.ask("preprocess", **{**asked, "preprocess": other})
    assert (told["differ"], told["largest_difference"] > 0.01) == (len(SOUNDS), True)
    shorter = PREPROCESS.model_copy(update={"samples": 4000}).model_dump()
    told = runner.ask("preprocess", **{**asked, "preprocess": shorter})
    assert (told["ok"], "became [1, 40, 48]" in told["message"]) == (False, True), told
    (tmp_path / "sounds.json").write_text(json.dumps([[0, str(tmp_path / "none.wav")]]))
    told = runner.ask("preprocess", **asked)
    assert (told["kind"], "none.wav is no file" in told["message"]) == ("failed", True)
    told = runner.ask("preprocess", **{**asked, "task": "image-classification"})
    assert (told["kind"], "no runner makes inputs" in told["message"]) == ("bad-request", True)


@pytest.mark.slow
def test_a_session_of_sounds(made: SoundBundle, bench: "Bench") -> None:
    ended = bench(str(made.folder), "--rounds", "3", "--window", "0.05")
    assert ended.returncode == 0, ended.stderr
    told = read_json(made.folder / "measurements" / "measurement.json", Measurement)
    (row,) = told.preprocessing
    assert (row.inputs, row.error, row.n, row.differ) == ("inputs.npy", None, len(SOUNDS), 0)
    assert row.largest_difference is not None
    assert row.largest_difference < 1e-4
    for name in ("onnxruntime-fp32", "openvino-f32"):
        logits = np.load(made.folder / "measurements" / f"{name}.npy")
        np.testing.assert_allclose(logits, made.logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["onnxruntime", "openvino"])
def test_the_example_program_for_sounds(made: SoundBundle, bare: "Environment", tmp_path: Path, number: int) -> None:
    """Where neither scipy nor torch can be imported."""
    bundle = read_json(made.folder / "bundle.json", Bundle)
    write_best(made.folder, bundle, bundle.variants[number], device="")
    best = made.folder / "best"
    readme = (best / "README.md").read_text()
    assert f"pip install {('onnxruntime', 'openvino')[number]}\n    python3 classify.py FILE.wav\n" in readme
    given = json.loads((best / "preprocess.json").read_text())
    assert (given["shape"], given["sample_rate"]) == ([1, 1, 40, 98], 8000)

    def classified(path: Path, *missing: str) -> Any:
        command = [sys.executable, str(best / "classify.py"), str(path), "--top", "1"]
        environment = bare("scipy soundfile", *missing)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    for row, logits in enumerate(made.logits):
        ended = classified(made.folder / "sounds" / f"{row}.wav")
        assert ended.returncode == 0, ended.stderr
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert ended.stdout == f"{shares.max():7.2%}  {'abcd'[int(logits.argmax())]}\n"
        rate, seconds, channels = SOUNDS[row]
        assert (f"resampled from {rate:,} to 8,000 Hz" in ended.stderr) == (rate != 8000)
        assert (f"cut: {seconds:.2f} s, of which the model reads the 1.00 s" in ended.stderr) == (seconds > 1)
        assert (f"filled up with silence: {seconds:.2f} s" in ended.stderr) == (seconds < 1)
        assert (f"{channels} channels" in ended.stderr) == (channels > 1)
    (tmp_path / "wrong.wav").write_bytes(HOSTILE["cut off"][0])
    wrong = classified(tmp_path / "wrong.wav")
    assert (wrong.returncode, wrong.stderr) == (
        2, f"classify.py: {tmp_path / 'wrong.wav'}: a damaged wav: cut off, 10 of 4,000 bytes of sound are there\n"
    )  # fmt: skip
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    missing = classified(tmp_path / "a.flac")
    assert (missing.returncode, "pip install soundfile" in missing.stderr) == (4, True)
    missing = classified(made.folder / "sounds" / "0.wav", ("onnxruntime", "openvino")[number])
    assert (missing.returncode, missing.stderr.startswith("classify.py: pip install ")) == (4, True)
