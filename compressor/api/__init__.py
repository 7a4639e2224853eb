"""The commands as functions: `import compressor; compressor.teach(…)`. Importing this imports nothing heavy.

teach, specialists, distill, precompute, predict    training, and a teacher's predictions
export, measure, report, check                      from a student to a verdict
compare                                             several bundles side by side: kdc report A B C
plan_distill, plan_export, plan_predict             what distill, export and predict would do: --plan
students, estimate_students                         what a device can carry, before any training
doctor                                              what works on this machine, or on a device

Keywords are the commands' options, with the same names and defaults: `--input-size 32` is `input_size=32`. Each call
returns a small frozen object (see `compressor.api.results`), prints nothing, and raises KdcError for what the caller
can mend. `progress`: False (the default) shows nothing; True shows on stderr what the command would; or an object that
is told, see `compressor.progress.Progress`. A warning goes to that object, or through `warnings` as a KdcWarning where
there is none; either way it stands in the result's `warnings` too.
"""

from compressor.api.choosing import students
from compressor.api.comparing import compare
from compressor.api.diagnosis import doctor
from compressor.api.distillation import distill, plan_distill, precompute
from compressor.api.estimates import EstimatesResult, estimate_students
from compressor.api.language import LanguageResult
from compressor.api.predicting import plan_predict, predict
from compressor.api.results import (
    BundleResult,
    ComparisonResult,
    CompletionsResult,
    PredictionsResult,
    ReportResult,
    RunResult,
    SpecialistsResult,
)
from compressor.api.results_before import CompletionPlanResult, DoctorResult, PlanResult, StudentsResult
from compressor.api.several import DevicesResult
from compressor.api.ship import check, export, measure, plan_export, report
from compressor.api.train import specialists, teach

__all__ = [
    "BundleResult",
    "ComparisonResult",
    "CompletionPlanResult",
    "CompletionsResult",
    "DevicesResult",
    "DoctorResult",
    "EstimatesResult",
    "LanguageResult",
    "PlanResult",
    "PredictionsResult",
    "ReportResult",
    "RunResult",
    "SpecialistsResult",
    "StudentsResult",
    "check",
    "compare",
    "distill",
    "doctor",
    "estimate_students",
    "export",
    "measure",
    "plan_distill",
    "plan_export",
    "plan_predict",
    "precompute",
    "predict",
    "report",
    "specialists",
    "students",
    "teach",
]
