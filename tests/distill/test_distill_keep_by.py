"""Which figure the kept epoch is the best by: what is refused before training, what is said, what is recorded."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.distill import distill, finishing, teach
from compressor.distill.loop import engine
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.student import Request
from compressor.stats import scored
from tests.kit import Hearing

Ask = Callable[..., Request]
COLOURS = {"blue": (40, 60, 200), "red": (200, 50, 40)}


def two_classes(folder: Path, in_validation: tuple[str, ...] = ("blue", "red")) -> str:
    rng = np.random.default_rng(0)
    each = {"train": 24, "validation": 12, "test": 12}
    for split, name in ((s, n) for s in each for n in COLOURS if s != "validation" or n in in_validation):
        (folder / split / name).mkdir(parents=True)
        for number in range(each[split]):
            pixels = rng.normal(COLOURS[name], 90, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return f"folder:{folder}"


def test_the_auc_is_for_two_classes(tmp_path: Path, ask_teach: Ask) -> None:
    with pytest.raises(KdcError) as caught:
        teach(ask_teach(keep_by="auc"), Destination(tmp_path / "run"), progress=Silent())
    assert caught.value.message == "recipe keep_by: auc is for two classes, and the data has 4"
    assert not (tmp_path / "run").exists()


def test_the_auc_needs_both_of_them(tmp_path: Path, ask_teach: Ask) -> None:
    data = two_classes(tmp_path / "data", in_validation=("red",))
    with pytest.raises(KdcError, match="auc needs both classes in validation, which has only red"):
        teach(ask_teach(keep_by="auc", data=data), Destination(tmp_path / "run"), progress=Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_distilling_refuses_it_too_and_says_where_no_epoch_is_chosen(tmp_path: Path, ask_distill: Ask) -> None:
    with pytest.raises(KdcError, match="auc is for two classes, and the data has 4"):
        distill(ask_distill(keep_by="auc"), Destination(tmp_path / "run"), progress=Silent())
    assert not (tmp_path / "run").exists()
    heard = Hearing()
    student = distill(ask_distill(epochs=1, keep_by="balanced"), Destination(tmp_path / "run"), progress=heard)
    [said] = [line for line in heard.warnings if line.startswith("keep_by")]
    assert said == (
        "keep_by balanced: validation has 24 samples, and on fewer than 1000 no epoch is chosen: the last one is kept"
    )
    assert student.kept_rule == "last epoch (validation n=24 < 1000 is too small to choose on)"


@pytest.mark.slow
@pytest.mark.parametrize(("keep_by", "named"), [("auc", "AUC"), ("balanced", "balanced accuracy")])
def test_the_best_epoch_of_two_classes(
    keep_by: str, named: str, tmp_path: Path, ask_teach: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine, finishing):
        monkeypatch.setattr(module, "MIN_TO_CHOOSE", 24)
    data, heard = two_classes(tmp_path / "data"), Hearing()
    request = ask_teach(keep_by=keep_by, data=data, epochs=4, batch_size=16, optimizer={"lr": 0.03})
    model = teach(request, Destination(tmp_path / "run"), progress=heard)
    rows = [json.loads(line)["validation"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["accuracy", "auc", "balanced", "n"]] * 4
    figures = [row[keep_by] for row in rows]
    assert model.kept_epoch == figures.index(max(figures)) + 1
    assert getattr(model.validation, keep_by) == max(figures)
    assert model.kept_rule == f"best validation {named} (n=24 >= 24)"
    kept, test = accuracy_in(model.validation), accuracy_in(model.test)
    assert kept.auc_low is not None
    assert kept.auc_high is not None
    assert kept.auc_low <= rows[model.kept_epoch - 1]["auc"] <= kept.auc_high
    told = next(line for line in heard.notes if line.startswith("kept epoch"))
    assert told == (
        f"kept epoch {model.kept_epoch}: validation accuracy {scored(kept)}, n=24; test accuracy {scored(test)}, n=24"
    )
    assert ", AUC 0." in told or ", AUC 1." in told
    epochs = [line for line in heard.notes if line.startswith("epoch ")]
    assert all(f"AUC {row['auc']:.4f} (n=24)" in line for row, line in zip(rows, epochs, strict=True))
