"""The little of CUDA that a runner needs: memory on the GPU, copies, streams. Through the driver's own library, which
comes with every driver, on a Jetson too, so that no other package is needed.

TensorRT works in the device's primary context, and so does this
(docs.nvidia.com/cuda/cuda-runtime-api, "Interactions with the CUDA Driver API").
Standard library only; runs on Python 3.9 and later. Used by run_trt.py.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

# Function -> the types of its arguments; all return a CUresult, 0 for success. The names are those of the library:
# cuda.h renames cuMemAlloc to cuMemAlloc_v2, for pointers of 64 bits.
FUNCTIONS = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, c_void_p),
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamSynchronize": (c_void_p,),
}
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it waits for no other stream


class CudaError(Exception):
    """There is no GPU that can be used, or it failed."""


class Cuda:
    """The first GPU of this machine. What is allocated lives as long as the process, which runs one model."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise CudaError(f"no NVIDIA GPU that can be used: {LIBRARY} of its driver cannot be loaded") from error
        for name, types in FUNCTIONS.items():
            getattr(self._library, name).argtypes = types
        self._do("cuInit", 0)
        count, device, self._context = c_int(), c_int(), c_void_p()
        self._do("cuDeviceGetCount", byref(count))
        if count.value == 0:
            raise CudaError("no NVIDIA GPU that can be used: the driver counts none")
        self._do("cuDeviceGet", byref(device), 0)
        text = ctypes.create_string_buffer(256)
        self._do("cuDeviceGetName", text, len(text), device)
        self.name = text.value.decode("utf-8", "replace")
        self._do("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self.enter()

    def enter(self) -> None:
        """For each thread that is to use the GPU."""
        self._do("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """`size` bytes on the GPU; their address."""
        address = c_uint64()
        self._do("cuMemAlloc_v2", byref(address), size)
        return address.value

    def stream(self) -> int:
        stream = c_void_p()
        self._do("cuStreamCreate", byref(stream), NON_BLOCKING)
        return stream.value or 0

    def upload(self, to: int, source: int, size: int, stream: int) -> None:
        """Copy from this machine's memory to the GPU's, after what the stream has to do already."""
        self._do("cuMemcpyHtoDAsync_v2", to, source, size, stream)

    def download(self, to: int, source: int, size: int, stream: int) -> None:
        self._do("cuMemcpyDtoHAsync_v2", to, source, size, stream)

    def wait(self, stream: int) -> None:
        """Until the stream has nothing left to do. Raises CudaError for what went wrong in it."""
        self._do("cuStreamSynchronize", stream)

    def _do(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            said = c_char_p()
            self._library.cuGetErrorString(code, byref(said))
            raise CudaError(f"{name}: {(said.value or b'unknown error').decode('utf-8', 'replace')} ({code})")
