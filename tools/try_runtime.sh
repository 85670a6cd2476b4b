#!/bin/sh
# Try the small installation: a fresh environment with this project, requirements/runtime.txt and nothing else.
# MODEL is a folder of `asr export --out` (of a model that streams, to try asr listen too), AUDIO a file, TEXT
# a file with its words.
# usage: tools/try_runtime.sh MODEL AUDIO TEXT
set -eu
[ $# -eq 3 ] || { sed -n 's/^# //p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
bin=$work/env/bin
"$bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements/runtime.txt"
"$bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" "$root"
"$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$work"/carousel_asr-*.whl
! "$bin/python" -c 'import torch' 2>/dev/null || { echo "torch is installed" >&2; exit 1; }
"$bin/python" - <<'PY'
from importlib.metadata import distributions

sizes = {
    d.name: sum(f.size or 0 for f in d.files or ()) for d in distributions() if d.name not in ("pip", "setuptools")
}
print(f"installed: {sum(sizes.values()) / 1e6:.0f} MB in {len(sizes)} packages")
PY
cd "$work"
"$bin/asr" transcribe --model "$1" "$2"
"$bin/asr" align "$2" "$3" --model "$1" --format ctm
if ls "$1"/step_*.onnx >/dev/null 2>&1; then "$bin/asr" listen "$2" --model "$1"; fi
printf '{"id": "a", "text": "the cat sat"}\n' > refs.jsonl
"$bin/asr" score refs.jsonl refs.jsonl
"$bin/asr" serve --model "tried=$1" --port 8799 > served.log 2> told.log &
server=$!
for _ in $(seq 300); do grep -qE "serving|needs" told.log && break; sleep 1; done
cat told.log
"$bin/asr" transcribe --server http://127.0.0.1:8799 "$2"
echo "all commands did without PyTorch"
