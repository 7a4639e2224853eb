"""Do JPEG files slow training down after the first epoch, and does memory grow with the data?

    python -m benchmarks.input_path [--images 20000] [--size 64] [--batch 64] [--rounds 3]

Writes a folder of JPEG files (crops of scikit-image's photographs, 160 px). In each round compares, in random order: a
bare loop on images that lie decoded in memory, kdc's second epoch from its decoded store, and kdc decoding anew.
Then trains one epoch with a tenth of the files and with all, each in a fresh process, and compares the peak of resident
memory.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.throughput import CLASSES, MEAN, STD, STUDENT, bare, network
from compressor.distill.host.device import set_up
from compressor.distill.loop.engine import train
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.progress import Silent
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from compressor.tasks.image_classification import decode_split, open_data
from compressor.tasks.image_classification.feed import ImageFeed

FILE_SIZE = 160
PEAK = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(json.dumps({"code": done.returncode, "mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}))
"""


def write_folder(folder: Path, count: int) -> None:
    """`count` JPEG files of 160 px to train with, and a few to validate and test with."""
    from skimage import data

    photos = [Image.fromarray(photo) for photo in (data.chelsea(), data.coffee(), data.rocket(), data.astronaut())]
    chance = random.Random(0)
    for split, number_of in (("train", count), ("val", 4 * CLASSES), ("test", 4 * CLASSES)):
        for number in range(number_of):
            photo = photos[number % len(photos)]
            side = chance.randrange(150, 300)
            x, y = chance.randrange(photo.width - side), chance.randrange(photo.height - side)
            crop = photo.crop((x, y, x + side, y + side)).resize((FILE_SIZE, FILE_SIZE))
            place = folder / split / f"class{number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            crop.save(place / f"{number:06}.jpg", quality=90)


def speeds(folder: Path, given: argparse.Namespace, work: Path) -> None:
    size = given.size
    data = open_data(f"folder:{folder}")
    how = ImagePreprocess(input_size=(size, size), resize=(size, size), mean=(MEAN,) * 3, std=(STD,) * 3)
    values = {
        "schema": 1,
        "epochs": 2,
        "batch_size": given.batch,
        "ema_decay": 0,
        "losses": [{"name": "cross_entropy"}],
    }
    recipe = Recipe.model_validate({**values, "optimizer": {"lr": 1e-3, "clip_norm": None}})
    pixels = decode_split(data.train, how, work / "all.npy", Silent())
    tensors, labels = torch.from_numpy(np.array(pixels)), torch.from_numpy(data.train.labels)
    seconds: dict[str, list[float]] = {"bare, in memory": [], "kdc, decoded once": [], "kdc, decoding anew": []}
    runs = 0
    for number in range(given.rounds):
        for name in random.Random(number).sample(list(seconds), len(seconds)):
            runs += 1
            student = network(STUDENT, size)
            if name.startswith("bare"):
                seconds[name].append(bare(tensors, labels, student, None, given.batch, recipe))
                continue
            store = work / "store" if "once" in name else None
            task = ImageFeed(data, {"student": how}, recipe, store, torch.device("cpu"), Silent())
            learner = Learner(BatchModel(student, "student"), bind_losses(recipe, has_teacher=False))
            position = train(
                learner, None, task, recipe, head=[], validation_size=40, inputs={},
                folder=work / f"run{runs}", progress=Silent(),
            )  # fmt: skip
            seconds[name].append(float(position.history[1]["seconds"]))
    print(f"\n{len(data.train):,} JPEG files, {STUDENT} at {size} px, batch {given.batch}, "
          f"{torch.get_num_threads()} threads, n = {given.rounds} rounds; kdc: the second epoch")  # fmt: skip
    for name, taken in seconds.items():
        ratios = [b / a for a, b in zip(taken, seconds["bare, in memory"], strict=True)]
        spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}–{max(ratios):.3f}] of the bare loop"
        print(f"  {name:20} {len(data.train) / statistics.median(taken):8.1f} images/s, {spread}", flush=True)


def peak_mb(folder: Path, given: argparse.Namespace, work: Path, *options: str) -> float:
    """The largest resident memory of one epoch of `kdc teach`, in MB (getrusage)."""
    out = work / "peak"
    command = [
        sys.executable, "-m", "compressor", "teach", "--teacher", f"timm:{STUDENT}", "--teacher-init", "random",
        "--data", f"folder:{folder}", "--input-size", str(given.size), "--epochs", "1", "--quiet",
        "--batch-size", str(given.batch), "--out", str(out), *options,
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    found = json.loads(done.stdout)
    assert found["code"] == 0, done.stderr
    return float(found["mb"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print("\n".join(set_up().lines))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_folder(work / "all", given.images)
        write_folder(work / "tenth", given.images // 10)
        for options in ([], ["--decode-cache", "off"]):
            few, many = (peak_mb(work / name, given, work, *options) for name in ("tenth", "all"))
            how = "decoding anew" if options else "decoded once"
            more = f"{many:,.0f} MB with {given.images:,} ({100 * (many / few - 1):+.1f} %)"
            print(f"peak memory, {how}: {few:,.0f} MB with {given.images // 10:,} files, {more}", flush=True)
        speeds(work / "all", given, work)


if __name__ == "__main__":
    main()
