"""README.md of BUNDLE/best/: what it is and how to run it, on half a page."""

from compressor.deploy.examples import Example
from compressor.schema.manifest import Manifest

__all__ = ["to_readme"]


def to_readme(manifest: Manifest, example: Example, model_bytes: int) -> str:
    """`model_bytes`: of all the model's files."""
    accuracy = "not measured"
    if manifest.accuracy is not None:
        found = manifest.accuracy
        accuracy = f"{found.value:.2%} ({found.low:.2%} to {found.high:.2%}) top-1 of {found.n} {found.of}"
    lines = [
        f"# {manifest.name}",
        "",
        f"{manifest.classes} classes, {manifest.student.parameters:,} parameters, {model_bytes / 1e6:.2f} MB;"
        f" {manifest.precision} for {manifest.runtime}; accuracy: {accuracy}.",
        "",
        *_commands(manifest, example),
        "",
        *_how(example),
        "`manifest.json`: sha256 of every file, where the weights come from, licences; `sbom.cdx.json`: as CycloneDX.",
    ]
    return "\n".join(lines) + "\n"


def _how(example: Example) -> list[str]:
    if not example.python:
        return ["`preprocess.json` says what the model takes; `labels.txt` names the classes."]
    return [
        "classify.py reads plain PNG, PPM and PGM by itself, JPEG and others with Pillow (`pip install pillow`).",
        "`preprocess.json` says how a picture becomes the input, in words too; `labels.txt` names the classes.",
    ]


def _commands(manifest: Manifest, example: Example) -> list[str]:
    lines = [f"    {example.install}"]
    if manifest.build is not None:
        lines += [f"    python3 {manifest.build} {manifest.source} --out {manifest.model}   # once, on the device"]
    if example.python:
        lines += ["    python3 classify.py PICTURE"]
    if example.cpp:
        where = "ONNXRUNTIME_ROOT" if manifest.runtime == "onnxruntime" else "TENSORRT_ROOT"
        lines += [f"    cmake -B build -D{where}=DIR && cmake --build build && build/classify PICTURE.ppm   # C++"]
    return lines
