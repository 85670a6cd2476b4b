"""Texts and model outputs to times, on planted outputs."""

from pathlib import Path

import numpy as np
import pytest

from asr.audio.features import FeatureConfig
from asr.decode.lexicon import Lexicon
from asr.decode.viterbi import Transitions
from asr.errors import InputError
from asr.labels import BLANK_SYMBOL, SPACE, LabelConfig, Labels
from asr.model.bundle import Bundle
from asr.nets.acoustic import AcousticModel
from asr.nets.config import RecurrentConfig
from asr.recognize.aligner import Aligner, batches, with_times
from asr.recognize.times import label_times
from asr.types import Segment, Utterance

PHONES = ("sil", "k", "ae", "t", "ah")
LEXICON = [
    ("a", ("ah",)),
    ("cat", ("k", "ae", "t")),
    ("cat", ("k", "ah", "t")),
    ("at", ("ae", "t")),
]


def bundle_of(unit="phone", symbols=PHONES, criterion="ctc", fold="none"):
    labels = Labels(unit, (BLANK_SYMBOL, *symbols))
    features = FeatureConfig(stack=1, n_mels=8)
    architecture = RecurrentConfig(layers=1, hidden=2)
    model = AcousticModel(architecture, features.size, len(labels))
    config = LabelConfig(unit, fold)
    bundle = Bundle(features, architecture, labels, config, criterion, model)
    if criterion == "framewise":
        V = len(labels)
        flat = np.zeros((V, V)), np.zeros(V), np.zeros(V)
        bundle.transitions = Transitions(*flat, np.full(V, 2, np.int32), np.zeros(V))
    return bundle


def phone_aligner(criterion="ctc", unit="word"):
    bundle = bundle_of(criterion=criterion)
    entries = [(word, bundle.labels.encode(spelling)) for word, spelling in LEXICON]
    return Aligner(bundle, unit, Lexicon.build(entries))


def said(text=None, phones=None, duration_s=1.0):
    segments = None if phones is None else tuple(Segment(p) for p in phones.split())
    return Utterance("u", Path("u.wav"), "s", duration_s, text=text, phones=segments)


def output(bundle, frames, sure=0.9):
    """Posteriors that give each frame's label ``sure``; ``_`` is the blank."""
    V = len(bundle.labels)
    columns = [0 if f == "_" else bundle.labels.ids[f] for f in frames.split()]
    posteriors = np.full((len(columns), V), (1 - sure) / (V - 1))
    posteriors[np.arange(len(columns)), columns] = sure
    return np.log(posteriors).astype(np.float32)


def shown(segments):
    return [(s.label, s.start_s, s.end_s) for s in segments]


def test_words_with_silence_and_their_pronunciations():
    aligner = phone_aligner()
    heard = output(aligner.bundle, "sil sil ah _ sil sil k k ah t _ _ sil sil sil sil")
    transcript = aligner.align(said("a cat", duration_s=0.16), heard)
    assert [s.label for s in transcript.labels] == "sil ah sil k ah t sil".split()
    assert [w.label for w in transcript.words] == ["a", "cat"]
    assert transcript.text == "a cat"
    assert (transcript.unit, transcript.audio) == ("phone", Path("u.wav"))
    # Everything belongs to a label, from the first sample to the last.
    ends = [s.end_s for s in transcript.labels]
    assert [s.start_s for s in transcript.labels] == [0, *ends[:-1]]
    assert ends[-1] == 0.16
    # Frame t covers (t - 1/2) hops to (t + 1/2) hops of 10 ms.
    assert shown(transcript.words)[1] == ("cat", 0.055, 0.1)
    assert transcript.words[0].start_s == pytest.approx(0.015)
    assert all(0.8 < s.confidence <= 1 for s in (*transcript.labels, *transcript.words))


def test_framewise_models_give_every_frame_a_label():
    aligner = phone_aligner("framewise")
    heard = output(aligner.bundle, "sil sil ah ah k k ah ah t t t sil")
    transcript = aligner.align(said("a cat", duration_s=0.12), heard)
    assert [s.label for s in transcript.labels] == "sil ah k ah t".split()
    # The last silence is shorter than silences are: the t takes it.
    assert shown(transcript.labels)[-1] == ("t", pytest.approx(0.075), 0.12)


def test_words_are_found_whatever_their_case_and_punctuation():
    aligner = phone_aligner()
    words, spellings = aligner.spell(said('A "cat", at -- a.'))
    assert words == ["a", "cat", "at", "a"]
    assert len(spellings[1]) == 2
    assert aligner.spell(said("‘A’ “cat”—'at a’…"))[0] == words
    with pytest.raises(InputError, match="not in the lexicon: dog mouse"):
        aligner.spell(said("a dog, a mouse! Dog?"))
    for nothing in (None, "", "--"):
        with pytest.raises(InputError, match="no words"):
            aligner.spell(said(nothing))


