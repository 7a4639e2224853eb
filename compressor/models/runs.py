"""Trained models on disk: RUN/student.json and RUN/student.safetensors, written by `kdc teach` and `kdc distill`."""

from pathlib import Path

from torch import nn

from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.models.checkpoints.state_dict import read_tensors
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.weights import tensors_sha256
from compressor.quantization.fake_quant import add_fake_quant
from compressor.quantization.folding import fold_batchnorm
from compressor.schema.base import read_json, write_json
from compressor.schema.student import Student, Weights
from compressor.tasks.base import example_inputs
from compressor.tasks.table import task_named

__all__ = ["load_run", "read_student", "save_run", "save_tensors"]


def load_run(folder: Path) -> tuple[LoadedModel, Student]:
    """The model in `folder`, and what is known of it; the weights are checked against their sha256.

    A student that was trained under fake quantization has it: its network rounds as an int8 kernel does.
    """
    student = read_student(folder)
    state = read_tensors(folder / "student.safetensors")
    if tensors_sha256(state) != student.weights.sha256:
        raise KdcError(f"{folder / 'student.safetensors'} was changed: its weights are not those of student.json")
    parameters = sum(value.numel() for value in state.values())
    network = task_named(student.task).network_of(student, folder, parameters)
    if student.quantization is not None:
        network = fold_batchnorm(network, example_inputs(student.preprocess.inputs))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise KdcError(
            f"{folder}: the weights do not fit {student.architecture}: {str(error).splitlines()[0]}"
        ) from None
    if student.quantization is not None:
        network = add_fake_quant(network, student.quantization)
    weights = student.weights.model_copy(update={"source": f"run:{folder}", "ancestors": student.ancestors})
    names = tuple((name,) for name in student.class_names) or None
    loaded = LoadedModel(network.eval(), student.preprocess, names, weights, student.family)
    return check_input(loaded), student


def read_student(folder: Path) -> Student:
    """What is known of the model in `folder`; raises KdcError where no finished run lies there."""
    if not folder.is_dir():
        raise KdcError(f"the run {folder} does not exist", "kdc distill … --out DIR makes one")
    if not (folder / "student.json").is_file():
        unfinished = (folder / "run.json").is_file()
        raise KdcError(
            f"{folder} holds no trained model (student.json is missing)",
            "its training is not finished: run the same command with --resume"
            if unfinished
            else "kdc distill --out DIR",
        )
    return read_json(folder / "student.json", Student)


def save_tensors(network: nn.Module, path: Path) -> str:
    """Write the network's state dict to `path` as safetensors, all or nothing; returns its sha256."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    with write_atomically(path) as temporary:
        # Not by save_file: it hides a full disk behind an error of its own.
        temporary.write_bytes(save(state, {"format": "pt"}))
    return tensors_sha256(state)


def save_run(folder: Path, model: LoadedModel, student: Student) -> Student:
    """Write weights, then student.json with their sha256; a folder with student.json is a finished run."""
    sha256 = save_tensors(model.network, folder / "student.safetensors")
    task_named(student.task).save_architecture(model.network, folder)
    weights: Weights = student.weights.model_copy(update={"sha256": sha256})
    finished = student.model_copy(update={"weights": weights})
    write_json(folder / "student.json", finished)
    return finished
