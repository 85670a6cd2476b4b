"""n-grams against hand counts, against themselves, and against KenLM where it is installed."""

import contextlib
import gzip
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import InputError
from asr.lm.arpa import MISSING_UNK
from asr.lm.ngram import NGram, _discounts

sentences = st.lists(st.lists(st.sampled_from("abcde"), max_size=8), min_size=1, max_size=20)
SMALL_ARPA = """made by hand

\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-99\t<s>\t-0.5
-1\t</s>
-0.7\ta\t-0.25
-0.8\tb\t-0.125
-2\t<unk>

\\2-grams:
-0.3\t<s> a
-0.4\ta b
-0.6\tb </s>

\\end\\
"""


def test_estimate_by_hand():
    # Bigrams: <s> a 2, a b 1, a a 1, a </s> 1, b </s> 1. Too few for discounts: 0.5, 1, 1.5.
    # Unigrams count their left neighbours: a 2, b 1, </s> 2. Uniform: 1 of <unk> </s> a b.
    model = NGram.estimate([["a", "b"], ["a", "a"]], 2)
    grams = {gram: (10**p, 10**b) for gram, p, b in model.grams()}
    assert grams[("<unk>",)][0] == pytest.approx(0.125)
    assert grams[("a",)] == pytest.approx((1 / 5 + 0.125, 0.5))
    assert grams[("b",)] == pytest.approx((0.5 / 5 + 0.125, 0.5))
    assert grams[("</s>",)] == pytest.approx((0.325, 1.0))
    assert grams[("<s>",)] == pytest.approx((1.0, 0.5))
    assert grams[("<s>", "a")][0] == pytest.approx(1 / 2 + 0.5 * 0.325)
    assert grams[("a", "b")][0] == pytest.approx(0.5 / 3 + 0.5 * 0.225)
    assert grams[("a", "</s>")][0] == pytest.approx(0.5 / 3 + 0.5 * 0.325)
    assert grams[("b", "</s>")][0] == pytest.approx(0.5 + 0.5 * 0.325)
    assert len(grams) == 10
    # a | <s>, then b backs off from nothing seen: z is <unk> after a.
    assert 10 ** model.score(["a", "z"], eos=False) == pytest.approx(0.6625 * 0.5 * 0.125)
    assert 10 ** model.score(["b"], bos=False) == pytest.approx(0.225 * 0.6625)


def test_discounts_of_chen_and_goodman():
    counts = np.array([0, 1, 1, 1, 1, 2, 2, 3, 4, 9])
    assert _discounts(counts, 1) == pytest.approx(
        (1 - 2 * 0.5 * 2 / 4, 2 - 3 * 0.5 / 2, 3 - 4 * 0.5)
    )


@settings(deadline=None, max_examples=60)
@given(text=sentences, order=st.integers(1, 4), history=st.lists(st.sampled_from("abcdez")))
def test_probabilities_sum_to_one_after_any_history(text, order, history):
    if not any(text):
        return
    model = NGram.estimate(text, order)
    state = model.start
    for token in history:
        _, state = model.advance(state, token)
    total = sum(10 ** model.advance(state, t)[0] for t in model.tokens if t != "<s>")
    assert total == pytest.approx(1, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(text=sentences, order=st.integers(1, 4), query=st.lists(st.sampled_from("abcdez")))
def test_arpa_there_and_back(tmp_path_factory, text, order, query):
    if not any(text):
        return
    model = NGram.estimate(text, order)
    path = tmp_path_factory.mktemp("arpa") / "lm.arpa.gz"
    model.write_arpa(path)
    again = NGram.read_arpa(path)
    assert again.order == model.order <= order
    assert again.score(query) == pytest.approx(model.score(query), abs=1e-4)
    assert list(again.trie.after) == list(model.trie.after)


@settings(deadline=None, max_examples=30)
@given(text=sentences, order=st.integers(2, 4), query=st.lists(st.sampled_from("abcdez")))
def test_queries_equal_kenlm(tmp_path_factory, text, order, query):
    kenlm = pytest.importorskip("kenlm")
    if not any(text):
        return
    path = tmp_path_factory.mktemp("arpa") / "lm.arpa"
    model = NGram.estimate(text, order)
    model.write_arpa(path)
    expected = [p for p, _, _ in kenlm.Model(str(path)).full_scores(" ".join(query))]
    assert model.scores(query) == pytest.approx(expected, abs=1e-4)
    assert NGram.read_arpa(path).scores(query) == pytest.approx(expected, abs=1e-4)


def test_arpa_made_by_hand(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(SMALL_ARPA)
    model = NGram.read_arpa(path)
    assert model.tokens == ("<unk>", "<s>", "</s>", "a", "b")
    assert model.scores(["a", "b"]) == pytest.approx([-0.3, -0.4, -0.6])
    assert model.scores(["b", "a"]) == pytest.approx([-0.5 - 0.8, -0.125 - 0.7, -0.25 - 1])
    assert model.scores(["z"]) == pytest.approx([-0.5 - 2, -1])
    path.write_text(SMALL_ARPA.replace("-2\t<unk>\n", "").replace("1=5", "1=4"))
    assert NGram.read_arpa(path).scores(["z"])[0] == pytest.approx(-0.5 + MISSING_UNK)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", r"lm\.arpa:19: the file ends before \\data\\"),
        ("ngram 2=3", "ngram 3=3", r":5: expected 'ngram 2=COUNT'"),
        ("ngram 2=3", "ngram 2=4", r":19: \\data\\ promises 4 2-grams, found 3"),
        ("-0.4\ta b", "-0.4\ta", r":16: expected a log10 probability, 2 tokens"),
        ("-0.4\ta b", "x\ta b", r":16: not a number"),
        ("-0.4\ta b", "0.4\ta b", r":16: a log10 probability must"),
        ("-0.4\ta b", "nan\ta b", r":16: a log10 probability must"),
        ("-0.4\ta b", "-0.4\ta z", r":16: token 'z' is not among the 1-grams"),
        ("-0.4\ta b", "-0.4\t<s> a", r":16: 2-gram '<s> a' stands twice"),
        ("\\2-grams:", "\\3-grams:", r":14: expected \\2-grams:, found \\3-grams:"),
        ("\\end\\", "", r"the file ends before \\end\\"),
    ],
)
def test_malformed_arpa_is_refused_with_its_line(tmp_path, old, new, message):
    path = tmp_path / "lm.arpa"
    path.write_text(SMALL_ARPA.replace(old, new))
    with pytest.raises(InputError, match=message):
        NGram.read_arpa(path)


