"""Whole trainings with every loss of the table, in every mode: they learn, they resume byte for byte, and nothing of
what stood between student and teacher is kept."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from compressor.distill import Resources, distill, distill_quantized, precompute, teach
from compressor.distill.regimes import built_in
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.models import lineage, load_model, load_run
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.quantization import Scheme
from compressor.schema.recipe import LossTerm
from compressor.schema.student import Request, Student
from tests.kit import Hearing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Ask = Callable[..., Request]
Losses = list[dict[str, Any]]

EVERY: Losses = [
    {"name": name, "weight": 0.1, **({"at": [["stage-1", "stage-1"]]} if name == "hidden_states" else {})}
    for name in LOSSES
]
OF_LANGUAGE = {"teacher_top", "student_groups"}
"""What batches of documents alone hold."""
OF_CNNS = [
    row for row in EVERY
    if LOSSES[row["name"]].taps in (None, "maps", "pooled") and LOSSES[row["name"]].knowledge != "peers"
    and not OF_LANGUAGE & {*LOSSES[row["name"]].needs}
]  # fmt: skip
OF_TRANSFORMERS: Losses = [
    {"name": "attention_maps"}, {"name": "hidden_states", "weight": 0.1}, {"name": "kd", "weight": 0.5},
]  # fmt: skip


def run(request: Request, out: Path, *, resume: bool = False, progress: Progress | None = None) -> Student:
    how = teach if request.command == "teach" else distill
    return how(request, Destination(out, resume=resume), progress=progress or Silent())


def resumed_is_whole(tmp_path: Path, request: Request, interrupt_at: Callable[[int], Progress], step: int = 8) -> Path:
    """Pitfalls, "Resumed is not the same", with all that a mode keeps: connectors, their memory, peers, the student of
    the epoch before."""
    run(request, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "parts", progress=interrupt_at(step))
    run(request, tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all((whole[name] == parts[name]).all() for name in whole)
    histories = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    without_seconds = [[row.rpartition(', "seconds"')[0] for row in rows] for rows in histories]
    assert without_seconds[0] == without_seconds[1]
    return tmp_path / "whole"


def test_every_loss_at_once_is_learned_and_resumed(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    """Pitfalls, "What belongs to the optimizer and not to the export": connectors belong to the optimizer and the
    checkpoint, and never to what is kept."""
    out = resumed_is_whole(tmp_path, ask_distill(losses=OF_CNNS, epochs=3, peers=[]), interrupt_at)
    alone = run(ask_distill(losses=[{"name": "cross_entropy"}], epochs=1), tmp_path / "alone")
    assert load_run(out)[1].weights.parameters == alone.weights.parameters
    assert load_file(out / "student.safetensors").keys() == load_file(tmp_path / "alone/student.safetensors").keys()
    first, last = (json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()[::2])
    assert first["loss"].keys() == {row["name"] for row in OF_CNNS}
    for name in ("hint", "kd", "cross_entropy", "pooled", "crd", "rkd_distance"):
        assert last["loss"][name] < first["loss"][name], name


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory, ask_teach: Ask) -> Path:
    out = tmp_path_factory.mktemp("vit") / "teacher"
    run(ask_teach("timm:test_vit", epochs=10, optimizer={"lr": 3e-3}, input_size=48), out)
    return out


def test_a_transformer_teaches_a_cnn_features_and_relations_at_another_size(
    tmp_path: Path, ask_distill: Ask, transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("cross_entropy", "hint", "attention_transfer", "pooled", "rkd_angle", "similarity_preserving")
    kept: list[tuple[nn.Module, dict[str, Tensor]]] = []
    load = load_model

    def watched(*arguments: Any, **named: Any) -> Any:
        model = load(*arguments, **named)
        kept.append((model.network, {name: tensor.clone() for name, tensor in model.network.state_dict().items()}))
        return model

    monkeypatch.setattr(lineage, "load_model", watched)
    progress = Hearing()
    request = ask_distill(
        teacher=f"run:{transformer}", losses=[{"name": name, "weight": 0.5} for name in names], epochs=3
    )
    run(request, tmp_path / "run", progress=progress)
    assert any("hint: stage2 (24×8×8) from stage2 (64×3×3)" in line for line in progress.notes)
    ((network, before),) = kept
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()), "it drifted"


def test_hidden_states_and_attention_maps_between_transformers(
    tmp_path: Path, ask_distill: Ask, transformer: Path, interrupt_at: Callable[[int], Progress]
) -> None:
    request = ask_distill(
        teacher=f"run:{transformer}", student="timm:test_vit2", losses=OF_TRANSFORMERS, input_size=48, epochs=2
    )
    resumed_is_whole(tmp_path, request, interrupt_at)


SELF: Losses = [
    {"name": "kd", "weight": {"from": 0.0, "to": 0.8}, "temperature": 1.0},
    {"name": "cross_entropy", "weight": {"from": 1.0, "to": 0.2}},
]
MODES: dict[str, dict[str, Any]] = {
    "the student of the epoch before": {"teacher": "self", "losses": SELF},
    "early exits": {"teacher": "self", "losses": [{"name": "cross_entropy"}, {"name": "early_exits", "weight": 0.3}]},
    "peers of its kind and of another": {
        "teacher": "peers",
        "losses": [{"name": "cross_entropy"}, {"name": "mutual"}, {"name": "peer_ensemble", "weight": 0.5}],
        "peers": [{"student": "timm:test_efficientnet"}, {"student": "timm:test_resnet"}],
    },
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_without_a_teacher_that_is_trained_already(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress], mode: dict[str, Any]
) -> None:
    out = resumed_is_whole(tmp_path, ask_distill(**mode, epochs=3), interrupt_at, step=9)
    student = load_run(out)[1]
    assert (student.teacher, student.teacher_validation) == (None, None)


def test_a_teacher_is_trained_along_with_its_student(tmp_path: Path, ask_distill: Ask) -> None:
    """Online distillation: the larger network is a peer, which learns from labels too."""
    request = ask_distill(
        teacher="peers", losses=[{"name": "cross_entropy"}, {"name": "mutual"}], epochs=3,
        peers=[{"student": "timm:test_resnet"}],
    )  # fmt: skip
    run(request, tmp_path / "run")
    first, last = (json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()[::2])
    assert last["loss"]["peer1 cross_entropy"] < first["loss"]["peer1 cross_entropy"]
    assert load_run(tmp_path / "run")[1].architecture == "test_efficientnet"


def test_teaching_with_early_exits_keeps_none_of_them(tmp_path: Path, ask_teach: Ask) -> None:
    made = run(ask_teach(losses=[{"name": "cross_entropy"}, {"name": "early_exits"}], epochs=1), tmp_path / "run")
    plain = run(ask_teach(epochs=1), tmp_path / "plain")
    assert made.weights.parameters == plain.weights.parameters


def ensemble(request: Request, other: Path) -> Request:
    return request.model_copy(update={"other_teachers": (f"run:{other}",)})


def test_an_ensemble_teaches_and_its_answers_are_kept(
    tmp_path: Path, ask_distill: Ask, transformer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    request = ensemble(ask_distill(epochs=3, views={"distinct": 1, "hflip": False}), transformer)
    progress = Hearing()
    kept = run(request, tmp_path / "kept", progress=progress)
    assert any("sees images as the ensemble's largest member does" in line for line in progress.notes)
    assert any("the teacher's answers: new in" in line for line in progress.notes)
    assert kept.teacher is not None
    assert kept.teacher.architecture == "test_resnet + test_vit"
    assert kept.teacher_validation is not None
    assert accuracy_in(kept.teacher_validation).accuracy > 0.8


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([{"name": "kd"}, {"name": "hint"}], "have no layers in common"),
        ([{"name": "kd"}], None),
    ],
)
def test_an_ensemble_has_answers_and_no_layers(
    tmp_path: Path, ask_distill: Ask, transformer: Path, losses: Losses, message: str | None
) -> None:
    request = ensemble(ask_distill(losses=losses, epochs=1), transformer)
    if message is None:
        run(request, tmp_path / "run")
        return
    with pytest.raises(KdcError, match=message):
        run(request, tmp_path / "run")
    assert not (tmp_path / "run").exists()


BAD: Sequence[tuple[dict[str, Any], str]] = [
    ({"losses": [{"name": "kd"}, {"name": "attention_maps"}]}, "has no attention"),
    ({"losses": [{"name": "kd"}, {"name": "hint", "at": [["stage9", "stage1"]]}]}, "there is no stage9"),
    (
        {"losses": [{"name": "kd"}, {"name": "hint", "at": [["stage2", "pooled"]]}]},
        "pooled of run:.* gives 96, and this",
    ),
    (
        {"losses": [{"name": "kd"}, {"name": "fsp", "at": [["stage2", "stage2"]]}]},
        "it compares 2 pairs of layers or more",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_layers_that_cannot_be_looked_at_are_refused_before_training(
    tmp_path: Path, ask_distill: Ask, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdcError, match=message):
        run(ask_distill(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def history(out: Path) -> dict[str, float]:
    row = json.loads((out / "history.jsonl").read_text(encoding="utf-8").splitlines()[0])
    losses: dict[str, float] = row["loss"]
    return losses


def test_the_default_compares_stages_of_equal_stride(tmp_path: Path, ask_distill: Ask) -> None:
    progress = Hearing()
    run(ask_distill(losses=built_in("large")["losses"], epochs=1), tmp_path / "run", progress=progress)
    assert any(line.startswith("pkd: stage2 (24×8×8) from stage2 (") for line in progress.notes)
    assert history(tmp_path / "run")["pkd"] > 0


WHY = {
    "transformer": ".* and run:.* have too few stages of equal stride",
    "ensemble": "there is no one network that teaches",
    "self": "there is no one network that teaches",
    "without stages": "ResNet has no stages that can be told apart",
}


@pytest.mark.parametrize("teacher", WHY)
def test_the_default_leaves_layers_out_where_none_have_equal_stride(
    tmp_path: Path, ask_distill: Ask, transformer: Path, monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    request = ask_distill(losses=built_in("large")["losses"], epochs=1)
    if teacher == "transformer":
        request = request.model_copy(update={"teacher": f"run:{transformer}"})
    elif teacher == "ensemble":
        request = ensemble(request, transformer)
    elif teacher == "self":
        request = request.model_copy(update={"teacher": "self"})
    else:
        monkeypatch.delattr(timm.models.resnet.ResNet, "forward_intermediates")
    progress = Hearing()
    run(request, tmp_path / "run", progress=progress)
    assert any(re.fullmatch(f"pkd is left out: {WHY[teacher]}", line) for line in progress.notes), progress.notes
    assert history(tmp_path / "run").keys() == {"kd", "cross_entropy"}
    assert "pkd" in [term.name for term in load_run(tmp_path / "run")[1].recipe.losses]


def test_what_is_left_out_may_not_be_all_that_the_teacher_is_asked_for(
    tmp_path: Path, ask_distill: Ask, transformer: Path
) -> None:
    """Images without labels would teach nothing, and the teacher would not matter."""
    losses = [{"name": "cross_entropy"}, {"name": "pkd", "at": "same_stride"}]
    with pytest.raises(KdcError, match=r"pkd would be left out, and no other loss learns from the teacher: .* too few"):
        run(ask_distill(teacher=f"run:{transformer}", losses=losses), tmp_path / "run")
    run(ask_distill(losses=losses, epochs=1), tmp_path / "run")


def test_answers_are_kept_ahead_where_no_layer_is_looked_at_after_all(
    tmp_path: Path, ask_distill: Ask, transformer: Path
) -> None:
    request = ask_distill(teacher=f"run:{transformer}", losses=built_in("large")["losses"], views={"distinct": 2})
    resources = Resources(teacher_cache=tmp_path / "cache")
    precompute(request, tmp_path / "run", progress=Silent(), resources=resources)
    assert len(list((tmp_path / "cache").glob("*/key.json"))) == 1


def test_answers_are_not_kept_ahead_where_layers_are_wanted_whole(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(losses=[*built_in("large")["losses"], {"name": "hint"}], views={"distinct": 2})
    with pytest.raises(KdcError, match="--precompute: pkd looks at all of the teacher's stage2, and what is kept are"):
        precompute(request, tmp_path / "run", progress=Silent())
    progress = Hearing()
    with_hint = [*built_in("large")["losses"][:2], {"name": "hint"}]
    run(ask_distill(losses=with_hint, views={"distinct": 1}), tmp_path / "run", progress=progress)
    anew = "the teacher answers anew in every epoch: a loss looks at all of its stage2"
    assert any(line.startswith(anew) for line in progress.notes)
    with pytest.raises(KdcError, match="learns along with the student"):
        precompute(ask_distill(teacher="self", views={"distinct": 2}), tmp_path / "run", progress=Silent())


def test_under_fake_quantization_losses_on_features_are_left_out_and_said_so(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(
        losses=[{"name": "kd", "weight": {"from": 1.0, "to": 0.5}}, {"name": "hint"}], qat={"epochs": 1}
    )
    scheme = Scheme(activations="uint8", weight_bits=8, per_channel=True)
    progress = Hearing()
    request = request.model_copy(update={"qat": scheme})
    distill_quantized(request, Destination(tmp_path / "run"), progress=progress)
    assert any("under fake quantization the student learns without hint" in line for line in progress.notes)
    row = json.loads((tmp_path / "run/history.jsonl").read_text().splitlines()[0])
    assert row["loss"].keys() == {"kd"}
    ends_at_nothing = LossTerm.model_validate({"name": "kd", "weight": {"from": 1.0, "to": 0.0}})
    ending = request.recipe.model_copy(update={"losses": (ends_at_nothing, request.recipe.losses[1])})
    only = request.model_copy(update={"recipe": ending})
    with pytest.raises(KdcError, match="every weight is 0"):
        distill_quantized(only, Destination(tmp_path / "other"), progress=Silent())
    assert not (tmp_path / "other").exists()


POOLED: Losses = [
    {"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}, {"name": "pooled"}, {"name": "rkd_angle"},
    {"name": "crd", "weight": 0.1},
]  # fmt: skip


@pytest.mark.parametrize("answers", [{}, {"dtype": "float16", "top_k": 2}], ids=["float32", "float16, top 2"])
def test_pooled_features_are_kept_with_the_answers(tmp_path: Path, ask_distill: Ask, answers: dict[str, Any]) -> None:
    """The same student, whether they are or not, and from answers that were computed ahead."""
    request = ask_distill(losses=POOLED, epochs=3, views={"distinct": 1, "hflip": False}, teacher_answers=answers)
    students = []
    for name, cache in (("kept", tmp_path / "cache"), ("anew", None), ("again", tmp_path / "cache")):
        progress = Hearing()
        distill(
            request, Destination(tmp_path / name), progress=progress,
            resources=Resources(teacher_cache=cache),
        )  # fmt: skip
        students.append(load_file(tmp_path / name / "student.safetensors"))
        said = "--teacher-cache off" if cache is None else "the teacher's answers: "
        assert any(said in line for line in progress.notes)
    assert all((students[0][name] == other[name]).all() for other in students[1:] for name in students[0])
    ahead = request.model_copy(update={"recipe": request.recipe.model_copy(update={"seed": 7})})
    progress = Hearing()
    precompute(ahead, tmp_path / "ahead", progress=progress, resources=Resources(teacher_cache=tmp_path / "cache"))
    assert "all of the teacher's answers are there" in progress.notes


WITHOUT_EFFECT: dict[str, tuple[dict[str, Any], str]] = {
    "no peers": ({"teacher": "peers", "losses": [{"name": "cross_entropy"}]}, "the recipe names none"),
    "an ensemble of one": ({"ensemble": {"of": "logits"}}, "recipe ensemble says how several teachers answer as one"),
    "own layers": ({"teacher": "self", "losses": [{"name": "kd"}, {"name": "hint"}]}, "no teacher with layers of its"),
    "classes for nobody": ({"teacher": "self", "teacher_classes": "classes.txt"}, "--teacher self has the data's"),
    "contrasts of mixed images": (
        {"losses": [{"name": "kd"}, {"name": "crd"}], "views": {"mixup": 0.2}}, "crd needs one class an image",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT)
def test_what_would_have_no_effect_is_refused(
    tmp_path: Path, ask_distill: Ask, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdcError, match=message):
        run(ask_distill(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fine_tuned_model_has_no_peers(tmp_path: Path, ask_teach: Ask) -> None:
    peers = {"losses": [{"name": "cross_entropy"}, {"name": "mutual"}], "peers": [{"student": "timm:test_resnet"}]}
    with pytest.raises(KdcError, match="kdc teach trains one network"):
        run(ask_teach(**peers), tmp_path / "run")


def test_few_labels_among_mixed_images_are_warned_of(tmp_path: Path, ask_distill: Ask) -> None:
    progress = Hearing()
    request = ask_distill(views={"mixup": 0.2, "hflip": False}, transfer={"labelled": 0.25}, epochs=1)
    run(request, tmp_path / "run", progress=progress)
    assert any("mixed views have a label only where both" in line for line in progress.warnings)
