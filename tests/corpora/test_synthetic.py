"""The synthetic corpus: a true TIMIT tree, times that fit the audio, the same bytes again."""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.corpora import synthetic
from asr.corpora.synthetic import (
    ESPEAK_RATE,
    GRAMMAR,
    LONGEST_SENTENCE,
    NOISE_RMS,
    PHONES,
    SAMPLE_RATE,
    VOICES,
    Mark,
    Span,
    draw_sentence,
    plan,
    segment,
    synthesize,
    to_16_khz,
    vocabulary,
    words_of,
)
from asr.errors import InputError
from asr.labels import CMU_40

SMALL = {"n_train": 24, "n_dev": 4, "n_test": 4}
needs_espeak = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "corpus"
    synthesize(out, seed=3, **SMALL)
    return out


def spans_of(path):
    fields = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Span(int(start), int(end), label) for start, end, label in fields]


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@needs_espeak
def test_tree_is_timits(corpus):
    wavs = sorted(corpus.rglob("*.WAV"))
    assert len(wavs) == sum(SMALL.values())
    for wav in wavs:
        split, region, speaker, name = wav.relative_to(corpus).parts
        assert split in VOICES
        assert region == "DR1"
        assert speaker[0] in "FM"
        assert name.startswith("SX")
        assert wav.read_bytes().startswith(b"NIST_1A")
        samples, rate = soundfile.read(wav)
        assert rate == SAMPLE_RATE
        phones, words = spans_of(wav.with_suffix(".PHN")), spans_of(wav.with_suffix(".WRD"))
        starts, ends = [p.start for p in phones], [p.end for p in phones]
        assert [0, *ends] == [*starts, len(samples)]
        assert all(phone.start < phone.end for phone in phones)
        assert phones[0].label == phones[-1].label == "h#"
        assert "h#" not in {phone.label for phone in phones[1:-1]}
        assert {phone.label for phone in phones} <= CMU_40.keys()
        assert {word.start for word in words} <= {phone.start for phone in phones}
        assert {word.end for word in words} <= {phone.end for phone in phones}
        sentence = " ".join(word.label for word in words)
        assert wav.with_suffix(".TXT").read_text() == f"0 {len(samples)} {sentence}\n"


@needs_espeak
def test_speakers_are_in_one_split_only(corpus):
    speakers = [path.name for path in corpus.glob("*/DR1/*")]
    assert len(speakers) == len(set(speakers)) == 12 + 4 + 4


@needs_espeak
def test_lexicon_has_the_vocabulary_and_what_train_says(corpus):
    lexicon = [line.split("\t") for line in (corpus / "lexicon.txt").read_text().splitlines()]
    assert sorted({word for word, _ in lexicon}) == vocabulary()
    for path in (corpus / "TRAIN").rglob("*.WRD"):
        phones = spans_of(path.with_suffix(".PHN"))
        for word in spans_of(path):
            own = [p.label for p in phones if word.start <= p.start and p.end <= word.end]
            assert [word.label, " ".join(own)] in lexicon
    symbols = (corpus / "phones.txt").read_text().split()
    assert sorted(symbols) == sorted(CMU_40.keys() - {"sil"})
    assert {phone for _, phones in lexicon for phone in phones.split()} <= set(symbols)


