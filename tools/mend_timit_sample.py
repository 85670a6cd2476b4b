"""Mend the recordings of TIMIT's sample that lost bytes on their way.

    python tools/mend_timit_sample.py SAMPLE OUT

OUT is a copy of it with mended recordings: see `asr.corpora.timit_sample.mended`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

from asr.corpora.timit_sample import HEADER, mended, sample_folders
from asr.errors import InputError


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
