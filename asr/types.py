"""The values that travel through the pipeline: frozen, with no logic but what follows from them.

One legend everywhere: B batch, T frames, F feature bins, V labels (blank is 0), U label
length, H hidden units, N samples. Times are seconds (``_s``), sample counts ``n_``, lengths
are integer frames (``_lens``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """A label (phone or word) and, where known, its time in seconds and confidence in [0, 1]."""

    label: str
    start_s: float | None = None
    end_s: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of audio by one speaker, and what is known of what was said.

    ``text`` is the word transcript. ``words`` and ``phones`` are in spoken order; their times
    are relative to the start of the utterance. ``None`` means unknown, ``()`` means none spoken.
    """

    id: str
    audio: Path
    speaker: str
    duration_s: float
    offset_s: float = 0.0
    text: str | None = None
    words: tuple[Segment, ...] | None = None
    phones: tuple[Segment, ...] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded utterances, ready for the model.

    features: (B, T, F) float32, zero beyond each length. feature_lens: (B,) int64 frames.
    targets: (B, U) int64 label ids (CTC) or (B, T') one label id per output frame (framewise),
    padded with ``losses.IGNORE``. target_lens: (B,) int64. ids: utterance names. frames: (B, T')
    one label id per output frame, padded likewise, where all utterances were given some.
    """

    ids: tuple[str, ...]
    features: torch.Tensor
    feature_lens: torch.Tensor
    targets: torch.Tensor
    target_lens: torch.Tensor
    frames: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a decoder returns for one utterance; frames are the model's output frames.

    labels: label ids without blanks. spans: (start, end) frames of each label, end exclusive.
    confidences: in [0, 1], one a label. score = acoustic + lm + bonus, natural logarithms with
    the weights already applied. words: spelled words, where the decoder knows any, and
    word_spans: the (first, last + 1) positions in ``labels`` that each word covers.
    word_confidences: in [0, 1], one a word.
    """

    labels: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    confidences: tuple[float, ...]
    score: float
    acoustic: float
    lm: float = 0.0
    bonus: float = 0.0
    words: tuple[str, ...] | None = None
    word_spans: tuple[tuple[int, int], ...] | None = None
    word_confidences: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """A hypothesis in symbols and seconds, as users see it.

    unit: what ``labels`` are (phone, char or word). audio: the file, where ``id`` is not its path.
    segments: of a recording that was decoded in parts, each with times in the recording; its
    alternatives are theirs. channel: the one that was heard, from 1 on, instead of all.
    """

    id: str
    text: str
    duration_s: float
    score: float
    labels: tuple[Segment, ...]
    words: tuple[Segment, ...]
    nbest: tuple[Transcript, ...] = ()
    unit: str = "label"
    audio: Path | None = None
    segments: tuple[Transcript, ...] = ()
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus-level error counts; every rate is a fraction of the reference length.

    unit: word, char or phone. hits: tokens that are right. policy: how tokens were made and
    aligned, to be printed beside every figure.
    """

    unit: str
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    utterances: int
    wrong_utterances: int
    policy: str

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Number of reference tokens: substitutions + deletions + hits."""
        return self.substitutions + self.deletions + self.hits

    @property
    def error_rate(self) -> float:
        """Errors as a fraction of the reference length; nan where the references hold no token."""
        return self.errors / self.reference_length if self.reference_length else math.nan

    @property
    def utterance_error_rate(self) -> float:
        """Fraction of utterances with at least one error; nan where there are no utterances."""
        return self.wrong_utterances / self.utterances if self.utterances else math.nan
