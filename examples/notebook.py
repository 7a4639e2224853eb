# %% [markdown]
# # A student for this machine, from Python
#
# The whole way on 1,797 handwritten digits that come with kdc: no download, a few minutes on two cores. Each `# %%` is
# a cell: VS Code, PyCharm, Spyder and Jupyter (with jupytext) open this file as a notebook. As a script it prints what
# a notebook would show:
#
#     python examples/notebook.py WORK_DIR

# %%
import sys
from pathlib import Path

import compressor

work = Path(sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "notebook")

# %% [markdown]
# ## A teacher
#
# Digits are no photographs: mirrored they are other signs, and their strokes reach the border.

# %%
digits = {"views.scale": [0.7, 1.0], "views.hflip": False, "crop_pct": 1.0, "optimizer.lr_for_batch": None}
teacher = compressor.teach(
    teacher="timm:resnet10t", teacher_init="random", data="digits", out=work / "teacher",
    input_size=32, epochs=4, batch_size=64, set={**digits, "head_epochs": 0}, overwrite=True,
)  # fmt: skip
print(teacher.summary)

# %% [markdown]
# ## A student that learns from it

# %%
run = compressor.distill(
    teacher=teacher.reference, student="timm:mobilenetv3_small_050", student_init="random", data="digits",
    out=work / "run", input_size=32, epochs=8, batch_size=64, set=digits, overwrite=True,
)  # fmt: skip
print(run.summary)
print(run.student.test)

# %% [markdown]
# ## Exported, measured on this machine, and judged
#
# The profile names the device and its budget; here the budget of a built-in profile is laid aside for one of our own.
# On a machine that is not the profile's device latency is measured, and not judged.

# %%
bundle = compressor.export(
    run.out, profile="x86-avx2", target="onnxruntime", out=work / "bundle", rounds=12, seconds=20,
    set={"input_size": 32, "budget": {"size_mb": 8, "min_retention": 0.8}}, overwrite=True,
)  # fmt: skip
print(bundle.to_markdown())

# %%
for row in bundle.report.rows:
    p50, accuracy = row.p50_ms, row.accuracy
    if p50 is not None and accuracy is not None:
        print(
            f"{row.name}: {row.size_bytes / 1e6:.2f} MB, p50 {p50.value:.2f} ms [{p50.low:.2f}–{p50.high:.2f}] "
            f"(n = {p50.n}), accuracy {accuracy.value:.1%} [{accuracy.low:.1%}–{accuracy.high:.1%}] (n = {accuracy.n})"
        )

# %% [markdown]
# ## The gate
#
# What `kdc check` says, from the files alone. A release job would end with `checked.exit_code`.

# %%
checked = compressor.check(bundle.bundle)
print(checked.summary)
print("passed" if checked.passed else f"not passed: exit code {checked.exit_code}")

# %% [markdown]
# ## What cannot go well is said in one line

# %%
try:
    compressor.distill(teacher=teacher.reference, data="digits", out=work / "run", student="timm:mobilenetv3_small_050")
except compressor.KdcError as error:
    print(error)
