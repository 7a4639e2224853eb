"""Licences that bind: what rules a teacher out, where it is read from, and what a table, a card and a report say."""

from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.models.cards import terms_in
from compressor.models.licences import ancestors_named
from compressor.models.lineage import public, stated
from compressor.schema.provenance import Ancestor, LicenceRule
from compressor.schema.weights import Weights, joint, joint_terms, merged

ALPACA = Ancestor(
    source="outputs:alpaca.jsonl", model="text-davinci-003", licence="CC-BY-NC-4.0",
    terms="OpenAI Terms of Use: outputs may not be used to develop models that compete with OpenAI",
)  # fmt: skip
GEMMA = Ancestor(
    source="hf:google/gemma-3-270m", licence="gemma", terms="https://ai.google.dev/gemma/terms (Model Derivatives)"
)


@pytest.mark.parametrize(
    ("ancestor", "forbid", "clause"),
    [
        (ALPACA, ("CC-BY-NC-*",), "forbid: CC-BY-NC-* (its licence is CC-BY-NC-4.0)"),
        (ALPACA, ("cc-by-nc-4.0",), "forbid: cc-by-nc-4.0 (its licence is CC-BY-NC-4.0)"),
        (ALPACA, ("MIT", "text-davinci-*"), "forbid: text-davinci-* (its model is text-davinci-003)"),
        (ALPACA, ("*compete with OpenAI*",), "forbid: *compete with OpenAI* (its terms are OpenAI Terms of Use: "),
        (ALPACA, ("CC-BY-*4.?",), None),
        (ALPACA, ("CC-BY",), None),
        (ALPACA, ("[A-Z]*",), None),
        (GEMMA, ("gemma*",), "forbid: gemma* (its licence is gemma)"),
        (GEMMA, ("*Model Derivative*",), "forbid: *Model Derivative* (its terms are "),
        (GEMMA, ("hf:google/*",), "forbid: hf:google/* (it is hf:google/gemma-3-270m)"),
        (Ancestor(source="x", licence="MIT AND GPL-3.0"), ("GPL-*",), "forbid: GPL-* (its licence is GPL-3.0)"),
        (Ancestor(source="x", licence="(MIT OR GPL-3.0)"), ("GPL-*",), "forbid: GPL-* (its licence is GPL-3.0)"),
        (Ancestor(source="x", licence="mit, gpl-2.0"), ("GPL-2.0",), "forbid: GPL-2.0 (its licence is gpl-2.0)"),
        (
            Ancestor(source="x", licence="GPL-2.0-only WITH Classpath-exception-2.0"), ("GPL-2.0-only",),
            "forbid: GPL-2.0-only (its licence is GPL-2.0-only)",
        ),
        (Ancestor(source="x"), ("*NC*",), None),
        (Ancestor(source="x"), ("unknown",), "forbid: unknown (its licence is unknown)"),
    ],
)  # fmt: skip
def test_what_a_forbidden_pattern_matches(ancestor: Ancestor, forbid: tuple[str, ...], clause: str | None) -> None:
    told = LicenceRule(forbid=forbid).broken_by(ancestor)
    assert told is None if clause is None else told is not None and told.startswith(clause)


@pytest.mark.parametrize(
    ("licence", "require", "clause"),
    [
        ("Apache-2.0", ("MIT", "apache-*"), None),
        ("unknown", ("MIT",), "require: MIT (its licence is not known)"),
        ("unknown", ("*",), "require: * (its licence is not known)"),
        ("MIT AND unknown", ("*",), "require: * (its licence is not known)"),
        ("CC-BY-NC-4.0", ("MIT", "Apache-2.0"), "require: MIT, Apache-2.0 (its licence is CC-BY-NC-4.0)"),
        ("MIT AND CC-BY-NC-4.0", ("MIT",), "require: MIT (its licence is CC-BY-NC-4.0)"),
        ("MIT OR CC-BY-NC-4.0", ("MIT",), "require: MIT (its licence is CC-BY-NC-4.0)"),
        ("MIT AND Apache-2.0", ("MIT", "Apache-2.0"), None),
        ("none (trained from scratch)", ("MIT",), None),
    ],
)
def test_what_a_requirement_permits(licence: str, require: tuple[str, ...], clause: str | None) -> None:
    assert LicenceRule(require=require).broken_by(Ancestor(source="x", licence=licence)) == clause


def test_a_rule_that_says_nothing() -> None:
    assert not LicenceRule().stated
    assert LicenceRule().broken_by(ALPACA) is None
    for wrong in ({"forbid": [""]}, {"forbid": ["a\nb"]}, {"deny": ["MIT"]}):
        with pytest.raises(ValueError, match="validation error"):
            LicenceRule.model_validate(wrong)


