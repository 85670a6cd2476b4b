"""Sets of a corpus that comes without: drawn by speaker, so that none is in two of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from asr.corpora.audit import Audit
from asr.corpora.own.config import Own
from asr.types import Utterance

SETS = ("train", "dev", "test")
SHARES = (0.8, 0.1, 0.1)
#: A speaker who would take a set beyond so many times its share goes elsewhere.
MOST_OVER = 1.5


def split_by_speaker(
    utterances: Sequence[Utterance], own: Own, audit: Audit
) -> dict[str, list[Utterance]]:
    """Draw the sets of ``own.shares`` by ``own.seed``; too few speakers make one set, train."""
    seconds: dict[str, float] = defaultdict(float)
    for utterance in utterances:
        seconds[utterance.speaker] += utterance.duration_s
    shares = {name: s for name, s in zip(SETS, own.shares or SHARES, strict=False) if s}
    if len(seconds) < len(shares):
        audit.notes.append(
            f"{len(seconds)} speakers cannot be drawn into {len(shares)} sets: all of it is train "
            "(speakers come from --speaker, sets from folders or files called train, dev, test)"
        )
        shares = {"train": 1.0}
    set_of = drawn(seconds, shares, own.seed)
    sets: dict[str, list[Utterance]] = {name: [] for name in shares}
    for utterance in utterances:
        sets[set_of[utterance.speaker]].append(utterance)
    if len(sets) > 1:
        audit.notes.append(
            f"{', '.join(sets)} are drawn by speaker (seed {own.seed}): "
            + ", ".join(f"{list(set_of.values()).count(name)} in {name}" for name in sets)
        )
    return sets


def drawn(seconds: Mapping[str, float], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """The set of each speaker; the first of ``shares`` gets those whom no other takes.

    Speakers stand in an order that follows from their names and the seed. Each further set takes
    of those that are left until it has its share, or the one who says least where all say too much.
    """
    order = sorted(
        seconds, key=lambda s: hashlib.blake2b(f"{seed} {s}".encode("utf-8", "replace")).digest()
    )
    first, *others = shares
    total = sum(seconds.values())
    set_of = dict.fromkeys(order, first)
    for position, name in enumerate(others, 1):
        left = [speaker for speaker in order if set_of[speaker] == first]
        # One stays for each set that is yet to come, and for the first.
        most = len(left) - (len(shares) - 1 - position) - 1
        wanted, taken = shares[name] * total, 0.0
        chosen: list[str] = []
        for speaker in left:
            fits = taken + seconds[speaker] <= MOST_OVER * wanted
            if taken < wanted and fits and len(chosen) < most:
                chosen.append(speaker)
                taken += seconds[speaker]
        for speaker in chosen or [min(left, key=lambda s: seconds[s])]:
            set_of[speaker] = name
    return set_of
