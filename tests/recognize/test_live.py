"""Live recognition over stored log-probabilities: packets, endpoints, commitment, bounds."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_parts import RATE, STEP, Stored, live_bundle, spoken

from asr.decode.config import DecoderConfig
from asr.decode.endpoint import EndpointConfig
from asr.errors import InputError
from asr.labels import Labels
from asr.recognize.live import Stream, advance

LETTERS = Labels("char", ("<blank>", "<space>", *"abcdefgh"))
PHONES = Labels("phone", ("<blank>", "aa", "b", "sil"))
PAUSE = "_" * 40


def stream_of(labels, log_probs, chunk=4, endpoint=EndpointConfig(), rate=RATE, **config):
    bundle = live_bundle(labels)
    decoder = bundle.make_decoder(DecoderConfig(**config))
    return Stream(bundle, decoder, Stored(log_probs, chunk, rate), endpoint)


def letters(text, seed=0):
    symbols = Labels("char", ("<blank>", "~", *"abcdefgh"))
    return spoken(symbols, text, np.random.default_rng(seed))


def heard(stream, n_samples, cuts=(), rate=RATE):
    """All finals, and the results seen on the way, with audio cut into packets at ``cuts``."""
    edges = sorted({0, n_samples, *cuts})
    finals, results = [], []
    for first, end in pairwise(edges):
        stream.accept(np.zeros(end - first, np.float32), rate)
        results.append(stream.result)
        finals += stream.finals()
    stream.finish()
    return finals + stream.finals(), results


def said(finals):
    return [
        (f.text, [(s.label, s.start_s, s.end_s, s.confidence) for s in (*f.labels, *f.words)])
        for f in finals
    ]


TALK = "__a_b~c__d_~_ef_~" + PAUSE + "_g_h_~_aa_a_b" + PAUSE + "~_c_"


def test_words_segments_and_times():
    finals, _ = heard(stream_of(LETTERS, letters(TALK)), len(TALK) * STEP)
    assert [f.text for f in finals] == ["ab cd ef", "gh aab", "c"]
    words = [word for f in finals for word in f.words]
    assert [w.label for w in words] == ["ab", "cd", "ef", "gh", "aab", "c"]
    firsts = [TALK.index(w) for w in ("a", "c", "e", "g", "aa")] + [TALK.rindex("c")]
    for word, first in zip(words, firsts, strict=True):
        # Beyond its frames a label is taken to last 0.1 s at most.
        assert first * 0.03 - 0.12 < word.start_s <= first * 0.03
        assert 0 <= word.confidence <= 1


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_packets_have_no_influence(data):
    rate = data.draw(st.sampled_from([8_000, 16_000, 24_000, 48_000]))
    text = data.draw(st.text(alphabet="aab_~" + PAUSE, max_size=120)) + data.draw(
        st.sampled_from(["", PAUSE, TALK])
    )
    log_probs = letters(text, seed=1)
    n_samples = len(text) * STEP * rate // RATE - data.draw(st.integers(0, 9 if text else 0))
    n_samples = max(0, n_samples)
    endpoint = EndpointConfig(rule5_s=data.draw(st.sampled_from([1.0, 20.0])))
    whole, _ = heard(stream_of(LETTERS, log_probs, 4, endpoint, rate), n_samples, (), rate)
    cuts = data.draw(st.lists(st.integers(0, n_samples), max_size=40))
    finals, results = heard(stream_of(LETTERS, log_probs, 4, endpoint, rate), n_samples, cuts, rate)
    assert said(finals) == said(whole)
    by_segment = {}
    for result in results:
        before = by_segment.setdefault(result.segment, result.committed)
        assert result.committed.labels[: len(before.labels)] == before.labels
        assert result.committed.words[: len(before.words)] == before.words
        by_segment[result.segment] = result.committed
    for segment, committed in by_segment.items():
        if segment < len(finals):
            assert f"{finals[segment].text} ".startswith(
                f"{committed.text} " * bool(committed.text)
            )
            symbols = [s.label for s in finals[segment].labels]
            assert symbols[: len(committed.labels)] == [s.label for s in committed.labels]


def test_single_samples():
    log_probs = letters("_ab~_c")
    whole, _ = heard(stream_of(LETTERS, log_probs), 6 * STEP)
    ones, _ = heard(stream_of(LETTERS, log_probs), 6 * STEP, range(6 * STEP))
    assert said(ones) == said(whole)


def test_committed_and_tentative():
    stream = stream_of(LETTERS, letters("_ab~cdd_"), chunk=1)
    seen = []
    for _ in range(8):
        stream.accept(np.zeros(STEP, np.float32))
        result = stream.result
        seen.append((result.committed.text, result.tentative.text))
    assert seen == [
        ("", ""),
        ("", "a"),
        ("", "ab"),
        ("", "ab"),
        ("ab", "c"),
        ("ab", "cd"),
        ("ab", "cd"),
        ("ab", "cd"),
    ]
    assert [s.label for s in stream.result.committed.labels] == ["a", "b"]
    assert [s.label for s in stream.result.tentative.labels] == ["<space>", "c", "d"]


def test_streams_side_by_side_as_alone():
    texts = ["_ab~_c" + PAUSE + "d", "_h", TALK]
    alone = [heard(stream_of(LETTERS, letters(t)), len(t) * STEP)[0] for t in texts]
    streams = [stream_of(LETTERS, letters(t)) for t in texts]
    for first in range(0, len(TALK) * STEP, 1234):
        for stream, text in zip(streams, texts, strict=True):
            n = min(1234, len(text) * STEP - first)
            stream.accept(np.zeros(max(n, 0), np.float32))
        advance(streams)
    for stream in streams:
        stream.finish()
    advance(streams)
    assert [said(s.finals()) for s in streams] == [said(a) for a in alone]


def test_silence_is_no_segment():
    stream = stream_of(PHONES, spoken(PHONES, "_" * 1000, np.random.default_rng(0)))
    finals, results = heard(stream, 1000 * STEP, range(0, 1000 * STEP, 5 * STEP))
    assert finals == []
    assert {r.segment for r in results} == {0}


def test_the_first_final_comes_at_the_endpoint():
    stream = stream_of(LETTERS, letters("_ab" + PAUSE), chunk=1)
    n_frames = 0
    while not stream.finals():
        stream.accept(np.zeros(STEP, np.float32))
        n_frames += 1
    # 17 frames of 30 ms are the first half second.
    assert n_frames == 3 + 17


@pytest.mark.parametrize(
    ("threshold", "ended"), [(0.0, False), (0.5, False), (0.65, False), (0.75, True), (0.95, True)]
)
def test_what_is_faint_is_silence_above_the_threshold(threshold, ended):
    faint = np.log(np.full((40, len(PHONES)), 0.01, np.float32))
    faint[:, [0, 1]] = np.log([0.294, 0.686])
    said = spoken(PHONES, ["_", "aa", "b"], np.random.default_rng(0))
    log_probs = np.concatenate([said, faint])
    stream = stream_of(PHONES, log_probs, endpoint=EndpointConfig(threshold=threshold))
    stream.accept(np.zeros(len(log_probs) * STEP, np.float32))
    assert bool(stream.finals()) is ended


class Renewed(Stored):
    """Notes after which frames the net was to begin anew, and what was told of speech."""

    def __init__(self, log_probs, chunk):
        super().__init__(log_probs, chunk)
        self.renewed, self.settled = [], []

    def renew(self):
        self.renewed.append(self.n_taken)

    def settle(self, was_speech):
        self.settled.append(was_speech)


@pytest.mark.parametrize("carry", [False, True])
def test_the_net_begins_anew_after_an_endpoint_and_not_where_a_segment_is_cut(carry):
    # 17 silent frames of 30 ms are the first half second; a segment is cut after 34.
    talk = "abc~" + "_" * 20 + "ab~cd~ef~gh~" * 4
    log_probs = letters(talk + "_" * 40)
    endpoint = EndpointConfig(rule5_s=1.02, carry=carry)
    stream = stream_of(LETTERS, log_probs, endpoint=endpoint)
    stream._emissions = heard = Renewed(log_probs, chunk=4)
    found = []
    for _ in log_probs:
        stream.accept(np.zeros(STEP, np.float32))
        found += stream.finals()
    assert len(found) >= 3
    first, *later = heard.renewed or [20]
    assert bool(heard.renewed) is not carry
    assert first == 4 + 16  # with the space, which is silent, too
    assert all(n >= len(talk) + 16 for n in later)


@pytest.mark.parametrize("carry", [False, True])
def test_it_is_told_where_a_segment_had_no_speech(carry):
    # Five seconds of silence, twice, then speech.
    log_probs = letters("_" * 340 + "abc" + PAUSE)
    stream = stream_of(LETTERS, log_probs, endpoint=EndpointConfig(carry=carry))
    stream._emissions = heard = Renewed(log_probs, chunk=4)
    stream.accept(np.zeros(len(log_probs) * STEP, np.float32))
    assert len(stream.finals()) == 1
    assert heard.settled == [False, False, True]


class Endless(Stored):
    """The same minute again and again."""

    def computed(self):
        found = super().computed()
        if self.n_taken == len(self.log_probs):
            self.n_samples = self.n_taken = 0
        return found


@pytest.mark.parametrize("hours", [0.5, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize("speech", [TALK * 20 + "a_b_" * 300, "_" * 2000])
def test_hours_grow_nothing(speech, hours):
    log_probs = letters(speech)
    stream = stream_of(LETTERS, log_probs)
    stream._emissions = Endless(log_probs)
    packet = np.zeros(RATE * 7, np.float32)

    tracemalloc.start()
    try:
        for _ in range(round(hours * 3600 * RATE / len(packet))):
            stream.accept(packet)
            assert len(stream.result.committed.labels) <= 20 / 0.03
            stream.finals()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Half an hour's log-probabilities alone are 2.4 MB.
    assert peak < 1_500_000


def test_a_segment_that_is_cut_loses_no_word():
    text = "ab~cd~ef~gh~" * 20
    finals, _ = heard(
        stream_of(LETTERS, letters(text), endpoint=EndpointConfig(rule5_s=1.0)), len(text) * STEP
    )
    assert len(finals) > 5
    assert " ".join(f.text for f in finals) == text.replace("~", " ").strip()
    for one, next in pairwise(finals):
        assert one.words[-1].end_s <= next.words[0].start_s + 0.1
        assert one.labels[-1].end_s - one.labels[0].start_s < 1.0 + 0.2


def test_a_sound_longer_than_a_segment_is_cut_where_it_must_be():
    text = "a" * 100
    finals, _ = heard(
        stream_of(LETTERS, letters(text), endpoint=EndpointConfig(rule5_s=1.0)), len(text) * STEP
    )
    assert [f.text for f in finals] == ["a", "a", "a"]


def test_whatever_decoder():
    labels = Labels("word", ("<blank>", "<unk>", "x", "y"))
    text = "_x__y_" + PAUSE + "x"
    log_probs = spoken(labels, text, np.random.default_rng(0))
    for name in ("greedy", "beam"):
        finals, results = heard(
            stream_of(labels, log_probs, name=name), len(text) * STEP, range(0, 20_000, STEP)
        )
        assert [f.text for f in finals] == ["x y", "x"]
        assert any(r.tentative.text or r.committed.text for r in results)


def test_empty_packets_and_the_end():
    stream = stream_of(LETTERS, letters("_a"))
    stream.accept(np.zeros(0, np.float32))
    stream.accept(np.zeros(2 * STEP, np.float32))
    stream.finish()
    assert [f.text for f in stream.finals()] == ["a"]
    stream.finish()
    assert stream.finals() == []
    with pytest.raises(InputError, match="after its end"):
        stream.accept(np.zeros(1, np.float32))


def test_nothing_at_all():
    stream = stream_of(LETTERS, letters("_a"))
    stream.finish()
    assert stream.finals() == []
    assert stream.result.tentative.text == ""
