"""Networks that hear: by name, from checkpoints and folders, of Hugging Face, several as one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.models.ensemble import combined
from compressor.models.loaded import LoadedModel
from compressor.models.stages import layers_of, same_strides
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.recipe import Ensemble
from compressor.tasks.audio_classification.features import of_sounds
from compressor.tasks.audio_classification.fitting import Unfitted
from compressor.tasks.audio_classification.models import hf_models, mlp, timm_models
from compressor.tasks.audio_classification.models.hf_models import HfSound
from compressor.tasks.audio_classification.models.students import create_student, create_trainee, require_student
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.task import TASK
from tests.kit import Hearing, call
from tests.tasks.audio_classification.kit import RATE, SPEED, tones

NAMES = ("high", "low", "middle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones(tmp_path_factory.mktemp("tones"), 20)


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return open_data(f"folder:{folder}", progress=Hearing())


def wav2vec2(folder: Path, **changes: Any) -> Path:
    """A small wav2vec 2.0 with a classifier of the three pitches, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8, 8),
        conv_kernel=(10, 4), conv_stride=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8, mask_time_length=2, num_labels=3,
        id2label=dict(enumerate(NAMES)), label2id={name: n for n, name in enumerate(NAMES)}, **changes,
    )  # fmt: skip
    model = transformers.Wav2Vec2ForSequenceClassification(config)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True).save_pretrained(folder)
    return folder


def test_a_student_hears_what_its_data_needs(data: Dataset) -> None:
    torch.manual_seed(0)
    model = create_student("timm:test_resnet", "random", NAMES)
    assert isinstance(model.preprocess, Unfitted)
    heard = Hearing()
    made = TASK.fitted(model, data, None, heard)
    preprocess = made.preprocess
    assert isinstance(preprocess, AudioPreprocess)
    assert not isinstance(preprocess, Unfitted)
    assert (preprocess.sample_rate, preprocess.samples, preprocess.window, preprocess.hop) == (RATE, 800, 100, 40)
    assert preprocess.high_hz == RATE / 2
    assert any(note.startswith("hears 0.2 s of sound at 4,000 Hz as 40 mel bands (95 %") for note in heard.notes)
    (batch,) = TASK.evaluation(data.train, preprocess, 1000, torch.device("cpu"))
    assert float(batch[0].mean()) == pytest.approx(0, abs=1e-4)
    assert float(batch[0].std()) == pytest.approx(1, abs=1e-4)
    again = TASK.fitted(made, data, None, heard)
    assert again.preprocess == preprocess
    assert any("as random:test_resnet has it" in note for note in heard.notes)


def test_how_long_is_heard_can_be_stated(data: Dataset) -> None:
    heard = Hearing()
    model = TASK.fitted(create_student("mlp:8x1", "random", NAMES), data, 100, heard)
    assert model.preprocess.inputs[0].shape == ("batch", 1, 40, 8)
    assert model.weights.parameters == 40 * 8 * 8 + 8 + 16 + 8 * 3 + 3
    assert any("(as stated): of 42 training sounds 42 are cut and 0 filled up" in note for note in heard.notes)
    with pytest.raises(KdcError, match=r"hears windows of 100 values \(25 ms\), and the sounds have 80"):
        TASK.fitted(create_student("mlp:8x1", "random", NAMES), data, 20, heard)


@pytest.mark.parametrize(
    ("source", "stated", "samples", "why"),
    [
        ("run:teacher", None, 480, "(as its teacher)"),
        ("run:teacher", 100, 400, "(as stated)"),
        ("hf:teacher", None, 800, "(95 % of the training sounds have 0.2 s or less)"),
    ],
)
def test_a_student_hears_as_long_as_a_teacher_that_was_taught(
    data: Dataset, source: str, stated: int | None, samples: int, why: str
) -> None:
    taught = TASK.fitted(create_student("timm:test_resnet", "random", NAMES), data, 120, Hearing())
    teacher = replace(taught, weights=taught.weights.model_copy(update={"source": source}))
    heard = Hearing()
    student = TASK.fitted(create_student("mlp:8x1", "random", NAMES, teacher), data, stated, heard)
    assert of_sounds(student.preprocess).samples == samples
    assert any(why in note for note in heard.notes)


