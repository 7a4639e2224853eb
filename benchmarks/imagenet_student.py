"""A finished run whose student has ImageNet's weights, for `kdc export`: what int8 does to such a network.

    python -m benchmarks.imagenet_student timm:local-dir:LITE0 --out DIR [--crops 1200]

There are no labelled ImageNet images here. So DIR/data is a folder of crops of real photographs (scikit-image's),
each labelled with what the network itself says to it in float32, and DIR/run a run with these very weights, its
classifier cut down to the classes that occur often enough. "Accuracy" in a report of it is agreement with float32.
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from compressor.distill.host.environment import environment
from compressor.distill.recipes import without_layers
from compressor.distill.regimes import built_in
from compressor.models import load_model, save_run
from compressor.schema.base import write_json
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request, Student
from compressor.stats import accuracy_of
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.models.students import create_trainee
from compressor.tasks.image_classification.preprocessing import of_images

FEWEST = 30
PHOTOS = ("astronaut", "cat", "coffee", "rocket", "chelsea")


def crops(count: int) -> list[Image.Image]:
    from skimage import data

    photos = [Image.fromarray(getattr(data, name)()) for name in PHOTOS]
    chance, found = random.Random(0), []
    for number in range(count):
        photo = photos[number % len(photos)]
        side = chance.randrange(120, min(photo.size))
        x, y = chance.randrange(photo.width - side + 1), chance.randrange(photo.height - side + 1)
        found.append(photo.crop((x, y, x + side, y + side)).resize((256, 256), Image.Resampling.BICUBIC))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=1200)
    given = parser.parse_args()
    if given.out.exists():
        sys.exit(f"{given.out} exists")
    backbone = load_model(given.model)
    assert backbone.class_names is not None
    images = crops(given.crops)
    whole = torch.cat([logits_of(backbone, images[start : start + 64]) for start in range(0, len(images), 64)])
    often = sorted(label for label, count in Counter(whole.argmax(-1).tolist()).items() if count >= FEWEST)
    labels = whole[:, often].argmax(-1).tolist()
    spellings = Counter(name for names in backbone.class_names for name in names)
    names = [next(name for name in backbone.class_names[label] if spellings[name] == 1) for label in often]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = ("train", "val", "test", "test")[number % 4]
        place = given.out / "data" / split / names[label]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:05}.png")

    data = open_data(f"folder:{given.out / 'data'}")
    order = [often[names.index(name)] for name in data.info.class_names]
    head = backbone.network.get_submodule("classifier")
    assert isinstance(head, nn.Linear)
    weight, bias = head.weight.detach()[order].clone(), head.bias.detach()[order].clone()
    student = create_trainee(backbone, data.info.class_names, None)
    new = student.network.get_submodule("classifier")
    new.load_state_dict({"weight": weight, "bias": bias})

    def score(split: str) -> object:
        some = getattr(data, split)
        logits = [
            logits_of(student, [some.image(i) for i in range(start, min(start + 64, len(some)))])
            for start in range(0, len(some), 64)
        ]
        return accuracy_of(torch.cat(logits).numpy(), some.labels, split)

    recipe = Recipe.model_validate({**without_layers(built_in("large")), "epochs": 1})
    (given.out / "run").mkdir()
    request = Request(
        task="image-classification",
        command="distill", teacher=given.model, student=given.model, init="pretrained", skip_bad=False,
        data=f"folder:{given.out / 'data'}", input_size=of_images(backbone.preprocess).input_size[0], recipe=recipe,
    )  # fmt: skip
    write_json(given.out / "run" / "run.json", request)
    validation, test = score("validation"), score("test")
    values = {
        "made_by": "distill", "family": student.family, "architecture": student.weights.architecture,
        "init": "pretrained", "weights": student.weights, "class_names": data.info.class_names,
        "preprocess": student.preprocess, "teacher": load_model(given.model).weights, "data": data.info,
        "recipe": recipe, "kept_epoch": 1, "kept_rule": "untrained: ImageNet's own weights", "validation": validation,
        "test": test, "teacher_validation": validation, "environment": environment(torch.device("cpu")),
    }  # fmt: skip
    save_run(given.out / "run", student, Student.model_validate(values))
    print(f"{len(names)} classes, {', '.join(data.info.class_names)}; {test}")


if __name__ == "__main__":
    main()
