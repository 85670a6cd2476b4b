#!/bin/sh
# All that needs a GPU, in ten minutes, unattended, from a bare checkout; prints Markdown for BENCHMARKS.md.
#
#     tools/gpu_check.sh [SO762]
#
# The GPU's tests; tools/bench_training.py; recipes/so762/ctc.yaml on the corpus in the folder SO762, with
# its time and error rates; and how fast its model transcribes. Without the folder, the last two are left
# out. RUN=FOLDER takes a finished run of the recipe instead of training one. SPEECHBRAIN=MINUTES trains
# SpeechBrain's TIMIT recipe on the corpus for so long, beside ours.
#
# Where PYTHON (python3) can import what is needed, it is used as it is, without a network; else a virtual
# environment is made with it and removed. Exit status 0: all that was there to be done went well.
set -u
cd "$(dirname "$0")/.." || exit 2
corpus=${1:-${SO762:-}}
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
failed=

say() { printf '%s\n' "$@"; }
# NAME COMMAND...: run it; what fails is told, and the rest goes on.
try() {
    what=$1
    shift
    "$@" && return
    say "" "FAILED: $what"
    failed="$failed $what;"
    return 1
}

# Some packages are imported where values are given to a command, and no sooner.
ready() {
    "$1" -c 'import pytest, hypothesis, torch, asr.train.recipe, asr.report.page' 2>/dev/null &&
        echo "a (u)" >"$folder/ref.trn" && "$1" -m asr score "$folder/ref.trn" "$folder/ref.trn" >/dev/null 2>&1
}
if ! ready "$python"; then
    "$python" -m venv "$folder/venv" || exit 2
    python=$folder/venv/bin/python
    "$python" -m pip install --disable-pip-version-check --quiet . pytest hypothesis || exit 2
fi
gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null) || {
    say "gpu_check: FAILED: torch finds no GPU here"
    exit 2
}
say "### $gpu, $("$python" -c '
import datetime, os, platform, torch
print(f"{os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}", end=", ")
print(datetime.date.today())')"

say "" "Tests of the GPU:"
try "tests" "$python" -m pytest -p no:cacheprovider -rN tests/test_gpu.py

say "" "\`python tools/bench_training.py --device cuda\`:" ""
try "bench_training" "$python" tools/bench_training.py --device cuda

run=${RUN:-$folder/run}
if [ -z "${RUN:-}" ] && [ -d "$corpus" ]; then
    try "training" "$python" -m asr train recipes/so762/ctc.yaml corpus.root="$corpus" run_dir="$run" \
        seed=1 trainer.device=cuda >"$folder/log" 2>&1 || tail -n 5 "$folder/log"
fi
if [ -f "$run/results.json" ]; then
    say "" "\`asr train recipes/so762/ctc.yaml\`:" ""
    try "results" "$python" tools/results_table.py "$run"
    say "" "\`python tools/bench_transcribe.py RUN --device cuda\`:" ""
    try "transcription" "$python" tools/bench_transcribe.py "$run" --device cuda --minutes 60 --rounds 1
else
    say "" "Neither a corpus nor a run: no training, no transcription."
fi

if [ -n "${SPEECHBRAIN:-}" ] && [ -d "$corpus" ]; then
    say "" "\`python tools/speechbrain_timit.py --device cuda --minutes $SPEECHBRAIN\`:" ""
    try "SpeechBrain" "$python" tools/speechbrain_timit.py "$corpus" "$folder/speechbrain" \
        --device cuda --minutes "$SPEECHBRAIN"
fi

[ -z "$failed" ] || {
    say "" "gpu_check: FAILED on $gpu:$failed"
    exit 1
}
say "" "gpu_check: passed on $gpu"
