#!/usr/bin/env bash
# The whole way with recorded speech and no network: which of five languages a telephone prompt is in. A network is taught, a smaller one
# learns from it, and the bundle is judged for this machine. docs/sound.md explains each step. Each language is read by one speaker: what is
# learned here are five voices as much as five languages.
#
#   pip install '.[openvino,audio]'        (in a checkout of kdc)
#   apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-wav        (or any folder of sounds, with a folder a class)
#   bash examples/sounds.sh WORK_DIR [FOLDER]
#
# Five minutes of CPU where nothing else runs: 200 prompts a language, two seconds of each, few epochs.
set -euo pipefail
work=${1:?usage: sounds.sh WORK_DIR [FOLDER]}
sounds=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
[ -z "$sounds" ] || sounds=$(realpath "$sounds")
mkdir -p "$work"
cd "$work"

step() { printf '\n--- second %s: %s\n' "$SECONDS" "$*"; }

if [ -z "$sounds" ]; then
    step "a folder of sounds"
    python "$here/prompts.py" prompts 200
    sounds=prompts
fi

step "a network of images, with one channel and at random, becomes a teacher of sounds"
kdc teach --teacher timm:mobilenetv3_small_100 --teacher-init random --data "folder:$sounds" --clip-seconds 2 --epochs 12 --out teacher

step "a smaller one learns from it"
kdc distill --teacher run:teacher --data "folder:$sounds" --student timm:mobilenetv2_035 --student-init random --epochs 12 --out student

step "a profile for this machine, with a budget: 85 % of the teacher's accuracy in a megabyte"
kdc profiles new here --overwrite --set budget.min_retention=0.85 --set budget.size_mb=1

step "every precision of two runtimes, measured side by side, one chosen: the exit code says whether the budget holds"
kdc export student --profile here --target onnxruntime --target openvino --out bundle

step "the gate alone, as a release job would run it"
kdc check bundle

step "what ships, on ten seconds of sound"
python - "$sounds" <<'PYTHON'
import sys
import wave
from pathlib import Path

paths = sorted(next(path for path in sorted(Path(sys.argv[1]).iterdir()) if path.is_dir()).glob("*.wav"))
with wave.open("ten.wav", "wb") as out:
    for number, path in enumerate(paths):
        with wave.open(str(path)) as file:
            if number == 0:
                out.setparams(file.getparams())
            if out.tell() < 10 * file.getframerate():
                out.writeframes(file.readframes(10 * file.getframerate() - out.tell()))
PYTHON
python bundle/best/classify.py ten.wav --top 2

step PASS
