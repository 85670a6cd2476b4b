"""OpenAI's transcription API: what a request may say, and what the answers look like.

Field by field as the official client sends and reads them. What has no meaning for these models is
accepted, and named in the header ``x-ignored-fields``.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asr.model.bundle import Bundle
from asr.recognize.live import Part
from asr.recognize.transcripts import as_json, dumped, to_srt, to_vtt
from asr.types import Segment, Transcript

#: Ours is ``transcript``: what `asr transcribe` writes as JSON, with labels and confidences.
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "transcript")
GRANULARITIES = ("word", "segment")
#: Fields of the API that these models have no use for.
IGNORED = (
    "prompt",
    "temperature",
    "chunking_strategy",
    "languages",
    "known_speaker_names",
    "known_speaker_references",
)
LISTS = (
    "keywords",
    "include",
    "timestamp_granularities",
    "languages",
    "known_speaker_names",
    "known_speaker_references",
)
KNOWN = {"file", "model", "language", "response_format", "stream", *IGNORED, *LISTS}
#: The language where nobody says which (ISO 639-2: undetermined).
UNDETERMINED = "und"
#: Characters of a keyword, and of all: to guess how unknown words are said takes two seconds then.
MOST_KEYWORD, MOST_KEYWORDS = 100, 1 << 14
#: A confidence of 0 has no logarithm.
LEAST_LOGPROB = -100.0


class ApiError(Exception):
    """An answer that is an error, in the API's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


@dataclass(frozen=True)
class Asked:
    """What a request says beside its file. ignored: fields that change nothing here."""

    model: str
    response_format: str = "json"
    language: str = UNDETERMINED
    keywords: tuple[str, ...] = ()
    granularities: tuple[str, ...] = ("segment",)
    logprobs: bool = False
    stream: bool = False
    ignored: tuple[str, ...] = ()


def asked(fields: Sequence[tuple[str, str]]) -> Asked:
    """Read a form's fields, in order; lists come as ``name`` or ``name[]``, again and again.

    Raises:
        ApiError: a field that is missing, unknown to the API, given twice, or of a wrong value.
    """
    single: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for full_name, value in fields:
        name = full_name.removesuffix("[]")
        # Objects come as chunking_strategy[type].
        name = name.split("[")[0]
        if name not in KNOWN:
            raise unknown(full_name)
        if name in LISTS:
            lists.setdefault(name, []).append(value)
        elif name in single and name not in IGNORED:
            raise given_twice(name)
        else:
            single[name] = value
    if not single.get("model"):
        raise no_model()
    _one_of("response_format", single.get("response_format", "json"), FORMATS)
    for value in lists.get("timestamp_granularities", ()):
        _one_of("timestamp_granularities", value, GRANULARITIES)
    for value in lists.get("include", ()):
        _one_of("include", value, ("logprobs",))
    temperature = single.get("temperature", "0")
    if not _is_number(temperature):
        raise ApiError(400, f"temperature: expected a number, found '{temperature}'", "temperature")
    _one_of("stream", single.get("stream", "false").lower(), ("true", "false"))
    return Asked(
        model=single["model"],
        response_format=single.get("response_format", "json"),
        language=single.get("language") or UNDETERMINED,
        keywords=keywords_in(lists.get("keywords", ()), "keywords"),
        granularities=tuple(lists.get("timestamp_granularities", ("segment",))),
        logprobs="logprobs" in lists.get("include", ()),
        stream=single.get("stream", "false").lower() == "true",
        ignored=tuple(name for name in IGNORED if name in single or name in lists),
    )


def keywords_in(given: Sequence[str], param: str) -> tuple[str, ...]:
    """Words to listen for, each once.

    Raises:
        ApiError: there are too many, or one is too long.
    """
    found = tuple(dict.fromkeys(" ".join(text.split()) for text in given if text.strip()))
    longest = max(map(len, found), default=0)
    if longest > MOST_KEYWORD:
        expected = f"expected up to {MOST_KEYWORD} characters in each"
        raise ApiError(400, f"{param}: {expected}, found {longest}", param)
    if (n := sum(map(len, found))) > MOST_KEYWORDS:
        expected = f"expected up to {MOST_KEYWORDS} characters in all"
        raise ApiError(400, f"{param}: {expected}, found {n}", param)
    return found


