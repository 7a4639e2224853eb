"""A small bundle of sounds for the contract tests: a mean and a head, as ONNX and OpenVINO IR, and sounds of several
rates, lengths and channels; and features by transformers and scipy, to hold those of the device against."""

import hashlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from scipy.io import wavfile
from scipy.signal import resample_poly

from compressor.schema.bundle import FileEntry, RawFiles, Variant
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.profile import Profile
from tests.targets.tiny_bundle import variant, write_bundle

CLASSES = 4
PREPROCESS = AudioPreprocess(
    sample_rate=8000, samples=8000, window=200, hop=80, fft=256, low_hz=20.0, high_hz=4000.0, mean=-3.0, std=2.5
)
PROMPTS = Path("/usr/share/asterisk/sounds")
RATES = (8000, 16000, 22050, 44100, 48000)

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


def spoken(rate: int, seconds: float, channels: int = 1, seed: int = 0) -> Doubles:
    """Something like speech, [frames, channels], of 16 bits: a voice that rises, hisses, pauses of digital silence."""
    rng = np.random.default_rng(seed)
    count = round(rate * seconds)
    time = np.arange(count) / rate
    pitch = 2 * np.pi * np.cumsum(110 + 60 * np.sin(2 * np.pi * 0.7 * time + seed)) / rate
    voice = sum(np.sin(number * pitch) / number for number in range(1, 9) if number * 170 < rate / 2)
    hiss = rng.standard_normal(count) * (np.sin(2 * np.pi * 3 * time + seed) > 0.6)
    loud = np.clip(np.sin(2 * np.pi * 1.3 * time), 0, 1)  # half of the time there is none
    one = 0.2 * loud * (voice + 0.3 * hiss)
    sides = np.stack([one * (1 - 0.4 * number) for number in range(channels)], axis=1)
    return np.round(sides * 32768).clip(-32768, 32767) / 32768


