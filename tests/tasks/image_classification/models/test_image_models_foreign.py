"""Models from elsewhere: their code never runs, nothing is asked, and what cannot be built is refused in one line."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from compressor.errors import KdcError
from compressor.models import building, load_model, load_run, save_run
from compressor.models.building import config_in, described_by
from compressor.tasks.image_classification.models.students import create_trainee
from tests.kit import version_of
from tests.models.test_models_runs import record

NAMES = ["cat", "dog", "sea lion"]
VitFolder = Callable[..., Path]
TimmFolder = Callable[..., Path]

CODE = """
from pathlib import Path
Path({marker!r}).write_text("it ran")
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
class OwnConfig(ViTConfig): model_type = "own"
class OwnProcessor(ViTImageProcessor): pass
class OwnModel(ViTForImageClassification): config_class = OwnConfig
"""
AUTO_MAP = {
    "AutoConfig": "own.OwnConfig",
    "AutoModelForImageClassification": "own.OwnModel",
    "AutoImageProcessor": "own.OwnProcessor",
}


def change(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    file.write_text(json.dumps(values))


def with_code(folder: Path, marker: Path, where: str) -> Path:
    """`folder` brings code of its own: for its configuration, its model, or its image processor."""
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    if where == "config":
        change(folder / "config.json", auto_map=AUTO_MAP, model_type="own")
    elif where == "model":
        change(folder / "config.json", auto_map=AUTO_MAP)
    else:
        change(folder / "preprocessor_config.json", auto_map=AUTO_MAP, image_processor_type="OwnProcessor")
    return folder


LOADING = """
import json, pathlib, sys
from compressor.errors import KdcError
{how}
said = []
for place in {places!r}:
    try:
        load(place)
        said.append(None)
    except KdcError as error:
        said.append(error.message)
pathlib.Path({answer!r}).write_text(json.dumps(said))
"""
HOWS = {
    "from_pretrained": "from compressor.models import load_model as load",
    "run": "from compressor.models import load_run\nload = lambda place: load_run(pathlib.Path(place))",
}


def refusals(places: list[str], how: str, tmp_path: Path) -> list[str | None]:
    """Why each is not loaded (None: it is), by a process of its own that says y to whatever it is asked, and is asked
    nothing."""
    answer = tmp_path / "answer.json"
    code = LOADING.format(how=HOWS[how], places=places, answer=str(answer))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(
        [sys.executable, "-c", code], input="y\n" * 9, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "nothing is asked"
    said: list[str | None] = json.loads(answer.read_text())
    return said


@pytest.mark.slow
def test_a_folders_code_does_not_run_though_the_answer_is_yes(vit_folder: VitFolder, tmp_path: Path) -> None:
    kinds = ("config", "model", "processor")
    markers = [tmp_path / f"marker-{where}" for where in kinds]
    places = [
        f"hf:{with_code(vit_folder(NAMES, name=where), marker, where)}"
        for where, marker in zip(kinds, markers, strict=True)
    ]
    config, model, processor = refusals(places, "from_pretrained", tmp_path)
    assert not any(marker.exists() for marker in markers)
    assert model is None, "transformers has a ViT of its own"
    for said in (config, processor):
        assert said is not None
        assert "needs code that lies beside its weights (auto_map), and kdc runs none" in said


@pytest.mark.slow
def test_the_code_in_a_runs_hf_folder_does_not_run(vit_folder: VitFolder, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    trainee = create_trainee(load_model(f"hf:{vit_folder(NAMES)}"), NAMES, None)
    runs = {where: tmp_path / f"run-{where}" for where in ("config", "model")}
    for where, run in runs.items():
        run.mkdir()
        save_run(run, trainee, record(trainee))
        assert load_run(run)[0].class_names is not None
        with_code(run / "hf", marker, where)
    config, model = refusals([str(run) for run in runs.values()], "run", tmp_path)
    assert not marker.exists()
    assert model is None
    assert config is not None


def test_every_call_of_transformers_says_that_no_code_is_trusted(
    vit_folder: VitFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that none of them asks: from_pretrained and from_config of each Auto class, through all that kdc does."""
    import transformers

    seen: list[str] = []
    for kind in ("AutoConfig", "AutoImageProcessor", "AutoModelForImageClassification"):
        for method in ("from_pretrained", "from_config"):
            inner = getattr(getattr(transformers, kind), method, None)
            if inner is None:
                continue

            def spied(*arguments: Any, inner: Any = inner, name: str = f"{kind}.{method}", **settings: Any) -> Any:
                seen.append(name)
                assert settings.get("trust_remote_code") is False, name
                return inner(*arguments, **settings)

            monkeypatch.setattr(getattr(transformers, kind), method, spied)
    trainee = create_trainee(load_model(f"hf:{vit_folder(NAMES)}"), NAMES, None)
    (tmp_path / "run").mkdir()
    save_run(tmp_path / "run", trainee, record(trainee))
    load_run(tmp_path / "run")
    assert set(seen) == {
        "AutoConfig.from_pretrained",
        "AutoImageProcessor.from_pretrained",
        "AutoModelForImageClassification.from_pretrained",
        "AutoModelForImageClassification.from_config",
    }


