"""Prefix beam search over CTC outputs (Graves et al. 2006, section 3.2; Hannun et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.decode.align import ctc_align, ctc_align_words
from asr.decode.emission import checked_with_best, only_blanks
from asr.decode.label_search import search_labels
from asr.decode.lexicon import NO_HOTWORDS, Hotwords, Lexicon
from asr.decode.words import Scoring, search_words
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
) -> list[Hypothesis]:
    """Find the most probable label sequences, or word sequences, each summed over its CTC paths.

    Args:
        log_probs: (T, V) natural logarithms of one utterance, blank 0.
        lm: n-gram over the labels, ``NGram.bind(labels.symbols)``, or over the lexicon's words,
            ``Lexicon.bind(ngram)``; the end of the sentence is scored too.
        lexicon: find only its words, unless ``options.unknown_penalty`` allows others.
        hotwords: ``lexicon.bind_hotwords``; their boosts count as ``bonus``.

    Returns:
        At most ``options.nbest`` different hypotheses, best first. ``acoustic`` sums all paths of
        the labels; with a lexicon, those of the words' spellings whose beginnings all survived the
        pruning, and ``labels`` are the best of these. Spans and confidences are those of the best
        path. If no hypothesis ends with a whole word, then the labels go on beyond the words.

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
        lm, lm_scale = NO_LM, 0.0
    else:
        lm_scale = options.lm_weight * LOG_10
    if lexicon is not None:
        floors = best - np.float32(options.label_prune)
        log_probs = only_blanks(log_probs, options.blank_skip)
        return _words(log_probs, floors, options, lm, lexicon, hotwords or NO_HOTWORDS)
    *found, order = search_labels(
        log_probs,
        best,
        float(options.label_prune),
        math.log(options.blank_skip) if options.blank_skip < 1 else math.inf,
        options.beam,
        options.nbest,
        float(options.score_prune),
        float(options.bonus),
        lm_scale,
        lm,
    )
    hypotheses = []
    for labels, length, acoustic, lm_score, current in zip(*(x[order] for x in found), strict=True):
        sequence = tuple(labels[:length].tolist())
        spans, confidences, _ = ctc_align(log_probs, sequence, tuple(current[:, : length + 1]))
        parts = float(acoustic), float(lm_score), options.bonus * len(sequence)
        hypotheses.append(Hypothesis(sequence, spans, confidences, sum(parts), *parts))
    return hypotheses


def _words(
    log_probs: NDArray[np.float32],
    floors: NDArray[np.float32],
    options: BeamOptions,
    lm: BoundNGram,
    lexicon: Lexicon,
    hotwords: Hotwords,
) -> list[Hypothesis]:
    """Search words, spell and align them.

    Unknown words are ``<unk>`` to the language model. They are spelled where the lexicon has
    letters; else they are ``<unk>`` in the transcript too, which stands for any labels but
    separators and sums over them. Free labels always fit better than words do,
    so each costs half the logarithm of their number: with no cost an ``<unk>`` swallows its
    neighbours, and with the whole (a uniform choice) there is hardly any.
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
    label_factor = 1.0 / math.sqrt(max(1, log_probs.shape[1] - 1))
    scoring = Scoring(scale, ahead_scale, options.bonus, -options.unknown_penalty, label_factor)
    found = search_words(
        log_probs,
        floors,
        options.beam,
        options.nbest,
        options.score_prune,
        scoring,
        lm,
        lexicon.tree,
        ahead,
        hotwords,
        len(lexicon.letters) > 0,
        len(lexicon.words),
    )
    if not found:
        raise InputError(f"no words of the lexicon fit the {len(log_probs)} frames")
    hypotheses = []
    for codes, unfinished, acoustic, lm_score, bonus, current in found:
        words, spellings, ends = _read_codes(codes, lexicon, log_probs)
        current = current[:, [0, *ends]]
        if unfinished:
            spellings.append((lexicon.labels_to(unfinished),))
            current = np.append(current, [[len(log_probs)]] * 2, axis=1)
        labels, word_spans, spans, confidences, _ = ctc_align_words(
            log_probs, spellings, lexicon.separators, lexicon.required, tuple(current)
        )
        hypotheses.append(
            Hypothesis(
                labels,
                spans,
                confidences,
                acoustic + lm_score + bonus,
                acoustic,
                lm_score,
                bonus,
                tuple(words),
                word_spans[: len(words)],
            )
        )
    return hypotheses


def _read_codes(
    codes: list[int], lexicon: Lexicon, log_probs: NDArray[np.float32]
) -> tuple[list[str], list[Sequence[Sequence[int]] | frozenset[int]], list[int]]:
    """Return what the codes of `search_words` stand for: words, how each may be spelled, and the
    number of codes up to its end."""
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
    return words, spellings, ends