def prompts(most: int) -> Iterator[Doubles]:
    """Recorded speech at 8,000 Hz, where Debian's asterisk-core-sounds-*-wav are installed."""
    for path in sorted(PROMPTS.glob("??_*/*.wav"))[:: max(1, len(list(PROMPTS.glob("??_*/*.wav"))) // most)][:most]:
        rate, values = wavfile.read(path)
        assert rate == 8000
        yield values.astype(np.float64)[:, None] / 32768


def wav(values: Doubles, rate: int) -> bytes:
    """[frames, channels] as scipy writes it, of 16 bits."""
    file = io.BytesIO()
    wavfile.write(file, rate, np.round(values * 32768).astype(np.int16))
    return file.getvalue()


def expected(values: Doubles, rate: int, preprocess: AudioPreprocess) -> Floats:
    """What `AudioPreprocess` says, by scipy's resampling and transformers' spectrogram."""
    from transformers.audio_utils import mel_filter_bank, spectrogram

    mono = values.astype(np.float32).mean(axis=1, dtype=np.float64).astype(np.float32).astype(np.float64)
    common = math.gcd(rate, preprocess.sample_rate)
    if rate != preprocess.sample_rate:
        mono = resample_poly(mono, preprocess.sample_rate // common, rate // common)
    left = len(mono) - preprocess.samples
    if left >= 0:
        mono = mono[left // 2 : left // 2 + preprocess.samples]
    else:
        mono = np.pad(mono, (-left // 2, -left - -left // 2))
    mono = mono.astype(np.float32).astype(np.float64)
    if preprocess.features == "waveform":
        return np.asarray((mono - preprocess.mean) / preprocess.std, np.float32)
    filters = mel_filter_bank(
        preprocess.fft // 2 + 1, preprocess.mels, preprocess.low_hz, preprocess.high_hz, preprocess.sample_rate,
        norm=None, mel_scale="htk",
    )  # fmt: skip
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(preprocess.window) / preprocess.window)
    # It transforms windows of its own length only, and would fill up a shorter one on both sides: the phase alone.
    power = spectrogram(
        mono, window, preprocess.window, preprocess.hop, preprocess.fft, power=2.0, center=False, mel_filters=filters,
        mel_floor=preprocess.floor, log_mel="log", dtype=np.float64,
    )  # fmt: skip
    return np.asarray((power[None] - preprocess.mean) / preprocess.std, np.float32)


@dataclass(frozen=True)
class SoundBundle:
    """`folder`: the bundle; `rows`: its inputs, [N, 1, mels, frames]; `logits`: what its model answers, from numpy."""

    folder: Path
    rows: Floats
    logits: Floats


SOUNDS = ((8000, 1.0, 1), (16000, 2.3, 2), (44100, 0.6, 1), (22050, 1.5, 2), (48000, 0.9, 3), (8000, 10.0, 1))
"""Rate, seconds and channels of each."""


def make_sounds(folder: Path) -> SoundBundle:
    (folder / "sounds").mkdir(parents=True)
    listed, rows = [], []
    for number, (rate, seconds, channels) in enumerate(SOUNDS):
        values = spoken(rate, seconds, channels, number)
        (folder / "sounds" / f"{number}.wav").write_bytes(wav(values, rate))
        listed.append([number, f"sounds/{number}.wav"])
        rows.append(expected(values, rate, PREPROCESS))
    (folder / "sounds.json").write_text(json.dumps(listed), encoding="utf-8")
    inputs = np.array([(row,) for row in rows], np.dtype([("input", np.float32, rows[0].shape)]))
    np.save(folder / "inputs.npy", inputs, allow_pickle=False)
    logits = make_model(folder, inputs["input"])
    np.save(folder / "reference.npy", logits)
    names = [("onnxruntime-fp32", "onnxruntime", "fp32", "model.onnx"), ("openvino-f32", "openvino", "f32", "f32.xml")]
    variants = tuple(sound_variant(folder, *name) for name in names)
    bundle = write_bundle(folder, (variant("images", "onnxruntime", "fp32", "model.onnx"),))
    targets = [{"runtime": runtime, "precisions": (precision,)} for _, runtime, precision, _ in names]
    told = bundle.model_copy(
        update={
            "profile": Profile.model_validate(bundle.profile.model_dump() | {"batch": 1, "targets": targets}),
            "student": bundle.student.model_copy(update={"task": PREPROCESS.task, "preprocess": PREPROCESS}),
            "variants": variants,
            "reference": variants[0].name,
            "eval": bundle.eval.model_copy(update={"n": len(SOUNDS)}),
        }
    )
    (folder / "bundle.json").write_text(told.model_dump_json(), encoding="utf-8")
    return SoundBundle(folder, inputs["input"], logits)


def sound_variant(folder: Path, name: str, runtime: str, precision: str, model: str) -> Variant:
    files = [model, *([model.replace(".xml", ".bin")] if model.endswith(".xml") else [])]
    entries = tuple(
        FileEntry(path=path, sha256=hashlib.sha256((folder / path).read_bytes()).hexdigest(),
                  bytes=(folder / path).stat().st_size) for path in files
    )  # fmt: skip
    changed: dict[str, Any] = {
        "task": PREPROCESS.task, "preprocess": PREPROCESS, "inputs": "inputs.npy", "files": entries,
        "reference_logits": "reference.npy", "raw": RawFiles(samples="sounds.json"),
    }  # fmt: skip
    return Variant.model_validate(variant(name, runtime, precision, model).model_dump() | changed)


def make_model(folder: Path, rows: Floats) -> Floats:
    """The mean of each band over time, times a head; its answers to `rows`, in float64."""
    head = np.random.default_rng(5).normal(0, 1, (PREPROCESS.mels, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    port = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *rows.shape[1:]])
    weights = [numpy_helper.from_array(head, "head"), numpy_helper.from_array(np.array([1, 3], np.int64), "axes")]
    answers = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])]
    graph = helper.make_graph(nodes, "sounds", [port], answers, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    ov.save_model(ov.convert_model(str(folder / "model.onnx")), folder / "f32.xml", compress_to_fp16=False)
    answer: Floats = (rows.astype(np.float64).mean(axis=(1, 3)) @ head).astype(np.float32)
    return answer
