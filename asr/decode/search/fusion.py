"""Prefix beam search with a recurrent language model in every step (shallow fusion).

The score of a hypothesis is that of `asr.decode.search.beam`, with the recurrent model in the place
of the n-gram (Gulcehre et al. 2015). Only compiled code is fast enough for the search, and only
large products are fast for the model, so the two take turns: each utterance's search runs on alone
until it meets words so far (a history) whose next words it cannot do without; what all searches
lack is then computed as one batch, and they go on. A history that nothing could follow and survive
in the beam, whatever its probability, is never computed.

Labels without a lexicon are the words of a lexicon in which each label spells itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asr.decode.emission import checked_with_best
from asr.decode.lexicon import NO_HOTWORDS, Lexicon, Tree
from asr.decode.search.beam import (
    BeamOptions,
    beam_search,
    hypotheses_of,
    label_hypotheses,
    word_search,
)
from asr.decode.search.state import State
from asr.decode.search.words import HISTORY, ROOM, Neural, Search, advance, begin
from asr.decode.search.words import found as found_words
from asr.errors import InputError
from asr.lm.lstm import NeuralLM
from asr.lm.ngram import END, NO_LM, START
from asr.system.jit import compiled
from asr.types import Hypothesis

#: Utterances searched side by side; more make larger batches for the language model.
AT_ONCE = 32
#: Bytes that all searches may take before fewer are made side by side.
SEARCH_BYTES = 1 << 30
#: Histories that the language model reads at once, and scores that they may take: what stays in the
#: processor's cache.
ROWS_AT_ONCE = 256
SCORES_AT_ONCE = 1 << 24


def fused_search(
    log_probs: Sequence[np.ndarray],
    lm: NeuralLM,
    symbols: Sequence[str],
    options: BeamOptions = BeamOptions(),
    lexicon: Lexicon | None = None,
    seen_as: Callable[[Sequence[int]], Hashable] = tuple,
) -> list[list[Hypothesis]]:
    """Find the best label sequences, or word sequences, of each utterance under CTC and ``lm``.

    Args:
        log_probs: (T, V) natural logarithms of each utterance, blank 0.
        lm: over the labels' symbols or, with a lexicon, over its words; what it does not know is
            scored as ``<unk>``. The end of the sentence is scored too.
        symbols: (V,) of the labels, blank first.
        lexicon: find only its words.
        seen_as: as for `beam_search`.

    Returns:
        For each utterance what `beam_search` returns for one. A result does not depend on the
        utterances beside it, but for rounding.

    Raises:
        InputError: a frame without a finite best value, another number of labels than of symbols,
            a lexicon of other labels, a model that knows none of them, no path spells words of the
            lexicon, or unknown words are allowed.
    """
    if options.unknown_penalty < math.inf:
        raise InputError(
            "unknown words need an n-gram: the search with a neural language model finds none"
        )
    if options.lm_weight == 0:
        return [beam_search(x, options, lexicon=lexicon, seen_as=seen_as) for x in log_probs]
    found: list[list[Hypothesis]] = [[] for _ in log_probs]
    words = lexicon or Lexicon(tuple(symbols[1:]), tuple(((i,),) for i in range(1, len(symbols))))
    words.check(len(symbols))
    rows = Rows(lm, words, options.lm_weight)
    search = word_search(options, NO_LM, words, NO_HOTWORDS, len(symbols))
    scratch = search.scratch(min(options.beam, ROOM))
    # In each search, up to twice the beam in rows, and for each as many histories as may follow.
    history_bytes = HISTORY.itemsize + 32  # with its places in the hash
    row_bytes = rows.log_probs[0].nbytes + rows.states[0].nbytes
    row_bytes += history_bytes * search.most_steps
    at_once = max(1, min(AT_ONCE, SEARCH_BYTES // (2 * min(options.beam, ROOM) * row_bytes)))
    waiting = iter(range(len(log_probs)))
    searches: dict[int, Fusion] = {}
    while True:
        for i in waiting:
            frames, tops = checked_with_best(log_probs[i])
            if frames.shape[1] != len(symbols):
                raise InputError(
                    f"log-probabilities have {frames.shape[1]} labels, expected {len(symbols)}"
                )
            state = begin(search)
            state.work = state.work._replace(scratch=scratch)  # they take turns
            searches[i] = Fusion(frames, tops, state)
            if len(searches) == at_once:
                break
        if not searches:
            return found
        needed = []
        search = rows.read_by(search)
        for i, fusion in list(searches.items()):
            lacking = fusion.run(search)
            if len(lacking):
                needed.append((fusion.state, lacking))
                continue
            finals = found_words(fusion.state, search)
            if lexicon is None:
                labels = (final._replace(codes=final.codes + 1) for final in finals)
                found[i] = label_hypotheses(labels, fusion.log_probs, options.nbest, seen_as)
            else:
                found[i] = hypotheses_of(finals, fusion.log_probs, options.nbest, lexicon)
            del searches[i]
        if needed:
            rows.compute(needed, [fusion.state for fusion in searches.values()])


class Fusion(NamedTuple):
    """The search through one utterance (T, V), the best values of its frames, and how far it is."""

    log_probs: NDArray[np.float32]
    tops: NDArray[np.float32]
    state: State

    def run(self, search: Search) -> NDArray[np.int64]:
        """Go on to the end; return the histories whose rows that takes first, none at the end."""
        state, t = self.state, self.state.reached.t
        advance(state, self.log_probs[t:], self.tops[t:], search)
        nodes = state.entries["node"]
        if state.reached.waits:
            nodes = nodes[state.work.scratch.wanted[: len(nodes)]]
        else:
            nodes = nodes[state.work.tree["lm_state"][nodes] < 0]
        return np.array(sorted(set(nodes.tolist())), np.int64)


class Rows:
    """What the language model knows of histories: a row each, for all searches. Row 0 is of none.

    states (R, S, H). log_probs, column: of `Neural`.
    """

    def __init__(self, lm: NeuralLM, lexicon: Lexicon, weight: float) -> None:
        self.lm, self.weight = lm, weight
        self.tokens = np.array([*lm.encode(lexicon.words), END])
        if not self.tokens[:-1].any():
            raise InputError(
                f"the language model (of unit {lm.config.unit}) knows none of the "
                f"{len(lexicon.words)} symbols that may be found, such as {lexicon.words[0]!r}"
            )
        self.column, self.members, self.first_member = parting_nodes(lexicon.tree)
        width = len(self.tokens) + len(self.first_member) - 1
        self.log_probs = np.empty((1, width), np.float32)
        self.states = lm.initial_state()
        self.free: list[int] = []
        self._read(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([START]))

    def read_by(self, search: Search) -> Search:
        """Return a search that reads the rows."""
        neural = Neural(self.weight, self.log_probs, self.column)
        return search._replace(words=search.words._replace(neural=neural))

    def compute(self, needed: list[tuple[State, NDArray[np.int64]]], alive: list[State]) -> None:
        """Give a row to each of the ``needed`` histories of searches."""
        count = sum(len(lacking) for _, lacking in needed)
        if count > len(self.free):
            self._make_room(count, alive)
        new = np.array([self.free.pop() for _ in range(count)], np.int64)
        source = np.concatenate([~state.work.tree["lm_state"][nodes] for state, nodes in needed])
        words = np.concatenate([state.work.tree["code"][nodes] for state, nodes in needed])
        self._read(new, source, self.tokens[words])
        first = 0
        for state, nodes in needed:
            state.work.tree["lm_state"][nodes] = new[first : first + len(nodes)]
            first += len(nodes)

    def _read(
        self, new: NDArray[np.int64], source: NDArray[np.int64], token: NDArray[np.int64]
    ) -> None:
        """Fill the rows ``new`` with what reading a token each makes of the rows ``source``."""
        n_tokens = len(self.tokens)
        step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // len(self.lm.tokens)))
        for first in range(0, len(new), step):
            part = slice(first, first + step)
            log_probs, self.states[new[part]] = self.lm.advance(
                self.states[source[part]], torch.from_numpy(token[part])
            )
            self.log_probs[new[part], :n_tokens] = log_probs.numpy()[:, self.tokens]
        look_ahead(self.log_probs, new, n_tokens, self.members, self.first_member)

    def _make_room(self, count: int, alive: list[State]) -> None:
        """Free the rows that no beam needs; where that is not half of all, double them."""
        used = np.zeros(len(self.log_probs), bool)
        used[0] = True
        for state in alive:
            living = state.work.tree["lm_state"][state.entries["node"]]
            used[np.where(living < 0, ~living, living)] = True
        for state in alive:
            row = state.work.tree["lm_state"][: state.reached.n_nodes]
            row[(row >= 0) & ~used[row]] = -1
        n_rows, n_free = len(used), int((~used).sum())
        room = n_rows
        while room - n_rows + n_free < max(count, room // 2):
            room *= 2
        if room > n_rows:
            log_probs = np.empty((room, self.log_probs.shape[1]), np.float32)
            states = self.states.new_empty(room, *self.states.shape[1:])
            log_probs[:n_rows], states[:n_rows] = self.log_probs, self.states
            self.log_probs, self.states = log_probs, states
        self.free = [*np.flatnonzero(~used).tolist(), *range(n_rows, room)]


def parting_nodes(
    tree: Tree,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return column (N,), members and first_member (M + 1,) of `Neural`.

    A node below which there is one word has that word's column. One with a single child and no word
    of its own has its child's. Column W + 1 + m is the best of the columns
    members[first_member[m] : first_member[m + 1]]; earlier m come first.
    """
    n_words = int(tree.word.max()) + 1
    column = np.empty(len(tree.label), np.int64)
    members: list[int] = []
    first_member = [0]
    for node in range(len(tree.label) - 1, -1, -1):  # children stand after their parents
        words = tree.word[tree.first_word[node] : tree.first_word[node + 1]].tolist()
        children = column[tree.first_child[node] : tree.first_child[node + 1]].tolist()
        below = sorted({*words, *children})
        if len(below) == 1:
            column[node] = below[0]
            continue
        column[node] = n_words + len(first_member)
        members.extend(below)
        first_member.append(len(members))
    return column, np.array(members, np.int64), np.array(first_member)


@compiled
def look_ahead(log_probs, rows, n_tokens, members, first_member):  # type: ignore[no-untyped-def]
    """Set what ``rows`` of log_probs hold for the nodes where words part."""
    for row in rows:
        for m in range(len(first_member) - 1):
            best = np.float32(-np.inf)
            for at in range(first_member[m], first_member[m + 1]):
                best = max(best, log_probs[row, members[at]])
            log_probs[row, n_tokens + m] = best
