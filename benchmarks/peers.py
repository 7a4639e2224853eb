"""Images a second of kdc, of timm's distillation task with timm's loader, and of torchdistill's box, from JPEG files.

    pip install --no-deps torchdistill        # left out of the comparison where it is not there
    python -m benchmarks.peers [--images 2000] [--size 64] [--rounds 3]

timm's training script is not in its package, so its loop is written here from timm's own parts: create_dataset,
create_loader, LogitDistillationTask, create_optimizer_v2. In each round every contestant trains one epoch, in random
order, with the same student, teacher (random weights), batch and augmentation (random-resized crop, mirror). kdc trains
three epochs: the first asks the teacher, the others read its answers; decoding to disk, before them, is told apart.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.input_path import write_folder
from benchmarks.throughput import CLASSES, STUDENT, network
from compressor.distill.host.allocator import keep_large_blocks
from compressor.distill.loop.engine import train
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.distill.teacher.cache import AnswerStore
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.sources import Cached, Online
from compressor.modes import freeze
from compressor.progress import Silent
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.feed import ImageFeed

SCALE, RATIO = (0.5, 1.0), (0.8, 1.25)


def timm_epoch(folder: Path, given: argparse.Namespace, teacher: nn.Module) -> float:
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.task.distillation import LogitDistillationTask

    student = network(STUDENT, given.size)
    dataset = create_dataset("", root=str(folder / "train"))
    loader = create_loader(
        dataset, input_size=(3, given.size, given.size), batch_size=given.batch, is_training=True, num_workers=2,
        use_prefetcher=False, scale=SCALE, ratio=RATIO, hflip=0.5, color_jitter=None, device=torch.device("cpu"),
        persistent_workers=False,
    )  # fmt: skip
    task = LogitDistillationTask(
        student, teacher, nn.CrossEntropyLoss(), distill_loss_weight=0.9, task_loss_weight=0.1, temperature=4.0,
        verbose=False,
    ).train()  # fmt: skip
    optimizer = create_optimizer_v2(student, opt="adamw", lr=1e-3)
    begin = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        task(images.contiguous(memory_format=torch.channels_last), labels)["loss"].backward()
        optimizer.step()
    return time.perf_counter() - begin


def torchdistill_epoch(folder: Path, given: argparse.Namespace, teacher: nn.Module) -> float:
    import torchdistill.losses.mid_level  # noqa: F401  registers KDLoss
    from torchdistill.core.distillation import get_distillation_box
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    prepared = transforms.Compose(
        [
            transforms.RandomResizedCrop(given.size, SCALE, RATIO), transforms.RandomHorizontalFlip(),
            transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )  # fmt: skip
    logits = {side: {f"{side}_module_path": ".", f"{side}_module_io": "output"} for side in ("student", "teacher")}
    kd = {"key": "KDLoss", "kwargs": {**logits["student"], **logits["teacher"], "temperature": 4.0, "alpha": 0.1}}
    config: dict[str, Any] = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "requires_supp": True,
            "sampler": {"class_or_func": torch.utils.data.RandomSampler},
            "kwargs": {"batch_size": given.batch, "num_workers": 2, "drop_last": True},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 1e-3}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }
    box = get_distillation_box(
        teacher, network(STUDENT, given.size), {"train": ImageFolder(str(folder / "train"), prepared)}, config,
        torch.device("cpu"), None, False, 1.0, None,
    )  # fmt: skip
    begin = time.perf_counter()
    box.pre_epoch_process(epoch=0)
    for images, labels, more in box.train_data_loader:
        box.pre_forward_process()
        loss = box.forward_process(images.contiguous(memory_format=torch.channels_last), labels, more)
        box.post_forward_process(loss=loss)
    seconds = time.perf_counter() - begin
    box.clean_modules()
    return seconds


def kdc_epochs(folder: Path, given: argparse.Namespace, teacher: nn.Module, work: Path) -> tuple[float, float, float]:
    """Seconds of the first epoch, of the second and third in the mean, and of listing and decoding before them."""
    how = {
        "schema": 1, "epochs": 3, "batch_size": given.batch, "optimizer": {"lr": 1e-3},
        "views": {"scale": SCALE, "ratio": RATIO, "distinct": 1},
        "losses": [{"name": "kd", "weight": 0.9, "temperature": 4.0}, {"name": "cross_entropy", "weight": 0.1}],
    }  # fmt: skip
    recipe, size = Recipe.model_validate(how), (given.size, given.size)
    begin = time.perf_counter()
    data = open_data(f"folder:{folder}")
    prepared = ImagePreprocess(input_size=size, resize=size, mean=(0.5,) * 3, std=(0.5,) * 3)
    inputs = {"student": prepared, "teacher": prepared}
    task = ImageFeed(data, inputs, recipe, work / "store", torch.device("cpu"), Silent())
    task.prepare()
    before = time.perf_counter() - begin
    codec = Codec(CLASSES)
    store = AnswerStore(work / "answers", {"teacher": "this"}, views=1, samples=len(data.train), size=codec.bytes)
    signal = Cached(Online(freeze(BatchModel(teacher, "teacher")), codec), store, task, Silent())
    learner = Learner(BatchModel(network(STUDENT, given.size), "student"), bind_losses(recipe, has_teacher=True))
    position = train(
        learner, signal, task, recipe, head=[], validation_size=len(data.validation), inputs={}, folder=work / "run",
        progress=Silent(),
    )  # fmt: skip
    rows = [float(row["seconds"]) for row in position.history]
    return rows[0], statistics.fmean(rows[1:]), before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teacher", default="tf_efficientnet_lite2")
    given = parser.parse_args()
    keep_large_blocks()  # for all of them: they share the process
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "data"
        write_folder(folder, given.images)
        teacher = freeze(network(given.teacher, given.size))
        contestants: dict[str, Callable[[], None]] = {
            "timm": lambda: seconds.setdefault("timm", []).append(timm_epoch(folder, given, teacher)),
        }
        try:
            import torchdistill  # noqa: F401

            contestants["torchdistill"] = lambda: seconds.setdefault("torchdistill", []).append(
                torchdistill_epoch(folder, given, teacher)
            )
        except ModuleNotFoundError:
            print("torchdistill is not installed: pip install --no-deps torchdistill")

        def kdc() -> None:
            with tempfile.TemporaryDirectory(dir=work) as own:
                found = kdc_epochs(folder, given, teacher, Path(own))
            kinds = ("kdc, first epoch", "kdc, later epochs", "kdc, listing and decoding, once")
            for kind, value in zip(kinds, found, strict=True):
                seconds.setdefault(kind, []).append(value)

        contestants["kdc"] = kdc
        for number in range(given.rounds):
            for name in random.Random(number).sample(list(contestants), len(contestants)):
                contestants[name]()
    print(f"{given.images:,} JPEG files, {given.teacher} -> {STUDENT} at {given.size} px, batch {given.batch}, "
          f"{torch.get_num_threads()} threads, n = {given.rounds} rounds; median [lowest–highest]")  # fmt: skip
    for kind, taken in seconds.items():
        spread = f"{statistics.median(taken):.1f} s [{min(taken):.1f}–{max(taken):.1f}]"
        each = "" if "decoding" in kind else f"{given.images / statistics.median(taken):8.1f} images/s"
        print(f"  {kind:34} {spread:24} {each}")


if __name__ == "__main__":
    main()
