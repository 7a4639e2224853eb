"""Which weights of a checkpoint are taken: as timm chooses; said; and asked where several could be meant."""

import argparse
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models import load_model, map_classes
from compressor.models.checkpoints.state_dict import read_checkpoint
from compressor.models.references import with_class_file
from compressor.tasks.image_classification.models.students import create_student, create_trainee

State = Mapping[str, Tensor]
SPARE = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"params": [0]}]}}


def drawn(seed: int, name: str = "test_resnet", classes: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    found: dict[str, Tensor] = timm.create_model(name, num_classes=classes).state_dict()
    return dict(found)


GOOD, RAW = drawn(0), drawn(1)


def loaded(path: Path, key: str = "", name: str = "test_resnet") -> State:
    state: State = load_model(f"timm:{name}@{path}{key}").network.state_dict()
    return state


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in other)


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


TIMMS_OWN = {
    "deit": {"model": RAW, "model_ema": GOOD, **SPARE},
    "timm": {"state_dict": RAW, "state_dict_ema": GOOD, "arch": "test_resnet", **SPARE},
    "both averages": {"state_dict_ema": GOOD, "model_ema": RAW, "model": RAW},
    "state_dict first": {"state_dict": GOOD, "model": RAW},
    "no average": {"state_dict": GOOD, "state_dict_ema": None},
}


@pytest.mark.parametrize("content", TIMMS_OWN.values(), ids=TIMMS_OWN)
def test_where_timm_has_a_rule_it_is_followed(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)
    theirs = timm.models.load_state_dict(str(tmp_path / "a.pth"), use_ema=True)
    assert same(loaded(tmp_path / "a.pth"), theirs)
    student = create_student("timm:test_resnet", str(tmp_path / "a.pth"), ["a", "b", "c"], 32, None)
    assert same(student.network.state_dict(), GOOD)


def test_the_key_is_said(tmp_path: Path) -> None:
    torch.save({"model": RAW, "model_ema": GOOD, **SPARE}, tmp_path / "a.pth")
    said = load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}").notes
    assert said == ("a.pth: the weights under model_ema are taken; it also holds model",)
    torch.save(GOOD, tmp_path / "b.pth")
    assert load_model(f"timm:test_resnet@{tmp_path / 'b.pth'}").notes == ()
    student = create_student("timm:test_resnet", str(tmp_path / "a.pth"), ["a", "b", "c"], 32, None)
    assert student.notes == said


