"""The recipes that hold where the user brings none."""

from pathlib import Path

import pytest

from compressor.distill.recipes import RecipeAsked

ALONE, LAYERS = ["kd", "cross_entropy"], ["kd", "cross_entropy", "pkd"]


@pytest.mark.parametrize(
    ("teachers", "sets", "losses"),
    [
        (["timm:resnet50"], [], LAYERS),
        (["hf:owner/name"], ["losses.0.temperature=2"], LAYERS),
        (["run:teacher"], ["views.distinct=10"], LAYERS),
        (["run:teacher"], ["views.distinct=10", "losses=[{name: kd}, {name: hint}]"], ["kd", "hint"]),
        (["run:teacher"], ["views.distinct=10", "losses.2.weight=0"], LAYERS),
        (["run:a", "run:b"], [], ALONE),
        (["specialists:three"], ["views.distinct=10"], ALONE),
        (["outputs:answers.csv"], [], ALONE),
        (["self"], [], ["cross_entropy", "early_exits"]),
        (["peers"], [], ["mutual", "cross_entropy"]),
    ],
)  # fmt: skip
def test_the_default_looks_at_layers_where_one_network_teaches(
    teachers: list[str], sets: list[str], losses: list[str]
) -> None:
    """Whether its answers are kept (views.distinct) or not: the layers are kept with them."""
    recipe = RecipeAsked(teachers, "timm:a", "random", None, {"epochs": 3}, sets).recipe()
    assert [term.name for term in recipe.losses] == losses
    assert recipe.epochs == 3
    if "losses.0.temperature=2" in sets:
        assert recipe.losses[0].parameters["temperature"] == 2


def test_a_recipe_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("schema: 1\nlosses: [{name: kd}, {name: hint}]\nviews: {distinct: 2}\n", encoding="utf-8")
    recipe = RecipeAsked(["run:teacher"], "timm:a", "random", file, {}, []).recipe()
    assert [term.name for term in recipe.losses] == ["kd", "hint"]
    assert recipe.views.distinct == 2
