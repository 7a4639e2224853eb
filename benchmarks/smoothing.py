"""Does a teacher's card tell that it was trained with label smoothing?

    python -m benchmarks.smoothing --work smoothing [--fashion DIR] [--seeds 5]

Trains small teachers with and without label smoothing of 0.1, on digits and (with `--fashion`, the folder of
Fashion-MNIST's IDX files) on 5,400 of its images, and prints how well `evenness` of their cards tells the two apart: by
the best threshold on the one half of the seeds, its errors on the other, of each data set and of both with one
threshold. What is trained is not trained again.
"""

import argparse
from pathlib import Path

import numpy as np

import compressor
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json
from compressor.schema.student import Student

NETWORKS = ("timm:test_resnet", "timm:test_efficientnet")
SMOOTHING = (0.0, 0.1)
Row = tuple[str, str, float, int, float, float]


def main() -> None:
    """Train what is missing, then print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("smoothing"))
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    data = {"digits": ("digits", 1.0)}
    if asked.fashion is not None:
        data["fashion"] = (f"idx:{asked.fashion}", 0.1)
    rows = [
        card_of(asked.work, name, data[name], network, smoothing, seed)
        for seed in range(asked.seeds)
        for name in data
        for network in NETWORKS
        for smoothing in SMOOTHING
    ]
    print("data | network | smoothing | seed | validation % | evenness")
    for row in rows:
        print(" | ".join([row[0], row[1], f"{row[2]:g}", str(row[3]), f"{100 * row[4]:.1f}", f"{row[5]:.3f}"]))
    for name in (*data, "all"):
        print(told(name, [row for row in rows if name in (row[0], "all")]))


def card_of(
    work: Path, name: str, data: tuple[str, float], network: str, smoothing: float, seed: int
) -> Row:  # fmt: skip
    """Of one teacher: its validation accuracy, and how far apart its wrong logits lie."""
    out = work / f"{name}-{network.removeprefix('timm:')}-{smoothing:g}-{seed}"
    if not (out / "student.json").is_file():
        reference, share = data
        compressor.teach(
            teacher=network, teacher_init="random", data=reference, out=out, input_size=16, epochs=10, batch_size=64,
            seed=seed, overwrite=out.exists(), progress=True,
            set={
                "head_epochs": 0, "optimizer.lr": 0.003, "losses.0.label_smoothing": smoothing,
                "transfer": {"labelled": share, "drop_unlabelled": share < 1},
            },
        )  # fmt: skip
    record = read_json(out / "student.json", Student)
    assert record.teacher_card is not None
    assert record.teacher_card.evenness is not None
    return name, network, smoothing, seed, accuracy_in(record.validation).accuracy, record.teacher_card.evenness


def told(name: str, rows: list[Row]) -> str:
    """Errors of the threshold that is best on even seeds, on odd ones: smoothed teachers are the more even ones."""
    values, smoothed = np.array([row[5] for row in rows]), np.array([row[2] > 0 for row in rows])
    odd = np.array([row[3] % 2 == 1 for row in rows])
    limits = np.sort(values[~odd])
    wrong = [int(((values[~odd] <= limit) != smoothed[~odd]).sum()) for limit in limits]
    limit = limits[int(np.argmin(wrong))]
    missed = int((smoothed & odd & (values > limit)).sum())
    false = int((~smoothed & odd & (values <= limit)).sum())
    pairs = values[smoothed][:, None] < values[~smoothed][None, :]
    return (
        f"{name}: evenness at most {limit:.3f}; of {int((smoothed & odd).sum())} smoothed teachers of other seeds "
        f"{missed} missed, of {int((~smoothed & odd).sum())} others {false} taken for smoothed; a smoothed one is the "
        f"more even of a pair in {pairs.mean():.0%}, n = {len(rows)} teachers"
    )


if __name__ == "__main__":
    main()
