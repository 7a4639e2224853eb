"""README.md of BUNDLE/best/: what it is and how to run it, on half a page."""

from compressor.runtimes import Example
from compressor.schema.manifest import Manifest
from compressor.tasks.shipping import Shipping

__all__ = ["to_readme"]


def to_readme(manifest: Manifest, shipping: Shipping, example: Example | None, model_bytes: int) -> str:
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
        *_commands(manifest, shipping, example),
        "",
        *_guide(manifest, shipping, example),
        "`manifest.json`: sha256 of every file, where the weights come from, licences; `sbom.cdx.json`: as CycloneDX.",
    ]
    return "\n".join(lines) + "\n"


def _guide(manifest: Manifest, shipping: Shipping, example: Example | None) -> list[str]:
    return [
        shipping.reads if example else f"There is no example program for {manifest.runtime}.",
        f"{shipping.prepared}; `labels.txt` names the classes.",
    ]


def _commands(manifest: Manifest, shipping: Shipping, example: Example | None) -> list[str]:
    lines = [f"    {manifest.install}"]
    if manifest.build is not None:
        lines += [f"    python3 {manifest.build} {manifest.source} --out {manifest.model}   # once, on the device"]
    if example is None:
        return lines
    lines += [f"    python3 classify.py {shipping.argument}"]
    if example.cpp:
        root = example.cmake_root
        lines += [f"    cmake -B build -D{root}=DIR && cmake --build build && build/classify IMAGE.ppm   # C++"]
    return lines
