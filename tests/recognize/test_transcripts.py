"""Every format through an independent reader."""

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid
from pympi import Elan

from asr.corpora.tree import read_segments
from asr.errors import InputError
from asr.recognize.transcripts import FORMATS, as_json, formats_named, to_phn
from asr.score.read import match, read_transcripts
from asr.system.text import nfc
from asr.types import Segment, Transcript


def words(*items, id="a", duration_s=3.0, labels=()):
    segments = tuple(Segment(*item) for item in items)
    text = " ".join(s.label for s in segments)
    return Transcript(id, text, duration_s, -1.5, tuple(labels), segments, unit="phone")


ORDINARY = words(
    ("the", 0.1, 0.4, 0.9),
    ("cat", 0.4, 1.0, 0.5),
    ("sat", 1.5, 2.0, 1.0),
    labels=[Segment("dh", 0.1, 0.2, 0.8), Segment("ah", 0.2, 0.4, 1.0)],
)
# What recognisers put out at worst: no time at all, overlaps, out of order, odd characters.
ODD = words(
    ('say "hi"', 0.5, 0.5, 0.1),
    ("-->", 0.5, 1.0, 0.2),
    ("<i>&amp;", 0.9, 2.0, None),
    ("{a/b}", 0.7, 0.8, 0.3),
    ("ünïcödé", 2.5, 9.0, 0.4),
    id="talk (1) of 2",
)
# Printable characters, quotes and arrows among them; control characters are no words.
LABELS = st.text(
    st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=50
) | st.sampled_from(['"', '""', "-->", "--->", "<b>", "&lt;", ";;", "12", "NOTE", "WEBVTT"])
SEGMENTS = st.lists(
    st.builds(
        lambda label, start, length, confidence: Segment(label, start, start + length, confidence),
        LABELS,
        st.floats(0, 20),
        st.floats(0, 3),
        st.none() | st.floats(0, 1),
    ),
    max_size=12,
).map(tuple)
TRANSCRIPTS = st.builds(
    lambda labels, words, duration_s: Transcript(
        "a b", " ".join(w.label for w in words), duration_s, -1.0, labels, words, unit="phone"
    ),
    SEGMENTS,
    SEGMENTS,
    st.floats(0, 30),
)


def praat(transcript, folder):
    path = folder / "a.TextGrid"
    path.write_text(FORMATS["textgrid"].write(transcript), encoding="utf-8")
    return textgrid.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="error")


def test_textgrid_says_what_was_said(tmp_path):
    grid = praat(ORDINARY, tmp_path)
    assert grid.tierNames == ("words", "phones")
    assert [tuple(e) for e in grid.getTier("words").entries] == [
        (0, 0.1, ""),
        (0.1, 0.4, "the"),
        (0.4, 1.0, "cat"),
        (1.0, 1.5, ""),
        (1.5, 2.0, "sat"),
        (2.0, 3.0, ""),
    ]
    assert [e.label for e in grid.getTier("phones").entries] == ["", "dh", "ah", ""]


@settings(deadline=None, max_examples=60)
@given(transcript=TRANSCRIPTS)
def test_textgrid_intervals_cover_the_file(tmp_path_factory, transcript):
    folder = tmp_path_factory.mktemp("grid")
    grid = praat(transcript, folder)
    for name, segments in (("words", transcript.words), ("phones", transcript.labels)):
        if not segments:
            continue
        entries = grid.getTier(name).entries
        edges = [e.start for e in entries]
        assert edges[0] == 0
        assert edges[1:] == [e.end for e in entries[:-1]]
        assert entries[-1].end == grid.maxTimestamp >= transcript.duration_s - 1e-4
        assert all(e.start < e.end for e in entries)
        by_time = [s.label for s in sorted(segments, key=lambda s: s.start_s)]
        assert [e.label for e in entries if e.label] == by_time
    shutil.rmtree(folder)


def elan(transcript, folder):
    path = folder / "a.eaf"
    path.write_text(FORMATS["eaf"].write(transcript), encoding="utf-8")
    return Elan.Eaf(str(path))


