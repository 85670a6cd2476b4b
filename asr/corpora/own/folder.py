"""A folder of recordings with text beside them: plain, or annotations with times.

The audio ``a.wav`` has its text in ``a.TextGrid``, ``a.eaf``, ``a.ctm``, ``a.vtt``, ``a.srt``,
``a.lab`` or ``a.txt``, the last two being plain.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple

from asr.audio.sources import MEDIA, SUFFIXES
from asr.corpora.audit import Audit, Corpus, Track, audible, audited_duration_s
from asr.corpora.own.annotations import READERS, read_annotations
from asr.corpora.own.config import SETS, Own, spoken
from asr.corpora.own.split import split_by_speaker
from asr.corpora.own.tiers import WORDS, Found, cut, find_tiers, intervals_of, utterance_in
from asr.corpora.tree import BEFORE_SENTENCE
from asr.errors import InputError
from asr.system.files import walked
from asr.system.text import nfc, read_text
from asr.types import Utterance

TEXTS = (*READERS, ".lab", ".txt")
# Of several beside each other, the first kind counts.
_AUDIO = SUFFIXES + MEDIA
_RANK = {suffix: rank for rank, suffix in enumerate((*_AUDIO, *TEXTS))}
_HTK = re.compile(r"\s*\d+\s+\d+\s+\S.*")


class _Recording(NamedTuple):
    """Audio and its text. below: the path from the root, without the suffix. set: see `_set_of`."""

    audio: Path
    text: Path
    below: PurePath
    set: str


def load_folder(root: Path, track: Track, own: Own = Own()) -> Corpus:
    """Load the recordings below ROOT that have text.

    Intervals of several words are utterances of their own; single words make up the recording, or
    where that is long, what lies between its pauses. Speakers are those of the tiers, or as
    ``own.speaker`` says, or the folders below ROOT, or each recording has its own. Folders called
    train, dev (valid, validation) and test are the sets, else these are drawn by speaker.

    Raises:
        InputError: no such folder, no audio with text in it, or a pattern that is none.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected recordings with text beside them")
    _check_pattern(own.speaker)
    audit = Audit()
    recordings = _recordings(root.absolute(), audit)
    if not recordings:
        raise InputError(_nothing_in(root, audit))
    in_sets = [r for r in recordings if r.set] if not own.shares else []
    if {r.set for r in in_sets} > {"train"}:
        n_outside = len(recordings) - len(in_sets)
        recordings = in_sets
        if n_outside:
            audit.dropped["outside of the sets' folders (--split draws sets instead)"] = n_outside
    else:
        recordings = [r._replace(set="") for r in recordings]
    taken: Counter[str] = Counter()
    found: list[tuple[str, Utterance]] = []
    for recording in track(recordings):
        found += [(recording.set, u) for u in _read(recording, own, taken, audit)]
    audit.notes.extend(f"{told}: {n} files" for told, n in taken.most_common())
    n_found = len(found) + len(audit.corrupt) + len(audit.missing) + sum(audit.dropped.values())
    return Corpus(_sets(found, own, audit), replace(audit, found=n_found), root)


def _sets(
    found: Sequence[tuple[str, Utterance]], own: Own, audit: Audit
) -> dict[str, list[Utterance]]:
    """The utterances by set, each id once."""
    by_id: dict[str, tuple[str, Utterance]] = {}
    for name, utterance in found:
        other = by_id.setdefault(utterance.id, (name, utterance))[1]
        if other is not utterance:
            audit.corrupt[f"{utterance.audio} ({utterance.id})"] = (
                f"would be called {utterance.id}, as one of {other.audio} is; rename one"
            )
    if not any(name for name, _ in by_id.values()):
        return split_by_speaker([u for _, u in by_id.values()], own, audit)
    sets: dict[str, list[Utterance]] = {name: [] for name in dict.fromkeys(SETS.values())}
    for name, utterance in by_id.values():
        sets[name].append(utterance)
    audit.notes.append("the sets are the folders of their names")
    return {name: utterances for name, utterances in sets.items() if utterances}


def _recordings(root: Path, audit: Audit) -> list[_Recording]:
    """Audio with the text beside it; what has no counterpart is noted."""
    found = []
    for folder, names in walked(root):
        by_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            stem, dot, suffix = name.rpartition(".")
            if stem and f"{dot}{suffix}".lower() in _RANK and not name.startswith("."):
                by_stem[stem].append(name)
        below = folder.relative_to(root)
        for stem, kinds in by_stem.items():
            kinds.sort(key=lambda name: _RANK[PurePath(name).suffix.lower()])
            audio = [folder / n for n in kinds if PurePath(n).suffix.lower() in _AUDIO]
            texts = [folder / n for n in kinds if PurePath(n).suffix.lower() in TEXTS]
            for extra in audio[1:]:
                audit.stray[str(extra)] = f"the same recording as {audio[0].name}, which counts"
            for extra in texts[1:] if audio else ():
                audit.stray[str(extra)] = f"a second text beside {texts[0].name}, which counts"
            if audio and texts:
                found.append(_Recording(audio[0], texts[0], below / stem, _set_of(below)))
            elif audio:
                audit.missing[str(audio[0])] = f"no text beside it ({', '.join(TEXTS)})"
            else:
                audit.stray.update((str(path), "text without audio beside it") for path in texts)
    return found


