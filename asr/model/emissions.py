"""Audio to log-probabilities: batches by length, less where memory is short, silence spared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio.features import Statistics, assemble, levels_db, speech, steady
from asr.audio.normalize import normalize
from asr.audio.read import load_audio
from asr.audio.silence import SMOOTHING_S, frames_in, is_quiet, left_out, loudness, smoothed
from asr.data.matrices import Matrix, extract, matrix_of, set_statistics
from asr.errors import InputError
from asr.labels import BLANK, SILENT
from asr.model.bundle import Bundle
from asr.model.waveform import WaveformModel
from asr.types import Utterance

if TYPE_CHECKING:
    from asr.data.examples import Example

#: What is out of the question has this natural logarithm of a probability.
LEAST_LOG_PROB = -30.0
#: Padded frames of log-mel that the net hears at once.
MOST_FRAMES = 60_000
#: Seconds of waveforms at once, of which the shortest has this share of the longest's length: so
#: threads share the work evenly, and little is padding.
MOST_S, LIKE = 120.0, 0.8


@dataclass(frozen=True, slots=True)
class Heard:
    """What the net hears of an utterance: log-mel (T, n_mels), normalised by ``stats``, if any."""

    id: str
    features: NDArray[np.float32]
    stats: Statistics | None
    speaker: str


class LogProbs(Protocol):
    """`log_probs_of`, or that of a net which is adapted to each speaker (`adaptation`)."""

    def __call__(
        self,
        bundle: Bundle,
        heard: Sequence[Heard],
        tick: Callable[[int], None] = ...,
        precision: str = ...,
        skip_silence: bool = ...,
    ) -> list[np.ndarray]:
        """See `log_probs_of`."""


def log_probs_of(
    bundle: Bundle,
    heard: Sequence[Heard],
    tick: Callable[[int], None] = lambda n: None,
    precision: str = "float32",
    skip_silence: bool = True,
) -> list[np.ndarray]:
    """Log-probabilities (T, V) of each, computed where the model is. ``tick``: batches' sizes.

    precision: bfloat16 computes in that what it serves; else in what the weights are. Long silence
    (`silence.left_out`) is not heard: there stands what is certain to be silence. Models that
    stream hear it, as they do in a stream.

    Raises:
        InputError: memory is too small for one of the utterances.
    """
    kept: dict[int, NDArray[np.bool_]] = {}
    if skip_silence and not bundle.streams:
        heard, kept = spared(heard, bundle)
    found: dict[int, np.ndarray] = {}
    speaking = [i for i, each in enumerate(heard) if len(each.features)]
    if len(speaking) < len(heard):
        tick(len(heard) - len(speaking))
    for batch in batches_by_length([len(heard[i].features) for i in speaking], MOST_FRAMES):
        places = [speaking[i] for i in batch]
        outputs = _batch_log_probs(bundle, [heard[i] for i in places], precision)
        found |= zip(places, outputs, strict=True)
        tick(len(places))
    for i, rows in kept.items():
        whole = np.repeat(certain_silence(bundle), len(rows), axis=0)
        if rows.any():
            whole[rows] = found[i]
        found[i] = whole
    return [found[i] for i in range(len(heard))]


def emissions(
    bundle: Bundle,
    examples: Sequence[Example],
    tick: Callable[[int], None] = lambda n: None,
    outputs: LogProbs = log_probs_of,
) -> dict[str, np.ndarray]:
    """Log-probabilities (T, V) of each example, by its utterance's id.

    Raises:
        InputError: memory is too small for one of the utterances.
    """
    heard = [Heard(e.utterance.id, e.features, e.stats, e.utterance.speaker) for e in examples]
    return _by_id(heard, outputs(bundle, heard, tick))


def emissions_of(
    bundle: Bundle,
    utterances: Sequence[Utterance],
    skipped: dict[str, str],
    tick: Callable[[], None] = lambda: None,
    outputs: LogProbs = log_probs_of,
) -> dict[str, np.ndarray]:
    """Log-probabilities (T, V) of each utterance, by id, from its audio file.

    What cannot be read is left out: ``skipped`` gets its id and the reason. ``tick`` is called
    after each is read.

    Raises:
        InputError: memory is too small for one of the utterances.
    """
    config = bundle.features
    if isinstance(bundle.model, WaveformModel):
        found = {}
        for u in utterances:
            try:
                waveform = load_audio(u.audio, config.sample_rate, u.offset_s, u.duration_s)
                found[u.id] = bundle.model(waveform)
            except InputError as error:
                skipped[u.id] = str(error)
            tick()
        return found
    matrices = extract(utterances, config, skipped, tick)
    heard = _heard(bundle, matrices, {u.id: u.speaker for u in utterances})
    return _by_id(heard, outputs(bundle, heard))


def waveform_emissions(
    bundle: Bundle,
    waveforms: Sequence[np.ndarray],
    precision: str = "float32",
    skip_silence: bool = True,
    n_threads: int = 1,
    adapted: tuple[LogProbs, Sequence[str]] | None = None,
) -> list[np.ndarray]:
    """Log-probabilities (T, V) of each waveform (N,), which is its own speaker to normalisation.

    precision, skip_silence: see `log_probs_of`. n_threads: batches computed at once. adapted: what
    takes the place of that, and who speaks in each waveform.

    Raises:
        InputError: memory is too small for one of the waveforms.
    """
    if isinstance(bundle.model, WaveformModel):
        return [bundle.model(waveform) for waveform in waveforms]

    compute, speakers = adapted or (log_probs_of, list(map(str, range(len(waveforms)))))

    def outputs(batch: Sequence[int]) -> list[np.ndarray]:
        matrices = {str(i): matrix_of(bundle.log_mel, waveforms[i]) for i in batch}
        heard = _heard(bundle, matrices, {str(i): speakers[i] for i in batch})
        return compute(bundle, heard, precision=precision, skip_silence=skip_silence)

    most = MOST_S * bundle.features.sample_rate
    if adapted is None:
        batches = batches_by_length([len(w) for w in waveforms], most, LIKE)
    else:
        batches = list(by_speaker(speakers).values())
    found: list[np.ndarray] = [np.zeros((0, 0))] * len(waveforms)
    with ThreadPoolExecutor(n_threads) as pool:
        for batch, output in zip(batches, pool.map(outputs, batches), strict=True):
            for i, log_probs in zip(batch, output, strict=True):
                found[i] = log_probs
    return found


def _heard(
    bundle: Bundle, matrices: Mapping[str, Matrix], speakers: Mapping[str, str]
) -> list[Heard]:
    stats = set_statistics(matrices, speakers, bundle.features.normalize, bundle.stats)
    return [Heard(i, m.features, stats[i], speakers[i]) for i, m in matrices.items()]


def by_speaker(speakers: Iterable[str]) -> dict[str, list[int]]:
    """The places of each speaker, in order."""
    places = defaultdict(list)
    for i, speaker in enumerate(speakers):
        places[speaker].append(i)
    return places


def _by_id(heard: Sequence[Heard], found: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {each.id: log_probs for each, log_probs in zip(heard, found, strict=True)}


def batches_by_length(lens: Sequence[int], most: float, like: float = 0.0) -> list[list[int]]:
    """Batches of indices of neighbours in length, long ones first.

    Padded, each has at most ``most`` or is a single one; its shortest has at least the share
    ``like`` of its longest. Long ones first, so that no thread begins on them when others end.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lens)), key=lambda i: -lens[i]):
        longest = lens[batches[-1][0]] if batches else 0
        if not batches or (len(batches[-1]) + 1) * longest > most or lens[i] < like * longest:
            batches.append([])
        batches[-1].append(i)
    return batches


