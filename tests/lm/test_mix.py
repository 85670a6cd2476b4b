"""Mixtures and pruned n-grams against a plain computation over dictionaries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import asr

from asr.errors import InputError
from asr.lm.arpa import BOS, EOS, UNK
from asr.lm.mix import chosen_weights, mixed, pruned
from asr.lm.ngram import NGram

texts = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=12)
others = st.lists(
    st.lists(st.sampled_from("cdefg"), min_size=1, max_size=6), min_size=1, max_size=12
)


def of(model, history, token):
    """P(token | history), 0 where the model does not know the token."""
    if token != UNK and not model.id(token):
        return 0.0
    state = 0
    for each in history:
        _, state = model.advance(state, each)
    return 10 ** model.advance(state, token)[0]


class Plain:
    """The mixture by its definition: weighted means of n-grams that any has, else backoff."""

    def __init__(self, models, weights):
        grams = {gram for m in models for gram, _, _ in m.grams()}
        self.probs = {
            g: sum(w * of(m, g[:-1], g[-1]) for m, w in zip(models, weights, strict=True))
            for g in grams
        }
        self.tokens = {g[0] for g in grams if len(g) == 1} - {BOS}

    def prob(self, history, token):
        if (*history, token) in self.probs or not history:
            return self.probs[(*history, token)]
        return self.share(history) * self.prob(history[1:], token)

    def share(self, history):
        seen = [t for t in self.tokens if (*history, t) in self.probs]
        if not seen:
            return 1.0
        free = 1 - sum(self.probs[(*history, t)] for t in seen)
        lower = 1 - sum(self.prob(history[1:], t) for t in seen)
        return max(free, 0.0) / lower if lower > 1e-9 else 1.0


@settings(max_examples=60, deadline=None)
@given(texts, others, st.integers(1, 3), st.integers(1, 4), st.floats(0.1, 0.9))
def test_mixtures_are_weighted_means(one, other, low, high, weight):
    models = [NGram.estimate(one, low), NGram.estimate(other, high)]
    weights = (weight, 1 - weight)
    found, plain = mixed(models, weights), Plain(models, weights)
    assert found.order == max(m.order for m in models)
    assert {g for g, _, _ in found.grams()} == plain.probs.keys()
    for gram in plain.probs:
        if gram[-1] != BOS:
            expected = plain.prob(gram[:-1], gram[-1])
            assert of(found, gram[:-1], gram[-1]) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    for history in {g for g in plain.probs if len(g) < found.order and g[-1] not in (UNK, EOS)}:
        for token in plain.tokens:
            expected = plain.prob(history, token)
            assert of(found, history, token) == pytest.approx(expected, rel=1e-5, abs=1e-8)


@settings(max_examples=40, deadline=None)
@given(texts, others)
def test_every_context_of_a_mixture_sums_to_one(one, other):
    model = mixed([NGram.estimate(one, 3), NGram.estimate(other, 2)], (0.4, 0.6))
    tokens = [t for t in model.tokens if t != BOS]
    for gram, _, _ in model.grams():
        if len(gram) < model.order and gram[-1] not in (EOS, UNK):
            assert sum(of(model, gram, t) for t in tokens) == pytest.approx(1, abs=1e-4)


def test_a_mixture_of_one_is_that_one_and_it_survives_a_file(tmp_path):
    model = NGram.estimate([list("abcab"), list("bca"), list("abb")], 3)
    alone = mixed([model], [1.0])
    for (gram, p, b), (own, q, c) in zip(alone.grams(), model.grams(), strict=True):
        assert (gram, p, b) == (own, pytest.approx(q, abs=1e-9), pytest.approx(c, abs=1e-6))
    alone.write_arpa(tmp_path / "alone.arpa")
    again = NGram.read_arpa(tmp_path / "alone.arpa")
    assert again.score(list("abca")) == pytest.approx(model.score(list("abca")), abs=1e-5)


def test_weights_are_those_of_the_most_probable_mixture():
    rng = np.random.default_rng(0)
    draw = lambda letters, n: [list(rng.choice(list(letters), 5)) for _ in range(n)]  # noqa: E731
    models = [NGram.estimate(draw("aab", 200), 2), NGram.estimate(draw("bcc", 200), 2)]
    # Three sentences in four are of the first kind.
    dev = draw("aab", 300) + draw("bcc", 100)
    weights = chosen_weights(models, dev)
    assert sum(weights) == pytest.approx(1)

    def log_prob(first):
        return sum(
            math.log(sum(w * of(m, (BOS, *s[:i]), t) for m, w in zip(models, ws, strict=True)))
            for ws in [(first, 1 - first)]
            for s in dev
            for i, t in enumerate([*s, EOS])
        )

    best = max(np.linspace(0.01, 0.99, 99), key=log_prob)
    assert weights[0] == pytest.approx(best, abs=0.01)


def test_pruning_by_hand():
    """Stolcke 1998, equation 8, for each bigram of a model of bigrams."""
    model = NGram.estimate([list("abab"), list("aab"), list("bba"), list("ab"), list("aa")], 2)
    probs = {g: 10**p for g, p, _ in model.grams()}
    tokens = [t for t in model.tokens if t != BOS]

    def cost(history, token):
        seen = [t for t in tokens if (history, t) in probs]
        free = 1 - sum(probs[history, t] for t in seen)
        lower = 1 - sum(probs[(t,)] for t in seen)
        p, q = probs[history, token], probs[(token,)]
        share, new = free / lower, (free + p) / (lower + q)
        weight = probs[(EOS,)] if history == BOS else probs[(history,)]
        loss = -weight * (p * math.log(q * new / p) + free * math.log(new / share))
        return math.exp(loss) - 1

    costs = {g: cost(*g) for g in probs if len(g) == 2}
    between = [c * 1.001 for c in sorted(costs.values()) if c > 1e-6]
    assert len(between) > 3
    for threshold in (*between, 1.0):
        kept = {g for g, _, _ in pruned(model, threshold).grams() if len(g) == 2}
        assert kept == {g for g, c in costs.items() if c >= threshold}


@settings(max_examples=40, deadline=None)
@given(texts, st.floats(1e-6, 0.3))
def test_what_is_pruned_still_sums_to_one(text, threshold):
    model = NGram.estimate(text, 3)
    less = pruned(model, threshold)
    grams = {g for g, _, _ in less.grams()}
    assert grams <= {g for g, _, _ in model.grams()}
    assert all(g[:-1] in grams for g in grams if len(g) > 1)
    tokens = [t for t in less.tokens if t != BOS]
    for gram in grams:
        if len(gram) < less.order and gram[-1] not in (EOS, UNK):
            assert sum(of(less, gram, t) for t in tokens) == pytest.approx(1, abs=1e-4)


def test_the_command(tmp_path, monkeypatch, capsys):
    for name, text in (("a", "a b a b\nb a\na a b\n" * 9), ("c", "c d\nd c c\nc a\n" * 9)):
        (tmp_path / f"{name}.txt").write_text(text)
        words = ["lm", "train", tmp_path / f"{name}.txt", "--out", tmp_path / f"{name}.arpa"]
        assert asr(monkeypatch, capsys, *words)[0] == 0
    (tmp_path / "dev.txt").write_text("a b c d\nc a b\n")
    both = [tmp_path / "a.arpa", tmp_path / "c.arpa", "--out", tmp_path / "mix.arpa"]
    status, out, err = asr(
        monkeypatch, capsys, "lm", "mix", *both, "--dev", tmp_path / "dev.txt", "--prune", "1e-4"
    )
    assert (status, err) == (0, "")
    assert "weights" in out
    assert "dev perplexity" in out
    mix = NGram.read_arpa(tmp_path / "mix.arpa")
    assert all(mix.id(t) for t in "abcd")
    status, _, err = asr(monkeypatch, capsys, "lm", "mix", *both)
    assert (status, err.count("\n")) == (2, 1)
    assert "--dev" in err
    status, _, err = asr(monkeypatch, capsys, "lm", "mix", *both, "--weights", "0.5,0.6")
    assert (status, err.count("\n")) == (2, 1)
    with pytest.raises(InputError, match="expected a number of 0 or more"):
        pruned(mix, -1.0)
