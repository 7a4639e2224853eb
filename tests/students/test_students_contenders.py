"""Who races: what the budget admits, a family each, measured for longer; and the cases in which nobody does."""

from typing import Any

import pytest

from compressor.errors import KdcError
from compressor.measure.devices import parse_device
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.schema.profile import Profile
from compressor.schema.report import Estimate
from compressor.schema.students import Figures
from compressor.students import contenders as module
from compressor.students.api import Wanted
from compressor.students.contenders import LONG, Device, choose_contenders, deciding
from tests.kit import Hearing

# name, family, MMACs, p50 of fp32 and of int8 (None: it could not be made), MB
CANDIDATES = (
    ("tiny", "A", 10, 1.0, 0.9, 1.0),
    ("small", "A", 50, 2.0, 1.8, 4.0),
    ("slow", "B", 60, 6.0, 5.5, 3.0),
    ("wide", "B", 80, 3.0, None, 9.0),
    ("deep", "C", 90, 3.9, 3.0, 5.0),
    ("huge", "D", 900, 20.0, 9.0, 60.0),
    ("quick", "E", 40, 0.8, 0.7, 2.0),
    ("other", "F", 30, 0.9, 0.8, 2.0),
)


def row(name: str, family: str, macs: int, p50: float | None, precision: str, size: float, n: int = 12) -> Figures:
    estimate = None if p50 is None else Estimate(value=p50, low=0.97 * p50, high=1.03 * p50, n=n, of="blocks")
    return Figures(
        student=f"timm:{name}", family=family, input_size=224, classes=10, runtime="onnxruntime", runtime_version="1",
        precision=precision, executed_precision=precision, parameters=macs * 1000, macs=macs * 10**6, size_mb=size,
        p50_ms=estimate, p90_ms=estimate, peak_rss_mb=50.0, model_rss_mb=9.0, error=None if p50 else "no such operator",
        measured="2026-11-30",
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Wanted]:
    """What was measured, in order; the teacher takes 10 ms."""
    calls: list[Wanted] = []

    def figures(profile: Profile, wanted: Wanted, device: Device, progress: Any) -> dict[Any, Figures]:
        calls.append(wanted)
        rows = []
        for name, family, macs, fp32, int8, size in CANDIDATES:
            if not wanted.names or f"timm:{name}" in wanted.names:
                rows.append(row(name, family, macs, fp32, "fp32", size, wanted.rounds))
                rows.append(row(name, family, macs, int8, "int8", size / 4, wanted.rounds))
        teachers = [row(name, "-", 2000, 10.0, "fp32", 90.0) for name, _ in wanted.beside]
        rows += [each.model_copy(update={"input_size": 260}) for each in teachers]
        return {(each.student, each.input_size, each.variant): each for each in rows}

    monkeypatch.setattr(module, "_figures", figures)
    return calls


def chosen(budget: dict[str, float], teacher: tuple[str, int] | None = None, progress: Any = None) -> Any:
    profile = load_profile("x86-avx2", [f"budget={{{', '.join(f'{key}: {value}' for key, value in budget.items())}}}"])
    device = Device(parse_device("local"))
    return choose_contenders(profile, Wanted(classes=10), teacher, device, progress or Silent())


def test_only_those_who_may_run_are_measured_for_longer(asked: list[Wanted]) -> None:
    """Not their changed forms again, which were looked at."""
    profile = load_profile("x86-avx2", ["budget={p50_ms: 4.5}"])
    device = Device(parse_device("local"))
    choose_contenders(profile, Wanted(classes=10, surgery=True), None, device, Silent())
    assert [wanted.surgery for wanted in asked] == [True] + [False] * (len(asked) - 1)
    assert asked[-1].rounds == LONG


def test_of_each_family_the_one_that_computes_most(asked: list[Wanted]) -> None:
    """4.5 ms less a tenth: deep holds them, in int8 the faster; wide only in fp32; huge does not."""
    contenders, why = chosen({"p50_ms": 4.5})
    told = [(each.student, each.variant, each.p50_ms.value) for each in contenders]
    assert told == [
        ("timm:deep", "onnxruntime-int8", 3.0), ("timm:wide", "onnxruntime-fp32", 3.0),
        ("timm:small", "onnxruntime-int8", 1.8), ("timm:quick", "onnxruntime-int8", 0.7),
    ]  # fmt: skip
    assert why == (
        "of 8 candidates the budget of x86-avx2 (p50_ms) admits 6 with 10% to spare, and of their families these "
        "compute most"
    )
    # Coarsely all of them, then those that may be trained, for longer.
    assert [(each.rounds, len(each.names)) for each in asked] == [(12, 0), (LONG, 4)]
    assert contenders[0].p50_ms.n == LONG
    # What the next ones on the front cost: of int8, what computes more takes 9 ms.
    larger, smaller = contenders[0].larger, contenders[0].smaller
    assert (larger.student, larger.p50_ms.value, larger.over) == ("timm:huge", 9.0, ("p50_ms 8.73 > 4.5",))
    assert (smaller.student, smaller.p50_ms.value, smaller.over) == ("timm:small", 1.8, ())


