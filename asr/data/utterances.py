"""Sets of utterances to train on: what all can do, and the kind in memory (`index` has another)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from asr.data.manifest import plain
from asr.types import Segment, Utterance


class Utterances(Sequence[Utterance]):
    """A set that one can train on."""

    #: Whether utterances are read when asked for, and are never all in memory.
    streamed: ClassVar[bool]

    @abstractmethod
    def words(self) -> set[str]:
        """All words of the texts, as they are written, and all timed words."""

    @abstractmethod
    def plain(self, known: Container[str]) -> Utterances:
        """The utterances as `manifest.plain` makes them, but for ``known`` words."""

    @abstractmethod
    def shared_with(self, others: Sequence[Utterance]) -> tuple[list[str], list[str]]:
        """Ids of those utterances whose audio is here too, and speakers that are."""

    @abstractmethod
    def vocabulary(self, phones: Iterable[str] = ()) -> Sequence[Utterance]:
        """Utterances that say all that there is, and ``phones``."""


class Listed(list[Utterance], Utterances):
    """`Utterances` in memory."""

    streamed = False

    @classmethod
    def joined(cls, sets: Iterable[Iterable[Utterance]]) -> Listed:
        """The utterances of all sets, one after the other."""
        return cls(u for utterances in sets for u in utterances)

    def words(self) -> set[str]:
        """As of `Utterances`."""
        texts = {word for u in self for word in (u.text or "").split()}
        return texts | {word.label for u in self for word in u.words or ()}

    def plain(self, known: Container[str]) -> Listed:
        """As of `Utterances`."""
        return Listed(plain(u, known) for u in self)

    def shared_with(self, others: Sequence[Utterance]) -> tuple[list[str], list[str]]:
        """As of `Utterances`."""
        heard = {(u.audio, u.offset_s) for u in self}
        speakers = {u.speaker for u in self} & {u.speaker for u in others}
        return [u.id for u in others if (u.audio, u.offset_s) in heard], sorted(speakers)

    def vocabulary(self, phones: Iterable[str] = ()) -> Sequence[Utterance]:
        """As of `Utterances`."""
        said = tuple(map(Segment, phones))
        return [*self, Utterance("of the lexicon", Path(), "", 0.0, phones=said)] if said else self
