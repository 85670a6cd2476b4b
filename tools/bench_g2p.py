"""`asr g2p` beside Phonetisaurus on CMUdict's test words.

    python tools/bench_g2p.py CMUDICT PYTHON [--model MODEL ...] [--rounds 3] [--fst FILE]

CMUDICT is a folder with train.txt and test.txt; PYTHON an interpreter that has the wheel
`phonetisaurus` 0.3.0 (Linux on x86_64 or ARM; nothing else is needed: its programs come along),
which is trained by its own command as it comes (1.5 minutes; --fst gives the result of an earlier
run, or says where to keep this one's). `english` and each MODEL are measured.

Wrong words and phone errors are counted as `asr g2p score` does, of what the commands printed.
Time is that of the processor, user and system, on one core: whole commands over all words and over
one of them, in turn, and medians of the rounds; a word's is what the others add. Phonetisaurus'
is that of the program which its `predict` starts, with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from asr.g2p.score import Rates, rates
from asr.g2p.words import Dictionary

#: What `phonetisaurus predict` asks for.
PREDICT = ("--nbest=1", "--beam=10000", "--thresh=99.0", "--accumulate=false", "--pmass=0.0",
           "--nlog_probs=true")  # fmt: skip
#: Prints where the wheel keeps its programs.
PROGRAMS = "import json, phonetisaurus; print(json.dumps(phonetisaurus.guess_environment()))"
Environment = Mapping[str, str]


def on_one_core() -> None:
    """Keep a command on the last core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def run(command: Sequence[str], env: Environment) -> tuple[float, str]:
    """Run: seconds of the processor, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
        preexec_fn=on_one_core,
    ).stdout  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, output


def trained(python: str, lexicon: Path, fst: Path) -> None:
    """Train Phonetisaurus as its wheel does."""
    command = [python, "-m", "phonetisaurus", "train", "--model", str(fst), str(lexicon)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rates_of(output: str, dictionary: Dictionary) -> Rates:
    """Score lines of a word and its phones, between them perhaps a number."""
    said = {}
    for line in output.splitlines():
        word, *_, phones = line.split("\t")
        said[word] = phones.split()
    return rates([said.get(word, ()) for word in dictionary.by_word], dictionary)


def commands(
    options: argparse.Namespace, fst: Path
) -> dict[str, tuple[list[str], Environment, bool]]:
    """By name: a command, its environment, and whether its words are an option."""
    found = subprocess.run(
        [options.python, "-c", PROGRAMS], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    asr_env = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs: dict[str, tuple[list[str], Environment, bool]] = {
        "Phonetisaurus": (
            ["phonetisaurus-g2pfst", f"--model={fst}", *PREDICT],
            {**os.environ, **json.loads(found)},
            True,
        )
    }
    for model in ("english", *options.model):
        apply = [sys.executable, "-m", "asr", "g2p", "apply", model, "--device", "cpu"]
        runs[model] = (apply, asr_env, False)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cmudict", type=Path)
    parser.add_argument("python")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fst", type=Path)
    options = parser.parse_args()
    dictionary = Dictionary.read(options.cmudict / "test.txt")
    words = list(dictionary.by_word)
    with tempfile.TemporaryDirectory() as name:
        fst = options.fst or Path(name, "g2p.fst")
        if not fst.is_file():
            trained(options.python, options.cmudict / "train.txt", fst)
        runs = commands(options, fst)
        lists = [Path(name, "all.txt"), Path(name, "one.txt")]
        lists[0].write_text("\n".join(words) + "\n")
        lists[1].write_text(words[0] + "\n")
        times: dict[str, list[tuple[float, float]]] = {system: [] for system in runs}
        scores = {}
        for _ in range(options.rounds):
            for system, (command, env, is_option) in runs.items():
                whole, one = (
                    run([*command, f"--wordlist={path}" if is_option else str(path)], env)
                    for path in lists
                )
                times[system].append((whole[0], one[0]))
                scores[system] = rates_of(whole[1], dictionary)
    print(f"{platform.machine()}, {len(words):,} words, {options.rounds} rounds\n")
    print("| | wrong words, % | phone errors, % | words a second | start, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for system, measured in times.items():
        a_second = median((len(words) - 1) / (whole - one) for whole, one in measured)
        start = median(one for _, one in measured)
        print(
            f"| {system} | {100 * scores[system].word_error_rate:.2f} "
            f"| {100 * scores[system].phone_error_rate:.2f} | {a_second:,.0f} | {start:.2f} |"
        )


if __name__ == "__main__":
    main()
