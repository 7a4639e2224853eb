"""sbom.cdx.json, held against CycloneDX 1.6."""

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from compressor.deploy import write_best
from compressor.schema.student import Weights

if TYPE_CHECKING:
    from tests.deploy.conftest import Tiny


def sbom(tiny: "Tiny", licence: str = "apache-2.0") -> str:
    weights = Weights(source="timm:x", architecture="x", sha256="ab" * 32, licence=licence, parameters=1)
    write_best(
        tiny.folder, tiny.bundle.model_copy(update={"teacher": weights}), tiny.variant("openvino-f32"), why="fastest"
    )
    return (tiny.folder / "best" / "sbom.cdx.json").read_text(encoding="utf-8")


def references(value: Any) -> list[str]:
    """All bom-refs in the document."""
    if isinstance(value, dict):
        return [*([value["bom-ref"]] if "bom-ref" in value else []), *references(list(value.values()))]
    return [ref for one in value for ref in references(one)] if isinstance(value, list) else []


def test_what_the_specification_demands(tiny: "Tiny") -> None:
    document = json.loads(sbom(tiny))
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    known = references(document)
    assert len(known) == len(set(known))
    for row in document["dependencies"]:
        assert {row["ref"], *row.get("dependsOn", ())} <= set(known)
    for library in document["components"]:
        assert library["type"] == "library"
        assert library["purl"].startswith(f"pkg:pypi/{library['name']}")


def test_the_model_its_files_and_its_teacher(tiny: "Tiny") -> None:
    model = json.loads(sbom(tiny))["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    sums = {entry.path.split("/")[1]: entry.sha256 for entry in tiny.variant("openvino-f32").files}
    assert {one["name"]: one["hashes"][0]["content"] for one in model["components"]} == sums
    assert model["modelCard"]["modelParameters"]["task"] == "image-classification"
    (teacher,) = model["pedigree"]["ancestors"]
    assert teacher["licenses"] == [{"license": {"id": "Apache-2.0"}}]


@pytest.mark.parametrize(("parameters", "key"), [(1, "kdc:weights-sha256"), (0, "kdc:answers-sha256")])
def test_what_the_teachers_sum_is_of(tiny: "Tiny", parameters: int, key: str) -> None:
    """A table of answers has no weights."""
    weights = Weights(source="outputs:t.csv", architecture="x", sha256="ab", licence="mit", parameters=parameters)
    write_best(tiny.folder, tiny.bundle.model_copy(update={"teacher": weights}), tiny.variant("openvino-f32"))
    document = json.loads((tiny.folder / "best" / "sbom.cdx.json").read_text(encoding="utf-8"))
    (teacher,) = document["metadata"]["component"]["pedigree"]["ancestors"]
    assert {one["name"]: one["value"] for one in teacher["properties"]} == {
        "kdc:architecture": "x", key: "ab", "kdc:terms": "unknown",
    }  # fmt: skip


def test_a_licence_that_spdx_does_not_know_keeps_its_words(tiny: "Tiny") -> None:
    (teacher,) = json.loads(sbom(tiny, "none (trained from scratch)"))["metadata"]["component"]["pedigree"]["ancestors"]
    assert teacher["licenses"] == [{"license": {"name": "none (trained from scratch)"}}]


def test_valid_by_the_official_schema(tiny: "Tiny") -> None:
    install = "pip install 'cyclonedx-python-lib[json-validation]'"
    pytest.importorskip("jsonschema", reason=install)
    schema = pytest.importorskip("cyclonedx.schema", reason=install)
    validation = pytest.importorskip("cyclonedx.validation.json", reason=install)
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(sbom(tiny)) is None
