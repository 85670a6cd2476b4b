"""Carousel: speech recognition with recurrent nets and CTC.

>>> recognizer = asr.Recognizer.load("runs/ctc")                    # doctest: +SKIP
>>> recognizer.transcribe("a.wav").text                             # doctest: +SKIP
>>> asr.score("the cat sat on the mat", "a cat sat on the mat").substitutions
1
"""

from __future__ import annotations

# Here, because its first import would put the package where the function `score` is.
import asr.score  # noqa: F401
from asr.errors import InputError

# What `typing` has is a third of the time that importing this package takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from asr.audio.features import FeatureConfig, LogMel
    from asr.audio.read import load_audio
    from asr.decode.config import DecoderConfig, DecodingOptions
    from asr.decode.decoder import Decoder
    from asr.decode.endpoint import EndpointConfig
    from asr.decode.greedy import greedy
    from asr.decode.lexicon import Lexicon
    from asr.decode.search.beam import BeamOptions, beam_search
    from asr.labels import Labels
    from asr.lm.ngram import NGram
    from asr.lm.query import load_lm
    from asr.recognize.live import Part, Result, Stream, advance
    from asr.recognize.recognizer import Audio, Recognizer
    from asr.types import Hypothesis, Scores, Segment, Transcript, Utterance

__version__ = "0.2.0"
__all__ = [
    "BeamOptions",
    "Decoder",
    "DecoderConfig",
    "DecodingOptions",
    "EndpointConfig",
    "FeatureConfig",
    "Hypothesis",
    "InputError",
    "Labels",
    "Lexicon",
    "LogMel",
    "NGram",
    "Part",
    "Recognizer",
    "Result",
    "Scores",
    "Segment",
    "Stream",
    "Transcript",
    "Utterance",
    "__version__",
    "advance",
    "align",
    "beam_search",
    "greedy",
    "load_audio",
    "load_lm",
    "score",
]

# torch takes seconds to import; `asr --help` and `import asr` must not wait for it.
_LAZY = {
    "BeamOptions": "asr.decode.search.beam",
    "Decoder": "asr.decode.decoder",
    "DecoderConfig": "asr.decode.config",
    "DecodingOptions": "asr.decode.config",
    "EndpointConfig": "asr.decode.endpoint",
    "FeatureConfig": "asr.audio.features",
    "Hypothesis": "asr.types",
    "Labels": "asr.labels",
    "Lexicon": "asr.decode.lexicon",
    "LogMel": "asr.audio.features",
    "NGram": "asr.lm.ngram",
    "Part": "asr.recognize.live",
    "Recognizer": "asr.recognize.recognizer",
    "Result": "asr.recognize.live",
    "Scores": "asr.types",
    "Segment": "asr.types",
    "Stream": "asr.recognize.live",
    "Transcript": "asr.types",
    "Utterance": "asr.types",
    "advance": "asr.recognize.live",
    "beam_search": "asr.decode.search.beam",
    "greedy": "asr.decode.greedy",
    "load_audio": "asr.audio.read",
    "load_lm": "asr.lm.query",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'asr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def score(
    references: str | Sequence[str],
    hypotheses: str | Sequence[str],
    unit: str = "word",
    alignment: str = "edit",
    *,
    fold: str = "none",
    silence: str = "count",
    normalise: Sequence[str] = (),
) -> Scores:
    """Count the errors of transcripts against references, an utterance each (a string is one).

    Args:
        unit: what is counted: word, char, or phone (phones stand apart by spaces).
        alignment: edit (minimum edit distance) or nist (sclite's weights 3, 3 and 4, its ``{ a / b
            }`` and ``(optional)`` words, no difference of case).
        fold: folding of phones on both sides: none, timit48, timit39 or cmu40.
        silence: silence phones are counted, or neighbouring ones merged (merge), or ignored
            (ignore).
        normalise: what is made alike on both sides: case, punctuation, contractions, numbers,
            spelling; or whisper, by the rules of Whisper.

    >>> scores = score(["the cat sat", "hello"], ["a cat sat down", "hello"])
    >>> scores.substitutions, scores.insertions, scores.error_rate
    (1, 1, 0.5)

    Raises:
        InputError: as many hypotheses as references are not there, a choice that does not exist, or
            a text that cannot be scored so.
    """
    from asr.score.error_rate import total
    from asr.score.lines import Line, Matched
    from asr.score.pairs import align_matched, checked_policy
    from asr.system.text import nfc

    ways = [normalise] if isinstance(normalise, str) else normalise
    policy = checked_policy(unit, alignment, fold, silence, ways)
    said, heard = (
        [
            Line(f"{side} {n}", nfc(text))
            for n, text in enumerate([texts] if isinstance(texts, str) else texts, 1)
        ]
        for side, texts in (("reference", references), ("hypothesis", hypotheses))
    )
    if len(said) != len(heard):
        raise InputError(f"score: {len(said)} references, but {len(heard)} hypotheses")
    matched = Matched((), tuple(zip(said, heard, strict=True)), (), ())
    found = align_matched(matched, unit, alignment, fold, silence, ways)
    return total(found, unit, policy)


def align(
    model: Recognizer | str | Path,
    audio: Audio,
    text: str,
    unit: str | None = None,
    lexicon: str | Path | None = None,
    device: str = "auto",
) -> Transcript:
    """Find where in the audio each word and label of a known text lies (forced alignment).

    Args:
        model: a `Recognizer`, or what `Recognizer.load` loads.
        audio: a file, or a waveform (N,) float32 at the model's sample rate, as for
            `Recognizer.transcribe`.
        text: words, or with unit phone, phones.
        unit: word or phone; by default word where the words can be spelled.
        lexicon: a file of words and their phones, or ``cmudict``, in place of the model's own.
        device: what a model that is loaded computes on: auto (a CUDA GPU where there is one), cpu,
            cuda, cuda:N or mps.

    Returns:
        The text with the times in seconds and confidences of its words and labels.

    Raises:
        InputError: audio, model or lexicon cannot be read, a word cannot be spelled, or the audio
            is too short for the text.
    """
    from pathlib import Path

    from asr.recognize.aligner import Aligner
    from asr.recognize.recognizer import Recognizer
    from asr.types import Segment, Utterance

    recognizer = model if isinstance(model, Recognizer) else Recognizer.load(model, device)
    aligner = Aligner.of(recognizer.bundle, unit, lexicon)
    name, waveform = recognizer.named(audio)
    phones = tuple(map(Segment, text.split())) if aligner.unit == "phone" else None
    utterance = Utterance(
        id=name,
        audio=Path(name),
        speaker=name,
        duration_s=len(waveform) / recognizer.bundle.features.sample_rate,
        text=text,
        phones=phones,
    )
    (log_probs,) = recognizer.emissions([waveform])
    return aligner.align(utterance, log_probs, waveform)
