"""Prefix beam search over CTC outputs (Graves et al. 2006, section 3.2; Hannun et al. 2014)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decode.emission import checked_with_best, only_blanks
from asr.decode.lexicon import NO_HOTWORDS, Hotwords, Lexicon
from asr.decode.paths import ctc_align, ctc_align_words
from asr.decode.search import labels
from asr.decode.search.labels import CLOSE, MOST_CLOSE, sum_of_paths
from asr.decode.search.readings import sum_of_readings
from asr.decode.search.state import Found
from asr.decode.search.words import Scoring, Search, Words, advance, begin, by_label, found
from asr.errors import InputError
from asr.labels import BLANK, UNKNOWN
from asr.lm.ngram import NO_LM, BoundNGram
from asr.types import Hypothesis

LOG_10 = math.log(10.0)
#: The searches multiply probabilities by its exponential.
MOST_BONUS = 100


@dataclass(frozen=True)
class BeamOptions:
    """How wide to search, and what the language model counts.

    beam: prefixes kept after each frame. nbest: hypotheses returned, at most (of more, the best may
    be another: without a lexicon all that are returned are scored anew, over all their paths).
    lm_weight: factor of the language model's log-probability. bonus: added for each label (each
    word, with a lexicon). label_prune: labels this much below the frame's best do not extend a
    prefix. score_prune: prefixes this much below the best are dropped. Both in natural logarithms;
    ``math.inf`` prunes nothing. unknown_penalty: cost of each word outside the lexicon, in natural
    logarithms (2 to 4 is a good start); ``math.inf`` allows none. Characters spell such a word;
    with phones it is ``<unk>``. blank_skip: frames in which the blank has more than this
    probability are taken for blank, and nothing else is tried; 1 skips none. On a corpus of read
    sentences 0.99 skipped 3 frames in 10, saved a seventh of the time without a lexicon (next to
    nothing with one), and changed one transcript in 114; 0.95 changed 7, by 0.2 % of the phones.
    In utterances of more than 3000 frames, what was said that long ago is settled without a
    lexicon: alternatives to it are given up.
    """

    beam: int = 50
    nbest: int = 1
    lm_weight: float = 0.0
    bonus: float = 0.0
    label_prune: float = 12.0
    score_prune: float = 20.0
    blank_skip: float = 1.0
    unknown_penalty: float = math.inf

    def __post_init__(self) -> None:
        for name, lowest in (
            ("beam", 1),
            ("nbest", 1),
            ("lm_weight", 0),
            ("label_prune", 0),
            ("unknown_penalty", 0),
        ):
            if not getattr(self, name) >= lowest:
                raise InputError(
                    f"beam search: {name} must be {lowest} or more, found {getattr(self, name)}"
                )
        if not math.isfinite(self.lm_weight * LOG_10):
            raise InputError(f"beam search: lm_weight must be finite, found {self.lm_weight}")
        if not self.score_prune >= 0 or not abs(self.bonus) <= MOST_BONUS:
            raise InputError(
                "beam search: score_prune must be 0 or more, "
                f"bonus within -{MOST_BONUS} .. {MOST_BONUS}"
            )
        if not 0 < self.blank_skip <= 1:
            raise InputError(
                f"beam search: blank_skip must be above 0, 1 at most, found {self.blank_skip}"
            )


def beam_search(
    log_probs: np.ndarray,
    options: BeamOptions = BeamOptions(),
    lm: BoundNGram | None = None,
    lexicon: Lexicon | None = None,
    hotwords: Hotwords | None = None,
    seen_as: Callable[[Sequence[int]], Hashable] = tuple,
) -> list[Hypothesis]:
    """Find the most probable label sequences, or word sequences, each summed over its CTC paths.

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.
        lm: n-gram over the labels, ``NGram.bind(labels.symbols)``, or over the lexicon's words,
            ``Lexicon.bind(ngram)``; the end of the sentence is scored too.
        lexicon: find only its words, unless ``options.unknown_penalty`` allows others.
        hotwords: ``lexicon.bind_hotwords``; their boosts count as ``bonus``.
        seen_as: what users see of labels; of hypotheses that they cannot tell apart, the best is
            returned. With a lexicon, users see words.

    Returns:
        At most ``options.nbest`` hypotheses that users can tell apart, best first. ``acoustic``
        sums all paths of the labels: those with other spaces, which have another score of the
        language model, are not added. With a lexicon, it sums the paths of the words' spellings
        whose beginnings all survived the pruning, once where labels can be read as the words in
        several ways (but for ``<unk>``), and ``labels`` are the best of these. Spans and
        confidences are those of the best path. If no hypothesis ends with a whole word, then the
        labels go on beyond the words, and ``acoustic`` sums all ways to go on.

    Raises:
        InputError: a frame without a finite best value, a lexicon, language model or hotwords of
            other labels or words, or no path spells words of the lexicon.
    """
    log_probs, best = checked_with_best(log_probs)
    if hotwords is not None and lexicon is None:
        raise InputError("hotwords are words of a lexicon, and there is none")
    if lexicon is not None:
        lexicon.check(log_probs.shape[1])
        if hotwords is not None and not hotwords.fit(lexicon):
            raise InputError("the hotwords are bound to another lexicon: use Lexicon.bind_hotwords")
    symbols = log_probs.shape[1] if lexicon is None else len(lexicon.words)
    nodes = 0 if lexicon is None else len(lexicon.tree.label)
    if lm is not None and (len(lm.token_of), len(lm.ahead)) != (symbols, nodes):
        raise InputError(
            f"the language model is bound to {len(lm.token_of)} symbols, expected {symbols}: "
            + ("bind it to the labels' symbols" if lexicon is None else "use Lexicon.bind")
        )
    if lm is None or options.lm_weight == 0:
        lm = NO_LM
    if lexicon is not None:
        log_probs = only_blanks(log_probs, options.blank_skip)
        words = word_search(options, lm, lexicon, hotwords or NO_HOTWORDS, log_probs.shape[1])
        state = begin(words)
        advance(state, log_probs, best, words)
        return hypotheses_of(found(state, words), log_probs, options.nbest, lexicon)
    search = label_search(options, lm, symbols)
    state = labels.begin(search)
    labels.advance(state, log_probs, best, search)
    likeliest = labels.found(state, search)
    summed = summed_anew(likeliest, log_probs, best, options.nbest, seen_as)
    return label_hypotheses(summed, log_probs, options.nbest, seen_as)


def label_search(options: BeamOptions, lm: BoundNGram, n_labels: int) -> labels.Search:
    """What `labels.advance` searches for among ``n_labels`` labels; arguments as of
    `beam_search`."""
    use_lm = lm is not NO_LM
    return labels.Search(
        options.beam,
        n_labels,
        labels.most_labels(n_labels, options.beam, use_lm),
        math.exp(-options.score_prune),
        float(options.label_prune),
        math.log(options.blank_skip) if options.blank_skip < 1 else math.inf,
        float(options.bonus),
        options.lm_weight * LOG_10 if use_lm else 0.0,
        lm,
    )


def summed_anew(
    found: Iterable[Found],
    log_probs: NDArray[np.float32],
    tops: NDArray[np.float32],
    nbest: int,
    seen_as: Callable[[Sequence[int]], Hashable],
) -> list[Found]:
    """The first of ``found``, of which ``nbest`` can be told apart, best first by all their paths
    through ``log_probs`` (T, V), whose best values are ``tops``.

    Among them are those so close to the best that what pruning lost could decide.
    """
    first: list[Found] = []
    different: set[Hashable] = set()
    for f in found:
        close = len(first) < MOST_CLOSE and f.score > first[0].score - CLOSE if first else True
        if len(different) >= nbest and not close:
            break
        first.append(f)
        if len(different) < nbest:
            different.add(seen_as(f.codes.tolist()))
    exact = 0.0
    for n, f in enumerate(first):
        # They are much alike: where summing the first is too much work, so are the others.
        if exact > -math.inf:
            exact = float(sum_of_paths(log_probs, tops, f.codes))
        first[n] = f._replace(acoustic=max(exact, f.acoustic))
    return sorted(first, key=lambda f: -f.score)


def label_hypotheses(
    found: Iterable[Found],
    log_probs: NDArray[np.float32],
    nbest: int,
    seen_as: Callable[[Sequence[int]], Hashable],
) -> list[Hypothesis]:
    """Align the ``nbest`` best that users can tell apart; ``codes`` are labels, best first."""
    hypotheses: dict[Hashable, Hypothesis] = {}
    for f in found:
        codes = f.codes.tolist()
        key = seen_as(codes)
        if key not in hypotheses:
            spans, confidences, _ = ctc_align(log_probs, codes, tuple(f.current))
            parts = f.score, f.acoustic, f.lm, f.bonus
            hypotheses[key] = Hypothesis(tuple(codes), spans, confidences, *parts)
        if len(hypotheses) == nbest:
            break
    return list(hypotheses.values())


def word_search(
    options: BeamOptions, lm: BoundNGram, lexicon: Lexicon, hotwords: Hotwords, n_labels: int
) -> Search:
    """What `words.advance` searches for among ``n_labels`` labels; arguments as of `beam_search`.

    Unknown words are ``<unk>`` to the language model. They are spelled where the lexicon has
    letters; else they are ``<unk>`` in the transcript too, which stands for any labels but
    separators and sums over them. Free labels always fit better than words do,
    so each costs half the logarithm of their number: with no cost an ``<unk>`` swallows its
    neighbours, and with the whole (a uniform choice) there is hardly any.

    Raises:
        InputError: unknown words are allowed, and the lexicon has one that is called so.
    """
    if options.unknown_penalty < math.inf and UNKNOWN in lexicon.ids:
        raise InputError(f"the lexicon has {UNKNOWN} already; remove it, or unknown_penalty")
    scale = options.lm_weight * LOG_10 if lm is not NO_LM else 0.0
    ahead, ahead_scale = lm.ahead, scale
    if lm is NO_LM:
        ahead = np.zeros(len(lexicon.tree.label))
    if len(hotwords.path_node):
        boosted = hotwords.path_gain.copy()
        if lm is not NO_LM:
            boosted += scale * lm.trie.log10_prob[1 + lm.token_of[hotwords.path_word]]
        ahead, ahead_scale = scale * ahead, 1.0
        np.maximum.at(ahead, hotwords.path_node, boosted)
    label_factor = 1.0 / math.sqrt(max(1, n_labels - 1))
    scoring = Scoring(scale, ahead_scale, options.bonus, -options.unknown_penalty, label_factor)
    return Search(
        options.beam,
        math.exp(-options.score_prune),
        float(options.label_prune),
        Words(scoring, lm, hotwords, len(lexicon.words)),
        lexicon.tree,
        ahead,
        len(lexicon.letters) > 0,
        *by_label(lexicon.tree, n_labels),
    )


def hypotheses_of(
    found: Iterable[Found], log_probs: NDArray[np.float32], nbest: int, lexicon: Lexicon
) -> list[Hypothesis]:
    """Spell and align the ``nbest`` best hypotheses of different words.

    found: best first. Their acoustic scores sum over readings: labels that can be read as the same
    words in several ways are taken off, so that a later one may come to be better.

    Raises:
        InputError: there is none.
    """
    kept: list[tuple[float, int, Found, Reading]] = []
    seen: set[tuple[str, ...]] = set()
    for place, hypothesis in enumerate(found):
        if len(kept) == nbest and hypothesis.score <= kept[0][0]:
            break
        reading = _read_codes(hypothesis.codes.tolist(), lexicon, log_probs)
        if reading.words in seen:
            continue
        seen.add(reading.words)
        hypothesis = _counted_once(hypothesis, reading, log_probs, lexicon)
        keep = heapq.heappush if len(kept) < nbest else heapq.heappushpop
        keep(kept, (hypothesis.score, -place, hypothesis, reading))
    if not kept:
        raise InputError(f"no words of the lexicon fit the {len(log_probs)} frames")
    return [
        _aligned(hypothesis, reading, log_probs, lexicon)
        for _, _, hypothesis, reading in sorted(kept, reverse=True)
    ]


class Reading(NamedTuple):
    """What the codes of `Found` stand for: words, how each may be spelled (a set: by any of
    these labels), and the number of codes up to its end."""

    words: tuple[str, ...]
    spellings: list[Sequence[Sequence[int]] | frozenset[int]]
    ends: list[int]


def _counted_once(
    found: Found, reading: Reading, log_probs: NDArray[np.float32], lexicon: Lexicon
) -> Found:
    """Without what several readings of the same labels have added to the acoustic score.

    Not of a word cut off, nor of an ``<unk>``: its price depends on where it begins and ends.
    """
    spellings = [ways for ways in reading.spellings if not isinstance(ways, frozenset)]
    if (
        found.unfinished
        or not lexicon.may_part(found.codes.tolist())
        or len(spellings) < len(reading.spellings)
    ):
        return found
    current = tuple(found.current[:, [0, *reading.ends]])
    acoustic = sum_of_readings(
        log_probs, spellings, lexicon.separators, lexicon.required, (current[0], current[1])
    )
    return found if acoustic is None else found._replace(acoustic=min(found.acoustic, acoustic))


def _aligned(
    found: Found, reading: Reading, log_probs: NDArray[np.float32], lexicon: Lexicon
) -> Hypothesis:
    """With the labels, spans and confidences of its best path."""
    spellings = list(reading.spellings)
    current = found.current[:, [0, *reading.ends]]
    if found.unfinished:
        spellings.append((lexicon.labels_to(found.unfinished),))
        current = np.append(current, [[len(log_probs)]] * 2, axis=1)
    labels, word_spans, spans, confidences, _ = ctc_align_words(
        log_probs, spellings, lexicon.separators, lexicon.required, tuple(current)
    )
    return Hypothesis(
        labels,
        spans,
        confidences,
        found.score,
        found.acoustic,
        found.lm,
        found.bonus,
        reading.words,
        word_spans[: len(reading.words)],
    )


def _read_codes(codes: list[int], lexicon: Lexicon, log_probs: NDArray[np.float32]) -> Reading:
    n_words, n_labels = len(lexicon.words), log_probs.shape[1]
    words: list[str] = []
    spellings: list[Sequence[Sequence[int]] | frozenset[int]] = []
    ends: list[int] = []
    letters: tuple[int, ...] = ()
    for end, code in enumerate(codes, start=1):
        if code < n_words:
            words.append(lexicon.words[code])
            spellings.append(lexicon.spellings[code])
        elif code == n_words:
            # Of all labels, the best path takes a frame's best. Those after may be the last of the
            # word before and the first of the word after.
            labels = np.setdiff1d(np.arange(1, n_labels), lexicon.separators)
            best = np.argsort(log_probs[:, labels], axis=1)[:, -3:]
            words.append(UNKNOWN)
            spellings.append(frozenset(labels[np.unique(best)].tolist()))
        else:
            node, label = divmod(code - n_words - 1 - n_labels, n_labels)
            if node < 0:
                letters += (label,)
                words.pop(), spellings.pop(), ends.pop()
            else:
                letters = lexicon.labels_to(node) + ((label,) if label != BLANK else ())
            words.append("".join(lexicon.letters[i] for i in letters))
            spellings.append((letters,))
        ends.append(end)
    return Reading(tuple(words), spellings, ends)
