"""The recipes that hold where the user brings none."""

from pathlib import Path

import pytest

from compressor.distill.recipes import RecipeAsked
from compressor.progress import Silent
from tests.kit import Hearing

ALONE, LAYERS = ["kd", "cross_entropy"], ["kd", "cross_entropy", "pkd"]


@pytest.mark.parametrize(
    ("teachers", "sets", "losses", "says"),
    [
        (["timm:resnet50"], [], LAYERS, False),
        (["hf:owner/name"], ["losses.0.temperature=2"], LAYERS, False),
        (["run:teacher"], ["views.distinct=10"], ALONE, True),
        (["run:teacher"], ["views.distinct=10", "losses=[{name: kd}, {name: hint}]"], ["kd", "hint"], False),
        (["run:teacher"], ["views.distinct=10", "losses.2.weight=0"], LAYERS, False),
        (["run:teacher"], ["views.distinct=10", "losses.0.temperature=2"], ALONE, True),
        (["run:a", "run:b"], [], ALONE, False),
        (["specialists:three"], ["views.distinct=10"], ALONE, False),
        (["outputs:answers.csv"], [], ALONE, False),
        (["self"], [], ["cross_entropy", "early_exits"], False),
        (["peers"], [], ["mutual", "cross_entropy"], False),
    ],
)  # fmt: skip
def test_the_default_looks_at_layers_where_one_network_answers_anew(
    teachers: list[str], sets: list[str], losses: list[str], says: bool
) -> None:
    progress = Hearing()
    recipe = RecipeAsked(teachers, "timm:a", "random", None, {"epochs": 3}, sets).recipe(progress)
    assert [term.name for term in recipe.losses] == losses
    assert recipe.epochs == 3
    assert any("answers that are kept (views.distinct)" in line for line in progress.notes) is says
    if "losses.0.temperature=2" in sets:
        assert recipe.losses[0].parameters["temperature"] == 2


def test_a_recipe_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("schema: 1\nlosses: [{name: kd}, {name: hint}]\nviews: {distinct: 2}\n", encoding="utf-8")
    recipe = RecipeAsked(["run:teacher"], "timm:a", "random", file, {}, []).recipe(Silent())
    assert [term.name for term in recipe.losses] == ["kd", "hint"]
    assert recipe.views.distinct == 2
