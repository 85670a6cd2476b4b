"""Searches that go on as frames come: their best hypotheses at any time, and what is settled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.decode.decoder import Decoder
from asr.decode.emission import best_values, checked_with_best
from asr.decode.greedy import greedy
from asr.decode.search import labels, words
from asr.decode.search.beam import hypotheses_of, label_hypotheses, summed_anew
from asr.decode.search.state import Found, Horizon, State, end_scores, settled, steady
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
    they are, whatever comes; where words of a lexicon are searched, these do, and how they are
    pronounced may change.
    """

    rows: Rows

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        """Go on over frames (n, V)."""

    def best(self) -> Hypothesis:
        """What is likeliest by now."""

    def n_settled(self, best: Hypothesis) -> int:
        """How many of the first labels of `best` later frames cannot change."""

    def n_steady(self, best: Hypothesis) -> int:
        """How many of the first labels of `best` are more than a guess."""

    def nbest(self) -> list[Hypothesis]:
        """The hypotheses, if this is the end, best first: those of the search over all at once."""

    def relative_cost(self) -> float:
        """How much less likely the best hypothesis that may end here is than the best."""


class GreedySearch:
    """Best-path decoding: only the label of the last frame may yet grow."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.rows = decoder, Rows(len(decoder.labels))

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        self.rows.append(self.decoder.weighed(log_probs))

    def best(self) -> Hypothesis:
        return self.decoder.completed(greedy(self.rows.all), self.rows.all)

    def n_settled(self, best: Hypothesis) -> int:
        return len(best.spans) - bool(best.spans and best.spans[-1][1] == self.rows.n)

    def n_steady(self, best: Hypothesis) -> int:
        return len(best.spans)

    def nbest(self) -> list[Hypothesis]:
        return [self.best()]

    def relative_cost(self) -> float:
        return 0.0


class WholeSearch(GreedySearch):
    """A search that needs all frames: until the segment's end best-path decoding stands for it, and
    nothing is settled."""

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        self.rows.append(log_probs)

    def n_settled(self, best: Hypothesis) -> int:
        return 0

    def nbest(self) -> list[Hypothesis]:
        return self.decoder(self.rows.all)


class LabelSearch:
    """Beam search over labels: what all its hypotheses begin with is settled.

    Those that differ from the best one in what it said ``n_open`` frames ago are given up. That is
    looked at after each `EVERY` frames of the stream, in which the search's is the ``first``.
    Steady is what the best one says and said the last two times, too.
    """

    def __init__(self, decoder: Decoder, n_open: int, first: int = 0) -> None:
        self.decoder, self.rows = decoder, Rows(len(decoder.labels))
        self._horizon = Horizon(EVERY, first, n_open)
        self._state = self._begun()

    def accept(self, log_probs: NDArray[np.float32]) -> None:
        log_probs, tops = checked_with_best(self.decoder.weighed(log_probs))
        self.rows.append(log_probs)
        self._advance(log_probs, tops)

    def best(self) -> Hypothesis:
        return self._nbest(1)[0]

    def n_settled(self, best: Hypothesis) -> int:
        return self._n_labels(best, settled(self._state)[0])

    def n_steady(self, best: Hypothesis) -> int:
        said: list[int] = next((found.codes.tolist() for found in self._found()), [])
        both = zip(steady(self._state, self._horizon), said, strict=False)
        same = [code for code, _ in takewhile(lambda two: two[0] == two[1], both)]
        return self._n_labels(best, same)

    def nbest(self) -> list[Hypothesis]:
        return self._nbest(self.decoder.beam_options.nbest)

    def relative_cost(self) -> float:
        totals = np.log(self._state.entries["total"])
        if not len(totals):
            return 0.0
        ends = totals + self._cost_of_ending()
        return max(0.0, float(totals.max() - ends.max()))

    def _begun(self) -> State:
        return labels.begin(self.decoder.label_search)

    def _advance(self, log_probs: NDArray[np.float32], tops: NDArray[np.float32]) -> None:
        labels.advance(self._state, log_probs, tops, self.decoder.label_search, self._horizon)

    def _found(self) -> Iterator[Found]:
        """The hypotheses, if this is the end, best first."""
        return labels.found(self._state, self.decoder.label_search)

    def _n_labels(self, best: Hypothesis, codes: list[int]) -> int:
        """How many labels of a hypothesis its first ``codes`` are."""
        return len(codes)

    def _cost_of_ending(self) -> NDArray[np.float64]:
        """What the end adds to each hypothesis; -inf where it cannot be."""
        search, lm = self.decoder.label_search, self.decoder.label_search.lm
        said = self._state.work.tree[self._state.entries["node"]]
        if search.lm_scale == 0.0:
            return np.zeros(len(said))
        return search.lm_scale * end_scores(lm.trie, said["lm_state"], lm.end_token)

    def _nbest(self, n: int) -> list[Hypothesis]:
        rows, seen = self.rows.all, self.decoder.seen
        summed = summed_anew(self._found(), rows, best_values(rows)[0], n, seen)
        nbest = label_hypotheses(summed, rows, n, seen)
        return [self.decoder.completed(hypothesis, rows) for hypothesis in nbest]


class WordSearch(LabelSearch):
    """Beam search over the words of a lexicon, settled as in `LabelSearch`."""

    def _begun(self) -> State:
        return words.begin(self.decoder.word_search)

    def _advance(self, log_probs: NDArray[np.float32], tops: NDArray[np.float32]) -> None:
        words.advance(self._state, log_probs, tops, self.decoder.word_search, self._horizon)

    def _found(self) -> Iterator[Found]:
        return words.found(self._state, self.decoder.word_search)

    def _n_labels(self, best: Hypothesis, codes: list[int]) -> int:
        search, spans = self.decoder.word_search, best.word_spans or ()
        first_letter = search.words.n_words + 1
        first_spelled = first_letter + len(search.root_child)
        n_words = sum(not first_letter <= code < first_spelled for code in codes)
        # An unknown word that is spelled may go on.
        n_words -= bool(codes and codes[-1] >= first_letter)
        return spans[min(n_words, len(spans)) - 1][1] if n_words and spans else 0

    def _cost_of_ending(self) -> NDArray[np.float64]:
        search, entries = self.decoder.word_search, self._state.entries
        place, said = entries["place"], self._state.work.tree[entries["node"]]
        inside = (place > 0) & (place < len(search.tree.label))
        costs = np.where(inside, -np.inf, 0.0)
        scoring, lm, hot = search.words.scoring, search.words.lm, search.words.hot
        if scoring.lm_scale > 0.0:
            costs += scoring.lm_scale * end_scores(lm.trie, said["lm_state"], lm.end_token)
        if len(hot.end):
            costs += hot.end[said["hot_state"]]
        return costs

    def _nbest(self, n: int) -> list[Hypothesis]:
        rows, lexicon = self.rows.all, self.decoder.lexicon
        assert lexicon is not None
        found = list(self._found())
        if not found:
            # Noise that no words fit must not end a stream.
            return [NOTHING]
        nbest = hypotheses_of(found, rows, n, lexicon)
        return [self.decoder.completed(hypothesis, rows) for hypothesis in nbest]


def begin(decoder: Decoder, shift_s: float, first: int = 0) -> Search:
    """The search of a decoder in frames of ``shift_s`` seconds, before frame ``first``."""
    if decoder.config.name == "greedy":
        return GreedySearch(decoder)
    if decoder.config.name != "beam" or decoder.rescores or decoder.fuses:
        return WholeSearch(decoder)
    kind = WordSearch if decoder.searches_words else LabelSearch
    return kind(decoder, round(OPEN_S / shift_s), first)
