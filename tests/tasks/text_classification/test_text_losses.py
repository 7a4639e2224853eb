"""TinyBERT's two stages and MiniLM's relations, from a taught encoder of texts to smaller ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from compressor.models import load_run
from compressor.schema.accuracy import accuracy_in
from tests.kit import Ended
from tests.shared import made_once
from tests.tasks.text_classification.kit import SPEED, encoder, taught, texts, write_csv

pytestmark = pytest.mark.slow

Kdc = Callable[..., Ended]
TINYBERT = (
    "--set", "stages=[{losses: [{name: hidden_states}, {name: attention_scores}], epochs: 3}]",
    "--set", "losses=[{name: soft_cross_entropy}]",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.csv, and the teacher/ of four blocks that learned from it. Never change them."""

    def make(folder: Path) -> None:
        write_csv(folder / "data.csv", texts(240))
        taught(folder, folder / "data.csv")

    return made_once(tmp_path_factory, "texts", make)


def distilling(made: Path, out: Path, student: str, *more: object) -> tuple[object, ...]:
    return (
        "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--student", student,
        "--epochs", 3, "--out", out, *SPEED, *more,
    )  # fmt: skip


def losses_in(folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows]


def test_tinybert_in_two_stages(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    """Without labels: no loss looks at them."""
    out = tmp_path / "run"
    ended = kdc(*distilling(made, out, "layers:2", *TINYBERT, "--set", "accumulate=2"))
    assert ended.code == 0, ended.err
    pairs = (
        "embedding (32 wide) from embedding (32 wide), stage1 (32 wide) from stage2 (32 wide), stage2 (32 wide) from"
    )
    assert f"hidden_states: {pairs}" in ended.err
    assert "attention_scores: scores1 (4 heads) from scores2 (4 heads), scores2 (4 heads) from scores4" in ended.err
    first, last = losses_in(out / "stages" / "1")[::2]
    assert last["hidden_states"] < first["hidden_states"]
    assert last["attention_scores"] < first["attention_scores"]
    assert [list(row) for row in losses_in(out)] == [["soft_cross_entropy"]] * 3
    assert accuracy_in(load_run(out)[1].test).accuracy > 0.85
    assert not any("regressor" in name for name in load_file(out / "student.safetensors"))


def test_a_narrower_student_with_other_heads_learns_relations(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    small = encoder(tmp_path / "small", 2, hidden_size=16, num_attention_heads=2, intermediate_size=32)
    relations = "--set", "losses=[{name: kd}, {name: relations, relation_heads: 8}, {name: hidden_states}]"
    out = tmp_path / "run"
    given = ("--student-init", "random", "--max-length", 32, *relations)
    ended = kdc(*distilling(made, out, f"hf:{small}", *given))
    assert ended.code == 0, ended.err
    assert "relations: projections2 (16 wide) from projections4 (32 wide)" in ended.err
    rows = losses_in(out)
    for name in ("relations", "hidden_states"):
        assert rows[-1][name] < rows[0][name]
    assert not any("regressor" in name for name in load_file(out / "student.safetensors"))
    heads = kdc(
        *distilling(
            made,
            tmp_path / "other",
            f"hf:{small}",
            *given[:4],
            "--set",
            "losses=[{name: kd}, {name: attention_scores}]",
        )
    )
    assert heads.code == 2
    assert "of 2 and 4 heads cannot be compared head by head: use relations" in " ".join(heads.err.split())


def test_a_student_cut_narrower_learns_relations_and_hidden_states(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    """Half as wide and half as deep; the projector stays with the training."""
    losses = "losses=[{name: kd}, {name: relations, relation_heads: 8}, {name: hidden_states}]"
    ended = kdc(*distilling(made, tmp_path / "run", "layers:2,width:16", "--set", losses))
    assert ended.code == 0, ended.err
    said = " ".join(ended.err.split())
    assert "2 of 4 heads and 24 of 48 neurons a layer, and 16 of 32 channels stay" in said
    assert "relations: projections2 (16 wide) from projections4 (32 wide)" in said
    assert "embedding (16 wide) from embedding (32 wide), stage1 (16 wide) from stage2 (32 wide)" in said
    rows = losses_in(tmp_path / "run")
    for name in ("kd", "relations", "hidden_states"):
        assert rows[-1][name] < rows[0][name]
    state, (model, record) = load_file(tmp_path / "run" / "student.safetensors"), load_run(tmp_path / "run")
    assert {*state} == {*model.network.state_dict()}
    assert (32, 16) not in [value.shape for value in state.values()]
    assert accuracy_in(record.test).accuracy > 0.6
