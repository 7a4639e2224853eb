"""What a runner's process gets of the environment: what Python, a runtime and the drivers need, and no secret.

A runner loads a model that may come from anywhere, in a runtime with all its parsers. Standard library only; runs on
Python 3.9 and later. Used by bench.py; kdc has the same list in compressor/processes/child_environment.py, and a test
compares.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

NAMES = frozenset(
    """
    PATH HOME USER LOGNAME SHELL PWD TMPDIR TMP TEMP TZ LANG LANGUAGE
    LC_ALL LC_CTYPE LC_NUMERIC LC_TIME LC_COLLATE LC_MONETARY LC_MESSAGES LC_PAPER LC_NAME LC_ADDRESS LC_TELEPHONE
    LC_MEASUREMENT LC_IDENTIFICATION
    LD_LIBRARY_PATH LD_PRELOAD DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH GLIBC_TUNABLES
    PYTHONPATH PYTHONHOME PYTHONUSERBASE PYTHONNOUSERSITE PYTHONSAFEPATH PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
    PYTHONIOENCODING PYTHONUTF8 PYTHONUNBUFFERED PYTHONHASHSEED PYTHONFAULTHANDLER PYTHONMALLOC PYTHONWARNINGS
    VIRTUAL_ENV CONDA_PREFIX ANDROID_ROOT ANDROID_DATA PREFIX
    XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR
    NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES NVIDIA_TF32_OVERRIDE TF_CPP_MIN_LOG_LEVEL TF_ENABLE_ONEDNN_OPTS
    OPENVINO_LOG_LEVEL OPENVINO_LIB_PATHS ORT_DISABLE_TELEMETRY OCL_ICD_VENDORS OCL_ICD_FILENAMES
    ZE_ENABLE_PCI_ID_DEVICE_ORDER ZE_AFFINITY_MASK
    SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT APPDATA LOCALAPPDATA PROGRAMDATA USERPROFILE HOMEDRIVE HOMEPATH
    NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE PROCESSOR_IDENTIFIER
    """.split()  # noqa: SIM905  (a list that people read)
)
"""Variables that pass by their name."""

FAMILIES = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_", "NUMEXPR_", "ONEDNN_", "DNNL_", "TBB_", "MALLOC_",
    "CUDA_",
)  # fmt: skip
"""Variables that pass by how they begin: threads, memory, GPUs."""

SILENT = {"ORT_DISABLE_TELEMETRY": "1"}
"""Set unless the user set it: onnxruntime 1.32 reports to its maker over the network where nothing forbids it, and
kdc sends nothing unasked."""

SECRET = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|KEY", re.IGNORECASE)
"""What no variable that passes has in its name, whatever it begins with."""


def runner_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of `environment`, by default this process's, what a runner gets, and SILENT."""
    given = os.environ if environment is None else environment
    return SILENT | {name: value for name, value in given.items() if passes(name)}


def passes(name: str) -> bool:
    known = name.upper() if os.name == "nt" else name
    return (known in NAMES or known.startswith(FAMILIES)) and not SECRET.search(known)
