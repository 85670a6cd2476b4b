#!/bin/sh
# Installs the wheel with each Python named (or found) and tries it as others would: one core, 2 GB, no network, a
# read-only home, another locale, a path of spaces and umlauts, another user. A line each; exit status 1 if one fails.
#
#     tools/try_install.sh [PYTHON...]
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
work=$(mktemp -d) && chmod 755 "$work"
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
failed=0
told() {
    printf '%-44s %s\n' "$1" "$2"
}
# NAME COMMAND...: run it in the folder of the try; a failure shows its last lines.
try() {
    name=$1
    shift
    if (cd "$place" && "$@") > "$work/log" 2>&1; then
        told "$python: $name" ok
    else
        told "$python: $name" FAILED
        tail -n 5 "$work/log"
        failed=1
    fi
}
# Why not, where this machine has not what a try needs.
left_out() {
    told "$python: $1" "not tried: $2"
}

tries() {
    place=$work/$number/tries
    bin=$work/$number/env/bin
    mkdir -p "$place"
    if ! { "$python" -m venv "$work/$number/env" &&
        "$bin/python" -m pip install --quiet --disable-pip-version-check "$wheel[demo]"; } > "$work/log" 2>&1; then
        told "$python: install" FAILED
        tail -n 5 "$work/log"
        failed=1
        return
    fi
    told "$python: install" "ok, $("$bin/python" --version), $(du -sm "$work/$number/env" | cut -f1) MB"
    chmod -R a+rX "$work/$number"
    try "speak a small corpus" "$bin/asr" synthesize corpus --train 60 --dev 12 --test 12
    wav=$(cd "$place" && ls corpus/TEST/*/*/*.WAV | head -n 1)
    hear="$bin/asr transcribe --model run $wav"
    try "train" "$bin/asr" train recipes/demo/ctc.yaml corpus.root=corpus run_dir=run trainer.max_epochs=2 model.hidden=32
    try "transcribe" $hear
    try "score" "$bin/asr" score run/manifests/test.jsonl run/decoded/test.greedy.jsonl --unit phone
    chmod -R a+rX "$place"

    if command -v taskset > /dev/null; then
        try "one core" taskset -c 0 $hear
    else
        left_out "one core" "no taskset"
    fi
    if [ -w /sys/fs/cgroup/cgroup.procs ] && command -v systemd-run > /dev/null && systemd-run --quiet --wait true 2> /dev/null; then
        try "2 GB" systemd-run --quiet --wait --pipe -p MemoryMax=2G -p MemorySwapMax=0 --working-directory="$place" $hear
    else
        try "2 GB" "$bin/python" -c "$peak" 2000 $hear
    fi
    if unshare --net true 2> /dev/null; then
        try "no network" unshare --net $hear
    else
        left_out "no network" "no right to make a network namespace"
    fi
    for locale in C tr_TR.UTF-8; do
        if [ $locale = C ] || locale -a | grep -qi "^tr_TR.utf"; then
            try "locale $locale" env LC_ALL=$locale $hear
        else
            left_out "locale $locale" "not on this machine"
        fi
    done
    odd="$work/$number/Größe und Länge"
    mkdir -p "$odd" && cp -r "$place/run" "$place/$wav" "$odd"
    place=$odd try "a path of spaces and umlauts" env LC_ALL=C "$bin/asr" transcribe --model "$odd/run" "$(basename "$wav")"
    mkdir -p "$work/$number/home" && chmod 555 "$work/$number/home"
    if [ "$(id -u)" = 0 ] && id nobody > /dev/null 2>&1 && command -v setpriv > /dev/null; then
        theirs="setpriv --reuid=nobody --regid=$(id -g nobody) --clear-groups"
        if ! $theirs test -x "$(readlink -f "$bin/python")"; then
            left_out "another user" "$python lies where others may not read"
            return
        fi
        other="$theirs env HOME=$work/$number/home"
        try "another user, a read-only home, no cache" $other $hear
    else
        try "a read-only home, no cache" env HOME="$work/$number/home" XDG_CACHE_HOME="$work/$number/home/cache" $hear
        left_out "another user" "needs root"
    fi
}

# Runs a command, and fails where it took more memory than so many MB.
peak='import resource, subprocess, sys
status = subprocess.run(sys.argv[2:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(f"{used:.0f} MB")
sys.exit(status or used > float(sys.argv[1]))'

[ $# -gt 0 ] || set -- $(for v in 3.11 3.12 3.13; do command -v python$v; done)
[ $# -gt 0 ] || set -- python3
"$1" -m venv "$work/build" && "$work/build/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    -w "$work/wheel" "$root" || exit 2
wheel=$(ls "$work"/wheel/*.whl)
number=0
for python in "$@"; do
    number=$((number + 1))
    tries
    chmod -R u+w "$work/$number" && rm -rf "${work:?}/$number"
done
exit $failed