def test_where_few_families_hold_it_their_others_run_too(asked: list[Wanted]) -> None:
    contenders, _ = chosen({"p50_ms": 1.2, "size_mb": 1.2})
    assert [each.student for each in contenders] == ["timm:quick", "timm:other", "timm:tiny"]
    contenders, _ = chosen({"p50_ms": 4.5, "size_mb": 1.1})
    assert [each.student for each in contenders] == ["timm:small", "timm:quick", "timm:other", "timm:tiny"]


def test_a_line_on_the_teachers_time(asked: list[Wanted]) -> None:
    """Twice as fast as 10 ms, with a tenth to spare: 4.55 ms."""
    contenders, _ = chosen({"min_speedup": 2}, ("teacher", 260))
    assert [each.student for each in contenders] == ["timm:deep", "timm:wide", "timm:small", "timm:quick"]
    assert asked[0].beside == (("teacher", 260),)
    progress = Hearing()
    contenders, _ = chosen({"min_speedup": 2, "size_mb": 100}, None, progress)
    assert contenders[0].student == "timm:huge"
    assert progress.warnings == [
        "budget.min_speedup is not judged before training: the teacher is none of timm's networks"
    ]


def test_the_teachers_time_is_of_a_float_variant_that_is_measured() -> None:
    """LiteRT, which comes first in the profile, is not measured before training; int8 is not what a bundle has."""
    targets = "targets=[{runtime: litert, precisions: [fp32]}, {runtime: onnxruntime, precisions: [int8, fp32]}]"
    profile = load_profile("x86-avx2", ["budget={min_speedup: 2}", targets])
    rows = [row("teacher", "-", 2000, p50, precision, 90.0) for precision, p50 in (("int8", 2.0), ("fp32", 10.0))]
    measured = {(each.student, each.input_size, each.variant): each for each in rows}
    assert module._budget(measured, profile, ("teacher", 224)).p50_ms == 5.0


def test_who_falls_in_the_longer_look_is_replaced(asked: list[Wanted], monkeypatch: pytest.MonkeyPatch) -> None:
    figures = module._figures

    def slower(profile: Profile, wanted: Wanted, device: Device, progress: Any) -> dict[Any, Figures]:
        measured = figures(profile, wanted, device, progress)
        if wanted.rounds == LONG:
            for key, each in measured.items():
                if each.student == "timm:deep":
                    measured[key] = row("deep", "C", 90, 5.0, each.precision, 5.0, LONG)
        return measured

    monkeypatch.setattr(module, "_figures", slower)
    contenders, _ = chosen({"p50_ms": 4.5})
    assert [each.student for each in contenders] == ["timm:wide", "timm:small", "timm:quick", "timm:other"]
    assert [each.p50_ms.n for each in contenders] == [LONG] * 4


def test_a_changed_network_runs_only_where_the_whole_one_cannot(
    asked: list[Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = (("deep+relu", "C", 90, 2.5, 2.4, 5.0), ("huge+relu", "D", 900, 12.0, 3.9, 60.0))
    monkeypatch.setitem(globals(), "CANDIDATES", (*CANDIDATES, *forms))
    contenders, _ = chosen({"p50_ms": 4.5})
    assert [each.student for each in contenders] == ["timm:huge+relu", "timm:deep", "timm:wide", "timm:small"]


def test_where_none_has_a_tenth_to_spare_who_holds_it_just_so_runs(asked: list[Wanted]) -> None:
    """The fastest takes 0.7 ms, and its interval ends at 0.721."""
    progress = Hearing()
    contenders, why = chosen({"p50_ms": 0.75}, None, progress)
    assert [each.student for each in contenders] == ["timm:quick"]
    assert "admits 1 with 0% to spare" in why
    assert progress.warnings == [
        "no candidate holds the latency that the budget of x86-avx2 allows with 10% to spare; timm:quick holds it "
        "just so, which another day may undo"
    ]


def test_no_candidate_holds_it(asked: list[Wanted]) -> None:
    with pytest.raises(KdcError, match="no candidate certainly holds the budget of x86-avx2") as caught:
        chosen({"p50_ms": 0.5})
    assert "timm:quick as onnxruntime-int8: p50_ms 0.679 > 0.5" in caught.value.message
    assert caught.value.exit_code == 1


def test_no_candidate_could_be_measured(asked: list[Wanted], monkeypatch: pytest.MonkeyPatch) -> None:
    """But the teacher."""
    monkeypatch.setitem(globals(), "CANDIDATES", (("wide", "B", 80, None, None, 9.0),))
    with pytest.raises(KdcError, match="none of the candidates could be measured: no such operator") as caught:
        chosen({"min_speedup": 2}, ("teacher", 260))
    assert caught.value.exit_code == 3


def test_what_decides_before_training() -> None:
    budget = load_profile("x86-avx2", ["budget={min_retention: 0.9, min_speedup: 2, size_mb: 3}"]).budget
    assert deciding(budget) == ("size_mb", "min_speedup")
    assert deciding(load_profile("x86-avx2", ["budget={min_retention: 0.9}"]).budget) == ()
