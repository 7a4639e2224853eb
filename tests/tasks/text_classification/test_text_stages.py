"""DistilBERT's triple loss and TinyBERT's stages as recipes, texts without labels, views of texts: the whole way, and
after an interruption in each stage."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compressor.distill.loop import engine
from compressor.models import load_run
from compressor.models.trained_on import images_of
from tests.kit import Ended, call
from tests.shared import made_once
from tests.tasks.text_classification.kit import SPEED, encoder, taught, texts, with_head, write_csv

pytestmark = pytest.mark.slow

Kdc = Callable[..., Ended]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.csv, more.txt with 50 other texts, and the teacher/ that an encoder with a masked-LM head was taught to be.
    Never change them."""

    def make(folder: Path) -> None:
        write_csv(folder / "data.csv", texts(120))
        (folder / "more.txt").write_text("\n".join(text for text, _ in texts(50, seed=4)) + "\n")
        taught(folder, folder / "data.csv", epochs=12, make=with_head)

    return made_once(tmp_path_factory, "texts-with-head", make)


def distilling(made: Path, out: Path, *more: object, epochs: int = 1) -> tuple[object, ...]:
    return (
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--student",
        "layers:2", "--epochs", epochs, "--out", out, *SPEED, *more,
    )  # fmt: skip


