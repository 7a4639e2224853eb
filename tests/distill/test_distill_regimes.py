"""The default recipes: which one, by what rule, with how many steps; what the user gives wins; records and resumes."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import compressor
from compressor.api.values import recipe_of
from compressor.distill import regimes
from compressor.distill.deciding import decided
from compressor.distill.recipes import PROVISIONAL, RecipeAsked, has_layers
from compressor.distill.regimes import BY_NAME, REGIMES, Facts, built_in, choose, with_steps
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.base import parse, read_json
from compressor.schema.recipe import Recipe
from compressor.schema.student import Regime, Request, Student
from compressor.tasks.text_classification.views import alters
from tests.kit import Hearing

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted(Path(regimes.__file__).parent.glob("*.yaml"))
OTHERS = (
    *("teach", "self", "peers", "audio", "audio_teach", "text", "text_static", "text_teach"),
    *("language", "language_sequence", "language_teach", *BY_NAME),
)
"""Of who teaches, of a task that has a regime of its own, and those that are named."""
Asked = dict[str, Any]


@pytest.mark.parametrize(
    ("images", "labelled", "pretrained", "regime"),
    [
        (1_300, 1_300, False, "small"),
        (9_999, 9_999, False, "small"),
        (10_000, 10_000, False, "large"),
        (1_281_167, 1_281_167, False, "large"),
        (1_300, 1_300, True, "pretrained"),
        (1_281_167, 1_281_167, True, "pretrained"),
        (21_000, 1_000, False, "few_labels"),
        (21_000, 1_000, True, "few_labels"),
        (600, 299, False, "few_labels"),
        (600, 300, False, "small"),
    ],
)
def test_the_regime_goes_by_counts(images: int, labelled: int, pretrained: bool, regime: str) -> None:
    name, why = choose(Facts(images, labelled, pretrained))
    assert name == regime
    assert f"{images:,} training images" in why or (regime == "pretrained" and "weights" in why)


@pytest.mark.parametrize(
    ("regime", "images", "given", "batch_size", "epochs"),
    [
        ("large", 54_000, None, 128, 30),
        ("large", 10_000, None, 128, 30),  # 78 steps an epoch, 2,340 in all
        ("small", 1_300, None, 32, 50),  # 40 steps an epoch
        ("pretrained", 1_300, None, 32, 50),
        ("pretrained", 5_400, None, 64, 30),  # 128: 42 steps an epoch, 1,260 in all; 64: 84 and 2,520
        ("pretrained", 54_000, None, 128, 30),
        ("few_labels", 21_000, None, 64, 30),
        ("small", 1_300, 128, 128, 200),  # 10 steps an epoch
        ("small", 20, None, 32, 300),  # never more epochs than these
    ],
)
def test_there_are_steps_enough(regime: str, images: int, given: int | None, batch_size: int, epochs: int) -> None:
    values = with_steps(built_in(regime), images, given)
    assert (values["batch_size"], values["epochs"]) == (batch_size, epochs)


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: file.stem)
def test_every_file_is_a_recipe_and_says_why(file: Path) -> None:
    assert file.stem in (*REGIMES, *OTHERS)
    parse(Recipe, built_in(file.stem), file.name)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ")
    for page in re.findall(r"docs/\S+?\.md", text):
        assert (ROOT / page).is_file()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_recipe_is_had_by_its_name_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_of(name) == recipe_of(Path(name)) == built_in(name)
    recipe = Recipe.model_validate(built_in(name))
    assert [stage.data for stage in recipe.stages] == [None]
    assert not alters(recipe.views), "views of texts are off by default"
    (tmp_path / name).write_text("losses: [{name: kd}]\n")
    assert recipe_of(name) == Path(name)


def test_regimes_differ_in_what_a_user_need_not_know() -> None:
    """`--set losses.2.weight=0` means the same in each, and what was refused before the data were counted stays so."""
    names = [term["name"] for term in built_in(PROVISIONAL)["losses"]]
    for regime in REGIMES:
        values = built_in(regime)
        assert [term["name"] for term in values["losses"]] == names == ["kd", "cross_entropy", "pkd"]
        assert all(term["weight"] > 0 for term in values["losses"])
        assert values["epochs"] >= built_in(PROVISIONAL)["epochs"]
    assert {file.stem for file in YAMLS} == {*REGIMES, *OTHERS}


def wanted(*sets: str, teachers: tuple[str, ...] = ("timm:a",), **changes: Any) -> RecipeAsked:
    return replace(RecipeAsked(teachers, "timm:b", "random", None, {}, sets), **changes)


def test_what_the_user_gives_wins_in_every_regime() -> None:
    sets = ("losses.0.weight=0.2", "optimizer.lr=0.1", "views.hflip=false", "ema_decay=0.5")
    for facts in (Facts(300, 300, False), Facts(300, 300, True), Facts(3_000, 30, False), Facts(50_000, 50_000, False)):
        recipe = wanted(*sets, flags={"epochs": 3, "batch_size": 8, "seed": None}).recipe(facts)
        assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (3, 8, 0.1)
        assert (recipe.losses[0].weight, recipe.views.hflip, recipe.ema_decay) == (0.2, False, 0.5)
        assert wanted("epochs=3").recipe(facts).epochs == 3
    # The epochs follow the user's batch: 300 // 100 = 3 steps an epoch would take more than 300 epochs.
    assert wanted("batch_size=100").recipe(Facts(300, 300, False)).epochs == 300


def test_a_recipe_of_ones_own_knows_no_regime() -> None:
    own = {"epochs": 4, "losses": [{"name": "kd"}]}
    asked = wanted(file=own)
    assert asked.recipe(Facts(300, 300, False)) == asked.recipe() == Recipe.model_validate(own)


@pytest.mark.parametrize("teachers", [("timm:a",), ("run:a", "run:b"), ("outputs:x.csv",), ("self",), ("peers",)])
def test_who_teaches_decides_the_losses_and_the_data_the_rest(teachers: tuple[str, ...]) -> None:
    recipe = wanted(teachers=teachers).recipe(Facts(1_300, 1_300, False))
    small = Recipe.model_validate(built_in("small"))
    assert (recipe.batch_size, recipe.epochs, recipe.optimizer) == (32, 50, small.optimizer)
    names = [term.name for term in recipe.losses]
    if teachers[0] in ("self", "peers"):
        assert names == [term["name"] for term in built_in(teachers[0])["losses"]]
    else:
        assert names == ["kd", "cross_entropy", "pkd"][: 3 if has_layers(teachers) else 2]
        assert recipe.losses == small.losses[: len(names)]


def test_a_run_of_an_earlier_kdc_is_not_said_to_have_too_few_validation_samples(tmp_path: Path) -> None:
    """It did not record how many it has: 0 is not what it has."""
    asked = wanted(arms=True)
    request = Request(
        task="image-classification", command="distill", teacher="timm:a", student="timm:b", init="random",
        data="folder:x", skip_bad=False, input_size=None, recipe=asked.recipe(),
    )  # fmt: skip
    recorded = request.model_copy(update={"regime": Regime(name="small", why="few", images=300, labelled=300)})
    (tmp_path / "run.json").write_text(recorded.model_dump_json(), encoding="utf-8")
    progress = Hearing()
    resumed, _ = decided(request, asked, Destination(tmp_path, resume=True), progress)
    assert resumed.regime is not None
    assert (resumed.regime.validation, resumed.regime.arms) == (None, ())
    assert not [note for note in progress.notes if "validation samples" in note]
    asked.decided(request, 300, 300, 7, progress)
    assert [note for note in progress.notes if "7 validation samples are too few" in note]


@pytest.fixture
def asked(digits4: str, teacher_run: Path) -> Asked:
    """`kdc distill`, but for `out` and `progress`."""
    return {
        "teacher": f"run:{teacher_run}", "data": digits4, "student": "timm:test_efficientnet", "student_init": "random",
        "input_size": 32, "epochs": 2, "set": {"crop_pct": 1.0, "views.hflip": False},
    }  # fmt: skip


@pytest.mark.slow
def test_the_records_say_which_regime_and_why(asked: Asked, tmp_path: Path) -> None:
    progress = Hearing()
    done = compressor.distill(**asked, out=tmp_path / "run", progress=progress)
    regime = done.student.regime
    assert regime is not None
    n = regime.images
    assert n == done.student.data.counts["train"] == regime.labelled
    assert (regime.name, regime.overrides) == ("small", ("crop_pct", "epochs", "views.hflip"))
    assert regime.why == f"{n} training images, fewer than 10,000, and the student begins at random"
    said = [line for line in progress.notes if line.startswith("recipe: ")]
    assert said == [f"recipe: the default for the regime small ({regime.why}); over it: crop_pct, epochs, views.hflip"]
    request = read_json(tmp_path / "run" / "run.json", Request)
    assert request.regime == regime
    assert request.recipe == done.student.recipe
    assert (request.recipe.batch_size, request.recipe.epochs) == (32, 2)


@pytest.mark.slow
def test_resumed_it_is_the_same_recipe(asked: Asked, tmp_path: Path, interrupt_at: Callable[..., Silent]) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        compressor.distill(**asked, out=out, progress=interrupt_at(9))
    before = (out / "run.json").read_bytes()
    with pytest.raises(KdcError, match=r"recipe\.epochs was 2, now 3"):
        compressor.distill(**{**asked, "epochs": 3}, out=out, resume=True)
    done = compressor.distill(**asked, out=out, resume=True, progress=Silent())
    uninterrupted = compressor.distill(**asked, out=whole, progress=Silent())
    assert (out / "run.json").read_bytes() == before == (whole / "run.json").read_bytes()
    assert done.student.recipe == uninterrupted.student.recipe
    assert (out / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    # A finished one has nothing to do, and is known by the recipe that it recorded, too.
    again = compressor.distill(
        **{**asked, "epochs": None, "set": None}, recipe=done.student.recipe, out=out, resume=True
    )
    assert again.student == done.student
    assert isinstance(again.student, Student)


@pytest.mark.slow
def test_a_recipe_for_other_data_is_not_resumed(
    asked: Asked, tmp_path: Path, interrupt_at: Callable[..., Silent]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        compressor.distill(**asked, out=out, progress=interrupt_at(1))
    request = read_json(out / "run.json", Request)
    assert request.regime is not None
    other = request.regime.model_copy(update={"images": request.regime.images + 9})
    text = request.model_copy(update={"regime": other}).model_dump_json()
    (out / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(KdcError, match="the recipe is for 225 training images"):
        compressor.distill(**asked, out=out, resume=True)


@pytest.mark.parametrize(("texts", "epochs"), [(100, 30), (1_500, 16), (12_000, 5)])
def test_texts_have_a_regime_of_their_own(texts: int, epochs: int) -> None:
    recipe = wanted(task="text-classification").recipe(Facts(texts, texts, True))
    assert recipe == Recipe.model_validate({**built_in("text"), "epochs": epochs})
    assert (recipe.optimizer.lr, recipe.optimizer.schedule, recipe.views.distinct) == (1e-4, "linear", 1)
