"""Names of processors, and what their instruction sets have, from the text of /proc/cpuinfo.

Standard library only; runs on Python 3.9 and later.
"""

from __future__ import annotations

X86_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni",
    "amx_int8", "amx_bf16",
)  # fmt: skip

# "CPU implementer" and "CPU part" of /proc/cpuinfo -> the core's name, as in util-linux' lscpu.
ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53", ("0x41", "0xd04"): "Cortex-A35", ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57", ("0x41", "0xd08"): "Cortex-A72", ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75", ("0x41", "0xd0b"): "Cortex-A76", ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77", ("0x41", "0xd0e"): "Cortex-A76AE", ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78", ("0x41", "0xd42"): "Cortex-A78AE", ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510", ("0x41", "0xd47"): "Cortex-A710", ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd49"): "Neoverse-N2", ("0x41", "0xd4b"): "Cortex-A78C", ("0x41", "0xd4c"): "Cortex-X1C",
    ("0x41", "0xd4d"): "Cortex-A715", ("0x41", "0xd4e"): "Cortex-X3", ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520", ("0x41", "0xd81"): "Cortex-A720", ("0x41", "0xd82"): "Cortex-X4",
    ("0x41", "0xd84"): "Neoverse-V3", ("0x41", "0xd85"): "Cortex-X925", ("0x41", "0xd87"): "Cortex-A725",
    ("0x41", "0xd8e"): "Neoverse-N3", ("0x4e", "0x003"): "Denver 2", ("0x4e", "0x004"): "Carmel",
    ("0x51", "0x001"): "Oryon",
}  # fmt: skip


def cpu_name(cpuinfo: str, board: str) -> str:
    """The CPU from the texts of /proc/cpuinfo and /proc/device-tree/model, e.g. "Cortex-A76 (Raspberry Pi 5 Model B
    Rev 1.0)"; cores of several kinds are joined with " + ". "" where cpuinfo does not say."""
    parts = values(cpuinfo, "CPU part")
    if parts:  # before "model name": 32-bit ARM kernels put "ARMv7 Processor rev 4" there
        makers = values(cpuinfo, "CPU implementer")
        makers += makers[-1:] * (len(parts) - len(makers)) or [""] * len(parts)
        kinds = [(makers[i].lower(), parts[i].lower()) for i in range(len(parts))]
        name = " + ".join(ARM_CORES.get(kind, f"ARM core {kind[0]}/{kind[1]}") for kind in dict.fromkeys(kinds))
    else:
        name = next(iter(values(cpuinfo, "model name")), "")
    board = board.strip("\0 \n")
    return f"{name} ({board})" if name and board else name or board


def isa(cpuinfo: str) -> list[str]:
    """What the instruction set has: on x86 those of X86_FLAGS, in that order; on ARM the "Features" as given."""
    flags = next(iter(values(cpuinfo, "flags")), "").split()
    if flags:
        return [flag for flag in X86_FLAGS if flag in flags]
    return next(iter(values(cpuinfo, "Features")), "").split()


def values(cpuinfo: str, key: str) -> list[str]:
    pairs = [line.partition(":") for line in cpuinfo.splitlines()]
    return [value.strip() for name, _, value in pairs if name.strip() == key]
