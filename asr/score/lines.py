"""What the readers of transcripts give: lines by utterance, and references with hypotheses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of one channel of a recording."""

    file: str
    channel: str
    start_s: float
    end_s: float


class Line(NamedTuple):
    """One utterance of a transcript file, with what the file gives besides its text.

    words: (middle in seconds, text) of a ctm's words, alternatives being one; their span is all
    of a channel.
    """

    where: str
    text: str | None
    phones: tuple[str, ...] | None = None
    speaker: str | None = None
    audio: Path | None = None
    span: Span | None = None
    words: tuple[tuple[float, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Transcripts:
    """A transcript file: its lines by utterance id; plain text has line numbers for ids."""

    path: Path
    format: str
    lines: Mapping[str, Line]


@dataclass(frozen=True, slots=True)
class Matched:
    """References and hypotheses brought together; ``missing`` hypotheses are scored as empty."""

    ids: tuple[str, ...]
    pairs: Sequence[tuple[Line, Line | None]]
    missing: tuple[str, ...]
    unscored: tuple[str, ...]


def filled(path: Path, rows: Sequence[str], comment: str = "") -> Iterator[tuple[str, str]]:
    """Where each row stands, and the row; blank ones and comments are left out."""
    for number, row in enumerate(rows, 1):
        if row.strip() and not (comment and row.startswith(comment)):
            yield f"{path}:{number}", row


def short(value: object) -> str:
    """``repr``, cut for messages."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
