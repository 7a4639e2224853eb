"""A real bundle for the contract tests: a convolution of a few weights, as ONNX and OpenVINO IR, and its images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

from compressor.runtimes import RUNTIMES
from compressor.schema.bundle import Bundle, EvalSet, FileEntry, Variant
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.profile import Device, Fact, Fingerprint, Profile, Target
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.student import Accuracy, DataInfo, Environment, Student, Weights
from compressor.tasks.image_classification.preprocessing import of_images

SIDE = 16
CLASSES = 4
IMAGES = 7
BATCH = 3  # does not divide IMAGES: the last batch has to be padded
MEAN = (0.48, 0.45, 0.40)
STD = (0.22, 0.23, 0.24)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tiny:
    """model.onnx, f32.xml and f16.xml of the same net for batches of BATCH, images.npy, and what the net answers."""

    folder: Path
    images: npt.NDArray[np.uint8]
    logits: Floats


def make_tiny(folder: Path) -> Tiny:
    random = np.random.default_rng(7)
    kernel = random.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32)
    head = random.normal(0, 1, (8, CLASSES)).astype(np.float32)
    images = random.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, CLASSES])
    weights = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(head, "head")]
    graph = helper.make_graph(nodes, "tiny", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    converted = ov.convert_model(str(folder / "model.onnx"))
    ov.save_model(converted, folder / "f32.xml", compress_to_fp16=False)
    ov.save_model(converted, folder / "f16.xml", compress_to_fp16=True)
    return Tiny(folder, images, reference(images, kernel, head))


def reference(images: npt.NDArray[np.uint8], kernel: Floats, head: Floats) -> Floats:
    """The net in numpy, in float64: [N, CLASSES]."""
    normalized = (images / 255 - np.array(MEAN)) / np.array(STD)
    padded = np.pad(normalized, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))  # [N, H, W, 3, 3, 3]: channel, row, column last
    conv = np.einsum("nhwcij,ocij->nhwo", windows, kernel)
    answer: Floats = (np.maximum(conv, 0).mean(axis=(1, 2)) @ head).astype(np.float32)
    return answer


def variant(name: str, runtime: str, precision: str, model: str, role: str = "student") -> Variant:
    side = (SIDE, SIDE)
    return Variant(
        task="image-classification",
        name=name,
        role=role,  # type: ignore[arg-type]  # one of four words
        runtime=runtime,
        precision=precision,
        runner=RUNTIMES[runtime].runner,
        model=model,
        files=(FileEntry(path=model, sha256="0" * 64, bytes=1),),
        inputs="images.npy",
        reference_logits="images.npy",
        preprocess=ImagePreprocess(input_size=side, resize=side, mean=MEAN, std=STD),
        parameters=8 * 27 + 8 * CLASSES,
        macs=8 * 27 * SIDE * SIDE + 8 * CLASSES,
        made="by the tests",
        weight_bytes={"float32": 4 * (8 * 27 + 8 * CLASSES)},
        compressed_bytes=1,
    )


def stub(name: str, model: str = "stub", role: str = "student") -> Variant:
    """A variant for run_stub.py, which needs no runtime; `model` says where it fails, see conftest.py."""
    return variant(name, "onnxruntime", "fp32", model, role).model_copy(update={"runner": "run_stub.py"})


def write_bundle(folder: Path, variants: tuple[Variant, ...], reference: str | None = None, threads: int = 1) -> Bundle:
    """Write bundle.json with the real nouns; the files of `make_tiny` lie in `folder` already. The reference is the
    first variant, where none is named."""
    bundle = Bundle(
        profile=_profile(variants, threads),
        student=_student(of_images(variants[0].preprocess)),
        teacher=_weights("teacher"),
        reference=reference or variants[0].name,
        eval=EvalSet(split="test", n=IMAGES, labels="labels.npy", ids="ids.txt"),
        variants=variants,
        support=(),
    )
    (folder / "bundle.json").write_text(bundle.model_dump_json(), encoding="utf-8")
    return bundle


def _profile(variants: tuple[Variant, ...], threads: int) -> Profile:
    runtimes = dict.fromkeys(one.runtime for one in variants)
    return Profile(
        schema=1,  # type: ignore[call-arg]  # without its plugin, mypy does not know the alias
        name="tiny",
        device=Device(
            kind="x86",
            cpu=Fact(value="any", source="measured"),
            isa=Fact(value=("avx2",), source="measured"),
            cores=Fact(value=1, source="measured"),
        ),
        targets=tuple(Target(runtime=name, precisions=tuple(RUNTIMES[name].precisions)) for name in runtimes),
        threads=threads,
        batch=BATCH,
        fingerprint=Fingerprint(arch="x86_64", cpu="any"),
    )


def _weights(source: str) -> Weights:
    digest = hashlib.sha256(source.encode()).hexdigest()
    return Weights(source=source, architecture="tiny", sha256=digest, licence="unknown", parameters=1)


def _student(preprocess: ImagePreprocess) -> Student:
    accuracy = Accuracy(split="test", n=4, correct=2, accuracy=0.5, low=0.15, high=0.85, balanced=0.5)
    return Student(
        task="image-classification",
        made_by="distill",
        family="timm",
        architecture="tiny",
        init="random",
        weights=_weights("student"),
        class_names=tuple("abcd"),
        preprocess=preprocess,
        teacher=_weights("teacher"),
        data=DataInfo(source="none", fingerprint="0" * 64, class_names=tuple("abcd"), counts={"test": IMAGES}),
        recipe=Recipe(losses=(LossTerm(name="kd"),)),
        kept_epoch=1,
        kept_rule="last",
        validation=accuracy,
        test=accuracy,
        teacher_validation=None,
        environment=Environment(kdc="0", python="3", packages={}, platform="none", cpu="none", device="cpu"),
    )