def test_maps_of_40_bands_are_matched_by_their_stride(data: Dataset) -> None:
    """40 rows become 10, 5, 3 and 2: strides of 4, 8, 16 and 32, though 40 / 3 and 40 / 2 are nearer to one another."""
    model = TASK.fitted(create_student("timm:test_resnet", "random", NAMES), data, None, Hearing())
    layers = layers_of(model, "maps")
    assert [(layer.shape[1], layer.stride) for layer in layers] == [(10, 4), (5, 8), (3, 16), (2, 32)]
    assert same_strides(layers, layers) == [(layer, layer) for layer in layers]


def test_a_fully_connected_network_is_hintons() -> None:
    layers = [type(layer).__name__ for layer in mlp.Mlp(12, 5, 2, 3).layers]
    assert layers == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2
    assert mlp.Mlp(12, 5, 2, 3).eval()(torch.zeros(4, 1, 3, 4)).shape == (4, 3)


@pytest.mark.parametrize(
    ("reference", "init", "said"),
    [
        ("mlp:8", "random", "'mlp:8' is not mlp:WIDTHxDEPTH"),
        ("mlp:0x2", "random", "is not mlp:WIDTHxDEPTH"),
        ("mlp:8x1", "some.pt", "mlp:8x1 begins at random"),
        ("timm:resnet", "random", "timm has no model resnet"),
        ("timm:test_resnet+relu", "random", "not yet those for sounds"),
        ("timm:vit_tiny_patch16_224", "random", "takes images of one size"),
        ("timm:test_resnet", "nowhere.pt", "--student-init nowhere.pt does not exist"),
        ("layers:2", "pretrained", "is none that learns from sounds"),
        ("hf:nowhere/else/at/all", "pretrained", "neither a folder that exists nor the name"),
    ],
)
def test_students_that_do_not_exist(reference: str, init: str, said: str) -> None:
    with pytest.raises(KdcError, match=said):
        require_student(reference, init)


def test_weights_for_three_channels_are_summed(tmp_path: Path) -> None:
    """A checkpoint of a network for RGB images: as timm does with its own weights."""
    import timm

    torch.manual_seed(0)
    rgb = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(rgb.state_dict(), tmp_path / "rgb.safetensors")
    model = timm_models.load_timm(f"timm:test_resnet@{tmp_path / 'rgb.safetensors'}")
    grey = torch.rand(2, 1, 40, 30)
    with torch.no_grad():
        assert torch.allclose(model.network(grey), rgb(grey.expand(-1, 3, -1, -1)), atol=1e-4)
    trainee = create_trainee(model, NAMES)
    assert trainee.network(grey).shape == (2, 3)