def spared(
    heard: Sequence[Heard], bundle: Bundle
) -> tuple[list[Heard], dict[int, NDArray[np.bool_]]]:
    """All without their long silence, and of those that have some, which output frames stay.

    Where there is no speech at all, none stay.
    """
    clock = bundle.clock
    shorter, kept = [], {}
    for i, each in enumerate(heard):
        matrix = each.features
        levels = levels_db(matrix, bundle.features, clock.factor)
        level = smoothed(levels, frames_in(SMOOTHING_S, clock.shift_s))
        quiet = is_quiet(level, loudness(level)) | steady(matrix)[:: clock.factor]
        stays = ~left_out(quiet, clock.shift_s)
        if not speech(matrix).any():
            stays[:] = False
        if not stays.all():
            kept[i] = stays
            rows = np.repeat(stays, clock.factor)[: len(matrix)]
            each = replace(each, features=matrix[rows])
        shorter.append(each)
    return shorter, kept


def certain_silence(bundle: Bundle) -> np.ndarray:
    """Log-probabilities (1, V) where there is silence and nothing else: finite, for alignment."""
    silent = bundle.labels.among(SILENT) if bundle.criterion == "framewise" else []
    scores = np.full((1, len(bundle.labels)), LEAST_LOG_PROB, np.float32)
    scores[0, [*silent, BLANK][0]] = 0.0
    return scores


def _batch_log_probs(bundle: Bundle, heard: Sequence[Heard], precision: str) -> list[np.ndarray]:
    """`log_probs_of` one batch, or of its halves where memory is too small for it."""
    try:
        matrices = [normalize(each.features, each.stats, bundle.features) for each in heard]
        x = [assemble(matrix, bundle.features) for matrix in matrices]
        found: list[np.ndarray] = bundle.model.log_probs(x, precision)
        return found
    except MemoryError as error:
        if len(heard) == 1:
            raise InputError(
                f"utterance {heard[0].id}: out of memory {error} with its "
                f"{len(heard[0].features)} frames alone; cut it, leave it out, or take a "
                "machine with more memory"
            ) from error
    half = len(heard) // 2
    return _batch_log_probs(bundle, heard[:half], precision) + _batch_log_probs(
        bundle, heard[half:], precision
    )


def blank_rate(log_probs: Sequence[np.ndarray]) -> float:
    """Share of frames whose best label is the blank."""
    best = np.concatenate([x.argmax(1) for x in log_probs]) if log_probs else np.zeros(0)
    return float((best == BLANK).mean()) if len(best) else 0.0
