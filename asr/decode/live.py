"""Searches that go on as frames come: their best hypotheses at any time, and what is settled."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.decode.decoder import Decoder
from asr.decode.emission import checked_with_best, only_blanks
from asr.decode.greedy import greedy
from asr.decode.search import words
from asr.decode.search.beam import hypotheses_of
from asr.decode.search.state import decide, end_scores, settled
from asr.lm.lstm import NeuralLM
from asr.types import Hypothesis

#: Seconds after which alternatives are given up, and the frames after which that is looked at.
OPEN_S, EVERY = 0.75, 8
#: What is found where no words fit.
NOTHING = Hypothesis((), (), (), 0.0, 0.0, words=(), word_spans=(), word_confidences=())


class Rows:
    """Log-probabilities (T, V) that grow by frames."""

    def __init__(self, n_labels: int) -> None:
        self._room = np.empty((64, n_labels), np.float32)
        self.n = 0

    def append(self, log_probs: NDArray[np.float32]) -> None:
        """Add frames (n, V)."""
        end = self.n + len(log_probs)
        if end > len(self._room):
            larger = np.empty((2 * end, self._room.shape[1]), np.float32)
            larger[: self.n] = self.all
            self._room = larger
        self._room[self.n : end] = log_probs
        self.n = end

    @property
    def all(self) -> NDArray[np.float32]:
        """All of them, to be read until the next are added."""
        return self._room[: self.n]


class Search(Protocol):
    """A search in a segment of speech, from its first frame on; ``rows`` are its frames so far.

    How they are cut makes no difference. ``n_settled`` never falls, and the labels so far stay what
    they are, whatever comes.
    """

    rows: Rows

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """Go on over frames (n, V)."""

    def best(self) -> Hypothesis:
        """What is likeliest by now."""

    def n_settled(self, best: Hypothesis) -> int:
        """How many of the first labels of `best` later frames cannot change."""

    def nbest(self) -> list[Hypothesis]:
        """The hypotheses, if this is the end, best first: those of the search over all at once."""

    def relative_cost(self) -> float:
        """How much less likely the best hypothesis that may end here is than the best."""


class GreedySearch:
    """Best-path decoding: only the label of the last frame may yet grow."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.rows = decoder, Rows(len(decoder.labels))

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        self.rows.append(log_probs)

    def best(self) -> Hypothesis:
        return self.decoder.completed(greedy(self.rows.all), self.rows.all)

    def n_settled(self, best: Hypothesis) -> int:
        return len(best.spans) - bool(best.spans and best.spans[-1][1] == self.rows.n)

    def nbest(self) -> list[Hypothesis]:
        return [self.best()]

    def relative_cost(self) -> float:
        return 0.0


class WholeSearch(GreedySearch):
    """A search that needs all frames: until the segment's end best-path decoding stands for it, and
    nothing is settled."""

    def n_settled(self, best: Hypothesis) -> int:
        return 0

    def nbest(self) -> list[Hypothesis]:
        return self.decoder(self.rows.all)


class WordSearch:
    """Beam search over the words of a lexicon: what all its hypotheses begin with is settled.

    Those that differ from the best one in what it said ``n_open`` frames ago are given up.
    """

    def __init__(self, decoder: Decoder, n_open: int) -> None:
        self.decoder, self.rows = decoder, Rows(len(decoder.labels))
        self._search, self._n_open = decoder.word_search, n_open
        self._state = words.begin(self._search)

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        options = self.decoder.beam_options
        log_probs, best = checked_with_best(log_probs)
        self.rows.append(log_probs)
        floors = best - np.float32(options.label_prune)
        frames = only_blanks(log_probs, options.blank_skip)
        first = 0
        while first < len(frames):
            end = first + EVERY - self._state.reached.t % EVERY
            part = frames[first:end], floors[first:end]
            self._state = words.advance(self._state, *part, self._search)
            if not self._state.reached.t % EVERY:
                self._state = decide(self._state, self._n_open)
            first = end

    def best(self) -> Hypothesis:
        return self._nbest(1)[0]

    def n_settled(self, best: Hypothesis) -> int:
        n_words = self._n_settled_words()
        return best.word_spans[n_words - 1][1] if n_words and best.word_spans else 0

    def nbest(self) -> list[Hypothesis]:
        return self._nbest(self.decoder.beam_options.nbest)

    def relative_cost(self) -> float:
        entries, histories, search = self._state.entries, self._state.tree, self._search
        if not len(entries.total):
            return 0.0
        after = len(search.tree.label)
        may_end = (entries.place == 0) | (entries.place >= after)
        nodes, totals = entries.node[may_end], np.log(entries.total[may_end])
        scoring, lm, hot = search.words.scoring, search.words.lm, search.words.hot
        if scoring.lm_scale > 0.0:
            ends = end_scores(lm.trie, histories.lm_state[nodes], lm.end_token)
            totals += scoring.lm_scale * ends
        if len(hot.end):
            totals += hot.end[histories.hot_state[nodes]]
        best = np.log(entries.total.max())
        return max(0.0, float(best - totals.max(initial=-np.inf)))

    def _nbest(self, n: int) -> list[Hypothesis]:
        rows, lexicon = self.rows.all, self.decoder.lexicon
        assert lexicon is not None
        found = list(words.found(self._state, self._search))
        if not found:
            # Noise that no words fit must not end a stream.
            return [NOTHING]
        nbest = hypotheses_of(found, rows, n, lexicon)
        return [self.decoder.completed(hypothesis, rows) for hypothesis in nbest]

    def _n_settled_words(self) -> int:
        """The number of words that all hypotheses begin with."""
        (codes, _), search = settled(self._state), self._search
        first_letter = search.words.n_words + 1
        first_spelled = first_letter + len(search.root_child)
        n_words = sum(not first_letter <= c < first_spelled for c in codes)
        # An unknown word that is spelled may go on.
        return n_words - bool(codes and codes[-1] >= first_letter)


def begin(decoder: Decoder, shift_s: float) -> Search:
    """The search of a decoder in frames of ``shift_s`` seconds, before the first."""
    if decoder.config.name == "greedy":
        return GreedySearch(decoder)
    if decoder.searches_words and not (decoder.rescores or isinstance(decoder.lm, NeuralLM)):
        return WordSearch(decoder, round(OPEN_S / shift_s))
    return WholeSearch(decoder)
