"""Quantization-aware distillation, from a run in float to a run that rounds: what it mends, what it leaves alone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from compressor.distill import distill
from compressor.distill.methods.qat import distill_quantized, qat_recipe, quantization_aware
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.models import load_run, save_run
from compressor.progress import Progress, Silent
from compressor.quantization.fake_quant import add_fake_quant, fake_quant_layers
from compressor.quantization.folding import fold_batchnorm, unfolded
from compressor.quantization.plan import quant_plan
from compressor.quantization.ranges import calibrate
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json, write_json
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.quantization import Scheme
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request, Student
from compressor.tasks.image_classification import normalise, open_data, resize_and_crop
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.preprocessing import of_images

Ask = Callable[..., Request]

U8S8, S8S8 = Scheme(activations="uint8"), Scheme(activations="int8")
QAT = {"epochs": 2, "lr_share": 0.03, "calibration": 64}


def on(
    run: Path, out: Path, scheme: Scheme = U8S8, progress: Progress | None = None, resume: bool = False, **how: Any
) -> Student:
    """quantization_aware with the usual arguments."""
    usual = {"teacher": None, "epochs": None, "progress": progress or Silent()}
    return quantization_aware(run, scheme, Destination(out, resume=resume), **{**usual, **how})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, ask_distill: Ask) -> Path:
    """A student in float. Never change it."""
    out = tmp_path_factory.mktemp("plain") / "run"
    request = ask_distill(student="timm:test_resnet", epochs=8, qat=QAT)
    distill(request, Destination(out), progress=Silent())
    return out


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    """The student trained on from it. Never change it."""
    out = tmp_path_factory.mktemp("quantized") / "run"
    on(plain, out)
    return out


def test_the_run_is_recorded_whole(plain: Path, quantized: Path, teacher_run: Path) -> None:
    parts = ["history.jsonl", "run.json", "student.json", "student.safetensors", "trained_on.npy"]
    assert sorted(files(quantized)) == parts
    before, after = read_json(plain / "student.json", Student), read_json(quantized / "student.json", Student)
    assert (before.quantization, after.made_by, after.init) == (None, "distill", f"run:{plain}")
    assert (after.architecture, after.class_names, after.preprocess, after.data, after.teacher) == (
        before.architecture, before.class_names, before.preprocess, before.data, before.teacher
    )  # fmt: skip
    assert after.weights.sha256 != before.weights.sha256
    assert (after.kept_epoch, after.test.n, after.recipe.qat.epochs) == (2, 120, 2)
    assert after.quantization is not None
    assert after.quantization.scheme == U8S8
    request = read_json(quantized / "run.json", Request)
    assert (request.qat, request.init) == (U8S8, f"run:{plain}")
    assert [row["epoch"] for row in history(quantized)] == [1, 2]
    assert history(quantized)[0]["loss"].keys() == {"kd", "cross_entropy"}


def test_the_loaded_run_rounds_and_answers_as_it_was_measured(quantized: Path, digits4: str) -> None:
    model, student = load_run(quantized)
    assert student.quantization is not None
    assert list(fake_quant_layers(model.network)) == list(student.quantization.inputs)
    assert not unfolded(model.network)
    test = open_data(digits4).test
    answers = logits_of(model, [test.read(i) for i in range(len(test))]).argmax(-1).numpy()
    assert (answers == test.labels).sum() == accuracy_in(student.test).correct
    state = load_file(quantized / "student.safetensors")
    assert set(state) == set(model.network.state_dict())
    assert student.weights.parameters == sum(p.numel() for p in model.network.parameters())


def test_the_teacher_and_the_student_in_float_are_left_alone(tmp_path: Path, plain: Path, teacher_run: Path) -> None:
    before = files(plain), files(teacher_run)
    on(plain, tmp_path / "run", S8S8, epochs=1)
    assert (files(plain), files(teacher_run)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing is left beside it"


def test_what_the_training_in_float_has_said_is_not_said_again(tmp_path: Path, plain: Path) -> None:
    """Inside `kdc export` and `kdc distill --qat` the lines on data and teacher were read before."""
    said: list[str] = []

    class Hearing(Silent):
        def note(self, text: str) -> None:
            said.append(text)

        warn = note

    made = on(plain, tmp_path / "run", epochs=1, progress=Hearing())
    for again in (
        "data idx",
        "data digits",
        "teacher card",
        "teacher run",
        "split off",
        "most often mistaken",
        "suggested temperature",
        "calibration",
    ):
        assert not [line for line in said if again in line and "behind its teacher" not in line], again
    assert [line for line in said if line.startswith("fake quantization (")]
    assert [line for line in said if line.startswith("kept epoch 1: ")]
    assert made.teacher_card is not None, "it is recorded all the same"


def unequal(plain: Path, out: Path, spread: float) -> Path:
    """The same function in float, which rounds badly: within the stem the channels' sizes are spread from 1 to
    `spread`, and the next convolution takes as much less of them. One step serves all, so the small ones are lost."""
    shutil.copytree(plain, out)
    model, student = load_run(out)
    layers: dict[str, Any] = dict(model.network.named_modules())
    with torch.no_grad():
        for norm, following in (("conv1.1", "conv1.3"), ("conv1.4", "conv1.6")):
            factors = spread ** torch.linspace(0, 1, layers[norm].num_features)
            layers[norm].weight *= factors
            layers[norm].bias *= factors
            layers[following].weight /= factors[:, None, None]
    save_run(out, model, student)
    return out


def untrained_accuracy(run: Path, digits4: str) -> float:
    """On the test split, of the student as it rounds before any training."""
    model, _ = load_run(run)
    data = open_data(digits4)
    train = normalised([data.train.read(i) for i in range(64)], of_images(model.preprocess))
    example = torch.zeros(1, 3, *of_images(model.preprocess).input_size)
    folded = fold_batchnorm(model.network, (example,))
    quantization = calibrate(folded, quant_plan(folded, (example,)), U8S8, [(train,)])
    rounding = replace(model, network=add_fake_quant(folded, quantization))
    answers = logits_of(rounding, [data.test.read(i) for i in range(len(data.test))]).argmax(-1).numpy()
    return float((answers == data.test.labels).mean())


def normalised(images: list[Image.Image], how: ImagePreprocess) -> Tensor:
    return torch.from_numpy(normalise(np.stack([resize_and_crop(image, how) for image in images]), how))


@pytest.mark.slow
def test_training_mends_what_rounding_broke(tmp_path: Path, plain: Path, digits4: str) -> None:
    run = unequal(plain, tmp_path / "unequal", 1000.0)
    test = open_data(digits4).test
    images = [test.read(i) for i in range(len(test))]
    apart = logits_of(load_run(run)[0], images) - logits_of(load_run(plain)[0], images)
    assert float(apart.abs().max()) < 1e-2, "in float it is the same student"
    in_float = accuracy_in(read_json(plain / "student.json", Student).test).accuracy
    assert untrained_accuracy(plain, digits4) > in_float - 0.03
    assert untrained_accuracy(run, digits4) < in_float - 0.2
    mended = on(run, tmp_path / "mended", epochs=10)
    losses = [row["loss"]["kd"] for row in history(tmp_path / "mended")]
    assert losses[-1] < 0.2 * losses[0]
    assert accuracy_in(mended.test).accuracy > in_float - 0.03


@pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 5))])
def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, plain: Path, quantized: Path, interrupt_at: Callable[[int], Progress], step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        on(plain, tmp_path / "run", progress=interrupt_at(step))
    assert not (tmp_path / "run" / "student.json").exists()
    on(plain, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == (quantized / "student.safetensors").read_bytes()
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_nothing_is_resumed_from_another_student(
    tmp_path: Path, plain: Path, interrupt_at: Callable[[int], Progress]
) -> None:
    run = Path(shutil.copytree(plain, tmp_path / "plain"))
    with pytest.raises(KeyboardInterrupt):
        on(run, tmp_path / "run", progress=interrupt_at(2))
    model, student = load_run(run)
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.01)
    save_run(run, model, student)
    with pytest.raises(KdcError, match="the student in float changed"):
        on(run, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("step", [10, 8 * 6 + 7])
def test_one_command_distils_in_float_and_goes_on(
    tmp_path: Path,
    plain: Path,
    quantized: Path,
    ask_distill: Ask,
    interrupt_at: Callable[[int], Progress],
    step: int,
) -> None:
    """Interrupted in the float epochs, or in those under fake quantization: it equals the two steps by hand."""
    request = ask_distill(student="timm:test_resnet", epochs=8, qat=QAT).model_copy(update={"qat": U8S8})
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill_quantized(request, Destination(out), progress=interrupt_at(step))
    assert not (out / "student.json").exists()
    assert (out / "float" / "student.json").exists() == (step > 8 * 6)
    student = distill_quantized(request, Destination(out, resume=True), progress=Silent())
    assert (student.init, student.quantization is not None) == (f"run:{out / 'float'}", True)
    assert (out / "student.safetensors").read_bytes() == (quantized / "student.safetensors").read_bytes()
    assert (out / "float" / "student.safetensors").read_bytes() == (plain / "student.safetensors").read_bytes()
    assert read_json(out / "run.json", Request) == request
    again = distill_quantized(request, Destination(out, resume=True), progress=Silent())
    assert again == student, "nothing is left to resume"


def test_a_refused_command_leaves_nothing(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(teacher=f"run:{tmp_path / 'nowhere'}").model_copy(update={"qat": U8S8})
    with pytest.raises(KdcError, match="does not exist"):
        distill_quantized(request, Destination(tmp_path / "run"), progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_only_a_student_in_float_is_trained_on(tmp_path: Path, plain: Path, quantized: Path, teacher_run: Path) -> None:
    with pytest.raises(KdcError, match="under fake quantization already"):
        on(quantized, tmp_path / "run")
    with pytest.raises(KdcError, match="by kdc teach"):
        on(teacher_run, tmp_path / "run")
    with pytest.raises(KdcError, match="holds a finished run"):
        on(plain, quantized)
    assert not (tmp_path / "run").exists()


def test_the_teacher_may_have_moved_but_not_changed(tmp_path: Path, plain: Path, teacher_run: Path) -> None:
    moved = Path(shutil.copytree(teacher_run, tmp_path / "moved"))
    student = on(plain, tmp_path / "run", teacher=f"run:{moved}", epochs=1)
    assert student.teacher is not None
    assert student.teacher.source == f"run:{moved}"
    with pytest.raises(KdcError, match="is not the teacher that this student was distilled from"):
        on(plain, tmp_path / "other", teacher=f"run:{plain}")
    assert not (tmp_path / "other").exists()


def test_each_command_says_what_helps_where_the_teacher_is_gone(
    tmp_path: Path, plain: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export takes another reference to it; a resumed distillation only the one that it was started with."""

    def gone(request: Request, record: Student, moved_to: str | None, hint: str) -> None:
        raise KdcError("gone", hint)

    monkeypatch.setattr(import_module("compressor.distill.methods.qat"), "teacher_of", gone)
    with pytest.raises(KdcError, match="gone") as raised:
        on(plain, tmp_path / "export")
    assert raised.value.hint == "if it lies elsewhere now: kdc export … --teacher REFERENCE"
    request = ask_distill(student="timm:test_resnet", epochs=8, qat=QAT).model_copy(update={"qat": U8S8})
    shutil.copytree(plain, tmp_path / "run" / "float")
    write_json(tmp_path / "run" / "run.json", request)
    with pytest.raises(KdcError, match="gone") as raised:
        distill_quantized(request, Destination(tmp_path / "run", resume=True), progress=Silent())
    assert raised.value.hint == "put it back there, and give the same command with --resume"


