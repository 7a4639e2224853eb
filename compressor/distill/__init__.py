"""`kdc teach`, `kdc specialists` and `kdc distill`: the loop, the task seam, the runs on disk."""

from compressor.distill.api import distill, precompute, teach
from compressor.distill.deciding import decided
from compressor.distill.host.resources import Resources
from compressor.distill.methods.assistants import distill_chain
from compressor.distill.methods.control import distill_controlled
from compressor.distill.methods.predict import predict
from compressor.distill.methods.qat import distill_quantized, quantization_aware
from compressor.distill.methods.specialists import specialists
from compressor.distill.recipes import RecipeAsked
from compressor.distill.run_folder import Destination

__all__ = [
    "Destination",
    "RecipeAsked",
    "Resources",
    "decided",
    "distill",
    "distill_chain",
    "distill_controlled",
    "distill_quantized",
    "precompute",
    "predict",
    "quantization_aware",
    "specialists",
    "teach",
]