SEVERAL: dict[str, tuple[Any, str, list[str]]] = {
    "ema": ({"model": RAW, "ema": GOOD}, "ema", ["model", "ema"]),
    "ema_state_dict": ({"state_dict": RAW, "ema_state_dict": GOOD}, "ema_state_dict", ["state_dict", "ema_state_dict"]),
    "dino": ({"student": under("module.", RAW), "teacher": GOOD, "dino_loss": {"center": torch.zeros(2)}}, "teacher",
             ["student.module", "teacher"]),
    "nested": ({"state_dict": RAW, "ema": {"module": GOOD, "decay": 0.9}}, "ema.module", ["state_dict", "ema.module"]),
    "average named as timm does, and another": (
        {"model": RAW, "model_ema": RAW, "swa": GOOD}, "swa", ["model", "model_ema", "swa"]),
    "lightning": (
        {"state_dict": {**under("model.", RAW), **under("ema_model.module.", GOOD)}}, "state_dict.ema_model.module",
        ["state_dict.ema_model.module", "state_dict.model"]),
    "a callback's, deep": (
        {"state_dict": under("model.", RAW), "callbacks": {"EMA": {"state": {"ema": {"weights": GOOD}}}}},
        "callbacks.EMA.state.ema.weights", ["state_dict.model", "callbacks.EMA.state.ema.weights"]),
    "a list": ({"model": RAW, "emas": [RAW, GOOD]}, "emas.1", ["model", "emas.0", "emas.1"]),
    "nothing but a list": ([RAW, GOOD], "1", ["0", "1"]),
    "a number": ({"model": RAW, 1: GOOD}, "1", ["model", "1"]),
    "shadow by name": (
        {"model": RAW, "ema": {"decay": 0.9, "shadow": GOOD}}, "ema.shadow", ["model", "ema.shadow"]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "key", "named"), SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("as_student", [False, True])
def test_where_several_could_be_meant_the_user_says_which(
    content: Any, key: str, named: list[str], as_student: bool, tmp_path: Path
) -> None:
    file = tmp_path / "a.ckpt"
    torch.save(content, file)

    def load(path: str) -> State:
        if as_student:
            model = create_student("timm:test_resnet", path, ["a", "b", "c"], 32, None)
            state: State = model.network.state_dict()
            return state
        return loaded(Path(path))

    with pytest.raises(KdcError, match=r"a.ckpt holds several weights that could be meant: ") as caught:
        load(str(file))
    assert caught.value.exit_code == 2
    assert sorted(caught.value.message.partition("meant: ")[2].split(", ")) == sorted(named)
    assert f"{file}#" in caught.value.hint
    assert same(load(f"{file}#{key}"), GOOD)


def test_averages_without_names_are_said_and_raw_weights_taken_only_when_named(tmp_path: Path) -> None:
    shadow = [value for name, value in GOOD.items() if name.endswith(("weight", "bias"))]
    torch.save({"model": RAW, "ema": {"decay": 0.99, "shadow_params": shadow}}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=r"without names, .* under ema.shadow_params, which cannot be loaded"):
        loaded(tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth", "#model"), RAW)


PARAMETERS = [value for name, value in GOOD.items() if name.endswith(("weight", "bias"))]
UNLOADABLE: dict[str, tuple[Any, str]] = {
    "among the optimizers' states": (
        {"state_dict": under("model.", RAW), "optimizer_states": [{"opt": {}, "ema": tuple(PARAMETERS)}]},
        "optimizer_states.0.ema"),
    "by number": ({"model": RAW, "ema": dict(enumerate(PARAMETERS))}, "ema"),
    "by other names": ({"model": RAW, "ema": {name.replace(".", ""): GOOD[name] for name in GOOD}}, "ema"),
    "the trained layers alone": ({"model": RAW, "ema": {n: GOOD[n] for n in GOOD if n.startswith("fc.")}}, "ema"),
    "one list a group": ({"model": RAW, "ema": [PARAMETERS[::2], PARAMETERS[1::2]]}, "ema.0, ema.1"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "key"), UNLOADABLE.values(), ids=UNLOADABLE)
def test_averages_that_cannot_be_loaded_are_not_passed_over(content: Any, key: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(KdcError) as caught:
        loaded(tmp_path / "a.pth")
    assert f"under {key}, which cannot be loaded" in caught.value.message
    raw = "#state_dict.model" if "state_dict" in content else "#model"
    assert caught.value.hint.endswith(f"a.pth{raw}")
    assert same(loaded(tmp_path / "a.pth", raw), RAW)


def test_lists_of_figures_are_no_weights(tmp_path: Path) -> None:
    figures = {"loss": [torch.tensor(0.5)] * 100, "rng": [torch.get_rng_state()] * 64}
    torch.save({"model": GOOD, "history": figures}, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)


def test_what_holds_itself_has_an_end(tmp_path: Path) -> None:
    circle: list[Any] = [GOOD]
    circle.append(circle)
    many: Any = {}
    for _ in range(8):
        many = [many] * 100
    torch.save({"circle": circle, "many": many}, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)


def test_a_checkpoint_of_another_network_with_the_same_names_is_said(tmp_path: Path) -> None:
    torch.save({"state_dict": GOOD, "arch": "test_resnet.r160_in1k"}, tmp_path / "a.pth")
    assert load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}").notes[1:] == ()
    torch.save({"state_dict": GOOD, "arch": "resnet10t"}, tmp_path / "b.pth")
    said = "b.pth: these are weights of resnet10t, and are loaded into test_resnet"
    assert said in load_model(f"timm:test_resnet@{tmp_path / 'b.pth'}").notes
    assert said in create_student("timm:test_resnet", str(tmp_path / "b.pth"), ["a", "b", "c"], 32, None).notes


def test_the_same_weights_twice_are_no_question(tmp_path: Path) -> None:
    torch.save({"model": GOOD, "best": dict(GOOD)}, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    torch.save({"model": GOOD, "ema": GOOD}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match="has no weights under emma; there are model, ema"):
        loaded(tmp_path / "a.pth", "#emma")


def test_a_path_may_hold_the_sign(tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "run#3.pth")
    assert same(loaded(tmp_path / "run#3.pth"), GOOD)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "network.", "net.",
               "model.module._orig_mod."],
)  # fmt: skip
@pytest.mark.parametrize("key", ["", "state_dict"])
def test_wrappers_are_taken_off(prefix: str, key: str, tmp_path: Path) -> None:
    content = under(prefix, GOOD)
    torch.save({key: content} if key else content, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_parts_that_torch_wrapped_are_found(wrapper: str, tmp_path: Path) -> None:
    inner = {name.replace("layer1.", f"layer1.{wrapper}."): value for name, value in GOOD.items()}
    torch.save({"state_dict": under(f"{wrapper}.", inner)}, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)
    torch.save({**under("_orig_mod.", GOOD), **RAW}, tmp_path / "b.pth")
    with pytest.raises(KdcError, match="several weights that could be meant: its own names, _orig_mod"):
        loaded(tmp_path / "b.pth")


@pytest.mark.parametrize("key", ["", "model_ema"])
def test_torchs_averaged_model(key: str, tmp_path: Path) -> None:
    """As torchvision's references save it, beside the raw weights."""
    network = timm.create_model("test_resnet", num_classes=3)
    network.load_state_dict(GOOD)
    averaged = torch.optim.swa_utils.AveragedModel(network).state_dict()
    torch.save({key: averaged, "model": RAW} if key else averaged, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth"), GOOD)


def test_names_that_fit_in_part_are_not_loaded(tmp_path: Path) -> None:
    """All shapes fit; half of the names are another network's."""
    names = sorted(GOOD)
    torch.save({f"layer_{n}" if n.startswith("layer4") else n: GOOD[n] for n in names}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=r"does not fit test_resnet: it has no layer4"):
        loaded(tmp_path / "a.pth")
    torch.save({**GOOD, "criterion.weight": torch.ones(3)}, tmp_path / "b.pth")
    with pytest.raises(KdcError, match=r"does not fit test_resnet: criterion.weight is no part of it"):
        loaded(tmp_path / "b.pth")


def test_a_part_that_fits_behind_a_foreign_prefix_is_asked_for(tmp_path: Path) -> None:
    """mmpretrain's names: the prefix is not around everything."""
    body = {name: value for name, value in GOOD.items() if not name.startswith("fc.")}
    torch.save({"state_dict": {**under("backbone.", body), "head.fc.weight": torch.zeros(3, 64)}}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=r"names begin with backbone\., and 1 others") as caught:
        loaded(tmp_path / "a.pth")
    assert caught.value.hint.endswith("a.pth#state_dict.backbone")
    assert load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}#state_dict.backbone").headless


# Beside tensors: what training scripts save.

SETTINGS: dict[str, Any] = {
    "timm's train.py": argparse.Namespace(lr=0.1, mean=None, path=pathlib.PurePosixPath("/data")),
    "numpy scalar": np.float64(0.75),
    "numpy array": np.arange(4),
    "path": Path("/data/photos"),
    "defaultdict": defaultdict(list, {"loss": [1.0]}),
    "ordered": OrderedDict(a=1),
    "nested": {"best": {"metric": np.float32(0.5), "args": argparse.Namespace(a=Path("x"))}},
}


@pytest.mark.parametrize("beside", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("suffix", ["pth", "pth.tar", "ckpt", "bin", "pt"])
def test_settings_beside_the_weights_are_left_out(beside: Any, suffix: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": GOOD, "args": beside}, tmp_path / f"a.{suffix}")
    assert same(loaded(tmp_path / f"a.{suffix}"), GOOD)


def test_the_older_format_of_torch(tmp_path: Path) -> None:
    content = {"state_dict": GOOD, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert same(loaded(tmp_path / "a.pth"), GOOD)


class Danger(argparse.Namespace):
    """A class of the user's own."""


def test_another_global_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": GOOD, "args": Danger(lr=0.1)}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=r"holds more than tensors \(.*test_models_checkpoints.Danger\)"):
        loaded(tmp_path / "a.pth")


def test_stand_ins_run_nothing(tmp_path: Path) -> None:
    """A state that a real Namespace or path would take on is thrown away."""
    from compressor.models.checkpoints.files import load_content

    torch.save({"args": argparse.Namespace(lr=0.1), "w": torch.ones(1)}, tmp_path / "a.pth")
    assert vars(load_content(tmp_path / "a.pth")["args"]) == {}


def test_a_whole_network_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet"), tmp_path / "a.pth")
    with pytest.raises(KdcError, match=r"is a whole pickled network \(timm.models.resnet.ResNet\), which is code") as e:
        loaded(tmp_path / "a.pth")
    assert "state_dict()" in e.value.hint


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))  # type: ignore[no-untyped-call]
    with pytest.raises(KdcError, match="is a TorchScript archive, which is code"):
        loaded(tmp_path / "a.pt")


@pytest.mark.parametrize("form", ["torch.save", "pickle"])
def test_a_pickle_under_the_name_of_safetensors(form: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    torch.save(GOOD, file) if form == "torch.save" else file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(KdcError, match="it is a pickle under the name of a safetensors file"):
        loaded(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    for name in ("a.pth", "a.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(KdcError, match="is a pipe, not a regular file"):
            loaded(tmp_path / name)


# Numbers that are no weights.

WRONG_NUMBERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "complex": (lambda value: value.to(torch.complex64), "conv1.0.weight are complex numbers"),
    "int8": (lambda value: value.to(torch.int8), "conv1.0.weight are int8, so quantized or packed"),
    "int64": (lambda value: value.to(torch.int64), "conv1.0.weight are int64"),
    "float8": (lambda value: value.to(torch.float8_e4m3fn), "conv1.0.weight are float8_e4m3fn"),
    "sparse": (lambda value: value.to_sparse(), "conv1.0.weight is quantized, sparse or without values"),
    "expanded": (lambda value: torch.zeros(1).expand(value.shape), "conv1.0.weight claims"),
    "nan": (lambda value: value.fill_(float("nan")), "conv1.0.weight hold values that are not finite"),
    "infinite": (lambda value: value.fill_(float("inf")), "conv1.0.weight hold values that are not finite"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_NUMBERS.values(), ids=WRONG_NUMBERS)
def test_numbers_that_are_no_weights_are_refused(
    change: Callable[[Tensor], Tensor], message: str, tmp_path: Path
) -> None:
    torch.save({**GOOD, "conv1.0.weight": change(GOOD["conv1.0.weight"].clone())}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=message):
        loaded(tmp_path / "a.pth")
    with pytest.raises(KdcError, match=message):
        create_student("timm:test_resnet", str(tmp_path / "a.pth"), ["a", "b", "c"], 32, None)


def test_statistics_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    name = next(name for name in GOOD if name.endswith("running_mean"))
    torch.save({**GOOD, name: GOOD[name] * float("nan")}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=f"{name} hold values that are not finite"):
        loaded(tmp_path / "a.pth")


def test_an_archive_that_inflates_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(50_000_000))
    with pytest.raises(KdcError, match="claim to hold 50000"):
        loaded(tmp_path / "a.pth")


def test_a_classifier_of_a_billion_rows_is_not_built(tmp_path: Path) -> None:
    torch.save({**GOOD, "fc.weight": torch.zeros(1, 1).expand(10**9, 64)}, tmp_path / "a.pth")
    with pytest.raises(KdcError, match=r"fc.weight claims 64000000000 values"):
        loaded(tmp_path / "a.pth")


def test_a_safetensors_header_that_lies(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(KdcError, match="cannot be read: "):
        loaded(tmp_path / "a.safetensors")


# Backbones: the classifier is new.


def headless(state: State) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("wrap", ["", "state_dict"])
def test_a_backbone_is_taught_and_starts_a_student(tmp_path: Path, wrap: str) -> None:
    body = headless(GOOD)
    torch.save({wrap: body} if wrap else body, tmp_path / "a.pth")
    backbone = load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}")
    assert backbone.headless
    assert backbone.class_names is None
    again = load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}")
    assert again.weights.sha256 == backbone.weights.sha256, "the classifier is drawn anew, and no part of the weights"
    trainee = create_trainee(backbone, ["cat", "dog"], None)
    assert not trainee.headless
    student = create_student("timm:test_resnet", str(tmp_path / "a.pth"), ["cat", "dog"], 32, None)
    for model in (trainee, student):
        state = model.network.state_dict()
        assert same(headless(state), body)
        assert state["fc.weight"].shape[0] == 2
        assert state["fc.weight"].std() < 0.013
    assert student.notes[-1] == "a.pth: the classifier is new"


def test_a_backbone_cannot_answer(tmp_path: Path) -> None:
    torch.save(headless(GOOD), tmp_path / "a.pth")
    backbone = load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}")
    with pytest.raises(KdcError, match=r"bring no classifier, so it cannot answer 'cat'") as caught:
        map_classes(backbone, ["cat"])
    assert "kdc teach" in caught.value.hint
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(KdcError, match=r"bring no classifier"):
        with_class_file(backbone, tmp_path / "names.txt")


def test_one_of_two_heads_is_not_enough(tmp_path: Path) -> None:
    state = drawn(0, "deit_tiny_distilled_patch16_224")
    torch.save(state, tmp_path / "both.pth")
    assert same(loaded(tmp_path / "both.pth", name="deit_tiny_distilled_patch16_224"), state)
    torch.save({n: v for n, v in state.items() if not n.startswith("head_dist.")}, tmp_path / "one.pth")
    with pytest.raises(KdcError, match=r"it has no head_dist.bias; it has no head_dist.weight"):
        loaded(tmp_path / "one.pth", name="deit_tiny_distilled_patch16_224")
    with pytest.raises(KdcError, match=r"it has no head_dist.bias"):
        create_student("timm:deit_tiny_distilled_patch16_224", str(tmp_path / "one.pth"), ["a", "b", "c"], 224, None)
    torch.save({n: v for n, v in state.items() if not n.startswith("head")}, tmp_path / "none.pth")
    assert load_model(f"timm:deit_tiny_distilled_patch16_224@{tmp_path / 'none.pth'}").headless


def test_read_from_names_alone(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "a.safetensors")
    assert same(read_checkpoint(tmp_path / "a.safetensors", GOOD.keys()).state, GOOD)
