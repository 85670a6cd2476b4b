"""The graph of words against every sequence of words, each by its best path."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from asr.decode.graph import ARC, MAGIC, WordGraph
from asr.decode.lexicon import Lexicon
from asr.decode.paths import ctc_align_words
from asr.errors import InputError
from asr.lm.ngram import NGram

LABELS = ("<blank>", "a", "b", "c", "_")
ENTRIES = [("ab", (1, 2)), ("ab", (2,)), ("aa", (1, 1)), ("be", (2,)), ("cab", (3, 1, 2))]
SENTENCES = ["ab be ab", "aa be", "cab ab be", "be be aa", "ab ab", "cab cab"]
SCALE, BONUS = 0.7 * math.log(10), 0.4


def read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """The final costs and arcs of an OpenFst file of type vector and standard."""
    data = path.read_bytes()
    assert data[:26] == struct.pack("<ii6si8s", MAGIC, 6, b"vector", 8, b"standard")
    _, _, _, start, n_states, n_arcs = struct.unpack_from("<iiQqqq", data, 26)
    at, finals, arcs = 26 + 40, [], []
    for _ in range(n_states):
        final, n = struct.unpack_from("<fq", data, at)
        finals.append(final)
        arcs.append(np.frombuffer(data, ARC, n, at + 12))
        at += 12 + n * ARC.itemsize
    assert (start, at, sum(map(len, arcs))) == (0, len(data), n_arcs)
    return finals, arcs


def best_path(
    finals: list[float], arcs: list[np.ndarray], log_probs: np.ndarray
) -> tuple[float, tuple[int, ...]]:
    """The cheapest way through the graph, and what it says: what FasterDecoder of Kaldi finds."""
    reached = _free({0: (0.0, ())}, arcs)
    for frame in log_probs:
        after: dict[int, tuple[float, tuple[int, ...]]] = {}
        for state, (cost, said) in reached.items():
            for into, out, weight, to in arcs[state].tolist():
                if into:
                    new = (cost + weight - frame[into - 1], said + (out,) * (out > 0))
                    after[to] = min(after.get(to, new), new)
        reached = _free(after, arcs)
    return min((cost + finals[state], said) for state, (cost, said) in reached.items())


def _free(reached, arcs):
    waiting = list(reached)
    while waiting:
        state = waiting.pop()
        for into, _, weight, to in arcs[state].tolist():
            cost = reached[state][0] + weight
            if not into and (to not in reached or cost < reached[to][0]):
                reached[to] = (cost, reached[state][1])
                waiting.append(to)
    return reached


@pytest.mark.parametrize("separators", [(), (4,), "required"])
@pytest.mark.parametrize("order", [None, 1, 3])
def test_the_best_way_through_it_is_the_best_path_of_the_best_words(
    separators, order, tmp_path
) -> None:
    required = separators == "required"
    lexicon = Lexicon.build(ENTRIES, (4,) if required else separators, required)
    ngram = order and NGram.estimate((s.split() for s in SENTENCES), order)
    costs = [0.3, -0.1, 0.0, 0.2, 0.1]
    WordGraph(lexicon, lexicon.bind(ngram) if ngram else None, SCALE, BONUS, costs).write(
        tmp_path / "graph.fst"
    )
    graph = read(tmp_path / "graph.fst")
    rng = np.random.default_rng(7)
    for n_frames in (1, 4, 5, 6, 6, 6):
        log_probs = np.log(rng.dirichlet(np.full(5, 0.5), n_frames)).astype(np.float32)
        weighed = log_probs - np.array(costs, np.float32)
        found = {}
        for n in range(4):
            for words in product(lexicon.words, repeat=n):
                ways = [lexicon.spellings[lexicon.ids[word]] for word in words]
                with suppress(InputError):  # they do not fit
                    score = ctc_align_words(weighed, ways, lexicon.separators, required)[-1]
                    lm = SCALE * ngram.score(words) if ngram else 0.0
                    found[words] = score + lm + BONUS * n
        cost, said = best_path(*graph, log_probs)
        best = max(found, key=lambda words: found[words])
        words = tuple(lexicon.words[number - 1] for number in said)
        if len(words) < 4:
            assert -cost == pytest.approx(found[best], abs=1e-4)
            assert found[words] == pytest.approx(found[best], abs=1e-4)
