"""What there is to see and hear of single utterances: audio, pictures, and who said what when."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import soundfile
from matplotlib.image import imsave
from numpy.typing import NDArray

from asr.audio.read import load_audio
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL, SILENCES, fold
from asr.model.bundle import Bundle
from asr.model.emissions import emissions_of
from asr.plot.said import grouped, reference, spelled, timed, word_times
from asr.report.run import ScoredSet
from asr.score.alignment import Alignment, Column
from asr.types import Segment, Utterance

N_SHOWN = 4
#: Longer utterances are not shown: their audio would outweigh the rest of the report.
LONGEST_SHOWN_S = 20.0
#: Labels that never get so probable have no row in the posteriorgram.
LEAST_SHOWN = 0.1
#: Columns of a waveform's envelope for each second, and at most.
COLUMNS_PER_S, MOST_COLUMNS = 200, 1200
#: The colour of the posteriorgram; how opaque says how probable.
POSTERIOR_COLOUR = (0.06, 0.55, 0.50)


@dataclass(frozen=True)
class Lane:
    """Labels or words in time. errors: of each segment "", "S", "D" or "I"; None is not scored."""

    name: str
    segments: Sequence[Segment]
    errors: Sequence[str | None]


@dataclass(frozen=True)
class Picture:
    """A PNG that covers the seconds from ``start_s`` to ``end_s``, and its rows from the top."""

    png: bytes
    start_s: float
    end_s: float
    rows: Sequence[str] = ()


@dataclass(frozen=True)
class Evidence:
    """One utterance. wav, waveform (lowest and highest in each column), log_mel and posteriors
    are None where ``note`` says why."""

    utterance: Utterance
    alignment: Alignment
    lanes: Sequence[Lane] = ()
    wav: bytes | None = None
    waveform: tuple[list[float], list[float]] | None = None
    log_mel: Picture | None = None
    posteriors: Picture | None = None
    note: str = ""


def worst_and_typical(of: ScoredSet) -> tuple[list[int], list[int]]:
    """Places of the utterances with the highest error rates, and of those nearest to the set's.

    The typical ones are by different speakers where there are enough.
    """
    alignments = of.main.alignments
    errors, lengths = alignments.errors, alignments.reference_lengths
    rates = errors / np.maximum(lengths, 1)
    far = np.abs(rates - of.main.value)
    unusual = np.abs(lengths - np.median(lengths))
    ids = [u.id for u in of.utterances]
    places = [i for i, u in enumerate(of.utterances) if u.duration_s <= LONGEST_SHOWN_S]
    wrong = [i for i in places if errors[i]]
    worst = sorted(wrong, key=lambda i: (-rates[i], -errors[i], ids[i]))[:N_SHOWN]
    others = sorted(
        (i for i in places if i not in worst), key=lambda i: (far[i], unusual[i], ids[i])
    )
    new: dict[str, int] = {}
    for i in others:
        new.setdefault(of.utterances[i].speaker, i)
    typical = dict.fromkeys([*new.values(), *others])
    return worst, sorted(list(typical)[:N_SHOWN], key=others.index)


def gather(of: ScoredSet, bundle: Bundle, places: Sequence[int]) -> dict[int, Evidence]:
    """The evidence of the utterances at ``places``, as far as their audio can still be read."""
    needed = [of.utterances[i] for i in places]
    if bundle.features.normalize == "speaker":
        speakers = {u.speaker for u in needed}
        needed = [u for u in of.utterances if u.speaker in speakers]
    skipped: dict[str, str] = {}
    log_probs = emissions_of(bundle, needed, skipped)
    found = {}
    for i in places:
        utterance = of.utterances[i]
        try:
            if utterance.id in skipped:
                raise InputError(skipped[utterance.id])
            found[i] = _evidence(of, i, bundle, log_probs[utterance.id])
        except InputError as error:
            note = f"Its audio cannot be shown: {error}."
            found[i] = Evidence(utterance, of.main.alignments[i], note=note)
    return found


def _evidence(of: ScoredSet, i: int, bundle: Bundle, log_probs: np.ndarray) -> Evidence:
    utterance = of.utterances[i]
    rate = bundle.features.sample_rate
    waveform = load_audio(utterance.audio, rate, utterance.offset_s, utterance.duration_s)
    # Times are of the audio that there is, which may end a little before the manifest says.
    utterance = replace(utterance, duration_s=len(waveform) / rate)
    return Evidence(
        utterance,
        of.main.alignments[i],
        _lanes(of, i, utterance, bundle, log_probs),
        _wav(waveform, rate),
        _envelope(waveform, rate),
        _log_mel(waveform, bundle),
        _posteriors(log_probs, bundle),
    )


def kept_phones(symbols: Sequence[str], folding: str, silence: str) -> list[tuple[int, str]]:
    """The phones that `phone_policy` leaves, and their places."""
    kept: list[tuple[int, str]] = []
    for i, symbol in enumerate(symbols):
        for folded in fold([symbol], folding):
            is_first = not kept or kept[-1][1] not in SILENCES
            if folded not in SILENCES or silence == "count" or (silence == "merge" and is_first):
                kept.append((i, folded))
    return kept


def _lanes(
    of: ScoredSet, i: int, utterance: Utterance, bundle: Bundle, log_probs: np.ndarray
) -> list[Lane]:
    """What was said above, what was heard below; lanes without times are left out."""
    unit, line = bundle.labels.unit, of.lines[i]
    said_words, said = reference(bundle, log_probs, utterance)
    if unit == "phone":
        heard = timed(bundle, log_probs, line.phones or (), utterance.duration_s)
        heard_words = word_times(bundle, log_probs, utterance, line.text)
    else:
        heard = spelled(bundle, log_probs, utterance, line.text)
        heard_words = grouped(heard, unit)
    config, as_written = bundle.label_config, ("none", "count")
    policy = (config.score_fold, config.silence) if unit == "phone" else as_written
    words = of.rates["WER"].alignments[i].columns if "WER" in of.rates else ()
    labels = of.main.alignments[i].columns
    lanes = []
    for is_heard, side in enumerate(("said", "heard")):
        segments = (said_words, heard_words)[is_heard]
        errors = _errors(segments, words, bool(is_heard), as_written)
        lanes.append(Lane(f"{side}: words", segments, errors))
        if unit != "word":
            segments = (said, heard)[is_heard]
            name = {"phone": "phones", "char": "letters"}[unit]
            errors = _errors(segments, labels, bool(is_heard), policy)
            lanes.append(Lane(f"{side}: {name}", segments, errors))
    return [lane for lane in lanes if lane.segments]


def _errors(
    segments: Sequence[Segment], columns: Sequence[Column], is_heard: bool, policy: tuple[str, str]
) -> list[str | None]:
    """Each segment's error in the alignment; None for all where they are not its tokens.

    policy: folding and silences, as `phone_policy` has them.
    """
    tokens = [(c[is_heard], c.error) for c in columns if c[is_heard] is not None]
    kept = kept_phones([s.label for s in segments], *policy)
    errors: list[str | None] = [None] * len(segments)
    if [symbol for _, symbol in kept] == [token for token, _ in tokens]:
        for (i, _), (_, error) in zip(kept, tokens, strict=True):
            errors[i] = error
    return errors


def _wav(waveform: np.ndarray, rate: int) -> bytes:
    """What every browser plays from any place on; they fail to seek in short FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _envelope(waveform: np.ndarray, rate: int) -> tuple[list[float], list[float]]:
    """Lowest and highest sample in each column, as shares of the loudest."""
    n = min(MOST_COLUMNS, max(1, round(len(waveform) / rate * COLUMNS_PER_S)), len(waveform))
    starts = np.arange(n) * len(waveform) // n
    peak = float(np.abs(waveform).max()) or 1.0
    low, high = (f.reduceat(waveform, starts) / peak for f in (np.minimum, np.maximum))
    return low.tolist(), high.tolist()


