"""Symbols and their ids, and the foldings from fine phone sets to coarse ones.

Id 0 is the CTC blank everywhere; framewise models keep the slot and never train it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.errors import InputError
from asr.system.files import write_text
from asr.system.settings import check, setting
from asr.types import Segment, Utterance

BLANK = 0
BLANK_SYMBOL = "<blank>"
SPACE = "<space>"
UNKNOWN = "<unk>"
SILENCE = "sil"
#: What is silence before folding, too. Closures are silence only once timit39 has made them so.
SILENCES = (SILENCE, "h#", "pau")
#: Labels that are no speech.
SILENT = (*SILENCES, SPACE)
UNITS = ("phone", "char", "word")
SILENCE_POLICIES = ("count", "merge", "ignore")

# Lee & Hon (1989), as in Kaldi's conf/phones.60-48-39.map: 39 <- {48: 61}.
_LEE_HON: dict[str, dict[str, str]] = {
    "aa": {"aa": "aa", "ao": "ao"},
    "ah": {"ah": "ah", "ax": "ax ax-h"},
    "er": {"er": "er axr"},
    "hh": {"hh": "hh hv"},
    "ih": {"ih": "ih", "ix": "ix"},
    "l": {"l": "l", "el": "el"},
    "m": {"m": "m em"},
    "n": {"n": "n nx", "en": "en"},
    "ng": {"ng": "ng eng"},
    "sh": {"sh": "sh", "zh": "zh"},
    "uw": {"uw": "uw ux"},
    "sil": {"sil": "h# pau", "cl": "pcl tcl kcl", "vcl": "bcl dcl gcl", "epi": "epi"},
}
_UNCHANGED = "ae aw ay b ch d dh dx eh ey f g iy jh k ow oy p r s t th uh v w y z".split()

#: 61 -> 48; ``q`` (glottal stop) is deleted, not folded into silence.
TIMIT_48: dict[str, str | None] = {"q": None} | {p: p for p in _UNCHANGED}
#: 61, 48 or 39 -> 39, so that references and hypotheses of any of the three can be folded.
TIMIT_39: dict[str, str | None] = {"q": None} | {p: p for p in _UNCHANGED}
for _phone39, _by48 in _LEE_HON.items():
    TIMIT_39[_phone39] = _phone39
    for _phone48, _phones61 in _by48.items():
        TIMIT_39[_phone48] = _phone39
        TIMIT_48[_phone48] = _phone48
        for _phone61 in _phones61.split():
            TIMIT_48[_phone61] = _phone48
            TIMIT_39[_phone61] = _phone39

TIMIT_61_PHONES: tuple[str, ...] = tuple(
    sorted(
        ["q", *_UNCHANGED]
        + [p for by48 in _LEE_HON.values() for phones in by48.values() for p in phones.split()]
    )
)

_CMU = (
    "aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng "
    "ow oy p r s sh t th uh uw v w y z zh"
).split()
#: The CMU dictionary's phones with TIMIT's silences h# and pau as one symbol.
CMU_40: dict[str, str | None] = {p: p for p in (*_CMU, SILENCE)}
CMU_40 |= {"h#": SILENCE, "pau": SILENCE}

FOLDINGS: dict[str, Mapping[str, str | None] | None] = {
    "none": None,
    "timit48": TIMIT_48,
    "timit39": TIMIT_39,
    "cmu40": CMU_40,
}


def folding_named(name: str) -> Mapping[str, str | None] | None:
    """Return the folding table called ``name`` (``None`` for "none").

    Raises:
        InputError: there is no such folding.
    """
    if name not in FOLDINGS:
        raise InputError(f"folding {name!r} does not exist; choose one of {', '.join(FOLDINGS)}")
    return FOLDINGS[name]


def fold(symbols: Iterable[str], folding: str, where: str = "labels") -> list[str]:
    """Map symbols through the named folding; symbols that it deletes (TIMIT's q) vanish.

    Raises:
        InputError: a symbol is not in the folding's inventory; ``where`` says whose it was.
    """
    return [s.label for s in fold_segments([Segment(s) for s in symbols], folding, where)]


def fold_segments(
    segments: Iterable[Segment], folding: str, where: str = "labels"
) -> list[Segment]:
    """`fold` for segments; times and confidences are kept, a deleted segment leaves a gap."""
    table = folding_named(folding)
    if table is None:
        return list(segments)
    folded = []
    for segment in segments:
        if segment.label not in table:
            raise InputError(
                f"{where}: phone {segment.label!r} is not in the inventory of folding '{folding}'; "
                "correct it, or train with another folding "
                f"(labels.fold={'|'.join(FOLDINGS)})"
            )
        label = table[segment.label]
        if label is not None:
            folded.append(replace(segment, label=label))
    return folded


def unit_symbols(utterance: Utterance, unit: str, folding: str = "none") -> list[str]:
    """Return what was said as symbols of ``unit``: folded phones, characters or words.

    Raises:
        InputError: the utterance has no transcript of that kind, or a stray phone.
    """
    if unit == "phone":
        if utterance.phones is None:
            raise InputError(
                f"utterance {utterance.id}: has no phones; name a lexicon for its words "
                "(corpus.lexicon=FILE), or choose labels.unit=char or word"
            )
        return fold([p.label for p in utterance.phones], folding, f"utterance {utterance.id}")
    if utterance.text is None:
        raise InputError(f"utterance {utterance.id}: has no text")
    if unit not in UNITS:
        raise InputError(f"unit {unit!r} does not exist; choose one of {', '.join(UNITS)}")
    return split(utterance.text, unit)


def split(line: str, unit: str) -> list[str]:
    """A line as symbols: its characters, a space being ``<space>``, or what white space separates.

    White space at the ends goes, and any amount of it between words is one space.
    """
    words = line.split()
    if unit != "char":
        return words
    return [SPACE if c == " " else c for c in " ".join(words)]


def join(symbols: Iterable[str], unit: str) -> str:
    """The reverse of `split`."""
    if unit != "char":
        return " ".join(symbols)
    return "".join(" " if s == SPACE else s for s in symbols)


@dataclass
class LabelConfig:
    """What the model's labels are and how they are scored."""

    unit: str = setting("phone", "what a label is", choices=UNITS)
    fold: str = setting("none", "folding of phones before training", choices=tuple(FOLDINGS))
    score_fold: str = setting(
        "none", "folding of reference and hypothesis after decoding", choices=tuple(FOLDINGS)
    )
    silence: str = setting("count", "how scoring treats silence", choices=SILENCE_POLICIES)

    def __post_init__(self) -> None:
        check(self, "labels")


@dataclass(frozen=True)
class Labels:
    """An inventory: ``symbols[id]``, with the blank at 0."""

    unit: str
    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.symbols or self.symbols[0] != BLANK_SYMBOL:
            raise InputError(f"label inventory must begin with {BLANK_SYMBOL}")
        if len(set(self.symbols)) != len(self.symbols):
            raise InputError("label inventory names a symbol twice")
        object.__setattr__(self, "_ids", {s: i for i, s in enumerate(self.symbols)})

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def ids(self) -> Mapping[str, int]:
        """Symbol -> id."""
        return self._ids  # type: ignore[attr-defined]

    def among(self, symbols: Iterable[str]) -> list[int]:
        """The ids of those of the symbols that it has."""
        return [self.ids[s] for s in symbols if s in self.ids]

    def encode(self, symbols: Iterable[str], where: str = "labels") -> list[int]:
        """Symbols -> ids. A word outside a word inventory becomes ``<unk>`` where there is one.

        Raises:
            InputError: a symbol is not in the inventory; ``where`` says whose it was.
        """
        ids = self.ids
        unknown = ids.get(UNKNOWN)
        encoded = []
        for symbol in symbols:
            found = ids.get(symbol, unknown)
            if found is None:
                raise InputError(
                    f"{where}: {self.unit} {symbol!r} is not in the inventory of {len(self) - 1}"
                )
            encoded.append(found)
        return encoded

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Ids -> symbols."""
        return [self.symbols[i] for i in ids]

    def join(self, symbols: Sequence[str]) -> str:
        """Symbols -> readable text: characters run together, phones and words stand apart."""
        text = join(symbols, self.unit)
        return " ".join(text.split()) if self.unit == "char" else text

    def save(self, path: Path) -> None:
        """Write one symbol a line after a first line that names the unit."""
        write_text(path, "\n".join([f"unit {self.unit}", *self.symbols]) + "\n")

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or malformed.
        """
        try:
            head, *symbols = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no readable label inventory ({error})") from error
        if not head.startswith("unit ") or head[5:] not in UNITS:
            raise InputError(
                f"{path}:1: expected 'unit phone', 'unit char' or 'unit word', found {head!r}"
            )
        try:
            return cls(head[5:], tuple(symbols))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def inventory(utterances: Iterable[Utterance], unit: str, folding: str = "none") -> Labels:
    """Collect the inventory of ``unit`` over the training utterances, sorted, blank first.

    Words get an ``<unk>``; a fixed phone folding gives its whole set, seen or not.
    """
    table = folding_named(folding)
    if unit == "phone" and table is not None:
        seen = {label for label in table.values() if label is not None}
    else:
        seen = {s for u in utterances for s in unit_symbols(u, unit, folding)}
    if unit == "word":
        seen.add(UNKNOWN)
    return Labels(unit, (BLANK_SYMBOL, *sorted(seen)))


def is_unicode(text: str) -> bool:
    """False where JSON's escapes have made what UTF-8 cannot write: half a character."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