def test_layers_are_not_fetched_from_elsewhere(vit_folder: VitFolder) -> None:
    folder = vit_folder(NAMES)
    change(folder / "config.json", _attn_implementation="kernels-community/flash-attn")
    with pytest.raises(KdcError, match="fetches code from elsewhere"):
        load_model(f"hf:{folder}")


def test_weights_of_a_timm_folder_are_read_by_kdc_alone(
    timm_folder: TimmFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm before 1.0.26 unpickled a file of that name. And no address in config.json is a source of weights."""
    from timm.models import _builder

    folder = timm_folder("test_resnet", 3, label_names=NAMES)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"url": "http://kdc-test.invalid/w", "file": "/nowhere", "hf_hub_id": "nobody/none"}
    (folder / "config.json").write_text(json.dumps(config))

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("timm reads a file of weights itself")

    for name in ("load_state_dict", "load_state_dict_from_path", "load_state_dict_from_url", "load_state_dict_from_hf"):
        monkeypatch.setattr(_builder, name, never, raising=False)
    model = load_model(f"timm:local-dir:{folder}")
    assert model.class_names == (("cat",), ("dog",), ("sea lion",))
    assert model.network.pretrained_cfg["state_dict"] is None  # type: ignore[index]


def test_pytorch_model_bin_is_read_safely(timm_folder: TimmFolder) -> None:
    folder = timm_folder("test_resnet", 3)
    whole = load_model(f"timm:local-dir:{folder}")
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load_model(f"timm:local-dir:{folder}").weights.sha256 == whole.weights.sha256


def test_a_pickle_named_safetensors_does_not_run(
    timm_folder: TimmFolder, vit_folder: VitFolder, tmp_path: Path
) -> None:
    from tests.tasks.image_classification.models.test_image_models_timm import Malicious

    for reference in (f"timm:local-dir:{timm_folder('test_resnet', 3)}", f"hf:{vit_folder(NAMES)}"):
        folder = Path(reference.rpartition(":")[2])
        torch.save({"state_dict": Malicious(tmp_path / "it-ran")}, folder / "model.safetensors")
        with pytest.raises(KdcError, match="cannot be loaded: "):
            load_model(reference)
        assert not (tmp_path / "it-ran").exists()


# Configurations.

HUGE = {"model_args.depth": 10**6, "model_args.embed_dim": 65_536, "model_args.img_size": 10**6, "num_classes": 10**9,
        "model_args.mlp_ratio": 10**6, "pretrained_cfg.input_size": [3, 10**6, 10**6]}  # fmt: skip
TYPES: dict[str, Any] = {
    "num_classes": "three", "model_args": [1], "pretrained_cfg": "x", "label_names": "abc", "architecture": ["x"],
    "model_args.depth": "x", "model_args.num_heads": 7, "model_args.in_chans": "x", "pretrained_cfg.input_size": "x",
    "pretrained_cfg.mean": [0.5], "pretrained_cfg.std": ["a", "b", "c"], "pretrained_cfg.interpolation": 7,
    "pretrained_cfg.crop_pct": "x", "pretrained_cfg.crop_mode": 3, "pretrained_cfg.strange": 1,
    "model_args.features_only": True, "model_args.checkpoint_path": "/etc/passwd", "model_args.pretrained": False,
    "model_args.patch_size": 0, "label_names.": {"0": "a"},
}  # fmt: skip
VALUES: dict[str, Any] = {
    "pretrained_cfg.mean": [float("nan")] * 3, "pretrained_cfg.std": [0, 0, 0], "pretrained_cfg.std.": [-1, 1, 1],
    "pretrained_cfg.crop_pct": float("nan"), "pretrained_cfg.crop_pct.": 1e-9,
    "pretrained_cfg.interpolation": "random", "pretrained_cfg.input_size": [3, 32], "num_classes": 5,
    "model_args.num_classes": 5, "pretrained_cfg.label_offset": 1,
}  # fmt: skip
CHANGES = [(key.rstrip("."), value) for rows in (HUGE, TYPES, VALUES) for key, value in rows.items()]


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm folder; never change it."""
    folder = tmp_path_factory.mktemp("timm")
    network = timm.create_model("test_vit", num_classes=3)
    keys = ("input_size", "interpolation", "crop_pct", "mean", "std", "fixed_input_size", "classifier", "first_conv")
    cfg = {key: network.pretrained_cfg.get(key) for key in keys} | {"num_classes": 3}
    values = {"architecture": "test_vit", "num_classes": 3, "label_names": NAMES, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(values))
    save_file(network.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def changed(folder: Path, to: Path, key: str, value: Any) -> Path:
    shutil.copytree(folder, to)
    values = json.loads((to / "config.json").read_text())
    inner = values
    *path, last = key.split(".")
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    (to / "config.json").write_text(json.dumps(values))
    return to


@pytest.mark.parametrize(("key", "value"), CHANGES, ids=[f"{key}={str(value)[:24]}" for key, value in CHANGES])
def test_a_timm_configuration_that_makes_no_network(tiny_vit: Path, tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(KdcError) as caught:
        load_model(f"timm:local-dir:{changed(tiny_vit, tmp_path / 'm', key, value)}")
    assert "\n" not in caught.value.message
    assert str(tmp_path / "m") in caught.value.message


def test_a_network_larger_than_its_weights_is_not_built(tiny_vit: Path, tmp_path: Path) -> None:
    """Told before anything is allocated: 65,536 channels would take 100 GB and more."""
    with pytest.raises(KdcError, match="describes a network far larger than its weights"):
        load_model(f"timm:local-dir:{changed(tiny_vit, tmp_path / 'm', 'model_args.embed_dim', 65_536)}")
    with pytest.raises(KdcError, match="depth is 1000000, and kdc builds networks of up to 1000 layers"):
        load_model(f"timm:local-dir:{changed(tiny_vit, tmp_path / 'n', 'model_args.depth', 10**6)}")


def test_what_is_bounded_while_a_network_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MOST_CALLS", 2000)  # of 200,000, which take ten seconds
    with described_by("x", 1_000_000):
        torch.nn.Linear(1000, 1000)
        (torch.arange(4000)[:, None] - torch.arange(4000)[None]).sum()
    for build in (
        lambda: torch.nn.Linear(10**5, 10**5),
        lambda: torch.nn.Linear(10**5, 10**5, device="meta"),
        lambda: torch.arange(10**10),
        lambda: torch.linspace(0, 1, 10**10),
        lambda: torch.arange(10**5)[:, None] - torch.arange(10**5)[None],
        lambda: torch.stack([torch.zeros(1).expand(10**10)] * 2),
        lambda: torch.zeros(1).repeat(10**10),
        lambda: [torch.nn.Linear(1, 1) for _ in range(10**6)],
    ):
        with pytest.raises(KdcError, match="x cannot be loaded: its config"), described_by("x", 1_000_000):
            build()


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("maximum recursion depth"), KeyError("a"), OSError(5)])
def test_whatever_goes_wrong_names_the_model(error: Exception) -> None:
    said = f"^hf:x cannot be loaded: .*({type(error).__name__}|maximum recursion)"
    with pytest.raises(KdcError, match=said), described_by("hf:x", None):
        raise error


HF: dict[str, Any] = {
    "num_hidden_layers": 10**6, "hidden_size": 10**9, "hidden_size.": 10**6, "hidden_size..": "x", "num_labels": 10**9,
    "image_size": 10**6, "image_size.": 64, "patch_size": 0, "id2label": [1], "id2label.": {"a": "b"},
    "id2label..": {"0": "one"}, "model_type": "nonsense", "model_type.": ["vit"], "hidden_act": "nonsense",
    "pretrained_cfg": "x", "layer_norm_eps": float("nan"),
}  # fmt: skip
PROCESSOR: dict[str, Any] = {
    "image_mean": [float("nan")] * 3, "image_mean.": "x", "image_mean..": [0.5], "image_std": [0, 0, 0],
    "image_std.": [0.5], "size": "x", "size.": {"height": "x", "width": 3}, "size..": {"height": 10**6, "width": 10**6},
    "size...": {"height": -1, "width": 3}, "resample": 99, "resample.": "x", "rescale_factor": "x",
    "image_processor_type": "Nonsense", "do_center_crop": True,
}  # fmt: skip
HF_CHANGES = [("config.json", *one) for one in HF.items()] + [
    ("preprocessor_config.json", *one) for one in PROCESSOR.items()
]


@pytest.mark.parametrize(("file", "key", "value"), HF_CHANGES, ids=[f"{k}={str(v)[:24]}" for _, k, v in HF_CHANGES])
def test_a_hugging_face_configuration_that_makes_no_network(
    vit_folder: VitFolder, file: str, key: str, value: Any
) -> None:
    if key == "do_center_crop" and version_of("transformers") < (5,):
        pytest.skip("the processor of ViT in transformers 4 crops nothing, whatever is asked for")
    folder = vit_folder(NAMES)
    change(folder / file, **{key.rstrip("."): value})
    with pytest.raises(KdcError) as caught:
        load_model(f"hf:{folder}")
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message


UNBOUNDED = {"list": "[" * 100_000, "mapping": '{"a":' * 100_000, "digits": '{"num_classes": ' + "9" * 6000 + "}"}


@pytest.mark.parametrize("text", [*UNBOUNDED.values(), "[]", "null", ""], ids=[*UNBOUNDED, "[]", "null", "empty"])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_json_without_bounds(vit_folder: VitFolder, tiny_vit: Path, tmp_path: Path, text: str, file: str) -> None:
    folder = vit_folder(NAMES)
    (folder / file).write_text(text)
    with pytest.raises(KdcError):
        load_model(f"hf:{folder}")
    if file == "config.json":
        shutil.copytree(tiny_vit, tmp_path / "timm")
        (tmp_path / "timm" / file).write_text(text)
        with pytest.raises(KdcError):
            load_model(f"timm:local-dir:{tmp_path / 'timm'}")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "README.md"])