def history(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def weights(run: Path) -> bytes:
    return (run / "student.safetensors").read_bytes()


DISTILBERT = ("--recipe", "text_distilbert", "--set", "stages.0.epochs=2")
TINYBERT = ("--recipe", "text_tinybert", "--set", "stages.0.epochs=2")


def test_the_triple_loss_on_texts_without_labels(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ("--recipe", "text_distilbert", "--set", f"stages.0.data=text:{made / 'more.txt'}")
    ended = kdc(*distilling(made, out, *more, "--set", "stages.0.epochs=6", epochs=3))
    assert ended.code == 0, ended.err
    assert (made / "teacher" / "hf" / "masked_lm.safetensors").is_file(), "kdc teach keeps it"
    said = " ".join(ended.err.split())
    assert "stage 1 learns from 50 texts of text:more.txt" in said
    assert (
        "the student's masked-LM head: that of its teacher; it is trained along, and is no part of the student" in said
    )
    assert "0 of 50 texts without labels are cut" in said
    assert "stage 1 of 2: token_kd, masked_lm, token_cosine" in said
    assert "the teacher answers anew in every epoch: other tokens are hidden in every epoch" in said
    stage = history(out / "stages" / "1")
    assert [list(row["loss"]) for row in stage] == [["token_kd", "masked_lm", "token_cosine"]] * 6
    assert {row["steps"] for row in stage} == {4}
    assert stage[-1]["loss"]["masked_lm"] < stage[0]["loss"]["masked_lm"]
    assert stage[-1]["loss"]["token_cosine"] < stage[0]["loss"]["token_cosine"]
    assert [list(row["loss"]) for row in history(out)] == [["kd", "cross_entropy"]] * 3
    assert not [name for name in load_file(out / "student.safetensors") if "masked_lm" in name or "cls" in name]
    assert sorted(path.name for path in (out / "hf").iterdir()) == ["config.json", "tokenizer.json"]
    student, record = load_run(out)
    assert record.weights.parameters == sum(value.numel() for value in student.network.parameters())
    assert any("stage 1 learns from 50 texts of text:more.txt" in note for note in record.data.notes)
    assert str(made) not in json.dumps(record.data.notes)
    seen = images_of(f"run:{out}")
    assert seen is not None
    assert len(seen) == record.data.counts["train"] + 50


def test_tinybert_by_name_and_without_labels(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    out = tmp_path / "run"
    unlabelled = ("--unlabelled", f"text:{made / 'more.txt'}", "--set", "accumulate=2")
    ended = kdc(*distilling(made, out, "--recipe", "text_tinybert", *unlabelled, epochs=2))
    assert ended.code == 0, ended.err
    assert "unlabelled: 50 texts join train; every loss but those of labels learns from them" in ended.err
    stage = history(out / "stages" / "1")
    assert [list(row["loss"]) for row in stage] == [["hidden_states", "attention_scores"]] * 10
    assert stage[-1]["loss"]["hidden_states"] < stage[0]["loss"]["hidden_states"]
    assert [list(row["loss"]) for row in history(out)] == [["soft_cross_entropy"]] * 2
    info = load_run(out)[1].data.unlabelled
    assert info is not None
    assert info.count == 50


CUTS = [("distilbert", 13, 1), ("distilbert", 22, 2), ("tinybert", 13, 1), ("tinybert", 22, 2), ("views", 14, 2)]
"""The steps at which each is stopped, and the stages that these are of."""


class KilledError(BaseException):
    """Nothing is saved where it comes, as where the process is killed."""


VIEWS = ("--set", "views.distinct=2", "--set", "views.token_dropping=0.1", "--set", "views.word_replacement=0.4")
TRAININGS: dict[str, tuple[tuple[object, ...], int]] = {
    "distilbert": (DISTILBERT, 1),
    "tinybert": (TINYBERT, 1),
    "views": (VIEWS, 3),
}
"""What is asked for, and the epochs of the last stage, of 9 steps each, with the unlabelled texts."""


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each of `TRAININGS` in one go, its teacher answering anew."""
    folder = tmp_path_factory.mktemp("whole")

    def of(name: str) -> Path:
        more, epochs = TRAININGS[name]
        if not (folder / name).exists():
            unlabelled = ("--unlabelled", f"text:{made / 'more.txt'}", "--teacher-cache", "off")
            assert call(*distilling(made, folder / name, *more, *unlabelled, epochs=epochs)) == 0
        return folder / name

    return of


@pytest.mark.parametrize("name", [*TRAININGS])
def test_a_student_is_the_same_whether_answers_are_kept_or_not(
    made: Path, whole: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    more, epochs = TRAININGS[name]
    more = (*more, "--unlabelled", f"text:{made / 'more.txt'}", "--teacher-cache", tmp_path / "cache")
    for run in ("filling", "filled"):
        assert call(*distilling(made, tmp_path / run, *more, epochs=epochs)) == 0
    assert weights(whole(name)) == weights(tmp_path / "filling") == weights(tmp_path / "filled")
    if name != "tinybert":  # of its last stage the answers are kept, where several stages look at the same
        assert list((tmp_path / "cache").glob("*/records"))


@pytest.mark.parametrize("how_it_ends", ["interrupted", "killed"])
@pytest.mark.parametrize(("name", "step", "stage"), CUTS)
def test_a_training_that_stopped_in_any_stage_goes_on_to_the_same_student(
    made: Path, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int,
    stage: int, how_it_ends: str,
) -> None:  # fmt: skip
    more, epochs = TRAININGS[name]
    asked = distilling(
        made, tmp_path / "run", *more, "--unlabelled", f"text:{made / 'more.txt'}", "--teacher-cache",
        tmp_path / "cache", epochs=epochs,
    )  # fmt: skip
    taken, done = engine._step, []

    def stopping(run: Any, parts: Any) -> Any:
        done.append(1)
        if len(done) == step and how_it_ends == "killed":
            raise KilledError
        if len(done) == step:
            signal.raise_signal(signal.SIGINT)
        return taken(run, parts)

    monkeypatch.setattr(engine, "_step", stopping)
    if how_it_ends == "killed":
        with pytest.raises(KilledError):
            call(*asked)
    else:
        assert call(*asked) == 130
    assert (tmp_path / "run" / "checkpoint").is_dir() is (
        (stage == 2 and how_it_ends == "interrupted") or name == "views"
    )
    assert call(*asked, "--resume") == 0
    assert weights(tmp_path / "run") == weights(whole(name))
    assert history(tmp_path / "run") == history(whole(name))
    if name != "views":
        assert history(tmp_path / "run" / "stages" / "1") == history(whole(name) / "stages" / "1")


def test_another_head_is_another_training(
    made: Path, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "teacher", tmp_path / "teacher")
    asked = [*distilling(made, tmp_path / "run", *DISTILBERT)]
    asked[asked.index(f"run:{made / 'teacher'}")] = f"run:{tmp_path / 'teacher'}"
    step, done = engine._step, []

    def stopping(run: Any, parts: Any) -> Any:
        done.append(1)
        if len(done) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(run, parts)

    monkeypatch.setattr(engine, "_step", stopping)
    assert call(*asked) == 130
    head = tmp_path / "teacher" / "hf" / "masked_lm.safetensors"
    save_file({name: value + 0.1 for name, value in load_file(head).items()}, head)
    ended = kdc(*asked, "--resume")
    assert ended.code == 2
    assert "--resume: since the run was interrupted, the teacher's masked-LM head changed" in ended.err


def test_hidden_tokens_count_as_one_step_however_it_is_cut(made: Path, tmp_path: Path) -> None:
    """Each hidden token weighs the same, in however many parts a step is taken."""
    losses = "losses=[{name: kd, weight: 0.001}, {name: masked_lm}, {name: token_kd}]"
    still = ("--set", losses, "--student-init", "random")
    rows = []
    for name, parts in (("whole", 1), ("parts", 4)):
        assert call(*distilling(made, tmp_path / name), *still, "--set", f"accumulate={parts}") == 0
        rows.append(history(tmp_path / name)[0]["loss"])
    for name in ("masked_lm", "token_kd"):
        # Dropout falls otherwise, and up to 3 texts of an epoch count twice.
        assert rows[0][name] == pytest.approx(rows[1][name], rel=0.05)


def test_a_control_takes_as_many_steps_as_all_stages(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc(
        *distilling(
            made, tmp_path / "run", *DISTILBERT, "--set", f"stages.0.data=text:{made / 'more.txt'}", "--control"
        )
    )  # fmt: skip
    assert ended.code == 0, ended.err
    gain = load_run(tmp_path / "run")[1].gain
    assert gain is not None
    steps = sum(row["steps"] for row in [*history(tmp_path / "run"), *history(tmp_path / "run" / "stages" / "1")])
    assert 0 <= gain.steps - steps < 6, "in whole epochs"
    ended = kdc(*distilling(made, tmp_path / "views", *VIEWS, "--control"))
    assert (ended.code, "--control: views.word_replacement asks the teacher" in ended.err) == (2, True)


def test_a_plan_counts_the_steps_of_a_stage_with_data_of_its_own(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    more = ("--set", f"stages.0.data=text:{made / 'more.txt'}", "--plan", "--json")
    ended = kdc(*distilling(made, tmp_path / "run", *DISTILBERT, *more))
    assert ended.code == 0, ended.err
    assert [part["steps"] for part in json.loads(ended.out)["parts"]] == [3, 5]
    assert not (tmp_path / "run").exists()


def changed(*more: object) -> Callable[[Path, Path], tuple[object, ...]]:
    return lambda made, tmp: (*distilling(made, tmp / "run"), *more)


def without_head(made: Path, tmp: Path) -> tuple[object, ...]:
    teacher = taught(tmp, made / "data.csv", epochs=6, make=encoder)
    return *distilling(made, tmp / "run", *DISTILBERT), "--teacher", f"run:{teacher}"


def of_a_table(made: Path, tmp: Path) -> tuple[object, ...]:
    given = ("--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}")
    assert call("predict", *given, "--out", tmp / "answers.csv") == 0
    stages = f"stages=[{{losses: [{{name: kd}}], epochs: 1, data: 'text:{made / 'more.txt'}'}}]"
    return (
        "distill", "--teacher", f"outputs:{tmp / 'answers.csv'}", *given[2:], "--student", f"hf:{made / 'encoder'}",
        "--out", tmp / "run", *SPEED, "--set", stages,
    )  # fmt: skip


def of_images(made: Path, tmp: Path) -> tuple[object, ...]:
    stages = "stages=[{losses: [{name: kd}], epochs: 1, data: 'folder:more'}]"
    return "distill", "--teacher", "self", "--data", "digits", "--student", "timm:resnet10t", "--student-init", "random", "--out", tmp / "run", "--set", stages  # fmt: skip  # noqa: E501


STAGE = "stages=[{{losses: [{{name: {0}}}], epochs: 1, data: '{1}'}}]"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (changed("--set", STAGE.format("kd", "text:nowhere.txt")), "recipe stages.0.data: nowhere.txt does not exist"),
        (changed("--set", STAGE.format("cross_entropy", "text:x")), "cross_entropy needs labels, and none are read"),
        (changed(*VIEWS[2:], "--set", "views.distinct=1"), "views.distinct: 1 shows no other"),
        (changed("--recipe", "text_tinybrt"), "text_tinybrt"),
        (without_head, "has no masked-LM head: its weights lack cls.predictions."),
        (of_a_table, "holds no predictions for these texts"),
        (of_images, "recipe stages.0.data folder:more: all stages of images learn from the same"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_one_line(made: Path, kdc: Kdc, tmp_path: Path, asked: Any, said: str) -> None:
    given = [*asked(made, tmp_path)]
    if "--teacher" in given[3:]:  # another in place of the first
        first = given.index("--teacher")
        del given[first : first + 2]
    ended = kdc(*given)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_a_teacher_trains_its_head_along_where_that_is_asked_for(made: Path, tmp_path: Path) -> None:
    asked = ("--teacher", f"hf:{made / 'encoder'}", "--data", f"csv:{made / 'data.csv'}", "--epochs", 2)
    losses = "losses=[{name: cross_entropy}, {name: masked_lm, weight: 0.5}]"
    assert call("teach", *asked, *SPEED, "--out", tmp_path / "both", "--set", losses) == 0
    first, last = (row["loss"]["masked_lm"] for row in history(tmp_path / "both"))
    assert last < first
    before, after = (load_file(run / "hf" / "masked_lm.safetensors") for run in (made / "teacher", tmp_path / "both"))
    encoder_head = dict(load_file(made / "encoder" / "model.safetensors").items())
    assert before.keys() == after.keys()
    assert all((before[name] == encoder_head[name]).all() for name in before if name in encoder_head)
    assert any((before[name] != after[name]).any() for name in before)


def test_head_and_names_of_what_is_learned_do_not_stay_in_memory(made: Path, tmp_path: Path) -> None:
    """An encoder with a head of its own as the student: its head is trained along, and left out."""
    losses = "losses=[{name: kd}, {name: masked_lm, weight: 0.1}]"
    asked = [*distilling(made, tmp_path / "run", "--set", losses)]
    asked[asked.index("layers:2")] = f"hf:{made / 'encoder'}"
    assert call(*asked) == 0
    names = load_file(tmp_path / "run" / "student.safetensors")
    assert not [name for name in names if "predictions" in name]
    assert np.isfinite(history(tmp_path / "run")[-1]["loss"]["masked_lm"])
    assert not (tmp_path / "run" / "hf" / "masked_lm.safetensors").exists()
