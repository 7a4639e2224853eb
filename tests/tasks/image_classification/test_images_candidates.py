"""The changed forms of the catalogue's networks that can be had."""

from pathlib import Path

import pytest
import torch

from compressor.schema.base import read_json
from compressor.schema.students import Prunable
from compressor.students import api
from compressor.students.api import Wanted
from compressor.tasks.image_classification import candidates
from compressor.tasks.image_classification.candidates import possible
from compressor.tasks.image_classification.models import timm_models
from tests.kit import Hearing


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path))
    return tmp_path / "prunable"


def test_half_of_the_channels_can_go_where_that_was_tried_and_stands(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.random.get_rng_state()
    forms = ("lcnet_035+relu", "lcnet_035+no_se", "lcnet_035+relu+no_se", "lcnet_035+width0.5")
    assert possible("lcnet_035") == forms
    assert torch.equal(state, torch.random.get_rng_state())
    # Its blocks are concatenated, so that a layer would have no channel left.
    assert [form for form in possible("ghostnet_050") if "width" in form] == []
    kept = [read_json(path, Prunable) for path in sorted(cache.iterdir())]
    assert {row.of.split()[0]: row.is_prunable for row in kept} == {"lcnet_035": True, "ghostnet_050": False}
    assert ["cannot be pruned" in (row.why or "") for row in kept] == [not row.is_prunable for row in kept]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it was tried already")

    monkeypatch.setattr(timm_models, "create", fail)
    assert possible("lcnet_035") == forms
    assert [form for form in possible("ghostnet_050") if "width" in form] == []
    for path in cache.iterdir():
        path.write_text("{")  # damaged: tried again
    with pytest.raises(AssertionError, match="already"):
        possible("lcnet_035")


def test_without_the_pruner_that_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert candidates.impossible() is None
    monkeypatch.setattr(candidates, "find_spec", lambda name: None)
    assert possible("resnet10t") == ()
    assert not cache.exists()
    progress = Hearing()
    api.tell_impossible(Wanted(), progress)
    assert progress.notes == []
    api.tell_impossible(Wanted(surgery=True), progress)
    (said,) = progress.notes
    assert said.startswith("+width0.5 is left out: torch-pruning is not installed (pip install 'torch-pruning")
