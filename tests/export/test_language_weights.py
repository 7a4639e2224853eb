"""Language models with packed weights, on the threads that they are given; the example programs; a missing runtime."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.export.bundle.sizes import weight_bytes
from compressor.export.language import build, language_builder_of
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from tests.export.language_kit import (
    EACH,
    FLOAT,
    LIMIT,
    TARGETS,
    VOCABULARY,
    asked,
    blocks_of,
    given,
    made,
    reference,
    write_blocks,
)
from tests.tasks.causal_lm.kit import write_llama


def weights_in(folder: Path, runtime: str) -> dict[str, int]:
    return weight_bytes(language_builder_of(runtime).constants(folder))


def in_files(folder: Path) -> int:
    return sum(
        path.stat().st_size for path in folder.iterdir() if path.name.startswith(("model.onnx", "openvino_model"))
    )


@pytest.mark.slow
@EACH
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_are_packed_as_was_asked(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, runtime: str, precision: str
) -> None:
    """Of 2 layers of 64 and 4 heads, 2 of them of keys and values: the bytes of each matrix, embeddings once; in the
    file, and as the loaded model says; and near what the model says in float."""
    source, float_folder = given(tmp_path_factory), made(tmp_path_factory, runtime, FLOAT[runtime])
    folder, ort = made(tmp_path_factory, runtime, precision), runtime == "onnxruntime-genai"
    attention, wide = 64 * 64 + 2 * 64 * 32 + 64 * 64, 2 * 64 * 48
    deep = 64 * (64 if ort else 48)  # ONNX Runtime fills up the inputs of a matrix to whole blocks of 32
    body, embeddings = 2 * (attention + wide + deep), VOCABULARY * 64
    weights, before = weights_in(folder, runtime), weights_in(float_folder, runtime)
    if precision == "int8":
        assert weights["int8"] == body + embeddings
    else:
        assert weights["int4"] == body // 2
        assert weights["int8"] == embeddings
    assert before["float32"] - weights["float32"] > 3 * (body - 2 * (deep - 64 * 48)), "no matrix is kept in float, too"
    assert in_files(folder) < in_files(float_folder)

    blocks = blocks_of(source)
    path, told = write_blocks(tmp_path / "blocks.npz", blocks), []
    for each, name in ((float_folder, FLOAT[runtime]), (folder, precision)):
        load = {"op": "load", "model": str(each), "precision": name, "threads": 1}
        score = {"op": "score", "path": str(path), "out": str(tmp_path / f"{name}.npy"), "batch": 4}
        _, executed, _ = asked(runtime, load, {"op": "executed"}, score)
        told.append(np.load(tmp_path / f"{name}.npy"))
    assert executed["executed_precision"] == {"int8": "int8", "int4": "mixed int4+int8"}[precision]
    assert RUNTIMES[runtime].ran_as_asked(precision, executed["executed_precision"])
    difference = float(np.abs(told[0] - told[1]).mean())
    assert {"int8": 1e-3, "int4": 0.05}[precision] < difference < {"int8": 0.15, "int4": 2}[precision]


@pytest.mark.slow
@EACH
def test_embeddings_that_are_not_tied_are_two_matrices(tmp_path: Path, runtime: str) -> None:
    from compressor.models import load_model
    from compressor.tasks.causal_lm.shipping import transformers_folder

    write_llama(tmp_path / "llama", 1, hidden_size=64, tie_word_embeddings=False)
    transformers_folder(load_model(f"hf:{tmp_path / 'llama'}", task="causal-lm"), tmp_path / "model")
    built = build(tmp_path / "model", runtime, "int8", tmp_path / "out", max_length=8, progress=Silent())
    assert built.folder == tmp_path / "out"
    assert built.weight_bytes == weights_in(built.folder, runtime)
    embeddings = VOCABULARY * 64
    if runtime == "onnxruntime-genai":
        assert "embeddings float32" in built.made
        assert built.weight_bytes["float32"] > 4 * embeddings
    else:
        assert built.weight_bytes["int8"] > 2 * embeddings
    load = {"op": "load", "model": str(tmp_path / "out"), "precision": "int8", "threads": 1}
    _, executed, reply = asked(
        runtime, load, {"op": "executed"}, {"op": "generate", "prompt": [1, 50, 60], "tokens": 1}
    )
    assert executed["executed_precision"] == ("mixed fp32+int8" if runtime == "onnxruntime-genai" else "int8")
    assert reply["ids"] == [int(reference(tmp_path / "model", [1, 50, 60])[-1].argmax())]


@pytest.mark.slow
@EACH
def test_it_takes_the_threads_that_it_is_given(tmp_path_factory: pytest.TempPathFactory, runtime: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    folder, started = made(tmp_path_factory, runtime, FLOAT[runtime]), []
    for threads in (1, 2):
        command = [sys.executable, str(TARGETS / RUNTIMES[runtime].runner)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            load = {"op": "load", "model": str(folder), "precision": FLOAT[runtime], "threads": threads}
            for request in (load, {"op": "generate", "prompt": [1, 5], "tokens": 3}):
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                assert json.loads(process.stdout.readline())["ok"]
            started.append(len(list(Path(f"/proc/{process.pid}/task").iterdir())))
            process.stdin.close()
    assert started[1] - started[0] == 1


@pytest.mark.slow
@EACH
def test_the_example_goes_on_with_a_text_alone(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, runtime: str
) -> None:
    """Beside the model it needs the runtime alone, and says the same as the runner."""
    folder, row = made(tmp_path_factory, runtime, FLOAT[runtime]), RUNTIMES[runtime]
    assert row.example is not None
    shutil.copytree(folder, tmp_path / "model")
    shutil.copy(TARGETS / row.example.python, tmp_path / "generate.py")
    shutil.copy(TARGETS / "generate_text.py", tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"model": "model", "install": row.on_device}))

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-s", "generate.py", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **more}, capture_output=True, text=True, timeout=240
        )

    load = {"op": "load", "model": str(folder), "precision": FLOAT[runtime], "threads": 1}
    prompt = "the farmer saw the"
    _, expected = asked(runtime, load, {"op": "text", "prompt": prompt, "tokens": 9})
    ended = run(prompt, "--tokens", "9")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert expected["text"].startswith(ended.stdout.rstrip("\n")), "a text may end before"
    assert len(ended.stdout) > 3
    ended = run("ox " * 200)
    assert ended.returncode == 2
    assert ended.stderr.startswith("generate.py: the prompt's ")
    assert ended.stderr.endswith(f"and --tokens 40 are more than the model's {LIMIT}\n")
    assert ended.stderr.count("\n") == 1
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / f"{row.module}.py").write_text("raise ImportError('not here')")
    ended = run("ox", PYTHONPATH=str(tmp_path / "blocked"))
    assert (ended.returncode, ended.stderr) == (4, f"generate.py: {row.on_device} (not here)\n")


@EACH
def test_a_missing_runtime_is_told_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    row = RUNTIMES[runtime]
    monkeypatch.setitem(sys.modules, row.module, None)
    with pytest.raises(KdcError, match=f"an export to {runtime} needs {row.module}, which is not installed") as caught:
        build(tmp_path, runtime, "int8", tmp_path / "out", max_length=8, progress=Silent())
    assert (caught.value.exit_code, caught.value.hint) == (4, row.install)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / f"{row.module}.py").write_text("raise ImportError('not here')")
    load = json.dumps({"op": "load", "model": str(tmp_path), "precision": FLOAT[runtime], "threads": 1})
    command = [sys.executable, str(TARGETS / row.runner)]
    ended = subprocess.run(
        command, input=load, env={**os.environ, "PYTHONPATH": str(blocked)}, capture_output=True, text=True, check=True
    )
    reply = json.loads(ended.stdout)
    assert reply["kind"] == "missing"
    assert reply["message"] == f"{row.on_device} (cannot import {row.module}: not here)"
