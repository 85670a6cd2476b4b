"""Forced alignment of utterances with their texts: where in the audio each word and label lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.audio.read import load_audio
from asr.audio.sources import Source
from asr.decode.lexicon import Lexicon
from asr.decode.paths import WordAlignment, ctc_align_words, frame_align_words
from asr.decode.pronunciations import look_up, sum_up
from asr.errors import InputError
from asr.g2p.unknown import Pronounced, extended, pronounced
from asr.labels import SILENCES, fold
from asr.model.bundle import Bundle
from asr.model.emissions import emissions_of
from asr.model.pretrained import load_model
from asr.recognize.times import fillers_of, timed
from asr.system.text import nfc
from asr.types import Hypothesis, Transcript, Utterance

UNITS = ("word", "phone")
Spelling = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Aligner:
    """A model, and how texts are spelled in its labels.

    unit: what the texts are made of, word or phone. lexicon: the words of a phone model.
    """

    bundle: Bundle
    unit: str
    lexicon: Lexicon | None = None

    def __post_init__(self) -> None:
        labels = self.bundle.labels
        if self.unit not in UNITS:
            raise InputError(f"unit {self.unit!r} does not exist; choose one of {', '.join(UNITS)}")
        if self.unit == "phone" and labels.unit != "phone":
            raise InputError(
                f"unit phone: the labels of this model are {labels.unit}s; align by words"
            )
        if self.unit == "word" and labels.unit == "phone" and self.lexicon is None:
            raise InputError(
                "the model directory holds no lexicon.txt to spell words with: name one with "
                "--lexicon, or align texts of phones with --unit phone"
            )
        if labels.unit != "phone" and self.lexicon is not None:
            raise InputError(f"lexicon: a model of {labels.unit}s spells words without one")

    @classmethod
    def load(
        cls,
        model: str | Path,
        unit: str | None = None,
        lexicon: str | Path | None = None,
        device: str = "auto",
    ) -> Aligner:
        """Load a model by its name, see `load_model`.

        ``unit`` is by default word where the words can be spelled, else phone; ``lexicon``, a file
        or ``cmudict``, takes the place of the model's; ``device``: see `pick_device`.

        Raises:
            InputError: no such model or device, an unreadable lexicon, or a unit that does not fit.
        """
        return cls.of(load_model(model, device), unit, lexicon)

    @classmethod
    def of(
        cls, bundle: Bundle, unit: str | None = None, lexicon: str | Path | None = None
    ) -> Aligner:
        """As `load`, for a model in memory."""
        spelled = bundle.labels.unit != "phone"
        found = None if spelled else bundle.lexicon
        if lexicon == "cmudict":
            found = Lexicon.cmudict(None, bundle.labels, bundle.label_config.fold)
        elif lexicon is not None:
            found = Lexicon.read(Path(lexicon), bundle.labels, bundle.label_config.fold)
        if unit is None:
            unit = "word" if spelled or found is not None else "phone"
        return cls(bundle, unit, found)

    def align(
        self, utterance: Utterance, log_probs: np.ndarray, waveform: np.ndarray | None = None
    ) -> Transcript:
        """Align an utterance's ``text`` (or, by phones, its ``phones``) to the model's output.

        Words may be said in any of their pronunciations, with silence (one of the model's silences,
        in character models the space) before, between and after them. Phones are said as they
        stand; only where no silence is among them may there be some between any two.

        log_probs: (T, V). waveform: (N,) at the features' rate; the boundaries of phones are then
        moved to where the sound changes, see `settled`.

        Raises:
            InputError: no text, a word that the lexicon lacks, a phone that the model lacks, or
                audio too short for the text.
        """
        words, path = self.search(utterance, log_probs)
        ids, word_spans, spans, confidences, log_prob = path
        hypothesis = Hypothesis(
            ids, spans, tuple(round(c, 4) for c in confidences), log_prob, acoustic=log_prob
        )
        if self.unit == "word":
            of_words = (np.mean(confidences[first:end]) for first, end in word_spans)
            hypothesis = replace(
                hypothesis,
                words=tuple(words),
                word_spans=word_spans,
                word_confidences=tuple(round(float(c), 4) for c in of_words),
            )
        source = Source(utterance.audio, utterance.id)
        heard = waveform if self.bundle.labels.unit == "phone" else None
        duration_s = utterance.duration_s
        found = timed(self.bundle, hypothesis, log_probs, source, duration_s, waveform=heard)
        return replace(found, text=" ".join(words))

    @cached_property
    def _spellings(self) -> dict[str, Spelling]:
        if self.lexicon is None:
            return {}
        return dict(zip(self.lexicon.words, self.lexicon.spellings, strict=True))

    def search(
        self, utterance: Utterance, log_probs: np.ndarray
    ) -> tuple[list[str], WordAlignment]:
        """The utterance's words (or phones) and the best path through them, in frames and ids."""
        bundle = self.bundle
        words, spellings = self.spell(utterance)
        fillers, required = fillers_of(bundle), bundle.labels.unit == "char"
        if self.unit == "phone" and any(s[0][0] in fillers for s in spellings):
            fillers = ()
        transitions = bundle.transitions
        if bundle.criterion == "framewise" and transitions is not None:
            log_priors = bundle.decoder.prior_weight * transitions.log_priors
            return words, frame_align_words(
                log_probs, spellings, fillers, required, transitions.min_durations, log_priors
            )
        return words, ctc_align_words(log_probs, spellings, fillers, required)

    def spell(self, utterance: Utterance) -> tuple[list[str], list[Spelling]]:
        """The utterance's words (or phones), each with its spellings in labels.

        Words are looked up as `look_up` says.

        Raises:
            InputError: there is nothing to align, or what cannot be spelled.
        """
        labels = self.bundle.labels
        if self.unit == "phone":
            if not utterance.phones:
                raise InputError("has no phones to align")
            named = [nfc(p.label) for p in utterance.phones]
            phones = fold(named, self.bundle.label_config.fold, "its text")
            # Neighbouring silences (h# and pau, folded) are one.
            silences = set(SILENCES)
            phones = phones[:1] + [b for a, b in pairwise(phones) if a != b or b not in silences]
            return phones, [((i,),) for i in labels.encode(phones, "its text")]
        words, missing = look_up(utterance.text or "", self._spelled)
        if missing:
            raise InputError(f"words {self._lack}: {' '.join(dict.fromkeys(missing))}")
        if not words:
            raise InputError("has no words to align")
        spellings = [self._spelled(word) for word in words]
        if self.lexicon is not None:
            # A lexicon in upper case is no reason to change the text's.
            said = set(nfc(utterance.text or "").split())
            words = [word if word in said else word.lower() for word in words]
        return words, spellings

    def with_guesses(
        self, utterances: Iterable[Utterance], corrected: Path | None = None
    ) -> tuple[Aligner, Pronounced]:
        """This aligner with the words that its lexicon lacks, pronounced as `pronounced` does.

        Returns these with their phones, too.
        """
        if self.unit == "phone" or self.lexicon is None:
            return self, Pronounced()
        missing = [w for u in utterances for w in look_up(u.text or "", self._spelled)[1]]
        labels, folding = self.bundle.labels, self.bundle.label_config.fold
        found = pronounced(missing, labels, folding, corrected) if missing else Pronounced()
        return replace(self, lexicon=extended(self.lexicon, found.entries, labels)), found

    def missing(self, utterances: Iterable[Utterance]) -> str:
        """A line that sums up the words of ``utterances`` that `spell` refuses; empty: none."""
        if self.unit == "phone":
            return ""
        said = {u.id: look_up(u.text or "", self._spelled)[1] for u in utterances}
        return sum_up(said, self._lack)

    @property
    def _lack(self) -> str:
        return "that are not in the lexicon" if self.lexicon else "that the model cannot spell"

    def _spelled(self, word: str) -> Spelling:
        labels = self.bundle.labels
        if self.lexicon is not None:
            return self._spellings.get(word, ())
        symbols = [word] if labels.unit == "word" else list(word)
        if any(symbol not in labels.ids for symbol in symbols):
            return ()
        return (tuple(labels.encode(symbols)),)


