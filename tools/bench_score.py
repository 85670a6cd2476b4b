"""`asr score` against sclite: `python tools/bench_score.py` (needs sctk, two minutes).

A drawn corpus of a million words, as long as English ones, once with utterances about as long as
LibriSpeech's (35 words) and once with 10 and 70, as trn, and a tenth of it as stm and ctm; the
hypotheses have 10 % errors. Whole commands from start to end take turns, and a ratio is the median
over the rounds of the ratio within a round, so that a busy machine weighs on both sides alike. The
processor's time is that of user and system. The counts of both must be equal.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

WORDS, KINDS, ERRORS = 1_000_000, 10_000, 0.1
MEAN_WORDS = (10, 35, 70)
#: Of 100 words in running English, how many have one letter, two letters ... (Norvig 2012).
LETTERS = (3, 18, 21, 15, 11, 8, 8, 6, 4, 3, 2, 1)
#: Segments of the recordings that stand in for an stm and a ctm, in seconds.
WORD_S = 0.3


def draw(folder: Path, mean_words: int, n_words: int) -> None:
    """Write ref and hyp, as trn and as stm and ctm, of ``n_words`` reference words."""
    rng = random.Random(mean_words)
    lengths = rng.choices(range(1, len(LETTERS) + 1), LETTERS, k=KINDS)
    kinds = ["".join(rng.choices("etaoinshrdlu", k=length)) for length in lengths]
    lines: dict[str, list[str]] = {"ref.trn": [], "hyp.trn": [], "ref.stm": [], "hyp.ctm": []}
    left = n_words
    number = 0
    now = 0.0
    while left:
        length = min(left, max(1, round(rng.gauss(mean_words, 0.4 * mean_words))))
        left -= length
        said = rng.choices(kinds, k=length)
        heard: list[str] = []
        for word in said:
            dice = rng.random() / ERRORS
            heard += [word] if dice > 2 / 3 else []
            heard += [rng.choice(kinds)] if dice < 1 / 3 or 2 / 3 < dice < 1 else []
        speaker = f"s{number % 100:02}"
        lines["ref.trn"].append(f"{' '.join(said)} ({speaker}-{number})")
        lines["hyp.trn"].append(f"{' '.join(heard)} ({speaker}-{number})")
        if number % 200 == 0:
            now = 0.0
        file = f"f{number // 200:04}"
        end = now + WORD_S * (len(heard) + 1)
        lines["ref.stm"].append(f"{file} 1 {speaker} {now:.2f} {end:.2f} {' '.join(said)}")
        for i, word in enumerate(heard):
            lines["hyp.ctm"].append(f"{file} 1 {now + WORD_S * (i + 0.1):.2f} 0.2 {word}")
        now = end
        number += 1
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(rows) + "\n")


def seconds(command: Sequence[str]) -> tuple[float, float, str]:
    """Run: (wall clock, processor) seconds and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, output


def commands(folder: Path, times: bool) -> dict[str, list[str]]:
    ref, hyp = (
        folder / name for name in (("ref.stm", "hyp.ctm") if times else ("ref.trn", "hyp.trn"))
    )
    asr = shutil.which("asr", path=str(Path(sys.executable).parent)) or "asr"
    sclite = ["sctk", "sclite", "-r", str(ref), ref.suffix[1:], "-h", str(hyp), hyp.suffix[1:]]
    sclite += ["-i", "spu_id"] * (not times) + ["-f", "0", "-D", "-o", "rsum", "stdout"]
    score = [asr, "score", str(ref), str(hyp)]
    return {
        "sclite": sclite,
        "edit": score,
        "nist": [*score, "--alignment", "nist"],
        "nist, --json": [*score, "--alignment", "nist", "--json"],
    }


def check(outputs: Mapping[str, str]) -> None:
    """Stop where sclite's sums and ours differ."""
    sums = re.search(r"Sum *\|(.*?)\|(.*?)\|", outputs["sclite"])
    assert sums, outputs["sclite"][-500:]
    theirs = [int(number) for number in (sums[1] + sums[2]).split()]
    ours = json.loads(outputs["nist, --json"])
    keys = "utterances reference_length hits substitutions deletions insertions".split()
    assert theirs[:6] == [ours[key] for key in keys], (theirs, ours)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--words", type=int, default=WORDS)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {arguments.rounds} rounds\n")
    print("| set | command | wall clock, s | processor, s | sclite / this, wall | processor |")
    print("|---|---|---|---|---|---|")
    # sclite's time for a ctm grows much faster than its length.
    sets = [*((n, False, arguments.words) for n in MEAN_WORDS), (35, True, arguments.words // 10)]
    for mean_words, times, n_words in sets:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw(folder, mean_words, n_words)
            runs = commands(folder, times)
            measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
            for _ in range(arguments.rounds):
                outputs = {}
                for name, command in runs.items():
                    wall, processor, outputs[name] = seconds(command)
                    measured[name].append((wall, processor))
                check(outputs)
        kind = "stm and ctm" if times else "trn"
        title = f"{n_words:,} words, {kind}, {mean_words} an utterance"
        for name in ("sclite", "edit", "nist"):
            best = [min(column) for column in zip(*measured[name], strict=True)]
            ratios = [
                median(
                    theirs[i] / ours[i]
                    for theirs, ours in zip(measured["sclite"], measured[name], strict=True)
                )
                for i in (0, 1)
            ]
            print(
                f"| {title} | {name} | {best[0]:.2f} | {best[1]:.2f} "
                f"| {ratios[0]:.1f} | {ratios[1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
