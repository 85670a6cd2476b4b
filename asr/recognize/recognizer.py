"""Audio files to transcripts: the one path that transcribing, serving and the demo share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import islice, repeat, takewhile
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from asr.audio.read import audio_blocks, checked_waveform, load_audio
from asr.audio.sources import Source
from asr.audio.windows import Joiner, Stretch, Window, WindowConfig, cut, windows
from asr.decode.config import DecodingOptions
from asr.decode.decoder import Decoder
from asr.decode.endpoint import EndpointConfig
from asr.errors import InputError
from asr.labels import BLANK, SILENCES, SILENT
from asr.model.bundle import Bundle
from asr.model.emissions import LogProbs, waveform_emissions
from asr.model.options import fitted, with_hotwords
from asr.model.pretrained import load_model
from asr.model.runtime import OnnxNet
from asr.model.stream import EmissionStream
from asr.model.waveform import WaveformModel
from asr.recognize.evaluate import teacher_of
from asr.recognize.live import UNNAMED, Stream
from asr.recognize.live import advance as advance_streams
from asr.recognize.times import timed
from asr.system.ahead import made_by
from asr.system.device import device_of
from asr.types import Hypothesis, Segment, Transcript

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16", "int8")
#: Seconds of audio recognised at once, a few batches of the net.
BATCH_S = 480.0
#: Windows that are read before they are needed.
PREFETCH = 64
#: Files that a model of live speech goes along with at once, and seconds of each at a time.
STREAMS, PIECE_S = 32, 2.0
T = TypeVar("T")
#: A file, by its path, its content or what that is read from; or a waveform.
Audio = str | Path | bytes | BinaryIO | np.ndarray


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
        windowing: WindowConfig = WindowConfig(),
        precision: str = "float32",
        n_threads: int = 1,
        adapt: bool = False,
    ) -> None:
        """``n_threads`` compute at once, each with as many threads as torch uses.

        adapt: the net is adapted to who speaks: in sources that have the same speaker together, in
        others, and in waveforms, one by one (`asr.model.adaptation`).
        """
        self.bundle, hotwords = fitted(bundle, options, tell)
        self.pronounced = options.pronounced
        self.windowing, self.precision, self.n_threads = windowing, precision, n_threads
        if precision not in PRECISIONS:
            raise InputError(
                f"precision {precision!r} does not exist; choose one of {', '.join(PRECISIONS)}"
            )
        if precision != "float32":
            if isinstance(bundle.model, WaveformModel | OnnxNet):
                raise InputError(f"precision {precision} is for models that asr train wrote")
            if precision == "int8":
                from asr.nets.quantized import quantized

                device = device_of(bundle.model)
                if device.type != "cpu":
                    raise InputError(f"device {device}: int8 is for the CPU; use cpu")
                self.bundle = replace(self.bundle, model=quantized(bundle.model))
        self.decoder: Decoder = self.bundle.make_decoder(self.bundle.decoder, hotwords)
        self.adapted = self._adapted() if adapt else None

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", **options: Any) -> Recognizer:
        """Load a model by its name, see `load_model`; ``options`` are fields of `DecodingOptions`.

        device: auto (a CUDA GPU where there is one), cpu, cuda, cuda:N or mps.

        Raises:
            InputError: not a model or device that can be used, or options that do not fit it.
        """
        return cls(load_model(model, device), DecodingOptions(**options))

    def _adapted(self) -> LogProbs:
        """The net's outputs, adapted by what the richest search finds first."""
        if self.precision == "int8":
            raise InputError("precision int8: such a net cannot be adapted; use float32")
        try:
            from asr.model.adaptation import adapted_by
        except ModuleNotFoundError as error:
            raise InputError(
                f"adapting to speakers needs {error.name}, which is not installed: "
                "pip install carousel-asr"
            ) from error
        words = self.decoder.searches_words
        return adapted_by(self.bundle, self.decoder if words else teacher_of(self.bundle))

    def with_hotwords(self, hotwords: Sequence[str]) -> Recognizer:
        """The same net and search with further hotwords, as of `DecodingOptions`.

        Raises:
            InputError: no words are searched, or a word of one has no pronunciation.
        """
        other = copy(self)
        other.bundle, found = with_hotwords(self.bundle, hotwords, self.pronounced)
        boosts = {**self.decoder.hotwords, **found}
        other.decoder = other.bundle.make_decoder(other.bundle.decoder, boosts)
        return other

    @property
    def goes_along(self) -> bool:
        """Whether files are heard as live speech is, and found to be the same."""
        return self.bundle.streams and self.precision == "float32" and self.adapted is None

    @property
    def finds_words(self) -> bool:
        """Whether transcripts have words, and not phones alone."""
        return self.bundle.labels.unit != "phone" or self.decoder.searches_words

    def transcribe(self, audio: Audio, rate: int | None = None) -> Transcript:
        """Transcribe one file: its path, its bytes, or an object to read these from (to its end).

        Or else a waveform (N,) of floating-point samples in [-1, 1] at ``rate`` Hz (the model's).

        Raises:
            InputError: the file cannot be read, the array is no such waveform, or it is neither.
        """
        if not isinstance(audio, str | Path):
            return self.recognize([self.named(audio, rate)])[0]
        if rate is not None:
            raise InputError(f"rate {rate}: is for an array; a file has its own, leave it out")

        def failed(source: Source, error: InputError) -> None:
            raise error

        return next(self.transcribe_files([Path(audio)], failed))

    def named(self, audio: Audio, rate: int | None = None) -> tuple[str, np.ndarray]:
        """A name (a file's path, else audio) and the waveform (N,) float32 at the model's rate.

        Raises:
            InputError: as `transcribe`.
        """
        own = self.bundle.features.sample_rate
        if isinstance(audio, np.ndarray):
            return "audio", checked_waveform(audio, own if rate is None else rate, own)
        if rate is not None:
            raise InputError(f"rate {rate}: is for an array; a file has its own, leave it out")
        if isinstance(audio, str | Path):
            return str(audio), self.read(Path(audio))
        try:
            data: object = audio.read() if hasattr(audio, "read") else audio
        except (OSError, ValueError) as error:
            raise InputError(f"audio: cannot be read ({error})") from error
        if not isinstance(data, bytes | bytearray | memoryview):
            found = f"text (open it with 'rb') in {audio!r}" if data is not audio else type(audio)
            raise InputError(f"audio: expected a path, an array or a file's bytes, found {found}")
        return "audio", load_audio(Path("audio"), own, data=bytes(data))

    def read(self, path: Path) -> np.ndarray:
        """The waveform (N,) of a file at the model's sample rate."""
        return load_audio(path, self.bundle.features.sample_rate)

    def stream(
        self,
        hotwords: Sequence[str] = (),
        endpoint: EndpointConfig = EndpointConfig(),
        chunk_ms: int | None = None,
        lookahead_ms: int | None = None,
        source: Source = UNNAMED,
    ) -> Stream:
        """Begin to recognise audio that comes in packets, while it comes.

        hotwords: ``word:boost`` each, for this stream beside those of all. endpoint: where segments
        end. chunk_ms, lookahead_ms: of those that the model was trained for; by default its own.
        source: what transcripts say they are of.

        Raises:
            InputError: the model cannot go along with speech, or not so, or the search knows no
                hotwords.
        """
        if self.adapted is not None:
            raise InputError("adapting to speakers takes whole files: speech that comes has no end")
        decoder = self.with_hotwords(hotwords).decoder if hotwords else self.decoder
        emissions = EmissionStream(self.bundle, chunk_ms, lookahead_ms)
        return Stream(self.bundle, decoder, emissions, endpoint, source)

    def transcribe_files(
        self,
        sources: Iterable[Path | Source],
        failed: Callable[[Source, InputError], None],
        heard: Callable[[float], None] = lambda seconds: None,
        batch_s: float = BATCH_S,
    ) -> Iterator[Transcript]:
        """Transcribe files of any length, many at a time, in order; what else there is matters not.

        failed: gets a file that cannot be read; the rest go on. heard: gets the seconds of audio
        that were recognised since its last call. batch_s: seconds of audio held at once.
        """
        rate = self.bundle.features.sample_rate

        def jobs() -> Iterator[Job]:
            for source in sources:
                if isinstance(source, Path):
                    source = Source(source, str(source))
                channel = None if source.channel is None else source.channel - 1
                blocks = audio_blocks(
                    source.path,
                    rate,
                    channel,
                    offset_s=source.offset_s,
                    duration_s=source.duration_s,
                )
                yield self.job(source, blocks)

        for job in self._done(jobs(), heard, batch_s):
            if job.error is None:
                yield self.transcript(job)
            else:
                failed(job.source, job.error)

    def recognize(self, named: Sequence[tuple[str, np.ndarray]]) -> list[Transcript]:
        """Waveforms with their names -> transcripts. Each is its own speaker to normalisation."""
        jobs = (self.job(Source(Path(name), name), iter([waveform])) for name, waveform in named)
        return [self.transcript(job) for job in self._done(jobs)]

    def traced(self, waveform: np.ndarray) -> tuple[Transcript, list[Stretch]]:
        """A waveform (N,) -> its transcript, and the posteriors in which it was found, in order."""
        job = self.job(Source(Path("audio"), "audio"), iter([waveform]), keeps=True)
        for _ in self.advance(list(self.windows_of(iter([job]))), lambda seconds: None):
            pass
        return self.transcript(job), job.kept

    def job(self, source: Source, blocks: Iterator[np.ndarray], keeps: bool = False) -> Job:
        """A source whose waveform (N,) at the model's rate comes in blocks.

        keeps: its posteriors are kept, and it is heard as a file even where `goes_along`.
        """
        labels, ctc = self.bundle.labels, self.bundle.criterion == "ctc"
        quiet = labels.among(SILENT) + [BLANK] * ctc
        stream = self.stream(source=source) if self.goes_along and not keeps else None
        return Job(source, blocks, Joiner(quiet, self.bundle.clock.shift_s), stream, keeps)

    def _done(
        self,
        jobs: Iterator[Job],
        heard: Callable[[float], None] = lambda seconds: None,
        batch_s: float = BATCH_S,
    ) -> Iterator[Job]:
        """Recognise, in order, with all windows of ``batch_s`` seconds of audio at a time."""
        if self.goes_along:
            yield from self._along(jobs, heard)
            return
        most = batch_s * self.bundle.features.sample_rate
        batch: list[tuple[Job, Window | None]] = []
        n_samples = n_spoken = 0
        for job, window in ahead(self.windows_of(jobs), PREFETCH):
            goes_on = bool(batch) and job.speaker == batch[-1][0].speaker
            if n_samples >= most and not goes_on:
                yield from self.advance(batch, heard)
                batch, n_samples = [], 0
            batch.append((job, window))
            n = 0 if window is None else len(window.waveform)
            n_samples, n_spoken = n_samples + n, n_spoken * goes_on + n
            # Who is adapted to is heard together, unless they alone fill a batch.
            if (n_samples if self.adapted is None else n_spoken) >= most:
                yield from self.advance(batch, heard)
                batch, n_samples = [], 0
        yield from self.advance(batch, heard)

    def _along(self, jobs: Iterator[Job], heard: Callable[[float], None]) -> Iterator[Job]:
        """Recognise, in order, `STREAMS` jobs at a time, as speech that comes is recognised."""
        while group := list(islice(jobs, STREAMS)):
            going = [self.windows_of(iter([job])) for job in group]
            while going:
                batch = [next(parts) for parts in going]
                for _ in self.advance(batch, heard):
                    pass
                pairs = zip(going, batch, strict=True)
                going = [parts for parts, (_, window) in pairs if window is not None]
            yield from group

    def windows_of(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Window | None]]:
        """The windows of each job, then None; those for a stream are next to each other."""
        rate, clock = self.bundle.features.sample_rate, self.bundle.clock
        step = round(clock.shift_s * rate)
        for job in jobs:
            try:
                if job.stream is None:
                    parts = windows(job.counted(), rate, step, self.windowing)
                else:
                    parts = cut(job.counted(), step * round(PIECE_S / clock.shift_s), step)
                for window in parts:
                    yield job, window
            except InputError as error:
                job.error = error
            yield job, None

    def advance(
        self, batch: Sequence[tuple[Job, Window | None]], heard: Callable[[float], None]
    ) -> Iterator[Job]:
        """Take all windows on; the jobs that are complete with them."""
        self._listen([(job, window) for job, window in batch if job.stream is not None])
        self._decode(self._stretches([(job, w) for job, w in batch if job.stream is None]))
        n_samples = sum(len(w.waveform) for _, w in batch if w is not None)
        heard(n_samples / self.bundle.features.sample_rate)
        yield from (job for job, window in batch if window is None)

    def _listen(self, batch: Sequence[tuple[Job, Window | None]]) -> None:
        """Let each job's stream hear its windows, and add the segments that end."""
        for job, window in batch:
            job.give(window)
        streams = {id(job): (job, job.stream) for job, _ in batch if job.stream is not None}
        advance_streams(stream for _, stream in streams.values())
        for job, stream in streams.values():
            job.segments += stream.finals()

    def _stretches(
        self, batch: Sequence[tuple[Job, Window | None]]
    ) -> list[tuple[Job, Stretch, bool]]:
        """What is complete with these windows, and whether it is a job's last."""
        whole = [(job.speaker, w.waveform) for job, w in batch if w is not None]
        found = iter(self.emissions([w for _, w in whole], [speaker for speaker, _ in whole]))
        stretches: list[tuple[Job, Stretch, bool]] = []
        for job, window in batch:
            if window is None:
                stretches += [(job, stretch, True) for stretch in job.joiner.finish()]
            else:
                complete = job.joiner.add(window.first, next(found))
                stretches += [(job, stretch, False) for stretch in complete]
        return stretches

    def _decode(self, stretches: Sequence[tuple[Job, Stretch, bool]]) -> None:
        """Add each stretch's segment to its job."""
        if not stretches:
            return
        decoded = self.decoder.batch([s.log_probs for _, s, _ in stretches], self.n_threads)
        for (job, stretch, last), nbest in zip(stretches, decoded, strict=True):
            job.segments.append(self._segment(job, stretch, last, nbest))
            if job.keeps:
                job.kept.append(stretch)

    def _segment(
        self, job: Job, stretch: Stretch, last: bool, nbest: Sequence[Hypothesis]
    ) -> Transcript:
        """Hypotheses in frames and ids -> a transcript in seconds and symbols, best first."""
        bundle = self.bundle
        start_s = stretch.first * bundle.clock.shift_s
        duration_s = len(stretch.log_probs) * bundle.clock.shift_s
        if last:
            duration_s = job.n_samples / bundle.features.sample_rate - start_s
        best, *others = [
            timed(bundle, h, stretch.log_probs, job.source, duration_s, start_s) for h in nbest
        ]
        return replace(best, nbest=(best, *others)) if self.decoder.config.nbest > 1 else best

    def transcript(self, job: Job) -> Transcript:
        """The transcript of a job whose segments are all there."""
        rate, segments = self.bundle.features.sample_rate, job.segments
        duration_s = job.n_samples / rate
        if duration_s <= self.windowing.whole_s and len(segments) == 1:
            return replace(segments[0], duration_s=duration_s)
        labels: list[Segment] = []
        for label in (label for segment in segments for label in segment.labels):
            if labels and label.label == labels[-1].label and label.label in SILENCES:
                labels[-1] = replace(labels[-1], end_s=label.end_s)
            else:
                labels.append(label)
        text = " ".join(s.text for s in segments if s.text)
        if not self.finds_words:
            text = self.bundle.labels.join([s.label for s in labels])
        return Transcript(
            job.source.id,
            text,
            duration_s,
            math.fsum(s.score for s in segments),
            tuple(labels),
            tuple(word for segment in segments for word in segment.words),
            unit=self.bundle.labels.unit,
            audio=job.source.path,
            segments=tuple(s for s in segments if s.labels),
            channel=job.source.channel,
        )

    def emissions(
        self, waveforms: Sequence[np.ndarray], speakers: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """Waveforms (N,) -> log-probabilities (T, V) of each.

        speakers: who is heard in each, for those that are adapted to; without, it is one each.

        What else is recognised with a waveform has no influence, in float32 but for rounding: torch
        sums in another order where batches are small. Of 500 crops of under a second 477 differed
        alone and beside others, by 4e-6 at most; of whole utterances none.
        """
        how = self.precision, self.windowing.skip_silence, self.n_threads
        if self.adapted is None:
            return waveform_emissions(self.bundle, waveforms, *how)
        speakers = list(map(str, range(len(waveforms)))) if speakers is None else speakers
        return waveform_emissions(self.bundle, waveforms, *how, (self.adapted, speakers))


@dataclass
class Job:
    """A source on its way. stream: what hears it, where it is heard as live speech is.
    keeps: whether the posteriors in which its segments are found are ``kept``."""

    source: Source
    blocks: Iterator[np.ndarray]
    joiner: Joiner
    stream: Stream | None = None
    keeps: bool = False
    #: The first frame of audio that its stream has not heard.
    first: int = 0
    n_samples: int = 0
    segments: list[Transcript] = field(default_factory=list)
    kept: list[Stretch] = field(default_factory=list)
    error: InputError | None = None

    @property
    def speaker(self) -> str:
        """Who is heard, as far as that is known: else one who is heard in this source alone."""
        return self.source.speaker or f"of {id(self)}"

    def counted(self) -> Iterator[np.ndarray]:
        """The blocks, counted in ``n_samples``."""
        for block in self.blocks:
            self.n_samples += len(block)
            yield block

    def give(self, window: Window | None) -> None:
        """Let the stream hear a window, once however often it is given; None is the end."""
        assert self.stream is not None
        if window is None:
            self.stream.finish()
        elif window.first >= self.first:
            self.stream.accept(window.waveform)
            self.first = window.first + 1


def ahead(items: Iterator[T], n: int) -> Iterator[T]:
    """Take ``items`` in another thread, up to ``n`` before they are asked for."""
    end: Any = object()
    taken = made_by(ThreadPoolExecutor(1), lambda _: next(items, end), repeat(None), n)
    with closing(taken):
        yield from takewhile(lambda item: item is not end, taken)