def test_phones_stand_as_they_are_given():
    aligner = phone_aligner(unit="phone")
    heard = output(aligner.bundle, "sil ah _ sil k _ ae _ t sil sil")
    silent = aligner.align(said(phones="ah k ae t", duration_s=0.11), heard)
    assert [s.label for s in silent.labels] == "sil ah sil k ae t sil".split()
    assert silent.words == ()
    given = aligner.align(said(phones="ah k ae t sil sil", duration_s=0.11), heard)
    assert [s.label for s in given.labels] == "ah k ae t sil".split()
    with pytest.raises(InputError, match="its text: phone 'zz' is not in the inventory"):
        aligner.align(said(phones="ah zz"), heard)
    with pytest.raises(InputError, match="no phones"):
        aligner.align(said("a cat"), heard)


def test_phones_are_folded_like_the_models():
    bundle = bundle_of(symbols=("sil", "ih", "n"), fold="timit39")
    aligner = Aligner(bundle, "phone")
    assert aligner.spell(said(phones="h# pau ix q n tcl"))[0] == ["sil", "ih", "n", "sil"]


def test_characters_align_letters_and_words():
    bundle = bundle_of("char", (SPACE, *"atc"))
    aligner = Aligner(bundle, "word")
    frames = "_ a _ _ _ _ _ _ _ _ _ _ _ <space> _ c _ a _ t _ _"
    heard = output(bundle, frames)
    transcript = aligner.align(said("a CAT", duration_s=0.22), heard)
    assert [s.label for s in transcript.labels] == ["a", SPACE, "c", "a", "t"]
    assert [w.label for w in transcript.words] == ["a", "cat"]
    first, space, *_ = transcript.labels
    # A letter grows by 100 ms at most, the space takes the rest of the pause.
    assert first.end_s <= 0.015 + 0.1 + 0.01
    assert space.start_s == first.end_s
    with pytest.raises(InputError, match="the model cannot spell: dog"):
        aligner.align(said("a dog"), heard)
    with pytest.raises(InputError, match="labels of this model are chars"):
        Aligner(bundle, "phone")


def test_too_short_for_the_text():
    for criterion in ("ctc", "framewise"):
        aligner = phone_aligner(criterion)
        heard = output(aligner.bundle, "ah k t")
        with pytest.raises(InputError, match="no path through 3 frames"):
            aligner.align(said("a cat"), heard)
        # Framewise, minimum durations give way before the utterance is refused.
        assert aligner.align(said("cat"), heard).text == "cat"


def test_what_does_not_fit_the_model_is_refused():
    with pytest.raises(InputError, match="holds no lexicon"):
        Aligner(bundle_of(), "word")
    with pytest.raises(InputError, match="'line' does not exist"):
        Aligner(bundle_of(), "line")
    lexicon = phone_aligner().lexicon
    with pytest.raises(InputError, match="without one"):
        Aligner(bundle_of("char", (SPACE, "a")), "word", lexicon)


def test_label_times_stay_inside_the_audio():
    bundle = bundle_of()
    heard = output(bundle, "k _ ae _ t")
    spans = [(0, 1), (2, 3), (4, 5)]
    times = label_times(bundle, heard, [2, 3, 4], spans, 0.043)
    flat = [edge for pair in times for edge in pair]
    assert flat == sorted(flat)
    assert (flat[0], flat[-1]) == (0.0, 0.043)


def test_batches_keep_speakers_whole():
    utterances = [Utterance(str(i), Path(), "ab"[i % 2], 1.0) for i in range(6)]
    by_id = [[u.id for u in batch] for batch in batches(utterances, 2.0)]
    assert by_id == [["0", "1"], ["2", "3"], ["4", "5"]]
    by_speaker = [[u.id for u in batch] for batch in batches(utterances, 2.0, by_speaker=True)]
    assert by_speaker == [["0", "2", "4"], ["1", "3", "5"]]


def test_an_utterance_with_the_times_found():
    aligner = phone_aligner()
    heard = output(aligner.bundle, "sil ah _ sil k _ ae _ t sil sil")
    utterance = said("A cat.", duration_s=0.11)
    timed = with_times(utterance, aligner.align(utterance, heard))
    assert timed.text == "a cat"
    assert [w.label for w in timed.words] == ["a", "cat"]
    assert [p.label for p in timed.phones] == "sil ah sil k ae t sil".split()
    by_phones = phone_aligner(unit="phone")
    utterance = said("A cat.", "ah k ae t", 0.11)
    timed = with_times(utterance, by_phones.align(utterance, heard))
    assert (timed.text, timed.words) == ("A cat.", None)
    assert timed.phones[1].start_s > 0
