"""What `distill.host.allocator` gains: CPU seconds of a training step and of a forward pass, with and without it.

    python benchmarks/allocator.py [--model tf_efficientnet_lite0] [--size 64] [--batch 128] [--repeats 3]

Each repeat runs both settings in turn, each in a fresh process (the setting cannot be taken back), and prints the
median over repeats and the ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

STEPS = 4


def measure(keep: bool, model: str, size: int, batch: int) -> dict[str, float]:
    """CPU seconds a step, the first one dropped."""
    import timm
    import torch

    from compressor.distill.host.allocator import keep_large_blocks

    if keep and not keep_large_blocks():
        sys.exit("the C library here is not glibc")
    network = timm.create_model(model, num_classes=10).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())

    def train() -> None:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()

    def forward() -> None:
        with torch.no_grad():
            network(images)

    seconds = {}
    for name, step in (("training step", train), ("forward pass", forward)):
        network.train(name == "training step")
        step()
        before = time.process_time()
        for _ in range(STEPS):
            step()
        seconds[name] = (time.process_time() - before) / STEPS
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=("default", "kept"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child == "kept", given.model, given.size, given.batch)))
        return
    results: dict[str, list[dict[str, float]]] = {"default": [], "kept": []}
    for _ in range(given.repeats):
        for setting, rows in results.items():
            command = [sys.executable, __file__, "--child", setting, "--model", given.model]
            command += ["--size", str(given.size), "--batch", str(given.batch)]
            rows.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    print(
        f"{given.model}, {given.size} px, batch {given.batch}; CPU seconds, median (lowest-highest) of {given.repeats}"
    )
    for name in results["kept"][0]:
        default, kept = ([row[name] for row in results[setting]] for setting in ("default", "kept"))
        shown = [f"{statistics.median(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in (default, kept)]
        ratio = statistics.median(d / k for d, k in zip(default, kept, strict=True))
        print(f"{name}: glibc's thresholds {shown[0]}, blocks kept {shown[1]}, {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
