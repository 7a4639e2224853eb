"""How a device's int8 kernels round: read from the profile's instruction sets."""

from compressor.spec.profile import Profile
from compressor.spec.quantization import Scheme

__all__ = ["has_vnni", "onnxruntime_scheme"]

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


def has_vnni(profile: Profile) -> bool:
    """Whether the device multiplies uint8 by int8 into 32 bits, without saturating in 16."""
    return bool(VNNI & set(profile.device.isa.value))


def onnxruntime_scheme(profile: Profile) -> Scheme:
    """U8S8 on x86, with 7-bit weights where there is no VNNI; S8S8 on ARM.

    onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "Data type selection".
    """
    if profile.device.kind == "x86":
        return Scheme(activations="uint8", weight_bits=8 if has_vnni(profile) else 7)
    return Scheme(activations="int8")
