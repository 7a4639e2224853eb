"""Coarse maps of the teacher's layers, kept with its answers: the student is the same, the teacher runs once a view."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.distill import Resources, distill, precompute
from compressor.distill.regimes import built_in
from compressor.distill.run_folder import Destination
from compressor.distill.teacher import keeping
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.sources import Online
from compressor.errors import KdcError
from compressor.models.stages import Layer
from compressor.progress import Progress, Silent
from compressor.schema.recipe import TeacherAnswers
from compressor.schema.student import Request
from tests.kit import Hearing

Ask = Callable[..., Request]

POOLED, MAP, WHOLE = Layer("pooled", (5,)), Layer("stage2", (3, 2, 4)), Layer("stage3", (2, 2, 2))


def features(batch: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"pooled": (5,), "stage2": (3, 6, 8), "stage3": (2, 2, 2)}
    return {name: torch.randn(batch, *shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("maps_dtype", ["float32", "float16"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_features_come_back_as_they_were_encoded(maps_dtype: Any, top_k: int | None) -> None:
    """A map is the mean of its cells; pooled features as they are, rounded as the answer is."""
    codec = Codec.of(TeacherAnswers(top_k=top_k, maps_dtype=maps_dtype), 7, [MAP, POOLED, WHOLE])
    assert [layer.name for layer in codec.features] == ["pooled", "stage2", "stage3"]
    logits, given = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), features()
    encoded = codec.encode(logits, given)
    raw = codec.to_bytes(encoded)
    width = 4 if maps_dtype == "float32" else 2
    answer = 4 * 7 if top_k is None else 4 * 2 + 4 * 3
    assert raw.shape == (4, codec.bytes) == (4, answer + 4 * 5 + width * (24 + 8))
    assert codec.bytes_of_maps == width * 32
    assert torch.equal(codec.from_bytes(raw), encoded)
    found = codec.features_of(codec.from_bytes(raw))
    rounded = getattr(torch, maps_dtype)
    cells = given["stage2"].reshape(4, 3, 2, 3, 4, 2).mean((3, 5))
    torch.testing.assert_close(found["stage2"], cells.to(rounded).float(), rtol=1e-3, atol=1e-6)
    assert torch.equal(found["stage2"], found["stage2"].to(rounded).float())
    assert torch.equal(found["stage3"], given["stage3"].to(rounded).float())
    assert torch.equal(found["pooled"], given["pooled"])
    assert torch.equal(codec.decode(encoded), Codec.of(TeacherAnswers(top_k=top_k), 7).decode(encoded))


def test_a_map_that_changed_is_apart() -> None:
    codec = Codec(3, features=(MAP,))
    logits, now = torch.zeros(4, 3), features()
    before = {**now, "stage2": now["stage2"].clone()}
    before["stage2"][2, 1] += 0.5
    apart = codec.apart(codec.encode(logits, before), codec.encode(logits, now))
    assert apart.argmax() == 2
    assert (apart > 0.1).sum() == 1
    assert apart[[0, 1, 3]].eq(0).all()


def test_maps_that_float16_does_not_hold_are_refused() -> None:
    codec, given = Codec(3, features=(MAP,)), features()
    given["stage2"][0] = 1e5
    with pytest.raises(KdcError, match="the teacher's maps do not fit into float16") as caught:
        codec.to_bytes(codec.encode(torch.zeros(4, 3), given))
    assert caught.value.hint == "--set teacher_answers.maps_dtype=float32"
    exact = Codec.of(TeacherAnswers(maps_dtype="float32"), 3, [MAP])
    assert exact.to_bytes(exact.encode(torch.zeros(4, 3), given)).shape == (4, 4 * 3 + 4 * 24)


OF_LAYERS: dict[str, Any] = {
    "losses": built_in("large")["losses"],
    "epochs": 5,
    "views": {"distinct": 2, "hflip": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("answers", [{}, {"maps_dtype": "float32", "dtype": "float16", "top_k": 2}], ids=str)
def test_coarse_maps_are_kept_with_the_answers(tmp_path: Path, ask_distill: Ask, answers: dict[str, Any]) -> None:
    """The same student byte for byte, whether they are or not, and where an answer was damaged in between."""
    request, cache = ask_distill(**OF_LAYERS, teacher_answers=answers), tmp_path / "cache"
    notes: dict[str, list[str]] = {}
    for name, folder in (("kept", cache), ("anew", None), ("again", cache), ("damaged", cache)):
        progress = Hearing()
        if name == "damaged":
            (records,) = cache.glob("*/records")
            raw = bytearray(records.read_bytes())
            raw[len(raw) // 2] ^= 16
            records.write_bytes(raw)
        distill(
            request, Destination(tmp_path / name), progress=progress,
            resources=Resources(teacher_cache=folder),
        )  # fmt: skip
        notes[name] = progress.notes
        assert sum("was damaged: sample" in line for line in progress.warnings) == (name == "damaged")
        last = json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[-1])
        assert last["loss"].keys() == {"kd", "cross_entropy", "pkd"}
    students = {name: (tmp_path / name / "student.safetensors").read_bytes() for name in notes}
    assert len(set(students.values())) == 1
    # Half of the 8x8, 4x4, 2x2 and 1x1 of test_resnet's stages at 32 px, where the student has such maps too.
    values = 32 * 4 * 4 + 48 * 2 * 2 + 192 + 96
    maps = values * (4 if answers else 2)
    size = (
        f"{(maps + (2 * 4 + 3 * 2 if answers else 4 * 4)) / 1e3:,.1f} kB each, of which {maps / 1e3:,.1f} kB are maps"
    )
    assert any(size in line for line in notes["kept"]), notes["kept"]
    assert any("the teacher answers anew in every epoch: --teacher-cache off" in line for line in notes["anew"])


@pytest.mark.slow
def test_other_layers_are_kept_apart(tmp_path: Path, ask_distill: Ask) -> None:
    """What is looked at, and how it is rounded, is in the key."""
    resources = Resources(teacher_cache=tmp_path / "cache")
    at = [["stage3", "stage3"], ["stage4", "stage4"]]
    arms: dict[str, dict[str, Any]] = {
        "all": {},
        "two": {"losses": [{"name": "kd"}, {"name": "pkd", "at": at}]},
        "float32": {"teacher_answers": {"maps_dtype": "float32"}},
        "none": {"losses": [{"name": "kd"}]},
        "none, float32": {"losses": [{"name": "kd"}], "teacher_answers": {"maps_dtype": "float32"}},
    }
    for number, changes in enumerate(arms.values()):
        request = ask_distill(**{**OF_LAYERS, **changes})
        precompute(request, tmp_path / f"run{number}", progress=Silent(), resources=resources)
    keys = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/key.json")]
    assert len(keys) == 4, "how maps are rounded matters where there are some"
    found = sorted((len(key["maps"]["layers"]), key["maps"]["dtype"]) for key in keys if "maps" in key)
    assert found == [(2, "float16"), (4, "float16"), (4, "float32")]
    assert {"stage3": [48, 2, 2], "stage4": [192, 1, 1]} in [key["maps"]["layers"] for key in keys if "maps" in key]


@pytest.mark.slow
def test_maps_kept_ahead_spare_the_teacher(tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    request, resources = ask_distill(**OF_LAYERS), Resources(teacher_cache=tmp_path / "cache")
    precompute(request, tmp_path / "run", progress=Silent(), resources=resources)
    asked, real = [], Online.encoded

    def watched(online: Online, batch: Any) -> Any:
        asked.append(len(batch["teacher"]))
        return real(online, batch)

    monkeypatch.setattr(Online, "encoded", watched)
    distill(request, Destination(tmp_path / "run"), progress=Silent(), resources=resources)
    assert asked == [8, 8], "only the replay, of each of two views"


@pytest.mark.slow
def test_a_training_with_kept_maps_is_resumed_byte_for_byte(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "caches"))
    request = ask_distill(**OF_LAYERS)
    distill(request, Destination(tmp_path / "whole"), progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        distill(request, Destination(tmp_path / "parts"), progress=interrupt_at(17))
    distill(request, Destination(tmp_path / "parts", resume=True), progress=Silent())
    whole, parts = ((tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert len(list((tmp_path / "caches").glob("*/*/records"))) == 1


@pytest.mark.slow
def test_maps_that_would_fill_the_disk_are_not_kept(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than half of what is free: said, and the student is the same."""
    request, resources = ask_distill(**OF_LAYERS), Resources(teacher_cache=tmp_path / "cache")
    monkeypatch.setattr(keeping, "free_bytes", lambda folder: 500_000)
    progress = Hearing()
    distill(request, Destination(tmp_path / "run"), progress=progress, resources=resources)
    said = "with the maps of its layers its answers would take 0.0 GB (2.0 kB each), more than half of the 0.0 GB free"
    assert any(f"the teacher answers anew in every epoch: {said}" in line for line in progress.notes), progress.notes
    with pytest.raises(
        KdcError, match="--precompute: there is no room for the teacher's answers, with the maps of its layers"
    ):
        precompute(request, tmp_path / "ahead", progress=Silent(), resources=resources)
    assert not (tmp_path / "cache").exists()
    alone = ask_distill(**{**OF_LAYERS, "losses": [{"name": "kd"}]})
    precompute(alone, tmp_path / "ahead", progress=Silent(), resources=resources)
