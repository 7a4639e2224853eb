"""Does a distillation step cost what the student costs? The engine against bare loops, side by side in one run.

    python -m benchmarks.throughput [--teacher tf_efficientnet_lite2] [--teacher …] [--size 64]
        [--size 128] [--rounds 7] [--steps 16] [--batch 64] [--peers]
        [--cpu-time] [--default]

The bare loops are written out below: images decoded in memory, the same networks, batch, augmentation, soft targets and
labels, optimizer, and nothing else; they are the limit. The default recipe learns from layers (pkd), clips and averages
besides. Teachers have random weights and the student's input size. A round runs one epoch of every contestant in random
order, each with a fresh student; printed are images/s (median over rounds) and the ratios with the median and the range
of the rounds, and the 95 % interval of the median. `--cpu-time`: the process's CPU time in place of the wall clock, of
one thread (threads that wait for others spin), for a machine that does other work as well. `--default`: only the
default recipe and the loops that it is held against, so that rounds take a third of the time. `--peers`: timm's task
with timm's loader, and torchdistill's box where it is installed, run along, from JPEG files (benchmarks/peers.py).
"""

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from compressor.data.samples import Dataset, Split
from compressor.distill.features.layers import kept_layers, layer_pairs_of, taps_of
from compressor.distill.host.device import set_up
from compressor.distill.loop import engine
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.distill.regimes import built_in
from compressor.distill.teacher.cache import AnswerStore
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.sources import Cached, Online, Teacher
from compressor.models import LoadedModel
from compressor.modes import freeze
from compressor.progress import Silent
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import DataInfo, Weights
from compressor.tasks.base import BatchModel
from compressor.tasks.image_classification.feed import ImageFeed

clock = time.perf_counter
CLASSES = 10
STUDENT = "mobilenetv3_small_100"
MEAN = STD = 0.5
DEFAULT = "the default recipe"
LOSSES: list[dict[str, object]] = [
    {"name": "kd", "weight": 0.9, "temperature": 4.0},
    {"name": "cross_entropy", "weight": 0.1},
]


