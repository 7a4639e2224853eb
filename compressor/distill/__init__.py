"""`kdc teach` and `kdc distill`: the loop, the task seam, the runs on disk."""

from compressor.distill.jobs import distill, precompute, teach
from compressor.distill.predict import predict
from compressor.distill.qat import distill_quantized, quantization_aware
from compressor.distill.resources import Resources

__all__ = ["Resources", "distill", "distill_quantized", "precompute", "predict", "quantization_aware", "teach"]
