"""Whatever lies on disk or is set becomes a noun or one clear error, never another exception."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from compressor.assets import asset_dir
from compressor.distill.loop.learner import bind_losses
from compressor.distill.recipes import recipe_from
from compressor.distill.regimes import REGIMES, built_in
from compressor.errors import KdcError
from compressor.files.reading import json_value
from compressor.losses import bind
from compressor.overrides import apply_overrides, read_yaml, yaml_mapping
from compressor.profiles import load_profile
from compressor.schema import (
    bundle,
    doctor,
    manifest,
    measurement,
    predictions,
    preprocess,
    profile,
    quantization,
    recipe,
    report,
    specialists,
    student,
)
from compressor.schema.base import Noun, parse, read_json
from compressor.schema.language import bundle as language_bundle
from compressor.schema.language import manifest as language_manifest
from compressor.schema.language import measurement as language_measurement
from compressor.schema.language import report as language_report
from tests.fuzz.kit import ANY_TEXT, EXAMPLES, HOSTILE, JSON, fuzzed, mutated, seeded, texts_of
from tests.fuzz.like import like, text_like

pytestmark = pytest.mark.slow

MODULES = (
    bundle, doctor, manifest, measurement, predictions, preprocess, profile, quantization, recipe, report, specialists,
    student, language_bundle, language_manifest, language_measurement, language_report,
)  # fmt: skip
NOUNS = sorted(
    {
        noun
        for module in MODULES
        for noun in vars(module).values()
        if isinstance(noun, type) and issubclass(noun, Noun) and noun not in (Noun, profile.Fact)
    },
    key=lambda noun: noun.__name__,
)
SELDOM = {"Bundle", "LanguageBundle", "Rung", "Score"}
"""Nouns whose parts must agree with each other, which what is drawn seldom does."""
RECIPES = {name: built_in(name) for name in (*REGIMES, "peers", "self", "teach")}


def names_of(noun: type[Noun]) -> list[str]:
    return [field.alias or name for name, field in noun.model_fields.items()]


def told(error: KdcError) -> None:
    """It says something, and not for pages."""
    assert error.message.strip()
    assert len(error.message) < 10_000


def finite(value: Any) -> bool:
    """Whether all numbers in it are."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def terms_in(value: object) -> Iterator[recipe.LossTerm]:
    if isinstance(value, recipe.LossTerm):
        yield value
    elif isinstance(value, (Noun, tuple)):
        for part in vars(value).values() if isinstance(value, Noun) else value:
            yield from terms_in(part)


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_every_noun(noun: type[Noun]) -> None:
    """What is taken is finite, and is read back from what is written as it was."""
    schema = noun.model_json_schema()
    taken = 0

    def holds(seed: int) -> None:
        nonlocal taken
        try:
            found = parse(noun, like(schema, seed), "here")
            taken += 1
            for term in terms_in(found):  # a loss's own parameters are checked where it is bound
                bind(term.name, term.parameters, "here")
        except KdcError as error:
            told(error)
            return
        assert finite(found.model_dump())
        assert parse(noun, json.loads(found.model_dump_json()), "again") == found

    seeded(holds)
    assert taken or noun.__name__ in SELDOM, f"none of {EXAMPLES} came so far"


@pytest.mark.parametrize("noun", [student.Student, bundle.Bundle, measurement.Measurement, report.Report])
def test_every_file(noun: type[Noun], tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    schema = noun.model_json_schema()

    def holds(seed: int) -> None:
        data = text_like(schema, seed)
        path.write_bytes(data)
        try:
            assert isinstance(read_json(path, noun), noun)
        except KdcError as error:
            told(error)
        try:
            value = json_value(data, "it")
        except KdcError as error:
            told(error)
        else:
            assert json.dumps(value) == json.dumps(json.loads(data))

    seeded(holds)


def checked_recipe(values: Any) -> None:
    found = parse(recipe.Recipe, values, "recipe")
    for has_teacher in (True, False):
        with contextlib.suppress(KdcError):
            bind_losses(found, has_teacher=has_teacher)
    for term in found.losses:
        assert term.weight_at(0.5) >= 0


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, tmp_path: Path) -> None:
    full = parse(recipe.Recipe, RECIPES[name], name).model_dump(mode="json")

    @fuzzed
    @given(mutated(full))
    def holds(values: Any) -> None:
        try:
            checked_recipe(values)
        except KdcError as error:
            told(error)

    holds()


def test_profiles(tmp_path: Path) -> None:
    valid = [read_yaml(path) for path in sorted(asset_dir("profiles").glob("*.yaml"))]
    path = tmp_path / "it.yaml"

    @fuzzed
    @given(st.sampled_from(valid).flatmap(mutated))
    def holds(values: Any) -> None:
        with contextlib.suppress(yaml.YAMLError, ValueError):  # what YAML cannot write
            path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
            try:
                load_profile(str(path))
            except KdcError as error:
                told(error)

    holds()


TOKENS = st.sampled_from(
    ["a", "b", ":", " ", "\n", "  ", "- ", "{", "}", "[", "]", ",", "&x ", "*x", "<<: ", "!!int ", "!!float ", "!!set ",
     "!!omap ", "!!binary ", "!!python/name:os.system ", "? ", "|", ">", "'", '"', "#", "%YAML 1.1\n", "---\n", "...",
     "1:1:1", "0x", "1e", "2001-01-01", "2001-13-45", "~", "null", "true", ".nan", "-.inf", "9" * 50, "\t", "\\", "@",
     "!!timestamp ", "!!pairs ", "!!null ", "!!bool ", "!!str ", "!!seq ", "!!map ", "é", "\x85", "\u2028", "0b1"]
)  # fmt: skip


@fuzzed
@given(st.lists(TOKENS, max_size=25).map("".join) | st.text(max_size=60))
def test_yaml(text: str) -> None:
    try:
        yaml_mapping(text, "it")
    except KdcError as error:
        told(error)


KEYS = sorted({*names_of(recipe.Recipe), "optimizer.lr", "views.scale", "losses.0", "losses.0.weight", "losses.7",
               "losses.0.temperature", "qat.epochs", "optimizer.", "a.b.c.d", "losses.x.y", ""})  # fmt: skip


@fuzzed
@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS) | ANY_TEXT,
            st.sampled_from(["=", "==", "", " = "]),
            HOSTILE.map(str) | JSON.map(texts_of) | st.lists(TOKENS, max_size=8).map("".join),
        ).map("".join),
        min_size=1,
        max_size=3,
    )
)
def test_assignments(assignments: list[str]) -> None:
    try:
        recipe_from(RECIPES["teach"], None, {}, assignments)
    except KdcError as error:
        told(error)
    with contextlib.suppress(KdcError):
        apply_overrides({"a": [1, {"b": None}]}, assignments, "it")