@needs_espeak
def test_sound_starts_where_the_first_phone_does(corpus):
    late_ms = []
    for wav in corpus.rglob("*.WAV"):
        samples, _ = soundfile.read(wav, dtype="int16")
        loud = np.abs(samples.astype(float)) > 6 * NOISE_RMS
        phones = spans_of(wav.with_suffix(".PHN"))
        late_ms.append((np.flatnonzero(loud)[0] - phones[1].start) * 1000 / SAMPLE_RATE)
        assert not loud[phones[-1].start + SAMPLE_RATE // 10 :].any()
    assert abs(np.median(late_ms)) < 2
    assert max(np.abs(late_ms)) < 20


@needs_espeak
def test_sound_falls_silent_at_a_pause_and_returns_after_it(corpus):
    pauses = 0
    for path in corpus.rglob("*.PHN"):
        samples, _ = soundfile.read(path.with_suffix(".WAV"), dtype="int16")
        for span in spans_of(path):
            if span.label == "pau":
                pauses += 1
                middle = (span.start + span.end) // 2
                inside = samples[middle - 320 : middle + 320].astype(float).std()
                after = samples[span.end : span.end + 800].astype(float).std()
                assert after > 2 * inside
    assert pauses


@needs_espeak
def test_same_seed_gives_the_same_bytes(corpus, tmp_path):
    synthesize(tmp_path / "again", seed=3, **SMALL)
    synthesize(tmp_path / "other", seed=4, n_train=1, n_dev=1, n_test=1)
    assert contents(tmp_path / "again") == contents(corpus)
    first = "TEST/DR1/FF3/SX1.WAV"
    assert (tmp_path / "other" / first).read_bytes() != (corpus / first).read_bytes()


@needs_espeak
def test_lines_of_a_text_are_spoken_once_each_by_every_voice(tmp_path):
    numbers = "one two four five six seven eight nine ten eleven twelve".split()
    lines = [
        f"The boat number {first} has {second} sails." for first in numbers for second in numbers
    ]
    # espeak-ng says "of the" as one, and a word and a long line are no sentences.
    text = "\n".join([*lines, "the end of the story", "no", "many " * 20])
    (tmp_path / "text.txt").write_text(text)
    out = tmp_path / "corpus"
    n_skipped = synthesize(out, 1, 118, 2, 2, tmp_path / "text.txt", every_voice=True)
    said = [path.read_text().split(maxsplit=2)[2].strip() for path in out.rglob("*.TXT")]
    assert n_skipped == 1
    assert sorted(said) == sorted(line.lower().rstrip(".") for line in lines)
    voices = {split: {p.name[1:] for p in (out / split / "DR1").iterdir()} for split in VOICES}
    assert len(voices["TRAIN"]) > 80
    assert not voices["TRAIN"] & (voices["DEV"] | voices["TEST"])
    with pytest.raises(InputError, match="at least 123 different lines of 3 to 14"):
        synthesize(tmp_path / "more", 1, 119, 2, 2, tmp_path / "text.txt")
    assert not (tmp_path / "more").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="not an empty folder"):
        synthesize(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_espeak_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'carousel-asr\[demo\]'"):
        synthesize(tmp_path / "corpus")
    assert not list(tmp_path.iterdir())


def test_voices_are_in_one_split_only():
    voices = [v for split in VOICES.values() for sex in split.values() for v in sex]
    assert len(voices) == len(set(voices))


@needs_espeak
def test_voices_exist():
    import espeakng_loader

    # espeak-ng speaks with its plain voice, silently, where a variant is missing.
    variants = {path.name for path in Path(espeakng_loader.get_data_path(), "voices/!v").iterdir()}
    assert {v for split in VOICES.values() for sex in split.values() for v in sex} <= variants


@given(st.integers(0, 2**32))
def test_sentences_stay_in_the_vocabulary(seed):
    sentence = draw_sentence(np.random.default_rng(seed))
    words = words_of(sentence)
    assert 3 <= len(words) <= LONGEST_SENTENCE
    assert set(words) <= set(vocabulary())
    assert sentence == draw_sentence(np.random.default_rng(seed))


def test_grammar_has_no_orphan_rule_and_test_sentences_are_mostly_unseen():
    used = {s for rule in GRAMMAR.values() for s in words_of(rule.replace("|", ""))}
    assert GRAMMAR.keys() - used == {"S"}
    jobs = plan({"TRAIN": 600, "DEV": 60, "TEST": 60}, seed=0)
    heard = {job.sentence for job in jobs if job.path.startswith("TRAIN")}
    test = [job.sentence for job in jobs if job.path.startswith("TEST")]
    assert sum(sentence in heard for sentence in test) < 0.1 * len(test)


def test_every_phone_of_the_inventory_can_be_spoken():
    assert {p for phones in PHONES.values() for p in phones} == set(CMU_40) - {"sil", "h#", "pau"}


def test_segment_planted():
    def at(sample):
        return 1000 + round(sample * SAMPLE_RATE / ESPEAK_RATE)

    marks = [
        Mark(0, "f", 0),
        Mark(2205, "o@", 0),  # two phones on one mark: halves
        Mark(6615, "r", 0),  # the same r, said before a vowel
        Mark(8820, "_:", 0),
        Mark(9261, "_", 0),  # pauses become one
        Mark(11025, "i:", 1),
        Mark(15435, "l", 1),  # nothing is left of it: takes 30 ms of the vowel
        Mark(15435, "_", -1),
    ]
    said = segment(marks, "four, eel", lead=1000, n_samples=15000)
    edges = [0, at(0), at(2205), (at(2205) + at(6615)) // 2, at(8820), at(11025)]
    edges += [at(15435) - 480, at(15435), 15000]
    labels = ["h#", "f", "ao", "r", "pau", "iy", "l", "h#"]
    assert said.phones == [
        Span(start, end, label) for (start, end), label in zip(pairwise(edges), labels, strict=True)
    ]
    assert said.words == [Span(at(0), at(8820), "four"), Span(at(11025), at(15435), "eel")]
    assert said.pronunciations == [("f", "ao", "r"), ("iy", "l")]


def test_segment_names_a_phoneme_it_does_not_know():
    with pytest.raises(InputError, match=r"'loch'.*'x' has no CMU phone"):
        segment([Mark(0, "x", 0), Mark(100, "_", -1)], "loch", 0, 1000)


def test_segment_refuses_words_that_were_merged():
    with pytest.raises(InputError, match="word by word"):
        segment([Mark(0, "a", 0), Mark(4000, "_", -1)], "a b", 0, 8000)


def test_resampling_keeps_times_and_amplitude():
    n = 10_000
    time_s = np.arange(n) / ESPEAK_RATE
    pulse = np.hanning(n) * np.sin(2 * np.pi * 440 * time_s)
    resampled = to_16_khz(pulse)
    grid_s = np.arange(len(resampled)) / SAMPLE_RATE
    expected = np.interp(grid_s, time_s, np.hanning(n), right=0) * np.sin(2 * np.pi * 440 * grid_s)
    assert np.abs(resampled - expected).max() < 1e-3