@pytest.mark.parametrize(
    ("head", "licence", "terms"),
    [
        ("license: mit", "mit", None),
        (
            "license: gemma\nlicense_link: https://ai.google.dev/gemma/terms",
            "gemma",
            "https://ai.google.dev/gemma/terms",
        ),
        ("license: other\nlicense_name: llama3\nlicense_link: LICENSE", "llama3", "LICENSE"),
        ("license_name: llama3", "llama3", None),
        ("license: other", "other", None),
        ("license: [mit, apache-2.0]", "mit, apache-2.0", None),
        ('license: "a\\nb\\u001b[31m"', "a b\\x1b[31m", None),
        ("license: 3", None, None),
        ("title: x", None, None),
    ],
)
def test_what_a_model_card_says(tmp_path: Path, head: str, licence: str | None, terms: str | None) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"---\n{head}\n---\n# Model\n")
    told = terms_in(card)
    assert (told.licence, told.terms) == (licence, terms)


def test_a_folder_of_a_model_says_it_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    [nothing] = ancestors_named(f"hf:{tmp_path}")
    assert (nothing.licence, nothing.terms) == ("unknown", "unknown")
    (tmp_path / "GEMMA_TERMS.html").write_text("Model Derivatives")
    [told] = ancestors_named(f"hf:{tmp_path}")
    assert (told.licence, told.terms) == ("unknown", "GEMMA_TERMS.html")
    clause = LicenceRule(forbid=("*gemma*",)).broken_by(told)
    assert clause == "forbid: *gemma* (its terms are GEMMA_TERMS.html)"
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n")
    [told] = ancestors_named(f"hf:{tmp_path}")
    assert told.licence == "gemma"


def test_what_timm_says_of_its_weights(tmp_path: Path) -> None:
    [told] = ancestors_named("timm:resnet50.a1_in1k+relu")
    assert (told.model, told.licence) == ("resnet50.a1_in1k+relu", "apache-2.0")
    [told] = ancestors_named("timm:resnet50.a1_in1k@somewhere.safetensors")
    assert told.licence == "unknown", "a checkpoint is somebody else's"
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {"license": "cc-by-nc-4.0"}}')
    [told] = ancestors_named(f"timm:local-dir:{tmp_path}")
    assert told.licence == "cc-by-nc-4.0"


def weights(source: str, licence: str = "unknown", terms: str = "unknown", *ancestors: Ancestor) -> Weights:
    return Weights(
        source=source, architecture="net", sha256="0", licence=licence, terms=terms, parameters=1, ancestors=ancestors
    )


def test_what_is_made_of_several_names_each_once() -> None:
    first, second = weights("timm:a", "mit"), weights("run:/home/me/b", "mit", "unknown", ALPACA)
    assert merged([first, second, first]) == (
        Ancestor(source="timm:a", model="net", licence="mit"), ALPACA,
    )  # fmt: skip
    assert joint(["mit", "gpl", "mit"]) == "mit AND gpl"
    assert (joint_terms(["a", "unknown", "b", "a"]), joint_terms(["unknown"])) == ("a; b", "unknown")


def test_no_path_travels() -> None:
    ancestors = (
        Ancestor(source="run:/home/me/b", model="/models/secret/llama.gguf"),
        Ancestor(source="x", model="org/m"),
    )
    shown = public(weights("run:/home/me/c", "mit", "unknown", *ancestors))
    assert [ancestor.source for ancestor in shown.ancestors] == ["run:b", "x"]
    assert [ancestor.model for ancestor in shown.ancestors] == ["llama.gguf", "org/m"]


def test_what_somebody_states_of_a_model() -> None:
    told = stated(weights("timm:a"), "MIT", "see there")
    assert (told.licence, told.terms) == ("MIT", "see there")
    assert stated(weights("timm:a", "MIT"), "MIT", None) == weights("timm:a", "MIT")
    with pytest.raises(KdcError, match="timm:a says itself that it is GPL"):
        stated(weights("timm:a", "GPL"), "MIT", None)
    with pytest.raises(KdcError, match="--terms holds a line break"):
        stated(weights("timm:a"), None, "a\nb")
    of_run = stated(weights("run:r", "none (trained from scratch)", "unknown", ALPACA), "LicenseRef-Mine", None)
    assert of_run.ancestors == (Ancestor(source="run:r", model="net", licence="LicenseRef-Mine"), ALPACA)
