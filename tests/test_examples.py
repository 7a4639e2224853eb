"""What stands in docs/ and in examples/ works as it stands there."""

import gzip
import importlib.util
import runpy
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from compressor.cli import app as cli
from compressor.distill.loop.learner import bind_losses
from compressor.distill.recipes import RecipeAsked
from compressor.schema.recipe import Recipe
from compressor.tasks.image_classification import open_data
from tests.forked import python

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((ROOT / "examples" / "experiments").glob("*.yaml"))


def script() -> ModuleType:
    """By its path: other projects install packages that are named `examples`."""
    spec = importlib.util.spec_from_file_location("experiments_run", ROOT / "examples" / "experiments" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RUN = script()


def options_of(command: str) -> set[str]:
    found: Any = typer.main.get_command(cli.app)
    return {option for parameter in found.commands[command].params for option in parameter.opts}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_command_of_an_experiment_is_understood(file: Path) -> None:
    experiment = RUN.read(file)
    texts = [*experiment.once.values(), *(arm.train for arm in experiment.arms if arm.train)]
    assert len(experiment.arms) >= 3
    assert all(len(arm.seeds) >= 3 for arm in experiment.arms if arm.train)
    for text in texts:
        verb, *arguments = RUN.command(text, experiment.common, seed=1, work="work", name="name", data="digits")
        assert {argument for argument in arguments if argument.startswith("--")} <= options_of(verb)
        sets = [arguments[at + 1] for at, argument in enumerate(arguments) if argument == "--set"]
        teachers = [arguments[at + 1] for at, argument in enumerate(arguments) if argument == "--teacher"]
        how = RecipeAsked(teachers, "timm:a", "random", None, {}, sets).recipe()
        bind_losses(how, has_teacher=teachers != ["peers"])


def test_the_table_is_paired_with_the_first_arm() -> None:
    arms = (RUN.Arm("alone", "x"), RUN.Arm("taught", "y"), RUN.Arm("both", None, ("a", "b"), (0,)))
    results = {
        "alone": RUN.Result([0.80, 0.82, 0.81], {"Bag": [0.5, 0.6, 0.7]}, [40, 40, 40], 1000),
        "taught": RUN.Result([0.83, 0.84, 0.85], {"Bag": [0.9, 0.9, 0.9]}, [40, 40, 40], 1000),
        "both": RUN.Result([0.9], {"Bag": [1.0]}, [], 1000),
    }
    text = RUN.table(RUN.Experiment("title", "digits", {}, arms, recall=("Bag",)), results)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[2] == ["alone", "3", "81.00 ± 1.00", "190 ± 10", "–", "60.0 ± 10.0", "40"]
    assert rows[3] == ["taught", "3", "84.00 ± 1.00", "160 ± 10", "3.00 ± 1.00", "90.0 ± 0.0", "40"]
    assert rows[4] == ["both", "1", "90.00", "100", "9.00 (means)", "100.0", "–"]


def test_the_example_recipe_shows_every_key() -> None:
    values = yaml.safe_load((ROOT / "examples" / "recipe.yaml").read_text(encoding="utf-8"))
    Recipe.model_validate(values)

    def keys(noun: Any) -> set[str]:
        return {field.alias or name for name, field in noun.model_fields.items()}

    assert keys(Recipe) <= values.keys()
    for name in ("optimizer", "views", "teacher_answers", "transfer", "ensemble", "qat", "licence", "completions"):
        assert keys(Recipe.model_fields[name].annotation) == values[name].keys(), name


def test_the_recipe_in_the_docs_is_one() -> None:
    section = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").split("## Losses compose")[1]
    values = yaml.safe_load(section.split("```yaml\n")[1].split("```")[0])
    how = Recipe.model_validate({"schema": 1, **values})
    assert [term.name for term in bind_losses(how, has_teacher=True)] == ["cross_entropy", "kd", "hint"]


@pytest.mark.slow
def test_the_notebook_goes_the_whole_way(tmp_path: Path) -> None:
    """As it stands, but for the epochs and the samples a second: it takes a minute with all of them."""
    text = (ROOT / "examples" / "notebook.py").read_text(encoding="utf-8")
    shorter = (("epochs=4,", "epochs=2,"), ("epochs=8,", "epochs=4,"), ("seconds=20,", "seconds=20, throughput=False,"))
    for shown, fewer in shorter:
        assert text.count(shown) == 1
        text = text.replace(shown, fewer)
    (tmp_path / "notebook.py").write_text(text, encoding="utf-8")
    command = [*python(), str(tmp_path / "notebook.py"), "work"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "## kdc: " in done.stdout
    assert "onnxruntime-int8: " in done.stdout
    checked, ended, refused = done.stdout.splitlines()[-3:]
    assert " on profile x86-avx2: " in checked
    assert ended == "passed" or ended.startswith("not passed: exit code ")
    assert "overwrite=True" in refused
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["bundle", "run", "teacher"]


def test_commands_are_split_as_a_shell_does() -> None:
    found = RUN.command("distill --teacher run:{work}/t --epochs 3", "--epochs 2", work="w")
    assert shlex.join(found) == "distill --epochs 2 --teacher run:w/t --epochs 3"


def test_arms_that_start_from_others_come_after_them() -> None:
    ten = RUN.read(ROOT / "examples" / "experiments" / "ten.yaml")
    modes = RUN.read(ROOT / "examples" / "experiments" / "modes.yaml")
    assert [[arm.name for arm in arms] for arms in RUN.stages(ten)] == [
        ["one model", "the ten together"],
        ["distilled from the ten", "distilled from the ten, on images without labels too"],
    ]  # fmt: skip
    assert [arm.name for arm in RUN.stages(modes)[1]] == ["born again"]


FIRST_IMAGES = ROOT / "examples" / "first_images.py"


def write_idx(folder: Path, counts: dict[str, int], packed: bool) -> None:
    """An IDX data set of 2 × 3 images: pixel values and labels count up."""
    folder.mkdir()
    for split, count in counts.items():
        images = struct.pack(">4B3I", 0, 0, 8, 3, count, 2, 3) + bytes(value % 251 for value in range(count * 6))
        labels = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(value % 3 for value in range(count))
        for kind, content in {"images-idx3": images, "labels-idx1": labels}.items():
            name = f"{split}-{kind}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [True, False])
def test_the_first_images_are_a_whole_data_set(tmp_path: Path, packed: bool) -> None:
    write_idx(tmp_path / "all", {"train": 30, "t10k": 9}, packed)
    (tmp_path / "all" / "classes.txt").write_text("ape\nbee\ncow\n")
    runpy.run_path(str(FIRST_IMAGES))["main"](tmp_path / "all", tmp_path / "some", 12)
    data = open_data(f"idx:{tmp_path / 'some'}")
    assert data.info.class_names == ("ape", "bee", "cow")
    assert (len(data.train) + len(data.validation), len(data.test)) == (12, 9)
    labels = (tmp_path / "some" / "train-labels-idx1-ubyte").read_bytes()
    assert labels[8:] == bytes([0, 1, 2] * 4)
    images = (tmp_path / "some" / "train-images-idx3-ubyte").read_bytes()
    assert images[16:] == bytes(range(72))


@pytest.mark.parametrize(
    ("source", "count", "said"),
    [("all", 31, "holds 30 items, so N lies in 1..30"), ("all", 0, "holds 30 items"), ("nowhere", 5, "neither ")],
)
def test_first_images_that_there_are_not_are_refused(tmp_path: Path, source: str, count: int, said: str) -> None:
    write_idx(tmp_path / "all", {"train": 30, "t10k": 9}, packed=True)
    with pytest.raises(SystemExit, match=said):
        runpy.run_path(str(FIRST_IMAGES))["main"](tmp_path / source, tmp_path / "some", count)
    assert not (tmp_path / "some").exists()
