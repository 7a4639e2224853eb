"""What the parts of a default step cost beside the student: the average, the clipping, pkd, the kept answers.

    OMP_NUM_THREADS=1 python -m benchmarks.step_parts [--size 64] [--batch 64] [--repeats 25]

The thread's CPU time, so that other work on the machine counts little: run it with one thread. timm's average and
torch's clipping, which ours took the place of, run along.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn

from benchmarks.throughput import CLASSES, LOSSES, STUDENT, Engine, network, photographs
from compressor.distill.host.device import set_up
from compressor.distill.loop.average import Average, clip_gradients
from compressor.modes import freeze
from compressor.schema.recipe import Recipe


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median; the first two calls warm up."""
    taken = []
    for _ in range(repeats + 2):
        begin = time.thread_time()
        call()
        taken.append(time.thread_time() - begin)
    return 1e3 * statistics.median(taken[2:])


def parts(given: argparse.Namespace, work: Path) -> dict[str, Callable[[], object]]:
    """The parts by name, each ready to be called."""
    values = {"schema": 1, "epochs": 1, "batch_size": given.batch, "losses": LOSSES, "views": {"distinct": 1}}
    labels = np.arange(2 * given.batch, dtype=np.int64) % CLASSES
    engine = Engine(photographs(len(labels), given.size), labels, given.size, Recipe.model_validate(values), work)
    student, teacher = network(STUDENT, given.size), freeze(network("tf_efficientnet_lite2", given.size))
    learner, online = engine.looking(student, teacher)
    kept = engine.cached(online)
    learner.train()
    images = torch.randn(given.batch, 3, given.size, given.size).contiguous(memory_format=torch.channels_last)
    targets, index = torch.from_numpy(labels[: given.batch]), torch.arange(given.batch)
    batch = {"student": images, "labels": targets, "index": index}
    answers, parameters = kept.answers(batch, 0), list(learner.parameters())
    pkd, sides, connector = learner.terms[-1], learner.layers["pkd"], learner.connectors["pkd"]
    outputs = learner.student(batch)
    ours = [outputs.features[layer.name].detach().requires_grad_(True) for layer in sides.student]
    theirs = [answers.features[layer.name] for layer in sides.teacher]

    def forward_and_backward() -> None:
        learner.zero_grad(set_to_none=True)
        F.cross_entropy(student(images), targets).backward()  # type: ignore[no-untyped-call]

    def compare() -> None:
        connector.zero_grad(set_to_none=True)
        pkd.function(**connector(ours, theirs, targets, index)).backward()

    forward_and_backward()
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    average, timms = Average(student, 0.999), ModelEmaV3(student, decay=0.999, use_warmup=True)
    return {
        "the student, forward and backward": forward_and_backward,
        "AdamW": optimizer.step,
        "the average": lambda: average.update(student, 100),
        "timm's ModelEmaV3": lambda: timms.update(student, step=100),
        "clipping, none needed": lambda: clip_gradients(parameters, 1e9),
        "torch's clip_grad_norm_": lambda: nn.utils.clip_grad_norm_(parameters, 1e9),
        "pkd with its connector, forward and backward": compare,
        f"kept answers ({online.codec.bytes:,} bytes a sample)": lambda: kept.answers(batch, 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=25)
    given = parser.parse_args()
    for line in set_up().lines:
        print(line)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{STUDENT} of tf_efficientnet_lite2, {given.size} px, batch {given.batch}, n = {given.repeats} calls; "
              "median CPU time of one")  # fmt: skip
        for name, call in parts(given, Path(folder) / "work").items():
            print(f"  {name:48} {milliseconds(call, given.repeats):8.2f} ms", flush=True)


if __name__ == "__main__":
    main()
