"""Mend the recordings of TIMIT's sample that lost bytes on their way.

    python tools/mend_timit_sample.py SAMPLE OUT

In copies of the sample that NLTK distributes a program for texts has taken each carriage return
before a line feed out of the samples: no two bytes are CR LF, and what follows such a place lies
across the bytes of two samples, as loud noise. The sentence file tells how many samples there
were. A carriage return is put back before those line feeds that make the signal smoothest (by
Viterbi search over the two ways to lie across bytes). OUT is a copy with mended recordings.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

from asr.corpora.timit_sample import sample_folders
from asr.errors import InputError

CR, LF = b"\r", 0x0A
#: What a lost byte must gain, in nats of the sum of log(1 + |difference of two samples|); a stretch
#: of noise of 1/100 s costs more.
PENALTY = 300.0
#: Bytes of the header that NLTK's files begin with.
HEADER = 44


def mended(data: bytes) -> tuple[bytes, int]:
    """Bytes of 16-bit samples, as many as there should be after all, and how many were put back."""
    values = np.frombuffer(data, np.uint8)
    costs = np.zeros((2, len(values) + 1))
    for side in (0, 1):
        samples = np.frombuffer(data[side : side + (len(data) - side) // 2 * 2], "<i2").astype(
            float
        )
        rough = np.log1p(np.abs(np.diff(samples, prepend=samples[:1])))
        costs[side, side + 1 : side + 1 + 2 * len(rough) : 2] = rough
    costs = costs.cumsum(axis=1)
    best, last = [0.0, np.inf], 0
    cuts: list[tuple[int, ...]] = [(), ()]
    for at in np.flatnonzero(values == LF).tolist():
        stay = [best[side] + costs[side, at] - costs[side, last] for side in (0, 1)]
        came = [stay[1] + PENALTY, stay[0] + PENALTY]
        cuts = [(*cuts[1], at) if came[0] < stay[0] else cuts[0],
                (*cuts[0], at) if came[1] < stay[1] else cuts[1]]  # fmt: skip
        best, last = [min(s, c) for s, c in zip(stay, came, strict=True)], at
    ends = [best[side] + costs[side, -1] - costs[side, last] for side in (0, 1)]
    found = cuts[int(np.argmin(ends))]
    pieces = [data[a:b] for a, b in zip((0, *found), (*found, len(data)), strict=True)]
    return CR.join(pieces), len(found)


def main() -> None:
    """Copy the sample, mend it, tell what was mended."""
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    folders = sample_folders(root)
    if not folders:
        raise InputError(f"{root}: no sample of TIMIT; expected folders such as dr1-fvmh0")
    shutil.copytree(folders[0].parent, out, copy_function=shutil.copyfile)
    for path in sorted(p for folder in sample_folders(out) for p in folder.glob("*.wav")):
        n_samples = int(path.with_suffix(".txt").read_text(encoding="utf-8").split()[1])
        data, n_lost = mended(path.read_bytes()[HEADER:])
        if n_lost:
            samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
            samples = np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))
            soundfile.write(path, samples, 16_000, "PCM_16")
            print(f"{path.parent.name}/{path.name}: {n_lost} bytes put back")


if __name__ == "__main__":
    main()