def test_a_pipe_in_a_models_folder_is_not_waited_for(
    vit_folder: VitFolder, tiny_vit: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(tiny_vit, tmp_path / "timm")
    for reference in (f"hf:{vit_folder(NAMES)}", f"timm:local-dir:{tmp_path / 'timm'}"):
        folder = Path(reference.rpartition(":")[2])
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(KdcError, match=f"{name} is a pipe, not a regular file"):
            load_model(reference)


LEVELS = "abcdefghijk"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{level}: &{level} [{', '.join([f'*{below}'] * 9)}]\n" for below, level in pairwise(LEVELS)
)


@pytest.mark.parametrize(
    "head",
    [BOMB + "license: *k\n", "license: " + "[" * 100_000, "license: " + "x" * 10**6],
    ids=["bomb", "deep", "long"],
)
def test_a_model_card_without_bounds(vit_folder: VitFolder, head: str) -> None:
    """YAML with nested anchors, or nested deeply: memory without end, or minutes."""
    folder = vit_folder(NAMES)
    (folder / "README.md").write_text(f"---\n{head}\n---\n")
    assert len(load_model(f"hf:{folder}").weights.licence) <= 200


def test_several_licences_of_a_card(vit_folder: VitFolder) -> None:
    folder = vit_folder(NAMES)
    (folder / "README.md").write_text("---\nlicense: [mit, apache-2.0]\n---\n")
    assert load_model(f"hf:{folder}").weights.licence == "mit, apache-2.0"


