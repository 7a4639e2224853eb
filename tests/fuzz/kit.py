"""What the fuzz tests share: arbitrary values, mutations of valid ones, and how often."""

import copy
import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["ANY_TEXT", "EXAMPLES", "HOSTILE", "HOSTILE_VALUES", "JSON", "fuzzed", "mutated", "seeded", "texts_of"]

EXAMPLES = int(os.environ.get("KDC_FUZZ_EXAMPLES", "500"))
"""Of each test. What a new noun or reader breaks is found in the first hundreds; KDC_FUZZ_EXAMPLES=20000 looks on."""

# Nothing is drawn at random from run to run: what fails here fails again.
fuzzed: Callable[[Any], Any] = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

ANY_TEXT = st.text(max_size=20)
HOSTILE_VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 8, 10**9, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"), True, False, None, "", " ", "x", "\x1b[31m", "a\nb", "../..", "/",
    "\x00", "\u202e", "é", "e\u0301", "\ud800", "nan", "1e5", "0x10", "off", [], {}, [[]], {"": {}}, [None], ["a"],
    [1, 2], [1.0, 1.0], {"name": "kd"}, [{"name": "kd"}], "timm:resnet18", "run:x", "9" * 5_000,
)  # fmt: skip
HOSTILE: st.SearchStrategy[Any] = st.sampled_from(HOSTILE_VALUES).map(copy.deepcopy)  # `mutated` changes what is drawn
SCALARS = HOSTILE | st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def seeded(holds: Callable[[int], object]) -> None:
    """Call `holds` with as many seeds: for what is drawn by `like`, of which Hypothesis would draw the seed alone, at
    several times the price of all the rest."""
    for seed in range(EXAMPLES):
        try:
            holds(seed)
        except Exception as error:
            raise AssertionError(f"with seed {seed}: {error!r}") from error


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """`valid` with one to three of its places replaced, removed or doubled."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            return value
        holder, key = draw(st.sampled_from(places))
        how = draw(st.integers(0, 9))
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif how == 2 and isinstance(holder, dict):
            holder[draw(ANY_TEXT)] = draw(JSON)
        else:
            holder[key] = draw(HOSTILE | JSON)
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield value, index
            yield from _places(inner)


def texts_of(value: Any) -> str:
    """As JSON, also where it holds what JSON has not got (NaN, a lone surrogate)."""
    return json.dumps(value)
