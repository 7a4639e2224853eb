"""A bundle whose cost is known: a chain of equal convolutions, so that a tenth more of them is a tenth more work.

Used by verdicts.py. The models are real ONNX files, measured by the bundle's own runners; only their weights are drawn.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compressor.assets import runner_scripts
from compressor.files.atomic import file_sha256
from compressor.schema.base import write_json
from compressor.schema.bundle import Bundle, EvalSet, FileEntry, Variant
from compressor.schema.measurement import Machine
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.profile import Budget, Device, Fact, Fingerprint, Profile, Target
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.student import Accuracy, DataInfo, Environment, Student, Weights

__all__ = ["write_chain_bundle"]

SIDE, CHANNELS, CLASSES, IMAGES = 24, 32, 4, 32
NAME = "onnxruntime-fp32"


def write_chain_bundle(
    folder: Path, blocks: int, threads: int, budget: Budget, machine: Machine, tested: range = range(IMAGES)
) -> None:
    """A bundle at `folder` whose one student is a chain of `blocks` convolutions of 5.3 million MACs each. `tested`:
    the numbers of its images, each drawn with its number as the seed."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "eval").mkdir(parents=True)
    drawn = [np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for number in tested]
    images = np.stack(drawn)
    np.save(folder / "eval/inputs.npy", images)
    onnx.save(_chain(blocks), folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    normalised = ((images / np.float32(255) - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    logits = np.concatenate([session.run(None, {"input": one[None]})[0] for one in normalised])
    np.save(folder / "eval/reference.npy", logits)
    np.save(folder / "eval/labels.npy", np.array(tested) % CLASSES)  # the same for all chains, and no matter
    np.save(folder / "eval/digests.npy", np.array(tested, np.uint64))
    (folder / "eval/ids.txt").write_text("".join(f"{number}\n" for number in tested))
    (folder / "runners").mkdir()
    for name, script in runner_scripts().items():
        shutil.copyfile(script, folder / "runners" / name)
    support = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "model.onnx"]
    digests = hashlib.sha256(np.array(tested, np.uint64).tobytes()).hexdigest()
    named = {"labels": "eval/labels.npy", "ids": "eval/ids.txt", "digests": "eval/digests.npy"}
    test = EvalSet(split="test", n=len(tested), contents=digests, **named)
    write_json(folder / "bundle.json", _bundle(folder, blocks, _profile(threads, budget, machine), test, support))


def _chain(blocks: int) -> onnx.ModelProto:
    random = np.random.default_rng(1)
    weights, nodes, last = [], [], "input"
    for number in range(blocks):
        inputs = 3 if number == 0 else CHANNELS
        # He's initialisation (2015), so that no activation vanishes on its way: denormal numbers are slow.
        kernel = random.normal(0, (2 / (9 * inputs)) ** 0.5, (CHANNELS, inputs, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{number}"))
        nodes.append(helper.make_node("Conv", [last, f"kernel{number}"], [f"conv{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        last = f"relu{number}"
    head = random.normal(0, 1, (CHANNELS, CLASSES)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"]),
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "chain", [source], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _bundle(folder: Path, blocks: int, profile: Profile, test: EvalSet, support: list[Path]) -> Bundle:
    preprocess = ImagePreprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
    model = _entry(folder, folder / "model.onnx")
    variant = Variant(
        task="image-classification",
        name=NAME,
        role="student",
        runtime="onnxruntime",
        precision="fp32",
        runner="run_ort.py",
        model=model.path,
        files=(model,),
        inputs="eval/inputs.npy",
        reference_logits="eval/reference.npy",
        preprocess=preprocess,
        parameters=model.bytes // 4,
        macs=SIDE * SIDE * 9 * CHANNELS * (3 + (blocks - 1) * CHANNELS),
        made=f"a chain of {blocks} convolutions",
        weight_bytes={"float32": model.bytes},
        compressed_bytes=model.bytes,
    )
    return Bundle(
        profile=profile,
        student=_student(preprocess),
        teacher=_weights("none"),
        reference=NAME,
        eval=test,
        variants=(variant,),
        support=tuple(_entry(folder, path) for path in support),
    )


def _entry(folder: Path, path: Path) -> FileEntry:
    return FileEntry(path=path.relative_to(folder).as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size)


def _profile(threads: int, budget: Budget, machine: Machine) -> Profile:
    def fact(value: object) -> Fact:  # type: ignore[type-arg]
        return Fact(value=value, source="measured")

    return Profile(
        schema=1,  # type: ignore[call-arg]  # without its plugin, mypy does not know the alias
        name="bench",
        device=Device(kind="x86", cpu=fact(machine.cpu), isa=fact(machine.isa), cores=fact(machine.cores)),
        targets=(Target(runtime="onnxruntime", precisions=("fp32",)),),
        threads=threads,
        batch=1,
        # Its labels are drawn: no class is answered, and of two chains either may be right more often.
        budget=Budget.model_validate({"min_class_recall": None, "max_accuracy_loss": None, **budget.model_dump()}),
        fingerprint=Fingerprint(arch=machine.arch, cpu=machine.cpu),
    )


def _weights(source: str) -> Weights:
    digest = hashlib.sha256(source.encode()).hexdigest()
    return Weights(source=source, architecture="chain", sha256=digest, licence="none", parameters=1)


def _student(preprocess: ImagePreprocess) -> Student:
    accuracy = Accuracy(split="test", n=1, correct=1, accuracy=1, low=0, high=1, balanced=1)
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Student(
        task="image-classification",
        made_by="distill",
        family="timm",
        architecture="chain",
        init="random",
        weights=_weights("chain"),
        class_names=names,
        preprocess=preprocess,
        teacher=_weights("none"),
        data=DataInfo(source="drawn", fingerprint="0" * 64, class_names=names, counts={"test": IMAGES}),
        recipe=Recipe(losses=(LossTerm(name="kd"),)),
        kept_epoch=1,
        kept_rule="none",
        validation=accuracy,
        test=accuracy,
        teacher_validation=None,
        environment=Environment(kdc="0", python="3", packages={}, platform="none", cpu="none", device="cpu"),
    )