def network(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": size} if name.startswith("vit") else {}
    model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
    return model.to(memory_format=torch.channels_last)


def photographs(count: int, size: int) -> NDArray[np.uint8]:
    """Crops of scikit-image's photographs, uint8 [count, size, size, 3]."""
    from skimage import data

    photos = [Image.fromarray(photo) for photo in (data.chelsea(), data.coffee(), data.rocket(), data.astronaut())]
    chance, crops = random.Random(0), []
    for number in range(count):
        photo = photos[number % len(photos)]
        side = chance.randrange(150, 300)
        x, y = chance.randrange(photo.width - side), chance.randrange(photo.height - side)
        crops.append(np.asarray(photo.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(crops)


def in_memory(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Dataset:
    """All of them to train with, and a few to validate with, as kdc sees data."""

    def split(name: str, count: int) -> Split:
        ids = tuple(f"{name}-{number}" for number in range(count))
        contents = np.arange(count, dtype=np.uint64)
        return Split(name, ids, labels[:count], lambda number: Image.fromarray(images[number]), contents)

    names = tuple(f"class {number}" for number in range(CLASSES))
    counts = {"train": len(labels), "validation": 16, "test": 16}
    info = DataInfo(source="photographs", fingerprint="0", class_names=names, counts=counts)
    return Dataset(info, split("train", len(labels)), split("validation", 16), split("test", 16))


def bare(
    images: Tensor, labels: Tensor, student: nn.Module, teacher: nn.Module | None, batch: int, recipe: Recipe
) -> float:
    """Seconds of one epoch, written by hand."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    student.train()
    begin = clock()
    order = torch.randperm(len(labels))
    for start in range(0, len(labels) - batch + 1, batch):
        index = order[start : start + batch]
        with torch.no_grad():
            views = augmented(images[index], recipe)
            inputs = ((views - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        logits = student(inputs)
        if teacher is None:
            loss = F.cross_entropy(logits, labels[index])
        else:
            with torch.no_grad():
                wanted = teacher(inputs)
            soft = F.kl_div(
                F.log_softmax(logits / 4, -1), F.log_softmax(wanted / 4, -1), reduction="batchmean", log_target=True
            )
            loss = 0.9 * 16 * soft + 0.1 * F.cross_entropy(logits, labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return clock() - begin


def augmented(images: Tensor, recipe: Recipe) -> Tensor:
    """Random-resized crops, mirrored, by one affine resampling of the batch; uint8 [B, H, W, 3] -> [B, 3, H, W]."""
    count, (low, high) = len(images), recipe.views.scale
    area = low + (high - low) * torch.rand(count)
    aspect = torch.exp(torch.empty(count).uniform_(*(float(np.log(side)) for side in recipe.views.ratio)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = width * torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    theta[:, 0, 2] = (2 * torch.rand(count) - 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (2 * torch.rand(count) - 1) * (1 - height)
    pixels = images.permute(0, 3, 1, 2).float().div_(255)
    grid = F.affine_grid(theta, [count, 3, *images.shape[1:3]], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


class Engine:
    """Epochs of kdc's own loop."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], size: int, recipe: Recipe, work: Path):
        how = ImagePreprocess(input_size=(size, size), resize=(size, size), mean=(MEAN,) * 3, std=(STD,) * 3)
        inputs = {"student": how, "teacher": how}
        work.mkdir()
        self.work, self.recipe, self.samples, self.how = work, recipe, len(labels), how
        self.task = ImageFeed(in_memory(images, labels), inputs, recipe, work / "store", torch.device("cpu"), Silent())
        self.task.prepare()
        self.runs = 0

    def online(self, teacher: nn.Module) -> Online:
        return Online(freeze(BatchModel(teacher, "teacher")), Codec(CLASSES))

    def cached(self, online: Online, name: str = "answers") -> Cached:
        """The same teacher, its answers kept: all of them are there."""
        size = online.codec.bytes
        store = AnswerStore(self.work / name, {"teacher": "this"}, views=1, samples=self.samples, size=size)
        signal = Cached(online, store, self.task, Silent())
        signal.precompute()
        return signal

    def looking(self, student: nn.Module, teacher: nn.Module) -> tuple[Learner, Online]:
        """Both with the default losses, which look at layers of both."""
        terms = bind_losses(self._recipe(built_in("large")["losses"]), has_teacher=True)
        own, other = self._loaded(student), self._loaded(teacher)
        sides, left_out = layer_pairs_of(terms, own, other, classes=CLASSES, samples=self.samples)
        terms = [term for term in terms if term.name not in left_out]
        taps, of_teacher = taps_of(sides, own, other)
        learner = Learner(BatchModel(student, "student", taps), terms, layers=sides)
        codec = Codec.of(self.recipe.teacher_answers, CLASSES, kept_layers(terms, sides))
        return learner, Online(freeze(BatchModel(teacher, "teacher", of_teacher)), codec)

    def epoch(self, student: nn.Module, teacher: Teacher | None) -> float:
        """Seconds of one epoch, without its validation."""
        recipe = self._recipe(LOSSES if teacher else [{"name": "cross_entropy"}])
        learner = Learner(BatchModel(student, "student"), bind_losses(recipe, has_teacher=teacher is not None))
        return self._seconds(learner, teacher, recipe)

    def epoch_of_default(self, student: nn.Module, teacher: nn.Module, kept: Cached | None = None) -> float:
        """The same with the default losses; `kept`: with the teacher's answers from there."""
        learner, online = self.looking(student, teacher)
        return self._seconds(learner, kept or online, self._recipe(built_in("large")["losses"]))

    def _loaded(self, network: nn.Module) -> LoadedModel:
        weights = Weights(source="timm:it", architecture="it", sha256="0", licence="unknown", parameters=0)
        return LoadedModel(network, self.how, None, weights, "timm")

    def _recipe(self, losses: list[dict[str, object]]) -> Recipe:
        return Recipe.model_validate({**self.recipe.model_dump(exclude_unset=True, by_alias=True), "losses": losses})

    def _seconds(self, learner: Learner, teacher: Teacher | None, recipe: Recipe) -> float:
        self.runs += 1
        position = engine.train(
            learner, teacher, self.task, recipe, head=[], validation_size=16, inputs={},
            folder=self.work / f"run{self.runs}", progress=Silent(),
        )  # fmt: skip
        return float(position.history[0]["seconds"])


def compare(teacher_name: str, size: int, given: argparse.Namespace, work: Path) -> None:
    samples = given.steps * given.batch
    images, labels = photographs(samples, size), np.arange(samples, dtype=np.int64) % CLASSES
    plain = {"schema": 1, "epochs": 1, "batch_size": given.batch, "ema_decay": 0, "losses": LOSSES}
    # As the bare loops do it: no average of the weights, no clipping.
    values = {**plain, "optimizer": {"lr": 1e-3, "clip_norm": None}, "views": {"distinct": 1}}
    recipe = Recipe.model_validate(values)
    teacher = freeze(network(teacher_name, size))
    plainly = Engine(images, labels, size, recipe, work)
    default = Engine(
        images,
        labels,
        size,
        Recipe.model_validate({**values, "ema_decay": 0.999, "optimizer": {"lr": 1e-3}}),
        work / "default",
    )
    tensors, targets = torch.from_numpy(images), torch.from_numpy(labels)
    online = plainly.online(teacher)
    cached = plainly.cached(online)
    with_layers = default.cached(default.looking(network(STUDENT, size), teacher)[1])
    contestants: dict[str, Callable[[nn.Module], float]] = {
        "bare, student alone": lambda student: bare(tensors, targets, student, None, given.batch, recipe),
        "kdc, student alone": lambda student: plainly.epoch(student, None),
        "kdc, answers kept": lambda student: plainly.epoch(student, cached),
        "kdc, answers kept, average and clipping": lambda student: default.epoch(student, cached),
        "bare, teacher online": lambda student: bare(tensors, targets, student, teacher, given.batch, recipe),
        "kdc, teacher online": lambda student: plainly.epoch(student, online),
        "kdc, teacher online, average and clipping": lambda student: default.epoch(student, online),
        "kdc, the default recipe, teacher online": lambda student: default.epoch_of_default(student, teacher),
        "kdc, the default recipe, answers kept": lambda student: default.epoch_of_default(
            student, teacher, with_layers
        ),
    }
    if given.peers:
        from benchmarks import input_path, peers

        input_path.write_folder(work / "files", samples)
        each = argparse.Namespace(**{**vars(given), "size": size})
        contestants["timm's task, timm's loader"] = lambda _: peers.timm_epoch(work / "files", each, teacher)
        if find_spec("torchdistill"):
            contestants["torchdistill's box"] = lambda _: peers.torchdistill_epoch(work / "files", each, teacher)
    if given.default:
        contestants = {name: run for name, run in contestants.items() if not name.startswith("kdc") or DEFAULT in name}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(given.rounds + 1):
        for name in random.Random(number).sample(list(contestants), len(contestants)):
            took = contestants[name](network(STUDENT, size))
            if number:  # the first is to warm up
                seconds[name].append(took)
    print(f"\n{teacher_name} -> {STUDENT}, {size} px, batch {given.batch}, {torch.get_num_threads()} threads, "
          f"{'CPU time, ' if given.cpu_time else ''}n = {given.rounds} rounds of {given.steps} steps")  # fmt: skip
    for name, taken in seconds.items():
        print(f"  {name:42} {samples / statistics.median(taken):8.1f} images/s")
    pairs = [
        ("kdc, student alone", "bare, student alone", 0.97),
        ("kdc, answers kept", "bare, student alone", 0.95),
        ("kdc, answers kept, average and clipping", "bare, student alone", None),
        ("kdc, teacher online", "bare, teacher online", 0.97),
        ("kdc, the default recipe, teacher online", "bare, teacher online", 0.95),
        ("kdc, the default recipe, answers kept", "bare, student alone", 0.95),
    ]
    pairs += [
        (f"kdc, the default recipe, {how}", peer, None)
        for how in ("teacher online", "answers kept")
        for peer in ("timm's task, timm's loader", "torchdistill's box")
        if peer in contestants
    ]
    for one, other, aim in pairs:
        if one not in contestants:
            continue
        ratios = [b / a for a, b in zip(seconds[one], seconds[other], strict=True)]
        wanted = "" if aim is None else f"   (aim {aim})"
        spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}–{max(ratios):.3f}]"
        print(f"  {one} / {other}: {spread}{median_interval(ratios)}{wanted}", flush=True)


def median_interval(values: Sequence[float]) -> str:
    """The 95 % interval of their median in words, from their order alone; "" where they are fewer than 6."""
    ordered, n, k = sorted(values), len(values), 0
    while sum(math.comb(n, i) for i in range(k + 1)) <= 0.025 * 2**n:
        k += 1
    return f", 95 % [{ordered[k - 1]:.3f}–{ordered[n - k]:.3f}]" if k else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--teacher", action="append")
    parser.add_argument("--size", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--default", action="store_true")
    given = parser.parse_args()
    if given.peers and given.cpu_time:
        parser.error("--cpu-time does not see the processes of timm's loader")
    if given.cpu_time:
        global clock
        clock = time.process_time
        vars(engine)["time"] = SimpleNamespace(perf_counter=clock, monotonic=time.monotonic)  # of an epoch's seconds
        torch.set_num_threads(1)
    for line in set_up().lines:
        print(line)
    with tempfile.TemporaryDirectory() as folder:
        for teacher in given.teacher or ["tf_efficientnet_lite2", "vit_small_patch16_224"]:
            for size in given.size or [64, 128]:
                compare(teacher, size, given, Path(folder) / f"{teacher}-{size}")


if __name__ == "__main__":
    main()
