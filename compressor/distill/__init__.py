"""`kdc teach` and `kdc distill`: the loop, the task seam, the runs on disk."""

from compressor.distill.jobs import distill, teach

__all__ = ["distill", "teach"]
