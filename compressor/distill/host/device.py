"""How the machine at hand is used: one rule for each context, with its reason, and a line that says what was chosen."""

import os
from dataclasses import dataclass

import torch

from compressor.distill.host.allocator import keep_large_blocks
from compressor.processes.cores import usable_cores
from compressor.processes.team import team

__all__ = ["Speed", "set_up"]


@dataclass(frozen=True)
class Speed:
    """`autocast`: the precision of the networks' forward passes; None: float32. `lines`: what was chosen."""

    device: torch.device
    autocast: torch.dtype | None
    lines: tuple[str, ...]


def set_up() -> Speed:
    """Set this process up for its device, and say how.

    Everywhere: channels_last and fused AdamW. On CPU: float32, since bfloat16 slows depthwise convolutions down where
    there is no arithmetic for it; one thread a core, shared by the processes of this machine (torchrun would give each
    one thread); glibc told to keep freed blocks (see `keep_large_blocks`). On CUDA: bfloat16 where the GPU computes in
    it, TF32 for what stays in float32, and the kernels timed for the shapes at hand (cudnn.benchmark; shapes do not
    change). torch.compile is left out: on CPU it gained nothing with MobileNets, and on CUDA we have not measured it.
    """
    here = team()
    device = here.device
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        settings = f"{'bfloat16' if bf16 else 'float32 (TF32)'}, channels_last, fused AdamW, cudnn.benchmark"
        return Speed(
            device, torch.bfloat16 if bf16 else None, (f"on {torch.cuda.get_device_name(device)}: {settings}",)
        )
    threads = torch.get_num_threads()
    if here.num_processes > 1:
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE") or here.num_processes)
        threads = max(1, usable_cores() // sharing)
        torch.set_num_threads(threads)
    kept = ", freed blocks of up to 1 GiB kept for reuse" if keep_large_blocks() else ""
    return Speed(device, None, (f"on CPU: float32, channels_last, fused AdamW, threads {threads}{kept}",))
