"""kdc, the Knowledge Distillation Compressor: distill a large model into one that fits a device, and prove it.

    import compressor

    compressor.teach(teacher="timm:resnet10t", teacher_init="random", data="digits", out="teacher")
    run = compressor.distill(teacher="run:teacher", data="digits", out="run")
    bundle = compressor.export(run.out, profile="x86-avx2", out="bundle")
    bundle.verdict, bundle.passed, bundle.to_dict()

The functions are the commands of `kdc`, see `compressor.api`. Importing this package imports nothing heavy: each name
is looked up when it is first used.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor import losses as losses
    from compressor import profiles as profiles
    from compressor.api import (
        BundleResult,
        ComparisonResult,
        CompletionPlanResult,
        CompletionsResult,
        DevicesResult,
        DoctorResult,
        EstimatesResult,
        LanguageResult,
        PlanResult,
        PredictionsResult,
        ReportResult,
        RunResult,
        SpecialistsResult,
        StudentsResult,
        check,
        compare,
        distill,
        doctor,
        estimate_students,
        export,
        measure,
        plan_distill,
        plan_export,
        plan_predict,
        precompute,
        predict,
        report,
        specialists,
        students,
        teach,
    )
    from compressor.errors import KdcError, KdcWarning

# onnxruntime (since 1.32) and OpenVINO with NNCF report to their makers over the network, from the moment when they are
# imported. kdc sends nothing unasked: the one is told so, which a value of the user's own overrides, and the others do
# without where this package is missing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"

__all__ = [
    "BundleResult",
    "ComparisonResult",
    "CompletionPlanResult",
    "CompletionsResult",
    "DevicesResult",
    "DoctorResult",
    "EstimatesResult",
    "KdcError",
    "KdcWarning",
    "LanguageResult",
    "PlanResult",
    "PredictionsResult",
    "ReportResult",
    "RunResult",
    "SpecialistsResult",
    "StudentsResult",
    "__version__",
    "check",
    "compare",
    "distill",
    "doctor",
    "estimate_students",
    "export",
    "losses",
    "measure",
    "plan_distill",
    "plan_export",
    "plan_predict",
    "precompute",
    "predict",
    "profiles",
    "report",
    "specialists",
    "students",
    "teach",
]

_PLACES = {"KdcError": "compressor.errors", "KdcWarning": "compressor.errors"}
_MODULES = ("losses", "profiles")
"""Modules that are of use by themselves: `compressor.losses.LOSSES`, `compressor.profiles.list_profiles()`."""


if not TYPE_CHECKING:  # where it is, every name would count as there

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        value = getattr(importlib.import_module(_PLACES.get(name, "compressor.api")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`compressor.distill` is the function of that name, whether or not the folder of that name was imported before:
    Python would put the folder's module in its place. `from compressor.distill import …` works all the same."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in __all__ and name not in _MODULES:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