def _nothing_in(root: Path, audit: Audit) -> str:
    for files in (audit.missing, audit.stray):
        if files:
            path, reason = next(iter(files.items()))
            return f"{root}: no audio with text beside it; {len(files)} files like {path}: {reason}"
    return f"{root}: no audio in this folder or below; expected it beside {', '.join(TEXTS)}"


def _set_of(below: PurePath) -> str:
    """The set that the topmost folder is called after, or nothing."""
    return SETS.get(below.parts[0].lower(), "") if below.parts else ""


def _check_pattern(pattern: str) -> None:
    try:
        n_groups = re.compile(pattern).groups
    except re.error as error:
        raise InputError(f"--speaker {pattern}: is no regular expression ({error})") from error
    if n_groups > 1:
        raise InputError(f"--speaker {pattern}: expected one group, found {n_groups}")


def _speaker_of(recording: _Recording, own: Own, taken: Counter[str]) -> str:
    below = recording.below
    if own.speaker and not re.compile(own.speaker).groups:
        return nfc(own.speaker)
    if own.speaker:
        found = re.search(own.speaker, below.as_posix())
        if not found or not found[1]:
            raise InputError(f"its name does not fit --speaker {own.speaker}")
        taken["the speaker comes from the name"] += 1
        return nfc(found[1])
    folders = below.parts[1 if recording.set else 0 : -1]
    if folders:
        taken["the speaker is the folder's name"] += 1
        return nfc(folders[0])
    taken["no folder tells the speaker, taken for one of its own (--speaker says who)"] += 1
    return nfc(below.name)


def _read(recording: _Recording, own: Own, taken: Counter[str], audit: Audit) -> list[Utterance]:
    """The utterances of a recording; what is wrong with it, or with some of them, is noted."""
    duration_s = audited_duration_s(recording.audio, audit)
    if duration_s is None:
        return []
    name = nfc("_".join("_".join(recording.below.parts).split()))
    try:
        if recording.text.suffix.lower() not in READERS:
            text = _plain(recording.text)
            speaker = _speaker_of(recording, own, taken)
            return [Utterance(name, recording.audio, speaker, duration_s, text=text)]
        tiers = read_annotations(recording.text)
        found = find_tiers(tiers, own.tier, own.phones)
        speaker = "" if all(t.speaker for t in found.texts) else _speaker_of(recording, own, taken)
    except InputError as error:
        audit.corrupt[str(recording.text)] = str(error).removeprefix(f"{recording.text}: ")
        return []
    taken[found.told] += 1
    whole = Utterance(name, recording.audio, speaker, duration_s)
    return _stretches(whole, recording.text, found, audit)


def _plain(path: Path) -> str:
    text = read_text(path).strip()
    if path.suffix.lower() == ".lab" and all(map(_HTK.match, text.split("\n"))):
        raise InputError("holds HTK's labels with times; write them as TextGrid or plain text")
    return spoken(BEFORE_SENTENCE.sub("", text))


def _stretches(whole: Utterance, text: Path, found: Found, audit: Audit) -> list[Utterance]:
    """The utterances that the tiers of text cut the recording into."""
    utterances = []
    for number, tier in enumerate(found.texts, 1):
        words = intervals_of([tier] if tier.name in WORDS else found.words, tier.speaker)
        phones = intervals_of(found.phones, tier.speaker)
        several = f"-{tier.speaker or number}" if len(found.texts) > 1 else ""
        name = f"{whole.id}{'_'.join(several.split())}"
        speaker = tier.speaker or whole.speaker
        stretches = list(cut(tier, whole.duration_s))
        for stretch in stretches:
            is_part = len(stretches) > 1 or stretch.start_s > 0
            id_ = f"{name}-{round(stretch.start_s * 1000):07d}" if is_part else name
            try:
                of_speaker = replace(whole, id=id_, speaker=speaker)
                utterances.append(utterance_in(stretch, of_speaker, words, phones))
            except InputError as error:
                where = f"{text} (tier {tier.name}, interval {stretch.said[0].number})"
                audit.corrupt[where] = str(error)
    return audible(utterances, {whole.audio: whole.duration_s}, audit)
