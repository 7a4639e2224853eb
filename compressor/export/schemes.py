"""How a device's int8 kernels compute: read from its instruction sets."""

from collections.abc import Collection
from typing import Literal

from compressor.runtimes import RUNTIMES
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme

__all__ = ["Kernels", "kernels_of", "onnxruntime_scheme", "saturates", "scored_by_others"]

Kernels = Literal["with int8 dot products", "x86 without VNNI", "without int8 dot products"]

DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
X86 = ("sse", "avx", "amx")


def kernels_of(isa: Collection[str], kind: str = "") -> Kernels:
    """What a CPU with these instruction sets, named as Linux names them, multiplies int8 with: kernels differ by it.
    `kind`: of a profile's device, which may name no instruction set."""
    if DOT_PRODUCTS & set(isa):
        return "with int8 dot products"
    x86 = kind == "x86" or any(flag.startswith(X86) for flag in isa)
    return "x86 without VNNI" if x86 else "without int8 dot products"


def _kernels(profile: Profile) -> Kernels:
    return kernels_of(profile.device.isa.value, profile.device.kind)


def saturates(profile: Profile) -> bool:
    """Whether the device is an x86 without VNNI: there, kernels add two products of uint8 by int8 in 16 bits, and
    weights of 8 bits overflow them. Those of 7 do not (models.fake_quant, LARGEST_WEIGHT)."""
    return _kernels(profile) == "x86 without VNNI"


def scored_by_others(profile: Profile, host_isa: Collection[str]) -> str:
    """What to say where int8 is scored here by other kernels than the device's; "" where it is not, or where this
    machine does not tell what it has. A GPU's int8 is scored by a stand-in, which the ladder says itself."""
    on_cpu = [
        target for target in profile.targets if "int8" in target.precisions and not RUNTIMES[target.runtime].on_gpu
    ]
    here, there = kernels_of(host_isa), _kernels(profile)
    if not on_cpu or not host_isa or here == there:
        return ""
    return (
        f"Scores of int8 on validation come from this machine's kernels ({here}); profile {profile.name} has "
        f"others ({there}), where they may differ."
    )


def onnxruntime_scheme(profile: Profile) -> Scheme:
    """U8S8 everywhere, with 7-bit weights on x86 without VNNI.

    There its kernels saturate (onnxruntime.ai, "Quantize ONNX models", "When and why do I need to try U8U8?"; its
    session option "session.x64quantprecision" makes them exact by a slower kernel, and only where weights are outside
    [-64, 64]).

    Not S8S8, the documented first choice, which on x86 costs a conversion around each kernel. On ARM both have kernels
    of the same shape, with dot product and without (MlasConvSymU8DispatchDot, …U8DispatchNeon and their S8 twins in
    onnxruntime/core/mlas/lib/convsym.cpp). And only a zero point at the end of the range lets onnxruntime drop a Relu
    or Clip between a convolution and its rounding; a Scheme's int8 is symmetric, and spends half its codes on values
    that Relu never gives.
    """
    return Scheme(activations="uint8", weight_bits=7 if saturates(profile) else 8)
