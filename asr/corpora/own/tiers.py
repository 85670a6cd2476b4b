"""Which tiers of a recording hold what, and the utterances that they cut it into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from asr.audio.read import MAX_OVERSHOOT_S, MOST_S
from asr.corpora.own.annotations import Interval, Tier
from asr.corpora.own.config import spoken
from asr.errors import InputError
from asr.labels import SILENCE, SILENCES
from asr.types import Segment, Utterance

#: Names of tiers in lower case, the surest first: Carousel's, MFA's, MAUS's and common ones.
WORDS = "words word wrd ort-mau ort orthography".split()
PHONES = "phones phone phn phonemes mau segments".split()
TEXTS = "utterances utterance sentences sentence transcription transcript text trs".split()
#: What tiers of words call silence; what dictionaries call so besides may be a word here.
NO_WORD = frozenset(("", *SILENCES, "sp", "<sil>", "<eps>", "<p:>", "<p>"))
#: Longer recordings of words are cut at pauses: at all of PAUSE_S, and where they are longest.
LONGEST_S, PAUSE_S = 20.0, 1.0
#: Half a pause, but no more, belongs to the utterance beside it.
MARGIN_S = 0.25
#: Neighbours may overlap by so much, and gaps be so short, by rounding alone.
ROUNDING_S = 0.01
#: Labels of so many, on average no longer, without any space are words.
LEAST_WORDS, WORD_S = 3, 1.5


class Found(NamedTuple):
    """The tiers of text (one a speaker), of words and phones; ``told``: what was taken for them."""

    texts: list[Tier]
    words: list[Tier]
    phones: list[Tier]
    told: str


class Stretch(NamedTuple):
    """Where an utterance lies in its recording, and what it is made of. fault: why it is none."""

    start_s: float
    end_s: float
    said: Sequence[Interval]
    fault: str = ""


def find_tiers(tiers: Sequence[Tier], tier: str, phones: str) -> Found:
    """Find the tiers by the names that are told, by usual names, or by what they hold.

    Raises:
        InputError: no tier of a name that is told, or none with any text.
    """
    spelled = _called(tiers, [phones or PHONES[0]] if phones else PHONES)
    if phones and not spelled:
        raise InputError(f"has no tier {phones!r} (--phones); it has {_names(tiers)}")
    how = "told"
    texts = _called(tiers, [tier]) if tier else _called(tiers, [*WORDS, *TEXTS])
    if tier and not texts:
        raise InputError(f"has no tier {tier!r} (--tier); it has {_names(tiers)}")
    if not tier:
        how = "by its name; --tier tells another"
        if not texts:
            how = "guessed, as it holds most text; --tier tells another"
            others = [t for t in tiers if t not in spelled] or tiers
            most = max(others, key=lambda t: sum(len(i.label) for i in t.intervals))
            texts = [t for t in others if t is most or _is_like(t, most)]
    if not any(i.label.strip() for t in texts for i in t.intervals):
        raise InputError(f"tier {texts[0].name!r} holds no text; the file has {_names(tiers)}")
    told = f"tier {texts[0].name!r} is the text ({how})"
    if spelled:
        told += f", tier {spelled[0].name!r} the phones"
    return Found(texts, _called(tiers, WORDS), spelled, told)


def _called(tiers: Sequence[Tier], names: Sequence[str]) -> list[Tier]:
    """The tiers that have the first of these names that any has, as name or ELAN's type."""
    for name in names:
        wanted = name.casefold()
        found = [t for t in tiers if wanted in (t.name.casefold(), t.type.casefold())]
        # With the speaker's name, as the file has it.
        found = found or [t for t in tiers if wanted == f"{t.speaker} - {t.name}".casefold()]
        if found:
            return found
    return []


def _is_like(tier: Tier, other: Tier) -> bool:
    """Whether it is another speaker's tier of the same kind."""
    same = tier.name == other.name or (tier.type and tier.type == other.type)
    return bool(same and tier.speaker and other.speaker and tier.speaker != other.speaker)


def _names(tiers: Sequence[Tier]) -> str:
    return ", ".join(dict.fromkeys(repr(t.name) for t in tiers))[:200]


def cut(tier: Tier, duration_s: float) -> Iterator[Stretch]:
    """The utterances of a tier: labelled intervals, or what lies between pauses of its words."""
    said, faults = _checked(tier)
    if not said:
        return
    if not _are_words(tier, said):
        for one in said:
            yield Stretch(_start_s(one), _end_s(one), [one], faults.get(one.number, ""))
        return
    groups = _between_pauses(said) if duration_s > LONGEST_S else [said]
    begins = [_start_s(group[0]) for group in groups]
    ends = [_end_s(group[-1]) for group in groups]
    edges = [
        (end + min(MARGIN_S, (begin - end) / 2), begin - min(MARGIN_S, (begin - end) / 2))
        for end, begin in zip(ends, begins[1:], strict=False)
    ]
    # What is cut out of a recording ends near its words; a recording that is whole stays whole.
    first, last = (begins[0] - MARGIN_S, ends[-1] + MARGIN_S) if edges else (0.0, duration_s)
    starts = [max(0.0, first), *(begin for _, begin in edges)]
    # Words that lie beyond the audio are no words of it, which shows in the stretch.
    beyond = ends[-1] > duration_s + MAX_OVERSHOOT_S
    stops = [*(end for end, _ in edges), ends[-1] if beyond else min(duration_s, last)]
    for start_s, end_s, group in zip(starts, stops, groups, strict=True):
        fault = next((faults[one.number] for one in group if one.number in faults), "")
        yield Stretch(start_s, end_s, group, fault)


