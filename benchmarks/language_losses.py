"""Losses over a vocabulary: memory and time beside the form that one would write down, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.language_losses [--texts 8] [--tokens 256] [--vocabulary 49152]
        [--dtype float32] [--repeats 3] [--losses kd jsd …]

Forward and backward, of logits that lie there already. Each time in a process of its own (a fork), with the allocator
as kdc trains with it. Memory: by how much the process grew at most (Linux: VmHWM), in the size of one side's logits in
float32; the gradient is a copy of that size itself. Time: the thread's CPU time, the least of the repeats, which take
turns; run it with one thread. The plain forms compute in float32, kdc's in float64; how far apart the losses are is
said, too.
"""

import argparse
import ctypes
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.distill.host.allocator import keep_large_blocks
from compressor.losses.divergences import jsd, reverse_kl
from compressor.losses.logits import cross_entropy, kd
from compressor.losses.top_k import top_k_kd, top_k_of
from compressor.losses.vocabularies import aligned_kd, uld

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
KEPT = 128
Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def kilobytes(key: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))


def plain_kl(of: Tensor, other: Tensor) -> Tensor:
    """KL(of ‖ other) of logits, written down."""
    log_p, log_q = of.float().log_softmax(-1), other.float().log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum() / len(of)


def plain_jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """As trl has it, beta = 1/2."""
    log_s, log_t = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    half = torch.tensor(0.5).log()
    log_m = torch.stack([log_s + half, log_t + half]).logsumexp(0)
    of_t, of_s = (F.kl_div(log_m, log_p, reduction="none", log_target=True) for log_p in (log_t, log_s))
    return (0.5 * of_t + 0.5 * of_s).sum() / len(student)


def plain_top_k(student: Tensor, top: Tensor, log_p: Tensor) -> Tensor:
    log_s = student.float().log_softmax(-1)
    kept = log_s.gather(-1, top)
    others = log_s.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    return F.kl_div(torch.cat([kept, others], -1), log_p, reduction="none", log_target=True).sum() / len(student)


def plain_uld(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = (side.float().softmax(-1).sort(-1, descending=True).values for side in (student, teacher))
    return (p - q).abs().sum() / len(student)


def plain_aligned(student: Tensor, teacher: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    log_s, log_t = student.float().log_softmax(-1)[:, ours], teacher.float().log_softmax(-1)[:, theirs]
    mass = log_t.logsumexp(-1, keepdim=True)
    apart = F.kl_div(log_s.log_softmax(-1), log_t - mass, reduction="none", log_target=True).sum(-1)
    return (mass[:, 0].exp() * apart).sum() / len(student)


def pairs(rows: int, vocabulary: int, teacher: Tensor) -> dict[str, Pair]:
    """Each loss of the student's logits: kdc's and the plain one."""
    labels, groups = torch.arange(rows) % vocabulary, torch.arange(rows)
    top, log_p = top_k_of(teacher, KEPT)
    token_of = torch.where(torch.arange(vocabulary) % 14 == 0, -1, torch.arange(vocabulary).flip(0))
    ours = (token_of >= 0).nonzero()[:, 0]
    theirs = token_of[ours]
    sides = (labels, groups, groups, labels)
    return {
        "cross_entropy": (lambda s: cross_entropy(s, labels), lambda s: F.cross_entropy(s.float(), labels)),
        "kd": (lambda s: kd(s, teacher, temperature=1.0), lambda s: plain_kl(teacher, s)),
        "reverse_kl": (lambda s: reverse_kl(s, teacher), lambda s: plain_kl(s, teacher)),
        "jsd": (lambda s: jsd(s, teacher), lambda s: plain_jsd(s, teacher)),
        f"top_k_kd, k {KEPT}": (lambda s: top_k_kd(s, top, log_p), lambda s: plain_top_k(s, top, log_p)),
        "uld": (lambda s: uld(s, teacher, *sides), lambda s: plain_uld(s, teacher)),
        "aligned_kd": (
            lambda s: aligned_kd(s, teacher, *sides, token_of), lambda s: plain_aligned(s, teacher, ours, theirs)
        ),
    }  # fmt: skip


def measured(loss: Callable[[Tensor], Tensor], student: Tensor) -> tuple[float, int, float]:
    """What a fork says."""
    forks = multiprocessing.get_context("fork")
    ours, theirs = forks.Pipe()
    fork = forks.Process(target=lambda: theirs.send(_measured(loss, student)))
    fork.start()
    theirs.close()
    taken: tuple[float, int, float] = ours.recv()
    fork.join()
    return taken


def _measured(loss: Callable[[Tensor], Tensor], student: Tensor) -> tuple[float, int, float]:
    """Seconds of CPU time, by how many kilobytes the process grew, and the loss."""
    keep_large_blocks()
    REFERENCES.write_text("5")  # the high-water mark begins anew
    before, begin = kilobytes("VmRSS"), time.thread_time()
    value = loss(student)
    gradient = torch.autograd.grad(value, student)  # `backward` might copy it for a leaf, as no network's logits are
    taken = time.thread_time() - begin
    grown = kilobytes("VmHWM") - before
    assert gradient[0].shape == student.shape
    return taken, grown, value.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--losses", nargs="*", default=[])
    given = parser.parse_args()
    rows = given.texts * given.tokens
    generator, dtype = torch.Generator().manual_seed(0), getattr(torch, given.dtype)
    teacher, student = (
        torch.empty(rows, given.vocabulary).normal_(0, 3, generator=generator).to(dtype) for _ in range(2)
    )
    student.requires_grad_()
    copy = rows * given.vocabulary * 4 / 1024
    print(f"[{given.texts}, {given.tokens}, {given.vocabulary}] {given.dtype}: {copy / 1024:,.0f} MB in float32")
    print("| loss | copies, kdc | plain | ratio | s, kdc | plain | ratio | losses apart by |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    forms_of = pairs(rows, given.vocabulary, teacher)
    ctypes.CDLL(None).malloc_trim(0)  # a fork would use what is free, and not grow
    for name, forms in forms_of.items():
        if given.losses and name.split(",")[0] not in given.losses:
            continue
        turns = [[measured(form, student) for form in forms] for _ in range(given.repeats)]
        (ours_s, ours_kb, ours), (plain_s, plain_kb, plain) = (
            (min(turn[at][0] for turn in turns), max(turn[at][1] for turn in turns), turns[0][at][2]) for at in (0, 1)
        )
        print(
            f"| {name} | {ours_kb / copy:.2f} | {plain_kb / copy:.2f} | {ours_kb / plain_kb:.2f} | {ours_s:.1f} | "
            f"{plain_s:.1f} | {ours_s / plain_s:.2f} | {abs(ours - plain) / plain:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
