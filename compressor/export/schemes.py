"""How a device's int8 kernels round: read from the profile's instruction sets."""

from compressor.spec.profile import Profile
from compressor.spec.quantization import Scheme

__all__ = ["has_vnni", "onnxruntime_scheme"]

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
X86 = ("sse", "avx", "amx")


def has_vnni(profile: Profile) -> bool:
    """Whether the device multiplies uint8 by int8 into 32 bits, without saturating in 16."""
    return bool(VNNI & set(profile.device.isa.value))


def onnxruntime_scheme(profile: Profile) -> Scheme:
    """U8S8 everywhere, with 7-bit weights on x86 without VNNI.

    There the kernels add two products of uint8 by int8 in 16 bits and saturate (onnxruntime.ai, "Quantize ONNX models",
    "When and why do I need to try U8U8?"; its session option "session.x64quantprecision" makes them exact by a slower
    kernel, and only where weights are outside [-64, 64]).

    Not S8S8, the documented first choice, which on x86 costs a conversion around each kernel. On ARM both have kernels
    of the same shape, with dot product and without (MlasConvSymU8DispatchDot, …U8DispatchNeon and their S8 twins in
    onnxruntime/core/mlas/lib/convsym.cpp). And only a zero point at the end of the range lets onnxruntime drop a Relu
    or Clip between a convolution and its rounding; a Scheme's int8 is symmetric, and spends half its codes on values
    that Relu never gives.
    """
    x86 = profile.device.kind == "x86" or any(flag.startswith(X86) for flag in profile.device.isa.value)
    return Scheme(activations="uint8", weight_bits=7 if x86 and not has_vnni(profile) else 8)
