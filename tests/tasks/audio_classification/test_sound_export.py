"""kdc export of a sound classifier: a device makes the features of training, and the bundle answers as torch."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import resample_poly

from compressor.processes.runner import open_runner
from compressor.progress import Silent
from compressor.report import build_report
from compressor.schema.preprocess import AudioPreprocess
from compressor.stats import percentile
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.shipping import SHIPPING
from compressor.tasks.table import task_named
from tests.kit import Ended, call
from tests.shared import made_once
from tests.targets.sound_bundle import RATES, prompts, spoken
from tests.tasks.audio_classification import kit

Kdc = Callable[..., Ended]
ORT, OV = "{runtime: onnxruntime, precisions: [fp32, int8]}", "{runtime: openvino, precisions: [f32, f16, int8]}"
SETS = ("--set", f"targets=[{ORT}, {OV}]")
FAST = ("--rounds", 11, "--seconds", 2, "--no-throughput")
FLOAT = ("onnxruntime-fp32", "openvino-f32", "openvino-f16")
INT8 = ("onnxruntime-int8", "openvino-int8")
HOW = AudioPreprocess(sample_rate=8000, samples=8000, window=200, hop=80, fft=256, high_hz=4000.0, mean=-5.0, std=3.0)


def on_device(reference: str, preprocess: AudioPreprocess, folder: Path) -> dict[str, Any]:
    """What a runner says of the test sounds of `reference`, which training has stored for `preprocess`."""
    pytest.importorskip("soundfile")
    folder.mkdir()
    test = open_data(reference).test
    task_named(preprocess.task).store(test, preprocess, folder / "inputs.npy", Silent())
    SHIPPING.write_raw(test, folder)
    listed = json.loads((folder / "eval" / "sounds.json").read_text())
    assert [row for row, _ in listed] == list(range(len(test)))
    (folder / "here.json").write_text(json.dumps([[row, str(folder / path)] for row, path in listed]))
    with open_runner("onnxruntime") as runner:
        return runner.ask(
            "preprocess", task=preprocess.task, samples=str(folder / "here.json"), inputs=str(folder / "inputs.npy"),
            preprocess=preprocess.model_dump(mode="json"),
        )  # fmt: skip


def speech(rate: int, seed: int) -> NDArray[np.float64]:
    """Recorded, where Debian's prompts are installed."""
    recorded = [values for values in prompts(20) if len(values) > 4000]
    if not recorded:
        return spoken(rate, 0.6 + 0.3 * (seed % 4), seed=seed)
    values = recorded[seed % len(recorded)][:24_000]
    return np.asarray(resample_poly(values, rate // 50, 8000 // 50), np.float64).clip(-1, 1)


@pytest.mark.parametrize("features", ["log-mel", "waveform"])
def test_the_device_makes_the_features_of_training(tmp_path: Path, features: str) -> None:
    """Of any rate, one channel and two, wav of all kinds, flac."""
    kinds = [("wav", "PCM_16"), ("flac", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "PCM_U8")]
    count = others = 0
    for rate in RATES:
        for channels in (1, 2):
            for kind, subtype in kinds[:: 1 if rate == 16_000 else 3]:
                values = speech(rate, count)
                sides = values if channels == 1 else np.concatenate([values, -0.3 * values[::-1]], axis=1)
                name = f"{'ab'[count % 2]}/{count:02}.{kind}"
                kit.write_sound(tmp_path / "data" / "test" / name, sides, rate, kind=kind.upper(), subtype=subtype)
                count += 1
                others += rate != HOW.sample_rate
    for split in ("train", "validation"):
        for number in range(4):
            path = tmp_path / "data" / split / "ab"[number % 2] / f"{number}.wav"
            kit.write_sound(path, kit.tone(300 + 10 * number, len(split) + number))
    wave = HOW.model_copy(update={"features": "waveform", "mean": 0.0, "std": 0.1})
    preprocess = HOW if features == "log-mel" else wave
    told = on_device(f"folder:{tmp_path / 'data'}", preprocess, tmp_path / "bundle")
    assert (told["n"], told["differ"]) == (count, 0), told
    assert told["largest_difference"] < 1e-4
    assert told["resampled"] == others


def test_parts_of_a_long_recording(tmp_path: Path) -> None:
    """Each is cut out first, at the recording's rate, as a device gets it."""
    kit.write_sound(tmp_path / "long.wav", spoken(22_050, 12, 2))
    rows = [("long.wav", row * 0.5, row * 0.5 + 0.4, "ab"[row % 2], split) for row, split in enumerate(
        ["train"] * 8 + ["validation"] * 4 + ["test"] * 6)]  # fmt: skip
    kit.write_table(tmp_path / "rows.csv", rows, ("path", "start", "end", "label", "split"))
    told = on_device(f"csv:{tmp_path / 'rows.csv'}", HOW.model_copy(update={"samples": 2000}), tmp_path / "bundle")
    assert (told["n"], told["differ"], told["cut"]) == (6, 0, 6), told
    assert told["largest_difference"] < 1e-4


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of convolutions. Never change it."""
    folders: Mapping[str, Path] = kit.taught(tmp_path_factory)

    def make(folder: Path) -> None:
        code = call(
            "distill", "--teacher", f"run:{folders['teacher']}", "--data", f"folder:{folders['data']}", "--student",
            "timm:test_efficientnet", "--student-init", "random", "--epochs", 6, "--out", folder / "run", *kit.SPEED,
        )  # fmt: skip
        assert code == 0

    return made_once(tmp_path_factory, "sounds-convolutions", make) / "run"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, student: Path, here: Path) -> Path:
    """In every precision of both runtimes, measured. Never change it."""

    def make(folder: Path) -> None:
        code = call("export", student, "--profile", here, "--out", folder / "bundle", *SETS, *FAST)
        assert code in (0, 1, 3)  # a busy machine may leave verdicts on latency open

    return made_once(tmp_path_factory, "sound-bundle", make) / "bundle"


def logits(folder: Path, name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.load(folder / "measurements" / f"{name}.npy")
    return values


def classified(folder: Path, sound: Path) -> tuple[str, str]:
    """What best/classify.py says first, and on stderr; without torch, scipy and soundfile."""
    blocked = "import sys\nsys.modules.update(dict.fromkeys(['torch', 'scipy', 'soundfile', 'compressor']))\n"
    start = f"{blocked}sys.argv[1:] = [{str(sound)!r}, '--top', '1']\nsys.path.insert(0, {str(folder / 'best')!r})\n"
    run = f"import runpy\nrunpy.run_path({str(folder / 'best' / 'classify.py')!r}, run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", start + run], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


@pytest.mark.slow
def test_a_bundle_answers_as_torch(bundle: Path, kdc: Kdc) -> None:
    reference, labels = np.load(bundle / "eval" / "student_reference.npy"), np.load(bundle / "eval" / "labels.npy")
    right = (reference.argmax(1) == labels).sum()
    assert right >= 0.85 * len(labels)
    for name in FLOAT:
        assert np.abs(logits(bundle, name) - reference).max() < (1e-4 if name != "openvino-f16" else 0.05), name
    for name in INT8:
        assert right - (logits(bundle, name).argmax(1) == labels).sum() <= 0.01 * len(labels), name
    assert kdc("check", bundle).code in (0, 1, 3)


@pytest.mark.slow
def test_features_and_real_time_stand_in_the_report(bundle: Path, tmp_path: Path) -> None:
    report, raw = build_report(bundle), json.loads((bundle / "measurements" / "measurement.json").read_text())
    (told,) = raw["preprocessing"]
    assert (told["n"], told["differ"], len(told["wall_ms"])) == (24, 0, 24)
    lines = [check for check in report.checks if check.line == "features"]
    assert [(check.variant, check.verdict, check.value) for check in lines] == [
        (row.name, "pass", "24 of 24 test sounds") for row in report.rows if row.role == "student"
    ]
    real_time = report.real_time
    assert real_time is not None
    assert [row.variant for row in real_time.rows] == [row.name for row in report.rows]
    for row in real_time.rows:
        blocks = [block["wall_ms"] for block in raw["blocks"] if block["variant"] == row.variant]
        assert row.seconds == 0.2
        assert row.factor is not None
        assert row.factor.value == pytest.approx(percentile(blocks, 0.5).value / 200)
        assert row.ms_per_second is not None
        assert row.ms_per_second.value == pytest.approx(percentile(blocks, 0.5).value / 0.2)
    assert real_time.made_factor == pytest.approx(float(np.median(told["wall_ms"])) / 200)
    for text in ((bundle / "report.md").read_text(), (bundle / "report.html").read_text()):
        assert "made the inputs of training of 24 of 24 raw test samples" in text
    changed = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    told["differ"], told["largest_difference"] = 5, 0.25
    (changed / "measurements" / "measurement.json").write_text(json.dumps(raw))
    failed = [check for check in build_report(changed).checks if (check.line, check.verdict) == ("features", "fail")]
    assert {check.value for check in failed} == {"19 of 24 test sounds"}
    assert build_report(changed).verdict == "fail"
    assert "differs" not in failed[0].reason
    assert failed[0].reason.endswith("is not what the student was tested on; the largest difference is 0.2")
    raw["preprocessing"] = [{"inputs": told["inputs"], "error": "a reason"}]
    (changed / "measurements" / "measurement.json").write_text(json.dumps(raw))
    untried = build_report(changed).real_time
    assert untried is not None
    assert (untried.untried, untried.library) == ("a reason", None)


@pytest.mark.slow
def test_the_shipped_program_answers_as_measured(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "best" / "manifest.json").read_text())
    answers, classes = logits(bundle, manifest["variant"]), ("high", "low", "middle")
    for row, path in json.loads((bundle / "eval" / "sounds.json").read_text())[:6]:
        said, also = classified(bundle, bundle / path)
        shares = np.exp(answers[row] - answers[row].max()) / np.exp(answers[row] - answers[row].max()).sum()
        assert said == f"{shares.max():7.2%}  {classes[int(answers[row].argmax())]}\n"
        assert also == ""
    ten = np.concatenate([np.zeros(19_600), kit.tone(300, 5, 0.2, 4000), np.zeros(19_600)]) * 0.5
    sides = np.stack([resample_poly(ten, 11_025, 1000)] * 2, axis=1)
    kit.write_sound(tmp_path / "ten.wav", sides, 44_100, subtype="PCM_16")
    said, also = classified(bundle, tmp_path / "ten.wav")
    assert said.endswith("  low\n")
    assert "2 channels, of which the model reads the mean" in also
    assert "resampled from 44,100 to 4,000 Hz" in also
    assert "cut: 10.00 s, of which the model reads the 0.20 s in the middle" in also


@pytest.mark.slow
def test_the_front_end_in_the_graph(bundle: Path, student: Path, here: Path, kdc: Kdc, tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    ended = kdc("export", student, "--profile", here, "--out", made, "--bake-preprocessing", *SETS, *FAST)
    assert ended.code in (0, 1, 3), ended.err
    variants = {each["name"]: each for each in json.loads((made / "bundle.json").read_text())["variants"]}
    assert {each["preprocess"]["features"] for each in variants.values() if each["role"] == "student"} == {"waveform"}
    for name in FLOAT:
        assert variants[name]["baked"]
        most = 2e-3 if name != "openvino-f16" else 0.05
        assert np.abs(logits(made, name) - logits(bundle, name)).max() < most, name
    for name in INT8:
        assert (logits(made, name).argmax(1) == logits(bundle, name).argmax(1)).mean() > 0.95, name
    lines = [check for check in build_report(made).checks if check.line == "features"]
    assert {(check.verdict, check.value) for check in lines} == {("pass", "24 of 24 test sounds")}
    given = json.loads((made / "best" / "preprocess.json").read_text())
    assert (given["features"], given["shape"], given["mean"], given["std"]) == ("waveform", [1, 800], 0.0, 1.0)
    row, path = json.loads((made / "eval" / "sounds.json").read_text())[0]
    manifest = json.loads((made / "best" / "manifest.json").read_text())
    answers = logits(made, manifest["variant"])[row]
    assert classified(made, made / path)[0].split()[1] == ("high", "low", "middle")[int(answers.argmax())]
    assert kdc("check", made).code in (0, 1, 3)


@pytest.mark.slow
def test_what_sound_cannot_have_is_refused(student: Path, kdc: Kdc, tmp_path: Path) -> None:
    for more, said in (
        (("--profile", "jetson-orin-nano"), "cannot build audio-classification for tensorrt yet"),
        (("--profile", "x86-avx2", "--trim-vocabulary"), "have no vocabulary"),
    ):
        ended = kdc("export", student, *more, "--out", tmp_path / "bundle")
        assert (ended.code, said in " ".join(ended.err.split())) == (2, True), ended.err
        assert not (tmp_path / "bundle").exists()