def test_a_model_of_grey_images(tiny_vit: Path, vit_folder: VitFolder, tmp_path: Path) -> None:
    """The case grey-timm-model."""
    folder = tmp_path / "grey"
    folder.mkdir()
    network = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    save_file(network.state_dict(), folder / "model.safetensors", {"format": "pt"})
    cfg = {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5], "interpolation": "bicubic", "crop_pct": 1.0,
           "classifier": "fc", "first_conv": "conv1.0"}  # fmt: skip
    config = {"architecture": "test_resnet", "num_classes": 3, "label_names": NAMES, "model_args": {"in_chans": 1},
              "pretrained_cfg": cfg}  # fmt: skip
    for values in (config, {**config, "model_args": {}}):
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(KdcError, match=r"takes images of 1 channel; kdc's have 3") as caught:
            load_model(f"timm:local-dir:{folder}")
        assert caught.value.exit_code == 2
    vit = vit_folder(NAMES)
    change(vit / "config.json", num_channels=1)
    with pytest.raises(KdcError, match=r"takes images of 1 channel; kdc's have 3"):
        load_model(f"hf:{vit}")


@pytest.mark.parametrize("setting", ["return_dict", "output_hidden_states", "output_attentions"])
def test_settings_that_only_change_what_is_returned(vit_folder: VitFolder, setting: str) -> None:
    folder = vit_folder(NAMES)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = load_model(f"hf:{folder}").network(images)
        change(folder / "config.json", **{setting: setting != "return_dict"})
        assert torch.equal(load_model(f"hf:{folder}").network(images), plain)


def test_ordinary_numbers_in_a_configuration_are_read(tmp_path: Path) -> None:
    values = {"rope_theta": 500_000_000, "num_parameters": 86_567_656, "vocab_size": 151_936, "image_token_id": 10**7}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert config_in(tmp_path / "config.json") == copy.deepcopy(values)


@pytest.mark.parametrize("size", [0, -3, 8193, 10**9])
def test_sizes_that_no_network_is_given(tiny_vit: Path, vit_folder: VitFolder, size: int) -> None:
    from compressor.tasks.image_classification.models.students import create_student

    loads: list[Callable[[], object]] = [
        lambda: load_model(f"timm:local-dir:{tiny_vit}", size),
        lambda: load_model(f"hf:{vit_folder(NAMES, name=str(size))}", size),
        lambda: create_student("timm:test_vit", "random", NAMES, size, None),
    ]
    for load in loads:
        with pytest.raises(KdcError, match=f"input size {size} is outside 1 to 8192 pixels"):
            load()
