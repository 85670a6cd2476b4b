#!/bin/sh
# Installs the wheel with each Python named (or found) and tries it as others would: one core, 2 GB, no network, a
# read-only home, another locale, a path of spaces and umlauts, another user. A line each; exit status 1 if one fails.
#
#     tools/try_install.sh [PYTHON...]
set -u
unset PYTHONPATH PYTHONHOME
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
work=$(mktemp -d) && chmod 755 "$work"
locales=$work/locales && mkdir "$locales"
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

# A Python that others may not read is copied to where they may: an environment's interpreter leads to it.
readable() {
    theirs="setpriv --reuid=nobody --regid=$(id -g nobody 2> /dev/null) --clear-groups"
    if [ "$(id -u)" != 0 ] || ! command -v setpriv > /dev/null || ! $theirs true 2> /dev/null; then
        theirs=
        return
    fi
    home=$("$1" -c 'import sys; print(sys.base_prefix)')
    $theirs "$home/bin/$("$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')" -c 'import ssl' 2> /dev/null && return
    mkdir -p "$work/$number" && cp -R "$home" "$work/$number/python" && chmod -R a+rX "$work/$number/python"
    source=$work/$number/python/bin/python3
    theirs="$theirs env LD_LIBRARY_PATH=$work/$number/python/lib"
}

tries() {
    place=$work/$number/tries
    bin=$work/$number/env/bin
    mkdir -p "$place"
    source=$python
    readable "$python"
    if ! { "$source" -m venv "$work/$number/env" &&
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
    train="$bin/asr train recipes/demo/ctc.yaml corpus.root=corpus trainer.max_epochs=2 model.hidden=32"
    try "train" $train run_dir=run
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
    odd="$work/$number/Größe und Länge"
    mkdir -p "$odd" && cp -r "$place/run" "$place/$wav" "$odd"
    for locale in C tr_TR.UTF-8 tr_TR.ISO-8859-9; do
        if ! spoken $locale; then
            left_out "locale $locale" "neither here nor made by localedef"
            continue
        fi
        try "locale $locale" env LOCPATH="$locales" LC_ALL=$locale $hear
        place=$odd
        try "a path of spaces and umlauts, $locale" env LOCPATH="$locales" LC_ALL=$locale \
            "$bin/asr" transcribe --model "$odd/run" --format txt,json --out "$odd/Texte $locale" "$(basename "$wav")"
        place=$work/$number/tries
    done
    mkdir -p "$work/$number/home" && chmod 555 "$work/$number/home"
    if [ -n "$theirs" ]; then
        other="$theirs env -u XDG_CACHE_HOME HOME=$work/$number/home"
        try "another user, a read-only home, no cache" $other $hear
        theirs_too=$work/$number/theirs && mkdir "$theirs_too" && chmod 777 "$theirs_too"
        try "another user: train" $other $train run_dir="$theirs_too/run"
    else
        try "a read-only home, no cache" env HOME="$work/$number/home" XDG_CACHE_HOME="$work/$number/home/cache" $hear
        left_out "another user" "needs root"
    fi
}

# Whether a locale is here, or can be made in a folder of the try.
spoken() {
    [ "$1" = C ] && return
    [ -d "$locales/$1" ] || localedef -i "${1%.*}" -f "${1#*.}" "$locales/$1" > /dev/null 2>&1
    [ "$(LOCPATH=$locales LC_ALL=$1 locale charmap 2> /dev/null)" = "${1#*.}" ]
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
