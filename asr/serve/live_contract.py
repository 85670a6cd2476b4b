"""What a session of OpenAI's Realtime API may ask for, when it is a transcription.

What has no meaning for these models is accepted, and named in the session's field ``ignored``.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.audio.read import check_rate
from asr.decode.endpoint import EndpointConfig
from asr.errors import InputError
from asr.serve.contract import ApiError, keywords_in, unknown

#: What may be included in events. The second is ours: what may yet change of what is being said.
LOGPROBS, TENTATIVE = "item.input_audio_transcription.logprobs", "carousel.tentative"
#: Fields without effect here, by the object that has them.
NO_AUDIO = ("noise_reduction",)
NO_WORDS = ("prompt", "languages", "delay")
NO_TURNS = ("idle_timeout_ms", "create_response", "interrupt_response")
PCM, G711_RATE = "audio/pcm", 8000
#: Formats of G.711 by libsndfile's names.
G711 = {"audio/pcmu": "ULAW", "audio/pcma": "ALAW"}
KALDI = EndpointConfig()
MOST_MS = 60_000


@dataclass(frozen=True)
class Format:
    """How samples are written: PCM of 16 bits (little-endian) at a rate in Hz, or G.711."""

    type: str = PCM
    rate: int = 24_000

    def samples(self, data: bytes) -> tuple[NDArray[np.float32], int]:
        """Samples (N,) in [-1, 1], and their rate in Hz.

        Raises:
            ApiError: half a sample.
        """
        if self.type != PCM:
            return _levels(G711[self.type])[np.frombuffer(data, np.uint8)], self.rate
        if len(data) % 2:
            raise ApiError(400, "audio: ends in the middle of a sample of two bytes", "audio")
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768), self.rate


@lru_cache
def _levels(subtype: str) -> NDArray[np.float32]:
    """What each byte of G.711 stands for, (256,)."""
    every = io.BytesIO(bytes(range(256)))
    levels, _ = soundfile.read(
        every, dtype="float32", samplerate=G711_RATE, channels=1, format="RAW", subtype=subtype
    )
    return levels


@dataclass(frozen=True)
class Turns:
    """How the server finds where one begins and ends to speak."""

    prefix_ms: int = 300
    silence_ms: int = round(1000 * KALDI.rule2_s)
    threshold: float = KALDI.threshold

    @property
    def endpoint(self) -> EndpointConfig:
        """Kaldi's rules; those of silence after speech keep their proportions."""
        scale = self.silence_ms / 1000 / KALDI.rule2_s
        return replace(
            KALDI,
            rule2_s=scale * KALDI.rule2_s,
            rule3_s=scale * KALDI.rule3_s,
            rule4_s=scale * KALDI.rule4_s,
            threshold=self.threshold,
        )


@dataclass(frozen=True)
class Wanted:
    """What a session asks for. model: the empty one stands for any that streams. turns: None where
    the client commits. ignored: fields that change nothing here."""

    model: str = ""
    language: str | None = None
    keywords: tuple[str, ...] = ()
    format: Format = Format()
    turns: Turns | None = Turns()
    include: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()

    @property
    def hearing(self) -> tuple[object, ...]:
        """What a stream is made for."""
        return self.model, self.keywords, self.turns

    @property
    def endpoint(self) -> EndpointConfig:
        """Where segments end."""
        return KALDI if self.turns is None else self.turns.endpoint


def updated(before: Wanted, session: object) -> Wanted:
    """What is asked after a ``session.update``; what it does not name stays.

    Raises:
        ApiError: a field that is unknown to the API, or of a wrong value.
    """
    fields = fields_of(session, "session", ("type", "audio", "include"))
    if fields.get("type") != "transcription":
        raise _wrong("session.type", "'transcription'", fields.get("type"))
    wanted = before
    if fields.get("include") is not None:
        include = _strings(fields["include"], "session.include")
        if other := set(include) - {LOGPROBS, TENTATIVE}:
            raise _wrong("session.include", f"'{LOGPROBS}'", min(other))
        wanted = replace(wanted, include=include)
    audio = fields_of(fields.get("audio") or {}, "session.audio", ("input",))
    path = "session.audio.input"
    known = ("format", "transcription", "turn_detection", *NO_AUDIO)
    given = fields_of(audio.get("input") or {}, path, known)
    wanted = _ignoring(wanted, given, NO_AUDIO)
    if given.get("format") is not None:
        wanted = replace(wanted, format=_format(given["format"], f"{path}.format"))
    if given.get("transcription") is not None:
        wanted = _transcription(wanted, given["transcription"], f"{path}.transcription")
    if "turn_detection" in given:
        wanted = _turns(wanted, given["turn_detection"], f"{path}.turn_detection")
    return wanted


