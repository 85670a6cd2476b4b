"""Measure what silence around utterances does to a model's error rate.

    python tools/measure_silence.py RUN [SECONDS...]

Every utterance of the dev set of a run of phones is heard clean and with 0.5, 1, 3 and 10 seconds
(or those given) of each kind of silence before and after it: zeros; dither, noise of one bit of
sixteen; and background, noise with the spectrum that the utterance has in its own pauses. Error
rates are of greedy decoding (Viterbi, of framewise models), with silence ignored. The last row is
of silence alone, three seconds for each utterance: how many phones are found in all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.data.manifest import read_manifest
from asr.decode.config import DecodingOptions
from asr.decode.lexicon import SILENCES
from asr.model.pretrained import load_model
from asr.recognize.recognizer import Recognizer
from asr.score.error_rate import phone_policy, score_pairs
from asr.types import Utterance

SECONDS = (0.5, 1.0, 3.0, 10.0)
#: The background's spectrum is taken from windows of so many samples, this far inside of pauses.
WINDOW, MARGIN_S = 512, 0.03
#: Where an utterance has no pause, its background is this white noise.
UNKNOWN = 1e-4
BIT = 2.0**-15

Samples = NDArray[np.float32]
Silence = Callable[[Samples, Utterance, int], Samples]


def zeros(waveform: Samples, utterance: Utterance, n: int) -> Samples:
    """Digital silence (n,)."""
    return np.zeros(n, np.float32)


def dither(waveform: Samples, utterance: Utterance, n: int) -> Samples:
    """-1, 0 or 1 of sixteen bits (n,)."""
    rng = np.random.default_rng(n)
    return (BIT * rng.integers(-1, 2, n)).astype(np.float32)


def background(waveform: Samples, utterance: Utterance, n: int) -> Samples:
    """Noise (n,) as it is in the utterance's pauses: of each frequency their median power."""
    rate = len(waveform) / utterance.duration_s
    window = np.hanning(WINDOW)
    spectra = []
    for phone in utterance.phones or ():
        if phone.label in SILENCES and phone.start_s is not None and phone.end_s is not None:
            first, end = (phone.start_s + MARGIN_S) * rate, (phone.end_s - MARGIN_S) * rate
            for start in range(int(first), int(end) - WINDOW, WINDOW // 2):
                frame = np.fft.rfft(waveform[start : start + WINDOW] * window)
                spectra.append(np.abs(frame) ** 2 / np.square(window).sum())
    if not spectra:
        return (UNKNOWN * np.random.default_rng(n).standard_normal(n)).astype(np.float32)
    # Powers of noise are distributed exponentially, with their median at ln 2 of their mean.
    power = np.median(spectra, axis=0) / np.log(2)
    noise = np.fft.rfft(np.random.default_rng(n).standard_normal(n))
    shape = np.interp(np.linspace(0, 1, len(noise)), np.linspace(0, 1, len(power)), power)
    return np.fft.irfft(noise * np.sqrt(shape), n).astype(np.float32)


KINDS: dict[str, Silence] = {"zeros": zeros, "dither": dither, "background": background}


def rate_of(
    recognizer: Recognizer, utterances: Sequence[Utterance], waveforms: Sequence[Samples]
) -> float:
    """Phone errors in percent, silence ignored."""
    folding = recognizer.bundle.label_config.score_fold
    named = [(u.id, waveform) for u, waveform in zip(utterances, waveforms, strict=True)]
    pairs = []
    for utterance, transcript in zip(utterances, recognizer.recognize(named), strict=True):
        said = [p.label for p in utterance.phones or ()]
        heard = [s.label for s in transcript.labels]
        pairs.append(
            (
                phone_policy(said, folding, "ignore", utterance.id),
                phone_policy(heard, folding, "ignore", utterance.id),
            )
        )
    return 100 * score_pairs(pairs, "phone", "").error_rate


def main() -> None:
    """Print the table."""
    run = Path(sys.argv[1])
    seconds = [float(s) for s in sys.argv[2:]] or SECONDS
    bundle = load_model(run)
    plain = "greedy" if bundle.criterion == "ctc" else "viterbi"
    recognizer = Recognizer(bundle, DecodingOptions(decoder=plain))
    rate = recognizer.bundle.features.sample_rate
    utterances = read_manifest(run / "manifests" / "dev.jsonl")
    waveforms = [recognizer.read(u.audio) for u in utterances]
    print(f"clean: {rate_of(recognizer, utterances, waveforms):.1f}")
    print("| seconds | " + " | ".join(f"{kind} before | after" for kind in KINDS) + " |")
    print("| ---: |" + " ---: |" * 2 * len(KINDS))
    for length_s in seconds:
        row = [f"{length_s:g}"]
        for silence in KINDS.values():
            added = [
                silence(waveform, u, round(length_s * rate))
                for waveform, u in zip(waveforms, utterances, strict=True)
            ]
            for before in (True, False):
                longer = [
                    np.concatenate([x, waveform] if before else [waveform, x])
                    for x, waveform in zip(added, waveforms, strict=True)
                ]
                row.append(f"{rate_of(recognizer, utterances, longer):.1f}")
        print("| " + " | ".join(row) + " |", flush=True)
    row = ["alone"]
    for silence in KINDS.values():
        alone = [
            (u.id, silence(waveform, u, 3 * rate))
            for waveform, u in zip(waveforms, utterances, strict=True)
        ]
        found = [s.label for t in recognizer.recognize(alone) for s in t.labels]
        row += [str(sum(label not in SILENCES for label in found)), ""]
    print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