def unknown(name: str) -> ApiError:
    """A parameter that there is not."""
    return ApiError(400, f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def given_twice(name: str) -> ApiError:
    """A parameter that may stand once."""
    return ApiError(400, f"'{name}' is given more than once.", name)


def no_model() -> ApiError:
    """The one parameter that must be there beside the file."""
    return ApiError(400, "you must provide a model parameter", "model", "missing_parameter")


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        expected = ", ".join(f"'{choice}'" for choice in choices)
        raise ApiError(400, f"{name}: expected one of {expected}, found '{value}'", name)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def answer(transcript: Transcript, request: Asked, bundle: Bundle) -> tuple[str, str]:
    """The body of an answer that does not stream, and its media type."""
    if request.response_format in PLAIN:
        media_type, write = PLAIN[request.response_format]
        return write(transcript), media_type
    if request.response_format == "transcript":
        return dumped({**as_json(transcript), "unit": transcript.unit}), "application/json"
    found: dict[str, Any] = {"text": transcript.text}
    if request.response_format == "verbose_json":
        found = {
            "task": "transcribe",
            "language": request.language,
            "duration": round(transcript.duration_s, 4),
            "text": transcript.text,
        }
        if "segment" in request.granularities:
            found["segments"] = [
                segment_of(number, part, bundle) for number, part in enumerate(parts_of(transcript))
            ]
        if "word" in request.granularities:
            found["words"] = [
                {"word": word.label, "start": word.start_s, "end": word.end_s}
                for word in spoken(transcript)
            ]
    if request.logprobs:
        found["logprobs"] = logprobs(spoken(transcript))
    found["usage"] = usage(transcript.duration_s)
    return json.dumps(found, ensure_ascii=False), "application/json"


#: What is no JSON: its media type and its writer.
PLAIN: dict[str, tuple[str, Callable[[Transcript], str]]] = {
    "text": ("text/plain; charset=utf-8", lambda transcript: transcript.text + "\n"),
    "srt": ("application/x-subrip; charset=utf-8", to_srt),
    "vtt": ("text/vtt; charset=utf-8", to_vtt),
}


def parts_of(transcript: Transcript) -> Sequence[Transcript]:
    """A recording's segments, or the utterance as the only one, if anything was said."""
    return transcript.segments or ([transcript] if transcript.labels else [])


def spoken(transcript: Transcript | Part) -> Sequence[Segment]:
    """The words, or the labels of a model that knows no words."""
    return transcript.words or transcript.labels


def segment_of(number: int, part: Transcript, bundle: Bundle) -> dict[str, Any]:
    """A segment as ``verbose_json`` has it. Nothing here can be taken for no speech."""
    said = spoken(part)
    encoded = part.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": said[0].start_s,
        "end": said[-1].end_s,
        "text": part.text,
        "tokens": [bundle.labels.ids[label.label] for label in part.labels],
        "temperature": 0.0,
        "avg_logprob": round(math.fsum(map(_logprob, said)) / len(said), 4),
        # As Whisper computes it.
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 4),
        "no_speech_prob": 0.0,
    }


def segment_event(number: int, part: Transcript) -> dict[str, Any]:
    """A segment as events have it. Speakers are not told apart."""
    said = spoken(part)
    return {
        "id": f"seg_{number}",
        "start": said[0].start_s,
        "end": said[-1].end_s,
        "text": part.text,
        "speaker": "",
    }


def logprobs(said: Sequence[Segment]) -> list[dict[str, Any]]:
    """Each word, or label, with the logarithm of its confidence; joined, they are the text."""
    return [
        {
            "token": (token := " " * (number > 0) + word.label),
            "bytes": list(token.encode()),
            "logprob": round(_logprob(word), 4),
        }
        for number, word in enumerate(said)
    ]


def _logprob(segment: Segment) -> float:
    confidence = segment.confidence
    if confidence is None:
        return 0.0
    return max(LEAST_LOGPROB, math.log(confidence)) if confidence > 0 else LEAST_LOGPROB


def usage(audio_s: float) -> dict[str, Any]:
    """What was used: seconds of audio."""
    return {"type": "duration", "seconds": round(audio_s, 4)}


def event(kind: str, **found: Any) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps({'type': kind, **found}, ensure_ascii=False)}\n\n".encode()
