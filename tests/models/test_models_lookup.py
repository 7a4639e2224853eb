"""What a command names is looked up before any data is read: there is no data here, and that is not complained of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compressor
from compressor.errors import KdcError
from compressor.references import TEACHERS, TRAINABLE
from compressor.schema.base import write_json
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.specialists import Specialist, Specialists
from compressor.schema.student import Accuracy, DataInfo, Weights

MUTUAL = [{"name": "kd"}, {"name": "mutual"}]


def refusal(command: Callable[..., Any], **options: Any) -> KdcError:
    with pytest.raises(KdcError) as caught:
        command(data="folder:no-data", out="run", **options)
    assert not Path("run").exists()
    return caught.value


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("begun").mkdir()
    Path("begun/run.json").write_text("{}")
    Path("table.txt").write_text("id\n")
    Path("names.txt").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("resnet50", f"teacher 'resnet50' is not one of {TEACHERS}"),
        ("slef", f"teacher 'slef' is not one of {TEACHERS}; did you mean self?"),
        ("ouputs:t.csv", "did you mean outputs?"),
        ("timm:resnet5O", "timm has no model resnet5O; did you mean resnet50?"),
        ("timm:test_resnet@none.pth", "checkpoint none.pth does not exist"),
        ("timm:test_resnet@none.pth#model", "checkpoint none.pth does not exist"),
        ("timm:local-dir:empty", "timm:local-dir:empty: empty/config.json does not exist"),
        ("hf:empty", "hf:empty: empty/config.json does not exist"),
        ("hf:./nowhere", "hf:./nowhere is neither a folder that exists nor the name of a repository"),
        ("run:nowhere", "the run nowhere does not exist"),
        ("run:begun", "begun holds no trained model (student.json is missing)"),
        ("specialists:empty", "empty holds no specialists (specialists.json is missing)"),
        ("outputs:none.csv", "the table of answers none.csv does not exist"),
        ("outputs:table.txt", "the table of answers table.txt ends on none of .csv, .parquet"),
        (["timm:test_resnet", "run:nowhere"], "the run nowhere does not exist"),
    ],
)
def test_teachers_of_distill(teacher: str | list[str], said: str) -> None:
    assert said in refusal(compressor.distill, teacher=teacher, student="timm:test_vit").message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"student": "timm:test_vitt"}, "timm has no model test_vitt; did you mean test_vit?"),
        ({"student": "hf:x/y"}, "student 'hf:x/y' is not timm:NAME or timm:local-dir:PATH"),
        ({"student": "timm:local-dir:empty"}, "empty/config.json does not exist"),
        ({"student_init": "none.pth"}, "student_init none.pth does not exist"),
        ({"assistant": "timm:nothing"}, "timm has no model nothing"),
        ({"teacher_classes": "none.txt"}, "teacher_classes none.txt cannot be read"),
        ({"teacher_classes": "names.txt"}, "teacher_classes names.txt cannot be read"),
        (
            {"set": {"peers": [{"student": "timm:nothing"}], "losses": MUTUAL}},
            "recipe peers.0: timm has no model nothing",
        ),
    ],
)
def test_all_else_that_distill_names(options: dict[str, Any], said: str) -> None:
    asked = {"teacher": "timm:test_resnet", "student": "timm:test_vit", **options}
    assert said in refusal(compressor.distill, **asked).message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher": "outputs:t.csv"}, "outputs:t.csv is a table of answers, not a model"),
        ({"teacher": "self"}, f"teacher 'self' is not one of {TRAINABLE}"),
        ({"teacher": "run:nowhere"}, "the run nowhere does not exist"),
        ({"teacher": "run:begun", "input_size": 32}, "begun holds no trained model"),
        ({"teacher": "timm:resnet5O"}, "timm has no model resnet5O"),
        ({"teacher": "timm:resnet5O", "teacher_init": "random"}, "timm has no model resnet5O"),
        ({"teacher": "run:begun", "teacher_init": "random"}, "teacher_init random takes a timm:NAME"),
    ],
)
def test_what_teach_names(options: dict[str, Any], said: str) -> None:
    assert said in refusal(compressor.teach, **options).message


@pytest.mark.parametrize("teacher", ["timm:test_resnet", "self", "hf:owner/name"])
def test_what_can_only_be_known_later_is_not_refused(teacher: str) -> None:
    """The hub is not asked: next come the data."""
    if teacher.startswith("hf:"):
        pytest.importorskip("transformers")
    refused = refusal(compressor.distill, teacher=teacher, student="timm:test_vit", set={"losses": [{"name": "kd"}]})
    assert "no-data does not exist" in refused.message


def test_specialists_without_their_generalist_or_one_of_them() -> None:
    for number, (generalist, missing) in enumerate((("run:gone", "gone"), ("timm:test_resnet", "1/specialists/1"))):
        folder = Path(str(number))
        folder.mkdir()
        write_json(folder / "specialists.json", specialists_of(generalist))
        refused = refusal(compressor.distill, teacher=f"specialists:{folder}", student="timm:test_vit")
        assert refused.message == f"the run {missing} does not exist"


@pytest.mark.parametrize("teacher", ["run:nowhere", "specialists:empty"])
def test_the_generalist_of_specialists(teacher: str) -> None:
    message = refusal(compressor.specialists, teacher=teacher, count=2).message
    assert message in ("the run nowhere does not exist", "empty holds no specialists (specialists.json is missing)")


def specialists_of(generalist: str) -> Specialists:
    score = Accuracy(split="validation", n=9, correct=9, accuracy=1.0, low=0.7, high=1.0, balanced=1.0)
    expert = Specialist(classes=("a", "b"), run="specialists/1", sha256="0", validation=score)
    return Specialists(
        task="image-classification",
        generalist=Weights(source=generalist, architecture="x", sha256="0", licence="unknown", parameters=1),
        input_size=None,
        class_names=("a", "b", "c"),
        specialists=(expert,),
        alone=("c",),
        data=DataInfo(source="digits", fingerprint="0", class_names=("a", "b", "c"), counts={"train": 9}),
        recipe=Recipe(losses=(LossTerm(name="cross_entropy"),)),
        generalist_validation=score,
        validation=score,
    )