def _checked(tier: Tier) -> tuple[list[Interval], dict[int, str]]:
    """The labelled intervals in order of time, and what is wrong with some, by their number."""
    said: list[Interval] = []
    faults: dict[int, str] = {}
    at_s = 0.0
    labelled = [i for i in tier.intervals if i.label.strip().lower() not in NO_WORD]
    for one in sorted(labelled, key=lambda i: -1.0 if i.start_s is None else i.start_s):
        if one.start_s is None or one.end_s is None:
            faults[one.number] = "has no time"
            one = one._replace(start_s=at_s, end_s=at_s)
        elif not 0 <= one.start_s < one.end_s < MOST_S:
            faults[one.number] = f"goes from {one.start_s:g} s to {one.end_s:g} s"
        elif one.start_s < at_s - ROUNDING_S:
            faults[one.number] = (
                f"begins at {one.start_s:.3f} s, before the one before it ends ({at_s:.3f} s)"
            )
        elif one.start_s < at_s < one.end_s:
            one = one._replace(start_s=at_s)
        at_s = max(at_s, _end_s(one))
        said.append(one)
    return said, faults


def _are_words(tier: Tier, said: Sequence[Interval]) -> bool:
    single = sum(len(one.label.split()) == 1 for one in said)
    if single < 0.9 * len(said):
        return False
    mean_s = sum(_end_s(one) - _start_s(one) for one in said) / len(said)
    return tier.name.casefold() in WORDS or (len(said) >= LEAST_WORDS and mean_s <= WORD_S)


def _between_pauses(said: Sequence[Interval]) -> list[Sequence[Interval]]:
    """Words in groups of at most `LONGEST_S`, cut at every long pause and else at the longest."""
    groups: list[Sequence[Interval]] = []
    first = 0
    for position, one in enumerate(said):
        if position == first:
            continue
        if _start_s(one) - _end_s(said[position - 1]) >= PAUSE_S:
            groups.append(said[first:position])
            first = position
        while _end_s(one) - _start_s(said[first]) > LONGEST_S and first < position:
            middle_s = _start_s(said[first]) + LONGEST_S / 2
            late = [i for i in range(first + 1, position + 1) if _start_s(said[i]) >= middle_s]
            cut_at = max(late or [position], key=lambda i: _start_s(said[i]) - _end_s(said[i - 1]))
            groups.append(said[first:cut_at])
            first = cut_at
    groups.append(said[first:])
    return groups


def utterance_in(
    stretch: Stretch, whole: Utterance, words: Sequence[Interval], phones: Sequence[Interval]
) -> Utterance:
    """The utterance of a stretch of the recording ``whole``, with times of words and phones.

    words, phones: intervals of the recording, those of its words perhaps the stretch's own.

    Raises:
        InputError: the stretch is at fault, or its text is.
    """
    if stretch.fault:
        raise InputError(stretch.fault)
    text = spoken(" ".join(one.label for one in stretch.said))
    inside = _segments(words, stretch)
    # Times of words that are not those of the text are of no use.
    timed = inside if [segment.label for segment in inside] == text.split() else None
    spelled = _with_silence(_segments(phones, stretch), inside, stretch) if phones else None
    return replace(
        whole,
        offset_s=round(stretch.start_s, 6),
        duration_s=round(stretch.end_s - stretch.start_s, 6),
        text=text,
        words=tuple(timed) if timed else None,
        phones=tuple(spelled) if spelled else None,
    )


def _segments(intervals: Sequence[Interval], stretch: Stretch) -> list[Segment]:
    """Those whose middle lies in the stretch, in its time."""
    length_s = stretch.end_s - stretch.start_s
    found = []
    for one in intervals:
        middle_s = (_start_s(one) + _end_s(one)) / 2
        if stretch.start_s <= middle_s < stretch.end_s:
            start_s, end_s = (
                round(min(max(at - stretch.start_s, 0.0), length_s), 6)
                for at in (_start_s(one), _end_s(one))
            )
            found.append(Segment(spoken(one.label), start_s, end_s))
    return found


def _with_silence(
    phones: Sequence[Segment], words: Sequence[Segment], stretch: Stretch
) -> list[Segment]:
    """The phones, and silence where there is none of them, but for gaps inside words."""
    if not phones:
        return []
    length_s = round(stretch.end_s - stretch.start_s, 6)
    ends = [Segment("", 0.0, 0.0), *phones, Segment("", length_s, length_s)]
    found: list[Segment] = []
    for before, after in pairwise(ends):
        start_s, end_s = _end_s(before), _start_s(after)
        middle_s = (start_s + end_s) / 2
        in_word = any(_start_s(word) < middle_s < _end_s(word) for word in words)
        if end_s - start_s > ROUNDING_S and not in_word:
            found.append(Segment(SILENCE, start_s, end_s))
        found.append(after)
    return found[:-1]


def intervals_of(tiers: Sequence[Tier], speaker: str) -> list[Interval]:
    """What is labelled, and not wrong, in the speaker's tier of these."""
    tier = next((t for t in tiers if t.speaker == speaker), None)
    if tier is None:
        return []
    said, faults = _checked(tier)
    return [one for one in said if one.number not in faults]


def _start_s(one: Interval | Segment) -> float:
    return one.start_s or 0.0


def _end_s(one: Interval | Segment) -> float:
    return one.end_s or 0.0
