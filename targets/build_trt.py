"""Builds a TensorRT engine from an ONNX model: `build_trt.py MODEL.onnx --out ENGINE --runtime tensorrt`.

One script for TensorRT 10 (JetPack 6 has 10.3) and 11, which build on the device for its own GPU, and for TensorRT for
RTX, which builds ahead of time for other machines' GPUs and needs none. The network is strongly typed: the graph alone,
with its casts and its QuantizeLinear and DequantizeLinear nodes, says in which precision each layer computes, and no
flag changes it (docs.nvidia.com/deeplearning/tensorrt, "Migrating from TensorRT 10.x to 11.x").

With --check the engine is built and thrown away: a graph that cannot become one is refused with its node's name.
Standard library and the runtime only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

EXIT_BUILT, EXIT_USAGE, EXIT_MISSING = 0, 2, 4

# Runtime, as profiles name it -> what Python imports, the line that installs it. JetPack brings tensorrt along.
RUNTIMES = {
    "tensorrt": ("tensorrt", "sudo apt-get install python3-libnvinfer"),
    "tensorrt-rtx": ("tensorrt_rtx", "pip install tensorrt-rtx"),
}
REREAD = "UINT8 zero_point"  # the parser only warns of it, and reads the numbers as INT8: another model


class BuildError(Exception):
    """No engine. `problems`: of which nodes, as far as the parser or the builder names them."""

    def __init__(self, message: str, code: int = EXIT_USAGE, problems: list[dict[str, str]] | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.code, self.problems = code, problems or []


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BuildError(message)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("model", metavar="MODEL.onnx")
    add("--out", metavar="ENGINE", help="where to write the engine; not with --check")
    add("--runtime", choices=tuple(RUNTIMES), default="tensorrt", help="default tensorrt")
    add("--sm", type=int, nargs="+", default=[], help="tensorrt-rtx: compute capabilities × 10 to build for, e.g. 89")
    add("--batch", type=int, help="images a call, for a model whose batch may vary")
    add("--check", action="store_true", help="build and throw away")
    add("--json", action="store_true", help="tell the result as a JSON object on stdout")
    args = parser.parse_args(argv)
    if args.check == (args.out is not None):
        raise BuildError("give either --out ENGINE or --check")
    if args.batch is not None and args.batch < 1:
        raise BuildError(f"--batch needs at least 1; found {args.batch}")
    if args.sm and args.runtime == "tensorrt":
        raise BuildError(
            "--sm goes with --runtime tensorrt-rtx: tensorrt builds for the GPU of the machine that it runs on"
        )
    return args


def load_runtime(name: str) -> Any:
    module, install = RUNTIMES[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BuildError(f"{install} (cannot import {module}: {error})", EXIT_MISSING) from error


def make_logger(trt: Any) -> Any:
    """A logger that keeps what it is told: `rows` of (severity as a text, message)."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the class comes from the runtime
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.rows: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.rows.append((str(severity).rpartition(".")[2], message))

        def said(self, *severities: str) -> list[str]:
            return [message for severity, message in self.rows if severity in severities]

    return Logger()


def parse(trt: Any, builder: Any, model: bytes, logger: Any) -> Any:
    """The network in `model`; BuildError with the names of the nodes that cannot be part of one."""
    flags = getattr(trt, "NetworkDefinitionCreationFlag", None)
    typed = getattr(flags, "STRONGLY_TYPED", None)  # TensorRT 11 knows no other networks, and may drop the flag
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        problems = [problem(parser.get_error(number)) for number in range(parser.num_errors)]
        first = problems[0] if problems else {"node": "", "op": "", "reason": "the parser gave no reason"}
        suffix = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BuildError(f"{location(first)}{first['reason']}{suffix}", problems=problems)
    reread = next((said for said in logger.said("WARNING") if REREAD in said), None)
    if reread:
        raise BuildError(f"TensorRT would read a UINT8 zero point as INT8, and answer something else: {reread}")
    return network


def problem(error: Any) -> dict[str, str]:
    """What the parser says of one node. Older parsers do not name it."""
    node, op = (getattr(error, key, str)() for key in ("node_name", "node_operator"))
    # Below the first line is what else went wrong in that call: without a GPU, that there is none.
    lines = [line for line in error.desc().splitlines() if line.strip() and "cudaError" not in line]
    said = [line for line in lines if line != f"Invalid Node - {node}"] or lines
    reason = said[0] if said else "no reason given"
    # What a check is called, for those that say nothing but "false".
    return {"node": node, "op": op, "reason": f"not supported ({error.func()})" if reason == "false" else reason}


