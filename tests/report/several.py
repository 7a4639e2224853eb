"""Synthetic bundles that were measured on several devices: the same models, and raw samples of each device's own."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compressor.schema.base import write_json
from compressor.schema.device import Device

__all__ = ["A_FIRST", "B_FIRST", "SLOW", "UNREACHABLE", "session_of", "several"]

Make = Callable[..., Path]
SMALL = {"repeat": 100}
TEACHER = {"role": "teacher", "wrong": 6, "p50": 6.0, **SMALL}


def session_of(a: float, b: float, **changes: Any) -> dict[str, Any]:
    """What `make_bundle` takes for a session in which the variants `a` and `b` take so long."""
    other = {"runtime": "openvino", "precision": "f32", "executed": "f32", **SMALL}
    variants = {"a": {"p50": a, **SMALL}, "b": {"p50": b, **other}, "teacher": TEACHER}
    return {"variants": variants, **changes}


A_FIRST = session_of(1.0, 2.0)
B_FIRST = session_of(2.0, 1.0)
SLOW = session_of(9.0, 9.0)
"""Above a budget of 5 ms."""
UNREACHABLE = "the board cannot be reached: nothing was measured (Connection refused) (is it on?)"


def several(
    make_bundle: Make, sessions: Mapping[str, dict[str, Any] | str], budget: dict[str, Any] | None = None, **common: Any
) -> Path:
    """An unsealed bundle. `sessions`: device -> what it measured, or why nothing."""
    kept, bundle = {}, Path()
    for name, values in {"": A_FIRST, **sessions}.items():
        if isinstance(values, str):
            continue
        bundle = make_bundle(budget=budget or {"p50_ms": 5.0}, **values, **common)
        kept[name] = bundle.parent / f"kept-{name}"
        shutil.rmtree(kept[name], ignore_errors=True)
        shutil.move(bundle / "measurements", kept[name])
    for name, values in sessions.items():
        folder = bundle / "devices" / name
        folder.mkdir(parents=True)
        error, code = (values, 3) if isinstance(values, str) else (None, None)
        write_json(folder / "device.json", Device(name=name, url=f"ssh://{name}", error=error, exit_code=code))
        if error is None:
            shutil.copytree(kept[name], folder / "measurements")
    return bundle
