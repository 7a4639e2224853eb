"""`kdc teach` and `kdc distill`: the loop, the task seam, the runs on disk."""

from compressor.distill.jobs import distill, teach
from compressor.distill.qat import distill_quantized, quantization_aware

__all__ = ["distill", "distill_quantized", "quantization_aware", "teach"]
