"""The hub out of reach: an error within seconds that names what else there is, never a silent random start."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from compressor import hub
from compressor.errors import KdcError
from compressor.models import load_model
from compressor.tasks.image_classification.models.students import create_student

NAMES = ["cat", "dog"]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The hub's name does not resolve, no proxy is set, and nothing lies in the cache."""
    monkeypatch.setattr(hub, "_resolves", lambda endpoint: False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 15
    assert not constants.HF_HUB_OFFLINE, "the setting is put back"


@pytest.mark.usefixtures("no_hub")
def test_a_pretrained_student_names_the_two_other_starts(tmp_path: Path) -> None:
    with pytest.raises(
        KdcError, match="the student's pretrained weights: timm:mobilenetv3_small_050 cannot be loaded"
    ) as e:
        create_student("timm:mobilenetv3_small_050", "pretrained", NAMES, 32, None)
    assert "--student-init random" in e.value.hint
    assert "--student-init PATH" in e.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_timm_teacher_names_the_local_spellings() -> None:
    with pytest.raises(KdcError, match="timm:mobilenetv3_small_050 cannot be loaded from the hub: ") as caught:
        load_model("timm:mobilenetv3_small_050")
    assert "timm:local-dir:PATH" in caught.value.hint
    assert "timm:NAME@CHECKPOINT" in caught.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_hugging_face_teacher_names_the_local_spelling() -> None:
    with pytest.raises(KdcError, match="hf:nobody/nothing cannot be loaded from the hub: ") as caught:
        load_model("hf:nobody/nothing")
    assert "hf:PATH" in caught.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_local_folder_needs_no_hub(vit_folder: Callable[..., Path]) -> None:
    assert load_model(f"hf:{vit_folder(NAMES)}").class_names is not None


def test_what_the_user_set_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", dict)
    for offline, resolves, inside in [(True, False, True), (False, True, False), (False, False, True)]:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(hub, "_resolves", lambda endpoint, answer=resolves: answer)
        with hub.offline_if_unreachable():
            assert constants.HF_HUB_OFFLINE is inside
        assert constants.HF_HUB_OFFLINE is offline


def test_behind_a_proxy_names_need_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(hub, "_resolves", lambda endpoint: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub.offline_if_unreachable():
        assert not constants.HF_HUB_OFFLINE


def test_a_name_that_does_not_resolve() -> None:
    assert not hub._resolves("https://kdc-test.invalid")
