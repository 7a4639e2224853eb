"""README.md of BUNDLE/best/: what it is and how to run it, on half a page."""

from compressor.runtimes import Example
from compressor.schema.manifest import Manifest

__all__ = ["to_readme"]

READS = "classify.py reads plain PNG, PPM and PGM by itself, JPEG and others with Pillow (`pip install pillow`)."


def to_readme(manifest: Manifest, example: Example | None, model_bytes: int) -> str:
    """`example`: the programs in the folder, where there are any; `model_bytes`: of all the model's files."""
    accuracy = "not measured"
    if manifest.accuracy is not None:
        score = manifest.accuracy
        accuracy = f"{score.value:.2%} ({score.low:.2%} to {score.high:.2%}) top-1 of {score.n} {score.of}"
    lines = [
        f"# {manifest.name}",
        "",
        f"{manifest.classes} classes, {manifest.student.parameters:,} parameters, {model_bytes / 1e6:.2f} MB;"
        f" {manifest.precision} for {manifest.runtime}; accuracy: {accuracy}.",
        "",
        *_commands(manifest, example),
        "",
        *_how(manifest, example),
        "`manifest.json`: sha256 of every file, where the weights come from, licences; `sbom.cdx.json`: as CycloneDX.",
    ]
    return "\n".join(lines) + "\n"


def _how(manifest: Manifest, example: Example | None) -> list[str]:
    if example is not None and not example.python:
        return ["`preprocess.json` says what the model takes; `labels.txt` names the classes."]
    return [
        READS if example else f"There is no example program for {manifest.runtime}.",
        "`preprocess.json` says how an image becomes the input, in words too; `labels.txt` names the classes.",
    ]


def _commands(manifest: Manifest, example: Example | None) -> list[str]:
    lines = [f"    {manifest.install}"]
    if manifest.build is not None:
        lines += [f"    python3 {manifest.build} {manifest.source} --out {manifest.model}   # once, on the device"]
    if example is None:
        return lines
    if example.python:
        lines += ["    python3 classify.py IMAGE"]
    if example.cpp:
        root = example.cmake_root
        lines += [f"    cmake -B build -D{root}=DIR && cmake --build build && build/classify IMAGE.ppm   # C++"]
    return lines
