"""Fields of candidates whose files are not there."""

from compressor.profiles import load_profile
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.students import Entrant, Field

PREPROCESS = ImagePreprocess(input_size=(32, 32), resize=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def field_of(candidates: int, variants: int) -> Field:
    entrants = tuple(
        Entrant(
            task="image-classification", name=f"net{number}-v{variant}", candidate=f"net{number}",
            runtime="onnxruntime", precision=f"v{variant}", runner="run_ort.py", model=f"{number}.onnx", files=(),
            inputs="inputs.npy", preprocess=PREPROCESS, parameters=1, macs=1,
        )
        for number in range(candidates)
        for variant in range(variants)
    )  # fmt: skip
    profile = load_profile("x86-avx2")
    return Field(profile=profile, reference=entrants[0].name, variants=entrants, support=())
