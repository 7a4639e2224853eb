"""`kdc teach`, `kdc specialists` and `kdc distill`: the loop, the task seam, the runs on disk."""

from compressor.distill.chain import distill_chain
from compressor.distill.jobs import distill, precompute, teach
from compressor.distill.predict import predict
from compressor.distill.qat import distill_quantized, quantization_aware
from compressor.distill.resources import Resources
from compressor.distill.specialists import specialists

__all__ = [
    "Resources",
    "distill",
    "distill_chain",
    "distill_quantized",
    "precompute",
    "predict",
    "quantization_aware",
    "specialists",
    "teach",
]
