"""Pronouncing dictionaries as they come: plain lines, CMUdict's, TIMIT's, MFA's and Kaldi's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from asr.errors import InputError
from asr.labels import SILENCES
from asr.system.text import counted, decoded, nfc, plain_words, read_bytes

#: What dictionaries name silence, spoken and other noise; what consists of it is no word.
NO_SPEECH = frozenset((*SILENCES, "sp", "spn", "nsn", "lau", "noise"))
#: TIMIT's closures, which CMUdict takes as part of the stop.
CLOSURES = {
    "b": "bcl", "d": "dcl", "g": "gcl", "p": "pcl", "t": "tcl", "k": "kcl", "jh": "dcl", "ch": "tcl"
}  # fmt: skip
COMMENT, REMARK = ";;;", "#"
#: TIMIT's timitdic.txt: phones between slashes, words such as "live~v", comments after one ";".
SLASHED, TIMIT_COMMENT, PART_OF_SPEECH = re.compile(r"/([^/]*)/$"), ";", re.compile(r"(?<=.)~\w+$")
VARIANT = re.compile(r"(?<=.)\(\d+\)$")
DISAMBIGUATION = re.compile(r"#\d+$")
STRESS = "012"
NUMBER = re.compile(r"\d*\.?\d+(e-?\d+)?$")
#: MFA's and Kaldi's dictionaries have that of the pronunciation, or three about silence beside it.
N_PROBABILITIES = (0, 1, 4)
#: Words that a sum names, the most frequent ones.
MOST_TOLD = 10


class Entry(NamedTuple):
    """A word and one of its pronunciations. where: file:line. probability: 1 where none is told."""

    where: str
    word: str
    phones: tuple[str, ...]
    probability: float = 1.0


def read_entries(
    path: Path, known: Collection[str] = (), only: Collection[str] | None = None
) -> list[Entry]:
    """Read a dictionary: a word and its phones a line, several lines for several pronunciations.

    Left out are CMUdict's comments (``;;;``) and TIMIT's (``;``), remarks (`` # ``), numbers of
    variants (``WORD(2)``), TIMIT's slashes and parts of speech (``live~v /l ih1 v/``), Kaldi's
    positions (``_B _I _E _S``) and disambiguation symbols, and entries of silence or noise alone.
    Probabilities (MFA's and Kaldi's: one column or four) sort a word's pronunciations, the
    likeliest first.

    Where the phones that a model knows are given, others are taken for them without their stress
    and, from a file in upper case, in lower case; where those have closures, CMUdict's stops get
    theirs. A phone that is none of them even so stays as it is written. only: the words that are
    wanted, as the file writes them.

    Raises:
        InputError: no such file, not text, a line with other numbers, or nothing in it.
    """
    rows = _rows(_text(Path(path)), path, only)
    weighted = any(tokens and "." in tokens[0] and NUMBER.match(tokens[0]) for *_, tokens in rows)
    entries = []
    for where, word, tokens in rows:
        numbers = _numbers(tokens, where, known) if weighted else []
        phones = _unplaced([t for t in tokens[len(numbers) :] if not DISAMBIGUATION.match(t)])
        if not phones or any(p.lower() not in NO_SPEECH for p in phones):
            entries.append(Entry(where, word, tuple(phones), *numbers[:1]))
    if not entries and only is None:
        raise InputError(f"{path}: no words in this lexicon")
    if known:
        entries = as_known(entries, known)
    return _likeliest_first(entries) if weighted else entries


def _text(path: Path) -> str:
    content = read_bytes(path)
    try:
        return decoded(path, content)
    except InputError:
        if not content.startswith(COMMENT.encode()):
            raise
    # CMUdict 0.7b has an accent or two.
    return nfc(content.decode("latin-1"))


def _rows(text: str, path: Path, only: Collection[str] | None) -> list[tuple[str, str, list[str]]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        named, *rest = line.split(maxsplit=1) or [COMMENT]
        word, said = VARIANT.sub("", named), " ".join(rest).strip()
        if slashed := SLASHED.match(said):
            word, said = PART_OF_SPEECH.sub("", word).removesuffix("."), slashed[1]
        is_comment = word.startswith(COMMENT) or word == TIMIT_COMMENT
        if is_comment or (only is not None and word not in only):
            continue
        tokens = said.split()
        if REMARK in tokens:
            tokens = tokens[: tokens.index(REMARK)]
        rows.append((f"{path}:{number}", word, tokens))
    return rows


def _numbers(tokens: Sequence[str], where: str, known: Collection[str]) -> list[float]:
    """The numbers before the phones; some phones are called by a digit."""
    numbers = []
    for token in tokens:
        if not NUMBER.match(token) or token in known:
            break
        numbers.append(float(token))
    if len(numbers) not in N_PROBABILITIES or not all(n <= 1 for n in numbers[:1]):
        raise InputError(
            f"{where}: expected a word, its probability (up to 1, or that and three numbers about "
            f"silence) and its phones, found {' '.join(tokens)!r} after the word"
        )
    return numbers


def _unplaced(phones: list[str]) -> list[str]:
    """Phones without the places in the word that Kaldi adds to each."""
    inner = ["_I"] * (len(phones) - 2)
    places = ["_S"] if len(phones) == 1 else ["_B", *inner, "_E"]
    return [p[:-2] for p in phones] if [p[-2:] for p in phones] == places else phones


def as_known(
    entries: Sequence[Entry], known: Collection[str], cmudict: bool = False
) -> list[Entry]:
    """Entries in the phones that are known, as `read_entries` says.

    cmudict: they are CMUdict's, which stress tells otherwise.
    """
    written = {phone for entry in entries for phone in entry.phones}
    upper = not any(c.islower() for phone in written for c in phone)
    read: dict[str, str] = {}
    for phone in written:
        bare = phone.rstrip(STRESS)
        taken = [phone, bare, phone.lower(), bare.lower()] if upper else [phone, bare]
        read[phone] = next((way for way in taken if way in known), phone)
    stressed = cmudict or any(phone[-1:] in STRESS and read[phone] != phone for phone in written)
    closures: Mapping[str, str] = CLOSURES if stressed and "bcl" in known else {}
    ways = {p: (closures[way], way) if way in closures else (way,) for p, way in read.items()}
    return [
        Entry(where, word, tuple([p for phone in phones for p in ways[phone]]), probability)
        for where, word, phones, probability in entries
    ]


def _likeliest_first(entries: Iterable[Entry]) -> list[Entry]:
    by_word: dict[str, list[Entry]] = {}
    for entry in entries:
        by_word.setdefault(entry.word, []).append(entry)
    return [e for found in by_word.values() for e in sorted(found, key=lambda e: -e.probability)]


def sum_up(missing: Mapping[str, Sequence[str]], lack: str = "that are not in the lexicon") -> str:
    """One line about words that are lacking, or nothing. missing: those that an utterance says."""
    if not any(missing.values()):
        return ""
    times = Counter(word for words in missing.values() for word in words)
    first: dict[str, str] = {}
    for id, words in missing.items():
        for word in words:
            first.setdefault(word, id)
    told = [f"{word} ({n}, first in {first[word]})" for word, n in times.most_common(MOST_TOLD)]
    n_places = sum(map(bool, missing.values()))
    return (
        f"words {lack}: {len(times)}, said {counted(times.total(), 'time')} in "
        f"{counted(n_places, 'utterance')}: "
        f"{', '.join(told)}{', ...' if len(times) > MOST_TOLD else ''}"
    )


def look_up(text: str, is_known: Callable[[str], object]) -> tuple[list[str], list[str]]:
    """The words of ``text`` as they are known, and those that are not.

    A word that is not known as it is written is looked up as one of `plain_words`, in lower and
    upper case, with and without the apostrophes around it.
    """
    found: list[str] = []
    missing: list[str] = []
    for token in nfc(text).split():
        for word in [token] if is_known(token) else plain_words(token).split():
            bare = word.strip("'")
            ways = [way for way in (word, word.upper(), bare, bare.upper()) if is_known(way)]
            (found if ways else missing).append((ways or [word])[0])
    return found, missing