def test_elan_says_what_was_said(tmp_path):
    audio = tmp_path / "with space.flac"
    audio.touch()
    found = elan(replace(ORDINARY, audio=audio), tmp_path)
    assert list(found.tiers) == ["words", "phones"]
    assert found.get_annotation_data_for_tier("words") == [
        (100, 400, "the"),
        (400, 1000, "cat"),
        (1500, 2000, "sat"),
    ]
    assert [a[2] for a in found.get_annotation_data_for_tier("phones")] == ["dh", "ah"]
    (media,) = found.media_descriptors
    assert media["MEDIA_URL"] == audio.as_uri()
    assert media["MIME_TYPE"].startswith("audio/")


@settings(deadline=None, max_examples=60)
@given(transcript=TRANSCRIPTS)
def test_elan_has_what_a_textgrid_has(tmp_path_factory, transcript):
    folder = tmp_path_factory.mktemp("elan")
    found = elan(transcript, folder)
    for name, segments in (("words", transcript.words), ("phones", transcript.labels)):
        if not segments:
            continue
        spans = found.get_annotation_data_for_tier(name)
        by_time = [s.label for s in sorted(segments, key=lambda s: s.start_s)]
        assert [label for _, _, label in spans] == by_time
        assert all(start < end for start, end, _ in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    slots = list(found.timeslots.values())
    assert slots == sorted(slots)
    shutil.rmtree(folder)


def test_what_xml_cannot_hold_is_replaced(tmp_path):
    found = elan(words(("a\x00b\x1b", 0.0, 1.0)), tmp_path)
    assert [a[2] for a in found.get_annotation_data_for_tier("words")] == ["a\ufffdb\ufffd"]


def test_silence_in_a_textgrid_is_an_empty_interval_in_either_tier(tmp_path):
    said = [("sil", 0, 0.1), ("dh", 0.1, 0.2), ("ah", 0.2, 0.4), ("pau", 0.4, 0.5), ("k", 0.5, 1)]
    for first, last in ((0, None), (1, None), (0, -1)):
        labels = [Segment(*item) for item in [*said, ("h#", 1, 1.2), ("sil", 1.5, 3)][first:last]]
        grid = praat(words(("the", 0.1, 0.4), ("k", 0.5, 1.0), labels=labels), tmp_path)
        tiers = [[tuple(e) for e in grid.getTier(name).entries] for name in ("words", "phones")]
        for entries in tiers:
            assert [e for e in entries if not e[2]] == [(0, 0.1, ""), (0.4, 0.5, ""), (1, 3, "")]
    # Nothing but silence is still a tier of phones; a word that looks like silence is a word.
    grid = praat(words(labels=[Segment("sil", 0.0, 3.0)]), tmp_path)
    assert [(t, [tuple(e) for e in grid.getTier(t).entries]) for t in grid.tierNames] == [
        ("phones", [(0, 3, "")])
    ]
    pau = (Segment("pau", 0.0, 3.0),)
    grid = praat(Transcript("a", "pau", 3.0, 0.0, pau, pau, unit="word"), tmp_path)
    assert [e.label for e in grid.getTier("words").entries] == ["pau"]


def test_subtitles_of_phones_leave_silence_out():
    labels = [("sil", 0, 0.1), ("dh", 0.1, 0.2), ("ah", 0.2, 0.4), ("sil", 0.4, 2.0), ("k", 2, 2.2)]
    cues = list(srt.parse(FORMATS["srt"].write(words(labels=[Segment(*x) for x in labels]))))
    assert [c.content for c in cues] == ["dh ah", "k"]


@given(st.lists(st.floats(0, 50), min_size=3, max_size=9).map(sorted))
def test_neighbours_meet_in_a_ctm(times):
    said = [("x", *pair) for pair in pairwise(times)]
    fields = [line.split() for line in FORMATS["ctm"].write(words(*said)).splitlines()]
    ends = [round(float(start) + float(length), 4) for _, _, start, length, *_ in fields]
    assert ends[:-1] == [float(line[2]) for line in fields[1:]]


def test_textgrid_of_nothing_opens(tmp_path):
    assert praat(words(duration_s=0.0), tmp_path).tierNames == ("words",)


def test_srt_gathers_words_up_to_a_pause():
    cues = list(srt.parse(FORMATS["srt"].write(ORDINARY)))
    assert [c.content for c in cues] == ["the cat sat"]
    assert (cues[0].start.total_seconds(), cues[0].end.total_seconds()) == (0.1, 2.0)
    parted = words(("one", 0.0, 0.5), ("two", 1.5, 2.0))
    assert [c.content for c in srt.parse(FORMATS["srt"].write(parted))] == ["one", "two"]
    many = words(*[(f"word{i}", i * 0.3, i * 0.3 + 0.3) for i in range(100)])
    for cue in srt.parse(FORMATS["srt"].write(many)):
        lines = cue.content.split("\n")
        assert len(lines) <= 2
        assert all(len(line) <= 42 for line in lines)
        assert (cue.end - cue.start).total_seconds() <= 7


@settings(deadline=None, max_examples=100)
@given(transcript=TRANSCRIPTS)
def test_subtitles_lose_no_word(transcript):
    said = [s.label for s in sorted(transcript.words or transcript.labels, key=lambda s: s.start_s)]
    cues = list(srt.parse(FORMATS["srt"].write(transcript)))
    arrows = [re.sub("-{2,}>", "->", word) for word in said]
    assert " ".join(c.content for c in cues).split() == arrows
    assert all(cue.start < cue.end for cue in cues)
    assert all(cue.end <= following.start for cue, following in pairwise(cues))
    captions = list(webvtt.from_buffer(io.StringIO(FORMATS["vtt"].write(transcript))))
    raw = " ".join(c.raw_text for c in captions).split()
    assert [w.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for w in raw] == said
    assert len(captions) == len(cues)


def test_vtt_of_nothing_is_valid():
    assert list(webvtt.from_buffer(io.StringIO(FORMATS["vtt"].write(words())))) == []


def test_ctm_and_trn_lines():
    assert FORMATS["ctm"].write(ORDINARY) == (
        "a 1 0.1000 0.3000 the 0.9000\na 1 0.4000 0.6000 cat 0.5000\na 1 1.5000 0.5000 sat 1.0000\n"
    )
    assert FORMATS["trn"].write(ORDINARY) == "the cat sat (a)\n"
    assert FORMATS["trn"].write(words(id="a (b)\tc")) == " (a_b_c)\n"
    lines = [line.split() for line in FORMATS["ctm"].write(ODD).splitlines()]
    assert [line[0] for line in lines] == ["talk_1_of_2"] * 5
    assert [line[4] for line in lines] == ['say_"hi"', "-->", "{a/b}", "<i>&amp;", "ünïcödé"]
    assert len(lines[3]) == 5  # no confidence known
    # Without words, the labels are the words.
    phones = words(labels=[Segment("sil", 0.0, 1.0, None)])
    assert FORMATS["ctm"].write(phones) == "a 1 0.0000 1.0000 sil\n"


def test_channels_of_a_recording_fit_its_stm(tmp_path):
    stm, ctm = tmp_path / "talk.stm", tmp_path / "talk.ctm"
    stm.write_text("talk 1 anna 0.0 1.0 hello\ntalk 2 bert 0.0 1.0 goodbye\n")
    said = [
        Transcript(f"talk.ch{n}", word, 1.0, 0.0, (), (Segment(word, 0.1, 0.5),), channel=n)
        for n, word in enumerate(("hello", "goodbye"), 1)
    ]
    ctm.write_text("".join(map(FORMATS["ctm"].write, said)))
    matched = match(read_transcripts(stm), read_transcripts(ctm))
    assert [hypothesis.text for _, hypothesis in matched.pairs] == ["hello", "goodbye"]
    assert matched.missing == matched.unscored == ()


@settings(deadline=None, max_examples=60)
@given(transcript=TRANSCRIPTS)
def test_trn_and_jsonl_are_read_back(tmp_path_factory, transcript):
    folder = tmp_path_factory.mktemp("read")
    for name in ("trn", "jsonl", "json"):
        path = folder / f"a.{name}"
        path.write_text(FORMATS[name].write(transcript), encoding="utf-8")
        (line,) = read_transcripts(path).lines.items()
        assert line[0] == ("a_b" if name == "trn" else "a b")
        assert (line[1].text or "").split() == nfc(transcript.text).split()
    shutil.rmtree(folder)


@pytest.mark.skipif(not shutil.which("sctk"), reason="sctk is not installed")
def test_sclite_reads_ctm_and_trn(tmp_path):
    for name in ("ctm", "trn"):
        (tmp_path / f"a.{name}").write_text(FORMATS[name].write(ORDINARY))
        (tmp_path / f"odd.{name}").write_text(FORMATS[name].write(words(("x", 0, 1), id=ODD.id)))
    (tmp_path / "a.stm").write_text("a 1 speaker 0.0 3.0 the cat sat\n")
    (tmp_path / "odd.stm").write_text("talk_1_of_2 1 speaker 0.0 3.0 x\n")
    for stem in ("a", "odd"):
        for reference, hypothesis in (("stm", "ctm"), ("trn", "trn")):
            files = ["-r", tmp_path / f"{stem}.{reference}", reference]
            files += ["-h", tmp_path / f"{stem}.{hypothesis}", hypothesis]
            command = ["sctk", "sclite", *files, "-i", "spu_id", "-o", "sum", "stdout"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert re.search(r"Sum/Avg *\|[^|]*\| *100\.0 +0\.0", done.stdout), done.stdout


def test_phn_and_wrd_are_read_back(tmp_path):
    for name, segments in (("phn", ORDINARY.labels), ("wrd", ORDINARY.words)):
        path = tmp_path / f"a{FORMATS[name].suffix}"
        path.write_text(FORMATS[name].write(ORDINARY))
        found = read_segments(path, ORDINARY.duration_s)
        assert [(s.label, s.start_s, s.end_s) for s in found] == [
            (s.label, s.start_s, s.end_s) for s in segments
        ]
    assert to_phn(ORDINARY, 8000) == "800 1600 dh\n1600 3200 ah\n"


def test_json_holds_everything():
    best = as_json(ORDINARY)
    assert best["words"][0] == {"label": "the", "start_s": 0.1, "end_s": 0.4, "confidence": 0.9}
    assert (best["id"], best["audio_filepath"], best["duration"]) == ("a", "a", 3.0)
    assert "nbest" not in best
    from_file = Transcript("a", "", 1.0, 0.0, (), (), (ORDINARY,), audio=Path("b/a.wav"))
    found = as_json(from_file)
    assert found["audio_filepath"] == "b/a.wav"
    assert found["nbest"][0]["text"] == "the cat sat"
    assert FORMATS["jsonl"].write(ODD).count("\n") == 1
    assert json.loads(FORMATS["json"].write(ODD)) == json.loads(FORMATS["jsonl"].write(ODD))


def test_names_that_are_not_utf_8():
    odd = words(("x", 0.0, 1.0), id="odd\udcff.wav")
    for name, format in FORMATS.items():
        format.write(odd).encode("utf-8")
        if name in ("json", "jsonl"):
            assert json.loads(format.write(odd))["id"] == odd.id


def test_what_needs_times_says_so():
    untimed = words(("x",), labels=[Segment("x")])
    for name in ("textgrid", "eaf", "srt", "vtt", "ctm", "phn", "wrd"):
        with pytest.raises(InputError, match="'x' has no time"):
            FORMATS[name].write(untimed)
    for name in ("txt", "trn", "json", "jsonl"):
        assert FORMATS[name].write(untimed)


def test_formats_by_name():
    assert list(formats_named("srt, JSON")) == ["srt", "json"]
    with pytest.raises(InputError, match="'mp3' does not exist; choose from txt"):
        formats_named("srt,mp3")
    with pytest.raises(InputError, match="no format named"):
        formats_named("")