def test_changed_data_is_refused(tmp_path: Path, plain: Path, digits4: str) -> None:
    run = Path(shutil.copytree(plain, tmp_path / "plain"))
    record = json.loads((run / "student.json").read_text())
    record["data"]["fingerprint"] = "0" * 64
    (run / "student.json").write_text(json.dumps(record))
    with pytest.raises(KdcError, match="its fingerprint differs"):
        on(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_the_epochs_under_fake_quantization() -> None:
    values = {"schema": 1, "epochs": 30, "head_epochs": 2, "optimizer": {"lr": 0.01}, "losses": [{"name": "kd"}]}
    qat = {"epochs": 4, "lr_share": 0.05, "ema_decay": 0.9}
    made, left_out = qat_recipe(Recipe.model_validate({**values, "qat": qat}), with_teacher=True)
    assert left_out == []
    assert (made.epochs, made.head_epochs, made.ema_decay, made.losses[0].name) == (4, 0, 0.9, "kd")
    assert made.optimizer.lr == pytest.approx(0.0005)
    assert made.optimizer.weight_decay == 0.0


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", 0), ("lr_share", 0), ("lr_share", 1.5), ("ema_decay", 1.0), ("lr", 0.1)]
)
def test_the_recipes_section_is_strict(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"qat\.{key}"):
        Recipe.model_validate({"schema": 1, "losses": [{"name": "kd"}], "qat": {key: value}})


def test_runs_from_before_there_was_quantization_still_load(tmp_path: Path, plain: Path) -> None:
    run = Path(shutil.copytree(plain, tmp_path / "old"))
    for name, key in (("student.json", "quantization"), ("run.json", "qat")):
        values = json.loads((run / name).read_text())
        del values[key]
        del values["recipe"]["qat"]
        (run / name).write_text(json.dumps(values))
    model, student = load_run(run)
    assert student.quantization is None
    assert not fake_quant_layers(model.network)
    assert read_json(run / "run.json", Request).qat is None