def test_a_student_begins_with_weights_for_three_channels(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("test_resnet", num_classes=7)
    torch.save(network.state_dict(), tmp_path / "three.pt")
    made = create_student("timm:test_resnet", str(tmp_path / "three.pt"), NAMES)
    kept = {name: value for name, value in network.state_dict().items() if value.ndim == 4}
    first = next(name for name, value in kept.items() if value.shape[1] == 3)
    for name, value in kept.items():
        expected = value[:, :1] + value[:, 1:2] + value[:, 2:] if name == first else value
        torch.testing.assert_close(made.network.state_dict()[name], expected)
    assert any("the classifier is new" in note for note in made.notes)


def test_a_folder_of_timm(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 3, "label_names": list(NAMES)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = timm_models.load_timm(f"timm:local-dir:{tmp_path}")
    assert (model.class_names, model.headless) == (tuple((name,) for name in NAMES), False)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_args": {"in_chans": 3}}))
    with pytest.raises(KdcError, match="model_args of its config"):
        timm_models.require_timm(f"timm:local-dir:{tmp_path}")


def test_wav2vec2_answers_as_transformers_does(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = wav2vec2(tmp_path)
    model = hf_models.load_hf(str(folder), 200)
    assert isinstance(model.network, HfSound)
    assert (model.headless, model.class_names) == (False, tuple((name,) for name in NAMES))
    assert model.preprocess == AudioPreprocess(sample_rate=RATE, samples=800, features="waveform")
    wave = torch.randn(800, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.05
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    theirs = transformers.AutoModelForAudioClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(**extractor(wave.numpy(), sampling_rate=RATE, return_tensors="pt")).logits
        assert torch.allclose(model.network(wave[None]), expected, atol=1e-5)
    assert any("where it is not taught anew, hears 0.2 s of a sound (as stated)" in note for note in model.notes)
    assert hf_models.load_hf(str(folder), None).preprocess.inputs[0].shape == ("batch", 5 * RATE)


def test_wav2vec2_carries_its_licence_and_terms(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = wav2vec2(tmp_path)
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: house\nlicense_link: https://a.b/terms\n---\n"
    )
    weights = hf_models.load_hf(str(folder), None).weights
    assert (weights.licence, weights.terms) == ("house", "https://a.b/terms")


def test_too_short_a_waveform_is_one_line(tmp_path: Path) -> None:
    folder = wav2vec2(tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"sampling_rate": 1000}))
    with pytest.raises(KdcError, match="how it hears: samples"):
        hf_models.load_hf(str(folder), 10)


def test_models_that_take_spectrograms_are_refused(tmp_path: Path) -> None:
    kind = {"model_type": "audio-spectrogram-transformer", "architectures": ["ASTForAudioClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(kind))
    with pytest.raises(KdcError, match="is of type audio-spectrogram-transformer, and kdc hears with models that"):
        TASK.require_model(f"hf:{tmp_path}", None)


def test_feature_extractors_that_do_more_are_refused(tmp_path: Path) -> None:
    folder = wav2vec2(tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    for change, said in (
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}, "is not supported"),
        ({"sampling_rate": "fast"}, "sampling_rate of its preprocessor_config.json is 'fast'"),
    ):
        (folder / "preprocessor_config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(KdcError, match=said):
            hf_models.load_hf(str(folder), None)


def test_several_teachers_answer_as_one(data: Dataset) -> None:
    def member(seed: int) -> LoadedModel:
        torch.manual_seed(seed)
        model = TASK.fitted(create_student("timm:test_resnet", "random", NAMES), data, None, Hearing())
        network = model.network.eval()
        return LoadedModel(network, model.preprocess, model.class_names, model.weights, model.family)

    first, second = member(0), member(1)
    moved = second.preprocess.model_copy(update={"mean": second.preprocess.mean + 1.0, "std": 3.0})  # type: ignore[attr-defined]
    other = LoadedModel(second.network, moved, second.class_names, second.weights, second.family)
    both = combined([first, other], Ensemble())
    (batch,) = TASK.evaluation(data.test, both.preprocess, 64, torch.device("cpu"))
    (theirs,) = TASK.evaluation(data.test, moved, 64, torch.device("cpu"))
    with torch.no_grad():
        mean = (first.network(*batch).softmax(1) + other.network(*theirs).softmax(1)) / 2
        assert torch.allclose(both.network(*batch).exp(), mean, atol=1e-5)
    longer = LoadedModel(
        second.network, moved.model_copy(update={"samples": 900}), second.class_names, second.weights, "timm"
    )
    with pytest.raises(KdcError, match=r"teachers that hear sound otherwise, 0\.2 s of sound at 4,000 Hz and 0\.225 s"):
        combined([first, longer], Ensemble())


@pytest.mark.slow
def test_wav2vec2_is_taught_and_teaches(tmp_path: Path) -> None:
    encoder = wav2vec2(tmp_path / "encoder")
    common = ("--data", f"folder:{tones(tmp_path / 'tones', 80)}", *SPEED)
    options = ("--teacher", f"hf:{encoder}", "--epochs", 12, "--set", "ema_decay=0")
    assert call("teach", *options, "--out", tmp_path / "teacher", *common) == 0
    model, record = load_run(tmp_path / "teacher")
    assert (record.task, record.family) == ("audio-classification", "hf")
    assert model.preprocess == AudioPreprocess(sample_rate=RATE, samples=800, features="waveform")
    code = call(
        "distill", "--teacher", f"run:{tmp_path / 'teacher'}", "--student", "timm:test_resnet", "--student-init",
        "random", "--epochs", 1, "--out", tmp_path / "student", *common,
    )  # fmt: skip
    assert code == 0
    assert load_run(tmp_path / "student")[1].preprocess.normalization is None
