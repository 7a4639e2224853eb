"""Which task a command is of: by its models, by its data, as it is stated; contradictions are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.tasks.inference import inferred
from compressor.tasks.table import TASKS
from tests.kit import Ended, write_colours

TEXT, IMAGES, SOUNDS = "text-classification", "image-classification", "audio-classification"
BERT = {"model_type": "bert", "vocab_size": 100, "architectures": ["BertForSequenceClassification"]}
WAV2VEC = {"model_type": "wav2vec2", "vocab_size": 32, "conv_dim": [8], "architectures": ["Wav2Vec2ForCTC"]}
VIT = {"model_type": "vit", "image_size": 224, "num_channels": 3, "architectures": ["ViTForImageClassification"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and models of both tasks, which is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("texts.csv").write_text("text,label\ngood,a\nbad,b\n")
    Path("images.csv").write_text("path,label\na.png,a\n")
    Path("sounds.csv").write_text("path,label\na.wav,a\n")
    Path("clips.csv").write_text("audio,start,end,label\na.wav,0,1,a\n")
    Path("paths.csv").write_text("path,label\nthere,a\n")
    Path("both.csv").write_text("image,text,label\na.png,good,a\n")
    Path("neither.csv").write_text("x,y\n1,2\n")
    for name, config in (("bert", BERT), ("vit", VIT), ("wav2vec", WAV2VEC), ("odd", {"model_type": "odd"})):
        Path(name).mkdir()
        Path(name, "config.json").write_text(json.dumps(config))
    for name, task in (("textrun", TEXT), ("imagerun", IMAGES), ("soundrun", SOUNDS)):
        Path(name).mkdir()
        Path(name, "student.json").write_text(json.dumps({"task": task}))
    files = [(".txt", "news/a"), (".png", "photos/a"), (".txt", "captioned/a"), (".png", "captioned/a")]
    files += [(".wav", "spoken/a"), (".txt", "spoken/a"), (".flac", "drawn/a"), (".png", "drawn/a")]
    for suffix, folder in files:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"1{suffix}").write_text("x")
    Path("linked").mkdir()
    Path("linked", "b").symlink_to(Path("spoken", "a").resolve())
    Path("saved").mkdir()
    Path("saved", "state.json").write_text("{}")
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    Path("saved", "dataset_info.json").write_text(json.dumps({"features": features}))
    return tmp_path


@pytest.mark.parametrize(
    ("data", "teacher", "student", "expected"),
    [
        ("csv:texts.csv", "hf:bert", None, TEXT),
        ("csv:texts.csv", "hf:owner/name", None, TEXT),
        ("csv:texts.csv", "outputs:a.csv", None, TEXT),
        ("csv:texts.csv", "run:nowhere", None, TEXT),
        ("csv:neither.csv", "hf:bert", None, TEXT),
        ("csv:neither.csv", "run:textrun", "layers:3", TEXT),
        ("csv:neither.csv", "outputs:a.csv", "layers:3", TEXT),
        ("csv:both.csv", "hf:bert", None, TEXT),
        ("folder:news", "outputs:a.csv", None, TEXT),
        ("hf:saved", "outputs:a.csv", None, TEXT),
        ("csv:images.csv", "hf:vit", None, IMAGES),
        ("csv:both.csv", "run:imagerun", None, IMAGES),
        ("csv:both.csv", "outputs:a.csv", "timm:resnet18", IMAGES),
        ("csv:neither.csv", "hf:owner/name", None, IMAGES),
        ("csv:nowhere.csv", "hf:odd", None, IMAGES),
        ("folder:photos", "hf:owner/name", None, IMAGES),
        ("folder:captioned", "hf:owner/name", None, IMAGES),
        ("folder:nowhere", "timm:resnet18", None, IMAGES),
        ("digits", "outputs:a.csv", None, IMAGES),
        ("hf:owner/data", "run:textrun", None, TEXT),
        ("csv:sounds.csv", "timm:resnet18", None, SOUNDS),
        ("csv:clips.csv", "outputs:a.csv", None, SOUNDS),
        ("csv:paths.csv", "hf:wav2vec", None, SOUNDS),
        ("csv:neither.csv", "run:soundrun", "timm:resnet18", SOUNDS),
        ("csv:neither.csv", "mlp:8x2", None, SOUNDS),
        ("csv:paths.csv", "outputs:a.csv", "mlp:8x2", SOUNDS),
        ("folder:spoken", "timm:resnet18", None, SOUNDS),
        ("folder:linked", "timm:resnet18", None, SOUNDS),
        ("folder:drawn", "mlp:8x2", None, SOUNDS),
        ("folder:drawn", "hf:vit", None, IMAGES),
    ],
)
@pytest.mark.usefixtures("place")
def test_it_is_told_by_models_and_data(data: str, teacher: str, student: str | None, expected: str) -> None:
    students = [] if student is None else [student]
    assert inferred(data, [teacher], students, task=None, stated_columns=False).name == expected


@pytest.mark.parametrize(
    ("data", "teachers", "student", "task", "said"),
    [
        ("csv:texts.csv", ["timm:resnet18"], None, None, "looks like data for text-classification .column text."),
        ("folder:news", ["timm:resnet18"], None, None, "looks like data for text-classification .*.txt files"),
        ("csv:images.csv", ["hf:bert"], None, None, "looks like data for image-classification .column path."),
        ("digits", ["run:textrun"], None, None, "looks like data for image-classification"),
        ("csv:sounds.csv", ["hf:vit"], None, None, "looks like data for audio-classification .column path."),
        ("folder:spoken", ["hf:bert"], None, None, "looks like data for audio-classification .*.wav files"),
        ("csv:texts.csv", ["mlp:8x2"], None, None, "looks like data for text-classification"),
        ("csv:paths.csv", ["timm:resnet18"], None, None, "may be data for image-.* and audio-.* no model tells"),
        ("folder:drawn", ["timm:resnet18"], None, None, "may be data for image-.* and audio-.* no model tells"),
        ("csv:images.csv", ["run:soundrun"], "hf:vit", None, "run:soundrun is for audio-.* hf:vit for image-"),
        (
            "csv:texts.csv",
            ["hf:bert", "run:imagerun"],
            None,
            None,
            "teacher hf:bert is for text-class.* run:imagerun for",
        ),
        ("csv:texts.csv", ["hf:bert"], "timm:resnet18", None, "the student timm:resnet18 for image-classification"),
        ("csv:both.csv", ["outputs:a.csv"], None, None, "may be data for image-.* and text-.* no model tells which"),
        ("csv:texts.csv", ["timm:resnet18"], None, TEXT, "--task text-class.* and the teacher timm:resnet18 for image"),
        ("csv:texts.csv", ["hf:bert"], None, "text", "--task 'text' is none that kdc knows"),
    ],
)
@pytest.mark.usefixtures("place")
def test_contradictions_are_refused(
    data: str, teachers: list[str], student: str | None, task: str | None, said: str
) -> None:
    students = [] if student is None else [student]
    with pytest.raises(KdcError, match=said):
        inferred(data, teachers, students, task=task, stated_columns=False)


@pytest.mark.usefixtures("place")
def test_what_is_stated_counts() -> None:
    assert inferred("csv:both.csv", ["outputs:a"], [], task=TEXT, stated_columns=False).name == TEXT
    assert inferred("csv:texts.csv", ["outputs:a"], [], task=IMAGES, stated_columns=False).name == IMAGES
    assert inferred("csv:neither.csv", ["outputs:a"], [], task=None, stated_columns=True).name == TEXT


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--text-column", "text"), "--text-column is of texts, and this is image-classification"),
        (("--label-column", "label"), "--label-column is of texts"),
        (("--max-length", "64"), "--max-length is of texts"),
        (("--task", "text-classification"), "--task text-classification is for text-classification, and the teacher"),
    ],
)
def test_options_of_texts_are_refused_for_images(
    kdc: Callable[..., Ended], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    data = write_colours(tmp_path / "colours", 4)
    command = ("--teacher", "timm:test_resnet", "--data", f"folder:{data}", "--out", tmp_path / "out", *options)
    for verb in ("teach", "distill"):
        ended = kdc(verb, *command)
        assert (ended.code, said in ended.err) == (2, True), ended.err
        assert not (tmp_path / "out").exists()


def test_every_row_names_what_is_there() -> None:
    for name, row in TASKS.items():
        assert row.signs.startswith("compressor.tasks.")
        assert row.student.partition(":")[0] in row.students, name