@settings(deadline=None, max_examples=150)
@given(at=st.integers(0, len(SMALL_ARPA)), junk=st.text(max_size=6), gone=st.integers(0, 20))
def test_damaged_arpa_gives_a_model_or_one_clear_error(tmp_path_factory, at, junk, gone):
    path = tmp_path_factory.mktemp("arpa") / "lm.arpa"
    path.write_text(SMALL_ARPA[:at] + junk + SMALL_ARPA[at + gone :], encoding="utf-8")
    with contextlib.suppress(InputError):
        assert math.isfinite(NGram.read_arpa(path).score(["a", "b"]))


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        NGram.read_arpa(tmp_path / "none.arpa")
    broken = tmp_path / "lm.arpa.gz"
    broken.write_bytes(gzip.compress(SMALL_ARPA.encode())[:60])
    with pytest.raises(InputError, match="cannot be read"):
        NGram.read_arpa(broken)
    broken.write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read"):
        NGram.read_arpa(broken)


@pytest.mark.parametrize("zeros", [b"\0" * 1000, b"\n" * 1000])
def test_a_bomb_is_one_clear_line(tmp_path, zeros):
    bomb = tmp_path / "lm.arpa.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as out:
        for _ in range(10_000):
            out.write(zeros)
    with pytest.raises(InputError, match=r"lm\.arpa\.gz: no ARPA file"):
        NGram.read_arpa(bomb)


def test_bad_texts():
    with pytest.raises(InputError, match="empty"):
        NGram.estimate([], 2)
    with pytest.raises(InputError, match="empty"):
        NGram.estimate([[], []], 2)
    with pytest.raises(InputError, match="reserved token '</s>'"):
        NGram.estimate([["a", "</s>"]], 2)
    with pytest.raises(InputError, match="order"):
        NGram.estimate([["a"]], 0)


def test_one_word_is_enough():
    model = NGram.estimate([["a"]], 3)
    assert math.isfinite(model.score(["a", "a", "b"]))


def test_bound_to_another_inventory():
    model = NGram.estimate([["a", "b"], ["a", "a"]], 2)
    bound = model.bind(["<blank>", "b", "a", "unheard"])
    assert bound.token_of.tolist() == [0, model.tokens.index("b"), model.tokens.index("a"), 0]
    assert model.tokens[bound.end_token] == "</s>"


def test_counts_beyond_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr("asr.lm.ngram.available_bytes", lambda: 3e3)
    with pytest.raises(InputError, match=r"counting 3-grams over 10 tokens may take .* --order"):
        NGram.estimate([["a", "b", "c"], ["a", "b", "d"]], 3)
    assert NGram.estimate([["a", "b", "c"], ["a", "b", "d"]], 1).order == 1
