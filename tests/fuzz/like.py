"""Values as a JSON schema describes them, most of them sound, some spoilt in a place or two.

Drawn from a seed with Python's own generator: that is ten times as fast as drawing each part by itself, and what is
drawn comes as deep into a noun as its own files do.
"""

import copy
import json
from random import Random
from typing import Any

from tests.fuzz.kit import HOSTILE_VALUES

__all__ = ["like", "text_like"]

SIGNS = "ab1 .:/-_\n\t\x00\x1b[]{}\"'\\é\u0301\u202e\u2028数"
NUMBERS = (0, 1, 2, 3, 10, 0, -1, 32, 255, 1000, 10**9, 2**31, 2**63)
WORDS = ("a", "b", "red", "kd", "stage1", "timm:resnet18", "run:x", "0" * 64, "model.onnx")
SCRAPS = (
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\",
    "\\u",
    "\\ud800",
    "0",
    "-",
    "1e",
    "E+9",
    ".",
    "nul",
    "true",
    "\n",
    "\ufeff",
)


def like(schema: dict[str, Any], seed: int) -> Any:
    """A value for `schema`, as pydantic writes it."""
    return _Maker(schema, Random(seed)).value(schema)


def text_like(schema: dict[str, Any], seed: int) -> bytes:
    """The JSON of one, of which a few signs may be lost, doubled or exchanged, or something else altogether."""
    random = Random(seed)
    kind = random.randrange(8)
    if kind == 0:
        return random.choice([b"[" * 3_000, b"[" * 90 + b"]" * 90, b'{"a":' * 2_000, b"9" * 5_000, b"", b"\xff\xfe{\0"])
    if kind == 1:
        return bytes(random.randrange(256) for _ in range(random.randrange(60)))
    if kind == 2:
        return "".join(random.choice(SCRAPS) for _ in range(random.randrange(30))).encode()
    text = json.dumps(_Maker(schema, random).value(schema))
    for _ in range(random.choice((0, 0, 1, 3))):
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(SCRAPS) * random.randrange(2) + text[at + random.randrange(3) :]
    return text.encode()


class _Maker:
    def __init__(self, schema: dict[str, Any], random: Random) -> None:
        self.named = schema.get("$defs", {})
        self.random = random
        self.spoilt = random.choice((0.0, 0.0, 0.01, 0.05, 0.3))

    def value(self, schema: dict[str, Any]) -> Any:
        if self.random.random() < self.spoilt:
            return self.anything()
        if "$ref" in schema:
            return self.value(self.named[schema["$ref"].rpartition("/")[2]])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            return self.value(self.random.choice(branches))
        return getattr(self, f"_{schema.get('type', 'nothing')}")(schema)

    def anything(self, depth: int = 0) -> Any:
        kind = self.random.randrange(6 if depth < 3 else 4)
        if kind < 2:
            return copy.deepcopy(self.random.choice(HOSTILE_VALUES))
        if kind == 2:
            return self._string({})
        if kind == 3:
            return self._number({})
        inner = [self.anything(depth + 1) for _ in range(self.random.randrange(4))]
        return inner if kind == 4 else {self._string({}): value for value in inner}

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        required = schema.get("required", ())
        made = {
            name: self.value(inner)
            for name, inner in schema.get("properties", {}).items()
            if (name in required or self.random.random() < 0.5) and self.random.random() >= self.spoilt / 4
        }
        others = schema.get("additionalProperties")
        if isinstance(others, dict):
            made |= {self._string(schema.get("propertyNames", {})): self.value(others) for _ in range(self._few())}
        elif self.random.random() < self.spoilt:
            made[self._string({})] = self.anything()
        return made

    def _array(self, schema: dict[str, Any]) -> list[Any]:
        made = [self.value(inner) for inner in schema.get("prefixItems", ())]
        inner = schema.get("items")
        if isinstance(inner, dict):
            low, high = schema.get("minItems", 0), schema.get("maxItems", 6)
            made += [self.value(inner) for _ in range(max(low, min(high, low + self._few())))]
        return made

    def _string(self, schema: dict[str, Any]) -> str:
        if self.random.random() < 0.7:
            return self.random.choice(
                ("a", "b", "red", "kd", "stage1", "timm:resnet18", "run:x", "0" * 64, "model.onnx")
            )
        signs = SIGNS + "\ud800" if self.spoilt else SIGNS
        return "".join(self.random.choice(signs) for _ in range(max(schema.get("minLength", 0), self._few())))

    def _number(self, schema: dict[str, Any]) -> float:
        low, high = (schema.get(key, schema.get(f"exclusive{key.capitalize()}")) for key in ("minimum", "maximum"))
        kind = self.random.randrange(6)
        if kind == 0 and low is not None:
            return float(low)
        if kind == 1 and high is not None:
            return float(high)
        if low is not None and high is not None and kind < 5:
            return self.random.uniform(low, high)
        return (low or 0) + self.random.choice((0.5, 1e-9, 0.1, 7.25, 1e300, *NUMBERS))

    def _integer(self, schema: dict[str, Any]) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 2**40))
        return min(int(low) + self.random.choice(NUMBERS if self.spoilt else NUMBERS[:6]), int(high))

    def _boolean(self, schema: dict[str, Any]) -> bool:
        return self.random.random() < 0.5

    def _null(self, schema: dict[str, Any]) -> None:
        return None

    def _nothing(self, schema: dict[str, Any]) -> Any:
        return self.anything()

    def _few(self) -> int:
        return self.random.choice((0, 1, 1, 2, 2, 3, 5))