def location(problem: dict[str, str]) -> str:
    """Where it is; nothing where it is no node's, as for a file that is no ONNX model."""
    node, op = problem["node"], problem["op"]
    return f"node {node or '(unnamed)'} ({op or 'unknown operator'}): " if node or op else ""


def configure(trt: Any, builder: Any, network: Any, args: argparse.Namespace) -> Any:
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        # fp32 shall be fp32. TensorRT rounds the factors of fp32 products to 10 bits, TF32, unless told otherwise.
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that run_trt.py can read the layers' precisions
    if args.sm:
        known = {int(name[2:]): value for name, value in trt.ComputeCapability.__members__.items() if name[:2] == "SM"}
        unknown = [number for number in args.sm if number not in known]
        if unknown:
            raise BuildError(
                f"this TensorRT cannot build for SM {unknown[0]}; it can for: {', '.join(map(str, known))}"
            )
        config.num_compute_capabilities = len(args.sm)
        for index, number in enumerate(args.sm):
            config.set_compute_capability(known[number], index)
    for source in (network.get_input(index) for index in range(network.num_inputs)):
        shape = fixed_shape(tuple(source.shape), args.batch, source.name)
        if shape != tuple(source.shape):
            profile = builder.create_optimization_profile()
            profile.set_shape(source.name, shape, shape, shape)
            config.add_optimization_profile(profile)
    return config


def fixed_shape(shape: tuple[int, ...], batch: int | None, name: str) -> tuple[int, ...]:
    """The shape of an input with its batch, where that may vary (-1), set to `batch`."""
    if -1 in shape[1:] or not shape:
        raise BuildError(f"input {name} has the shape {list(shape)}: only its first dimension may vary")
    if shape[0] == -1 and batch is None:
        raise BuildError(f"input {name} has a batch that may vary: say how many images a call with --batch")
    if batch is not None and shape[0] not in (-1, batch):
        raise BuildError(f"input {name} has a batch of {shape[0]}, and --batch is {batch}")
    return shape if shape[0] != -1 else (batch or 0, *shape[1:])


def build(args: argparse.Namespace) -> tuple[bytes, dict[str, Any]]:
    """The engine, and what to tell about it."""
    trt = load_runtime(args.runtime)
    try:
        model = Path(args.model).read_bytes()
    except OSError as error:
        raise BuildError(f"cannot read {args.model}: {error.strerror}") from error
    begin = time.monotonic()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = parse(trt, builder, model, logger)
    config = configure(trt, builder, network, args)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reasons = [said for said in logger.said("ERROR", "INTERNAL_ERROR") if "cudaError" not in said]
        reasons += logger.said("ERROR", "INTERNAL_ERROR")
        raise BuildError(f"TensorRT builds no engine of this network: {(reasons or ['it gave no reason'])[0]}")
    content = bytes(engine)
    return content, {
        "runtime": args.runtime,
        "version": str(trt.__version__),
        "sm": args.sm,
        "engine_bytes": len(content),
        "seconds": round(time.monotonic() - begin, 3),
        "network_layers": network.num_layers,
        "warnings": logger.said("WARNING"),
    }


def write(content: bytes, out: Path) -> None:
    """All of it or nothing: a device may lose its power meanwhile."""
    temporary = out.with_name(f".kdc-tmp.{out.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(out)
    except OSError as error:
        raise BuildError(f"cannot write {out}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def main(argv: list[str]) -> int:
    # Libraries print where they like; stdout is for the answer alone.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        as_json = "--json" in argv
        try:
            args = arguments(argv)
            content, told = build(args)
            if args.out is not None:
                write(content, Path(args.out))
        except BuildError as error:
            return fail(error, answers if as_json else None)
        except Exception as error:  # the bindings raise what C++ gives them
            return fail(BuildError(f"TensorRT failed: {type(error).__name__}: {error}"), answers if as_json else None)
        done = (
            f"{told['engine_bytes'] / 1e6:.2f} MB with {told['runtime']} {told['version']} in {told['seconds']:.1f} s"
        )
        print(json.dumps({"ok": True, **told}) if as_json else done, file=answers)
        return EXIT_BUILT


def fail(error: BuildError, answers: IO[str] | None) -> int:
    """Tell it on stderr, in one line, and on `answers` as JSON; the exit code."""
    if answers is not None:
        print(json.dumps({"ok": False, "message": str(error), "problems": error.problems}), file=answers)
    missing = error.code == EXIT_MISSING  # the line that installs it stands first, to be copied
    print(str(error) if missing else f"build_trt.py: {error}", file=sys.stderr)
    return error.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