def _format(given: object, path: str) -> Format:
    fields = fields_of(given, path, ("type", "rate"))
    kind = fields.get("type", PCM)
    if isinstance(kind, str) and kind in G711:
        return Format(kind, G711_RATE)
    if kind != PCM:
        choices = ", ".join(f"'{name}'" for name in (PCM, *G711))
        raise _wrong(f"{path}.type", f"one of {choices}", kind)
    rate = fields.get("rate")
    try:
        # Theirs is 24 kHz alone; microphones have others.
        check_rate(Format.rate if rate is None else rate)
    except InputError as error:
        raise ApiError(400, f"{path}.{error}", f"{path}.rate", "invalid_value") from error
    return Format(PCM, Format.rate if rate is None else rate)


def _transcription(wanted: Wanted, given: object, path: str) -> Wanted:
    fields = fields_of(given, path, ("model", "language", "keywords", *NO_WORDS))
    for name in ("model", "language"):
        if not isinstance(fields.get(name, ""), str | None):
            raise _wrong(f"{path}.{name}", "text", fields[name])
    keywords, name = wanted.keywords, f"{path}.keywords"
    if "keywords" in fields:
        keywords = keywords_in(_strings(fields["keywords"] or [], name), name)
    return _ignoring(
        replace(
            wanted,
            model=fields.get("model") or wanted.model,
            language=fields.get("language", wanted.language),
            keywords=keywords,
        ),
        fields,
        NO_WORDS,
    )


def _turns(wanted: Wanted, given: object, path: str) -> Wanted:
    if given is None:
        return replace(wanted, turns=None)
    known = ("type", "prefix_padding_ms", "silence_duration_ms", "threshold", *NO_TURNS)
    fields = fields_of(given, path, known)
    if fields.get("type") != "server_vad":
        raise _wrong(f"{path}.type", "'server_vad', or null for turn_detection", fields.get("type"))
    turns = Turns()
    prefix, silence = fields.get("prefix_padding_ms"), fields.get("silence_duration_ms")
    if prefix is not None:
        turns = replace(turns, prefix_ms=_count(prefix, f"{path}.prefix_padding_ms", 0))
    if silence is not None:
        turns = replace(turns, silence_ms=_count(silence, f"{path}.silence_duration_ms", 1))
    threshold = fields.get("threshold")
    if threshold is not None:
        # True is a number to Python.
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
            raise _wrong(f"{path}.threshold", "a number in 0..1", threshold)
        turns = replace(turns, threshold=float(threshold))
    return _ignoring(replace(wanted, turns=turns), fields, NO_TURNS)


def fields_of(given: object, path: str, known: Collection[str]) -> dict[str, Any]:
    """The fields of an object.

    Raises:
        ApiError: it is none, or has a field that the API does not know.
    """
    if not isinstance(given, dict):
        raise _wrong(path, "an object", given)
    for name in given:
        if name not in known:
            full = f"{path}.{name}" if path else name
            raise unknown(full[:128])
    return given


def _ignoring(wanted: Wanted, given: dict[str, Any], names: Collection[str]) -> Wanted:
    found = {name for name in names if given.get(name) is not None}
    return replace(wanted, ignored=wanted.ignored | found)


def _strings(given: object, path: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise _wrong(path, "a list of texts", given)
    return tuple(given)


def _count(given: object, path: str, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= MOST_MS:
        raise _wrong(path, f"a whole number in {least}..{MOST_MS}", given)
    return given


def _wrong(path: str, expected: str, found: object) -> ApiError:
    return ApiError(400, f"{path}: expected {expected}, found {found!r:.64}", path, "invalid_value")


def shown(wanted: Wanted, session_id: str) -> dict[str, Any]:
    """A session as events have it."""
    turns = wanted.turns and {
        "type": "server_vad",
        "prefix_padding_ms": wanted.turns.prefix_ms,
        "silence_duration_ms": wanted.turns.silence_ms,
        "threshold": wanted.turns.threshold,
    }
    transcription = {
        "model": wanted.model,
        "language": wanted.language,
        "keywords": list(wanted.keywords),
    }
    rate = {"rate": wanted.format.rate} if wanted.format.type == PCM else {}
    return {
        "id": session_id,
        "object": "realtime.transcription_session",
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": wanted.format.type, **rate},
                "noise_reduction": None,
                "transcription": transcription,
                "turn_detection": turns,
            }
        },
        "include": list(wanted.include),
        "ignored": sorted(wanted.ignored),
    }
