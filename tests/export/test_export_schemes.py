"""Which int8 kernels a device has, and when the machine that scores int8 has others."""

import pytest

from compressor.export.judge import machine_isa
from compressor.export.schemes import kernels_of, saturates, scored_by_others
from compressor.profiles import load_profile

AVX2, VNNI, DOT, NEON = ("avx", "avx2", "fma"), ("avx2", "avx_vnni"), ("asimd", "asimddp"), ("asimd",)


def test_kernels() -> None:
    assert [kernels_of(isa) for isa in (AVX2, VNNI, DOT, NEON)] == [
        "x86 without VNNI", "with int8 dot products", "with int8 dot products", "without int8 dot products"
    ]  # fmt: skip


def test_a_profile_that_names_no_instruction_set_is_taken_for_the_oldest_of_its_kind() -> None:
    assert saturates(load_profile("x86-avx2", ["device.isa.value=[]"]))
    assert not saturates(load_profile("raspberry-pi-5", ["device.isa.value=[]"]))


@pytest.mark.parametrize(
    ("profile", "alike", "others"),
    [
        ("x86-avx2", [AVX2], [VNNI, DOT, NEON]),
        ("x86-avx512-vnni", [VNNI, DOT], [AVX2, NEON]),
        ("raspberry-pi-5", [VNNI, DOT], [AVX2, NEON]),
    ],
)
def test_scores_by_other_kernels_are_told(
    profile: str, alike: list[tuple[str, ...]], others: list[tuple[str, ...]]
) -> None:
    device = load_profile(profile)
    assert {scored_by_others(device, isa) for isa in (*alike, ())} == {""}
    for isa in others:
        said = scored_by_others(device, isa)
        assert said.startswith(f"Scores of int8 on validation come from this machine's kernels ({kernels_of(isa)})")
        assert f"{profile} has others ({kernels_of(device.device.isa.value)})" in said


def test_nothing_is_said_where_nothing_is_scored_in_int8_here() -> None:
    floats = load_profile("x86-avx2", ["targets=[{runtime: onnxruntime, precisions: [fp32]}]"])
    assert scored_by_others(floats, VNNI) == ""
    assert scored_by_others(load_profile("jetson-orin-nano"), AVX2) == ""  # its int8 runs on the GPU


def test_this_machine_tells_what_it_has() -> None:
    """As doctor reads it: the runner of the runtime that is always there says so."""
    from compressor.measure.machine import this_machine

    assert machine_isa() == this_machine().isa