def _log_mel(waveform: np.ndarray, bundle: Bundle) -> Picture:
    image = bundle.log_mel(waveform).T[::-1]  # (T, F) -> (F, T), high frequencies on top
    # Digital silence would take the whole scale: the quietest hundredth shares one colour.
    low, high = np.quantile(image, 0.01), image.max()
    shades = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    hop_s = bundle.features.hop_s
    return Picture(
        _png(matplotlib.colormaps["magma"](shades)), -hop_s / 2, (image.shape[1] - 0.5) * hop_s
    )


def _posteriors(log_probs: np.ndarray, bundle: Bundle) -> Picture:
    """A row for each label that gets probable, in the order in which they do; the blank last."""
    probs = np.exp(log_probs)  # (T, V)
    symbols = bundle.labels.symbols
    rows = [v for v in range(1, len(symbols)) if len(probs) and probs[:, v].max() >= LEAST_SHOWN]
    rows.sort(key=lambda v: int((probs[:, v] >= LEAST_SHOWN).argmax()))
    if bundle.criterion != "framewise":
        rows.append(0)
    names = ["blank" if symbols[v] == BLANK_SYMBOL else symbols[v] for v in rows]
    image = np.empty((max(len(rows), 1), len(probs), 4))
    image[..., :3] = POSTERIOR_COLOUR
    image[..., 3] = probs[:, rows].T if rows else 0.0
    hop_s = bundle.clock.hop_s
    # As `FrameClock.start_s`, but before the beginning too.
    start_s = -hop_s / 2
    return Picture(_png(image), start_s, start_s + len(probs) * bundle.clock.shift_s, names)


def _png(colours: NDArray[np.floating]) -> bytes:
    """Colours (rows, columns, 4) in [0, 1] as PNG, a pixel each."""
    buffer = io.BytesIO()
    imsave(buffer, colours, format="png")
    return buffer.getvalue()
