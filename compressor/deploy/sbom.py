"""sbom.cdx.json: what is in the folder and what it needs, as CycloneDX 1.6 (cyclonedx.org/docs/1.6/json).

The same folder gives the same bytes: no time stamp, and a serial number that is derived from the model's files.
"""

import json
import uuid
from typing import Any

from compressor.runtimes import Runtime
from compressor.schema.language.manifest import LanguageManifest
from compressor.schema.manifest import Manifest
from compressor.schema.provenance import UNKNOWN, Ancestor
from compressor.schema.student import Weights
from compressor.tasks.shipping import Shipping

__all__ = ["to_cyclonedx"]

Json = dict[str, Any]
AnyManifest = Manifest | LanguageManifest
# As timm and Hugging Face spell licences -> SPDX identifiers (spdx.org/licenses), which CycloneDX takes only exactly.
SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0", "CC0-1.0", "AGPL-3.0-only", "GPL-3.0-only",
    )
}  # fmt: skip


def to_cyclonedx(
    manifest: AnyManifest, row: Runtime, shipping: Shipping, numpy_version: str | None, model_files: tuple[str, ...]
) -> str:
    """`shipping`: the task's words; `model_files`: those of the manifest's files that are the model's."""
    model = _model(manifest, shipping, model_files)
    runtime = _library(row.package or row.module, manifest.runtime_version, row.licence)
    numpy = _library("numpy", numpy_version, "BSD-3-Clause")
    libraries = [runtime] if row.module == "numpy" else [runtime, numpy]
    libraries += [_library(name, None, licence) for name, licence in shipping.packages.items()]
    seed = "".join(entry.sha256 for entry in manifest.files if entry.path in model_files)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, f"kdc:{manifest.name}:{seed}").urn,
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "kdc", "version": manifest.kdc}]},
            "component": model,
        },
        "components": libraries,
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [library["bom-ref"] for library in libraries]},
            *({"ref": library["bom-ref"]} for library in libraries),
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _model(manifest: AnyManifest, shipping: Shipping, files: tuple[str, ...]) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.name}",
        "name": manifest.name,
        "version": manifest.student.sha256[:12],
        "description": manifest.made,
        "licenses": _licences(manifest.student.licence),
        "pedigree": _pedigree(manifest.teacher),
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{entry.path}",
                "name": entry.path,
                "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
            }
            for entry in manifest.files
            if entry.path in files
        ],
        "modelCard": _card(manifest, shipping),
        "properties": [
            {"name": f"kdc:{key}", "value": value}
            for key, value in (
                ("weights-sha256", manifest.student.sha256),
                ("runtime", manifest.runtime),
                ("precision", manifest.precision),
                ("profile", manifest.profile),
                ("data-licence", manifest.data_licence),
            )
        ],
    }


def _pedigree(teacher: Weights | None) -> Json:
    if teacher is None:
        return {"notes": "trained without a teacher apart from itself and its peers"}
    ancestors = [_teacher(teacher), *map(_ancestor, teacher.ancestors)]
    return {"ancestors": ancestors, "notes": "distilled from the teacher's answers"}


def _teacher(teacher: Weights) -> Json:
    of = "weights" if teacher.parameters else "answers"  # a table has none
    return {
        "type": "machine-learning-model",
        "name": teacher.source,
        "version": teacher.sha256[:12],
        "licenses": _licences(teacher.licence),
        "properties": [
            {"name": "kdc:architecture", "value": teacher.architecture},
            {"name": f"kdc:{of}-sha256", "value": teacher.sha256},
            {"name": "kdc:terms", "value": teacher.terms},
        ],
    }


def _ancestor(ancestor: Ancestor) -> Json:
    """Of a teacher that is made of several models, or learned from others, one of them."""
    return {
        "type": "machine-learning-model",
        "name": ancestor.source if ancestor.model == UNKNOWN else ancestor.model,
        "licenses": _licences(ancestor.licence),
        "properties": [
            {"name": "kdc:source", "value": ancestor.source},
            {"name": "kdc:terms", "value": ancestor.terms},
        ],
    }


def _card(manifest: AnyManifest, shipping: Shipping) -> Json:
    inputs, outputs = _input_and_output(manifest, shipping)
    card: Json = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": shipping.task_in_card,
            "modelArchitecture": manifest.student.architecture,
            "datasets": [{"type": "dataset", "name": manifest.data}],
            "inputs": [{"format": inputs}],
            "outputs": [{"format": outputs}],
        }
    }
    if isinstance(manifest, LanguageManifest):
        return card | _bits(manifest)
    if manifest.accuracy is not None:
        score = manifest.accuracy
        card["quantitativeAnalysis"] = {
            "performanceMetrics": [
                {
                    "type": "top-1 accuracy",
                    "value": f"{score.value:.6f}",
                    "slice": f"{score.n} {score.of}",
                    "confidenceInterval": {"lowerBound": f"{score.low:.6f}", "upperBound": f"{score.high:.6f}"},
                }
            ]
        }
    return card


def _input_and_output(manifest: AnyManifest, shipping: Shipping) -> tuple[str, str]:
    if isinstance(manifest, LanguageManifest):
        return f"{shipping.in_card}, as tokens of tokenizer.json", f"logits of {manifest.vocabulary} tokens"
    return (
        f"{shipping.in_card}, prepared as preprocess.json says",
        f"logits of {manifest.classes} classes, named in labels.txt",
    )


def _bits(manifest: LanguageManifest) -> Json:
    score = manifest.test
    if score is None:
        return {}
    between = (
        {} if score.low is None or score.high is None
        else {"confidenceInterval": {"lowerBound": f"{score.low:.6f}", "upperBound": f"{score.high:.6f}"}}
    )  # fmt: skip
    metric = {"type": "bits a byte", "value": f"{score.bits_per_byte:.6f}", "slice": f"{score.n} test documents"}
    return {"quantitativeAnalysis": {"performanceMetrics": [metric | between]}}


def _library(name: str, version: str | None, licence: str) -> Json:
    purl = f"pkg:pypi/{name}" + (f"@{version}" if version else "")
    told = {"version": version} if version else {}
    return {"type": "library", "bom-ref": purl, "name": name, **told, "licenses": _licences(licence), "purl": purl}


def _licences(text: str) -> list[Json]:
    spdx = SPDX.get(text.lower())
    return [{"license": {"id": spdx} if spdx else {"name": text or "unknown"}}]
