#!/bin/sh
# Runs the GPU's tests in a virtual environment of its own; prints a verdict. About five minutes,
# of which most is the download of PyTorch. Exit status 0: all is well.
set -u
cd "$(dirname "$0")/.." || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
verdict() {
    echo "gpu_check: $2"
    exit "$1"
}

"${PYTHON:-python3}" -m venv "$folder/venv" || verdict 2 "FAILED: no virtual environment"
python=$folder/venv/bin/python
"$python" -m pip install --disable-pip-version-check --quiet '.[demo]' pytest hypothesis ||
    verdict 2 "FAILED: the installation"
gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null) ||
    verdict 2 "FAILED: torch finds no GPU here"
"$python" -m pytest -q -p no:cacheprovider tests/test_gpu.py || verdict 1 "FAILED on $gpu"
verdict 0 "passed on $gpu"
