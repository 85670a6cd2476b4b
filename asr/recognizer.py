"""Audio files to transcripts: the one path that transcribing, serving and the demo share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.audio import checked_waveform, load_audio
from asr.checkpoint import Bundle
from asr.data import Example, Matrix, set_statistics
from asr.decode.decoder import Decoder
from asr.decoding import DecodingOptions, fitted
from asr.errors import InputError
from asr.evaluate import emissions
from asr.features import LogMel, moments
from asr.foreign import WaveformModel, load_model
from asr.types import Hypothesis, Segment, Transcript, Utterance

log = logging.getLogger(__name__)


class Recognizer:
    """A model, ready to transcribe.

    >>> recognizer = Recognizer.load("runs/ctc/model")      # doctest: +SKIP
    >>> recognizer.transcribe("a.wav").text                 # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        options: DecodingOptions = DecodingOptions(),
        tell: Callable[[str], None] = log.warning,
    ) -> None:
        self.bundle, hotwords = fitted(bundle, options, tell)
        self.decoder: Decoder = self.bundle.make_decoder(self.bundle.decoder, hotwords)
        self.log_mel = LogMel(bundle.features)

    @classmethod
    def load(cls, model: str | Path, **options: Any) -> Recognizer:
        """Load a model by its name, see `load_model`; ``options`` are fields of `DecodingOptions`.

        Raises:
            InputError: not a model that can be used, or options that do not fit it.
        """
        return cls(load_model(model), DecodingOptions(**options))

    def transcribe(self, audio: str | Path | np.ndarray) -> Transcript:
        """Transcribe one file, or a waveform (N,) in [-1, 1] at the model's sample rate.

        Raises:
            InputError: the file cannot be read, or the array is no such waveform.
        """
        return self.recognize([self.named(audio)])[0]

    def named(self, audio: str | Path | np.ndarray) -> tuple[str, np.ndarray]:
        """A file's path and waveform (N,) float32; a waveform as it is, under the name audio.

        Raises:
            InputError: as `transcribe`.
        """
        if isinstance(audio, np.ndarray):
            return "audio", checked_waveform(audio)
        return str(audio), self.read(Path(audio))

    def transcribe_files(
        self,
        paths: Iterable[Path],
        failed: Callable[[Path, InputError], None],
        batch_s: float = 120.0,
    ) -> Iterator[Transcript]:
        """Transcribe many files, several at a time, in order.

        A file that cannot be read goes to ``failed`` and the rest go on. ``batch_s``: seconds
        of audio in a batch.
        """
        waiting: list[tuple[str, np.ndarray]] = []
        n_most = int(batch_s * self.bundle.features.sample_rate)
        for path in paths:
            try:
                waveform = self.read(path)
            except InputError as error:
                failed(path, error)
                continue
            waiting.append((str(path), waveform))
            if sum(len(w) for _, w in waiting) >= n_most:
                yield from self.recognize(waiting)
                waiting = []
        if waiting:
            yield from self.recognize(waiting)

    def read(self, path: Path) -> np.ndarray:
        """The waveform (N,) of a file at the model's sample rate."""
        return load_audio(path, self.bundle.features.sample_rate)

    def recognize(self, named: Sequence[tuple[str, np.ndarray]]) -> list[Transcript]:
        """Waveforms with their names -> transcripts. Each is its own speaker to normalisation."""
        rate = self.bundle.features.sample_rate
        durations = [len(waveform) / rate for _, waveform in named]
        log_probs = self.emissions([waveform for _, waveform in named])
        return [
            self.transcript(name, duration_s, nbest)
            for (name, _), duration_s, nbest in zip(
                named, durations, self.decoder.batch(log_probs), strict=True
            )
        ]

    def emissions(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Waveforms (N,) -> log-probabilities (T, V) of each."""
        bundle = self.bundle
        if isinstance(bundle.model, WaveformModel):
            return [bundle.model(waveform) for waveform in waveforms]
        matrices = {}
        for i, waveform in enumerate(waveforms):
            features, _ = self.log_mel(
                torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
            )
            matrices[str(i)] = Matrix(features[0], moments(features[0]))
        stats = set_statistics(
            matrices, {i: i for i in matrices}, bundle.features.normalize, bundle.stats
        )
        examples = [
            Example(Utterance(i, Path(), i, 0.0), x.features, (), None, stats[i])
            for i, x in matrices.items()
        ]
        found = emissions(bundle.model, bundle, examples, torch.device("cpu"))
        return list(found.values())

    def transcript(self, name: str, duration_s: float, nbest: Sequence[Hypothesis]) -> Transcript:
        """Hypotheses in frames and ids -> a transcript in seconds and symbols, best first."""
        best, *others = [self._readable(name, duration_s, h) for h in nbest]
        return replace(best, nbest=(best, *others)) if self.decoder.config.nbest > 1 else best

    def _readable(self, name: str, duration_s: float, hypothesis: Hypothesis) -> Transcript:
        labels, clock = self.bundle.labels, self.bundle.clock
        segments = tuple(
            Segment(
                symbol,
                min(clock.start_s(first), duration_s),
                min(clock.start_s(end), duration_s),
                confidence,
            )
            for symbol, (first, end), confidence in zip(
                labels.decode(hypothesis.labels),
                hypothesis.spans,
                hypothesis.confidences,
                strict=True,
            )
        )
        words = tuple(
            Segment(word, segments[first].start_s, segments[end - 1].end_s, confidence)
            for word, (first, end), confidence in zip(
                hypothesis.words or (),
                hypothesis.word_spans or (),
                hypothesis.word_confidences or (),
                strict=True,
            )
        )
        text = " ".join(w.label for w in words)
        if hypothesis.words is None:
            text = labels.join([s.label for s in segments])
        return Transcript(
            name, text, duration_s, hypothesis.score, segments, words, unit=labels.unit
        )