def align_corpus(
    aligner: Aligner,
    utterances: Sequence[Utterance],
    failed: Callable[[Utterance, str], None],
    tick: Callable[[int], None] = lambda n: None,
    batch_s: float = 600.0,
    n_threads: int = 2,
) -> Iterator[Transcript]:
    """Align many utterances (with unique ids), ``batch_s`` seconds of audio at a time.

    What cannot be aligned goes to ``failed`` with the reason. ``tick`` gets the number of
    utterances done. The order is that of the utterances, but for models with speaker
    normalisation, where all of a speaker's stand together.
    """
    bundle = aligner.bundle
    rate = bundle.features.sample_rate
    settles = bundle.labels.unit == "phone"
    by_speaker = bundle.features.normalize == "speaker"
    with ThreadPoolExecutor(n_threads) as pool:
        for batch in batches(utterances, batch_s, by_speaker):
            skipped: dict[str, str] = {}
            log_probs = emissions_of(bundle, batch, skipped)

            def one(
                utterance: Utterance,
                skipped: dict[str, str] = skipped,
                log_probs: dict[str, np.ndarray] = log_probs,
            ) -> Transcript | str:
                if utterance.id in skipped:
                    return skipped[utterance.id]
                try:
                    part = utterance.offset_s, utterance.duration_s
                    waveform = load_audio(utterance.audio, rate, *part) if settles else None
                    return aligner.align(utterance, log_probs[utterance.id], waveform)
                except InputError as error:
                    return str(error)

            for utterance, result in zip(batch, pool.map(one, batch), strict=True):
                if isinstance(result, Transcript):
                    yield result
                else:
                    failed(utterance, result)
            tick(len(batch))


def batches(
    utterances: Sequence[Utterance], most_s: float, by_speaker: bool = False
) -> Iterator[list[Utterance]]:
    """Cut utterances into batches of about ``most_s`` seconds, or more for whole speakers."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.speaker if by_speaker else utterance.id, []).append(utterance)
    batch: list[Utterance] = []
    for group in groups.values():
        batch += group
        if sum(u.duration_s for u in batch) >= most_s:
            yield batch
            batch = []
    if batch:
        yield batch


def with_times(utterance: Utterance, transcript: Transcript) -> Utterance:
    """The utterance with the words and phones of its alignment, to train on."""
    phones = transcript.labels if transcript.unit == "phone" else utterance.phones
    if not transcript.words:
        return replace(utterance, phones=phones)
    return replace(utterance, text=transcript.text, words=transcript.words, phones=phones)
