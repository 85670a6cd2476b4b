"""Manifests come back as they were written, and a bad line is named by file and number."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.read import write_sphere
from asr.data.index import index_manifest
from asr.data.manifest import plain, read_manifest, write_manifest
from asr.errors import InputError
from asr.system.text import nfc
from asr.types import Segment, Utterance

GOOD = {"audio_filepath": "a.wav", "duration": 1.0, "text": "a", "id": "u1"}

names = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1)
    .map(nfc)
    .filter(lambda s: s.split() == [s])
)
labels = st.text(min_size=1, max_size=5).map(nfc)
seconds = st.floats(0, 1e6)


@st.composite
def segments(draw):
    if draw(st.booleans()):
        return Segment(draw(labels))
    start_s, end_s = sorted([draw(seconds), draw(seconds)])
    return Segment(draw(labels), start_s, end_s)


spoken = st.none() | st.lists(segments(), max_size=4).map(tuple)
utterances = st.builds(
    Utterance,
    id=names,
    audio=names.filter(lambda s: "/" not in s and "\0" not in s).map(lambda s: Path("/corpus") / s),
    speaker=names,
    duration_s=st.floats(1e-3, 1e6),
    offset_s=seconds,
    text=st.none() | st.text().map(nfc),
    words=spoken,
    phones=spoken,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(utterances, min_size=1, max_size=4, unique_by=lambda u: u.id))
def test_round_trip(listed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        write_manifest(path, listed)
        assert read_manifest(path) == listed


values = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)


@settings(deadline=None)
@given(st.text() | values.map(lambda v: json.dumps(GOOD | {"phones": v, "id": v})))
def test_any_text_is_read_or_refused_in_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text(content, encoding="utf-8")
        line = f"{path}"
        try:
            read_manifest(path)
        except InputError as error:
            line = str(error)
        assert line.startswith(str(path))


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_nemo_manifest(tmp_path):
    write_sphere(tmp_path / "d.wav", np.zeros(8000, np.int16), 16000)
    path = write_lines(
        tmp_path / "nemo.jsonl",
        {"audio_filepath": "clips/a b.wav", "duration": 2, "text": "hello", "lang": "en"},
        {"audio_filepath": "/x/c.wav", "duration": 2.5, "text": "one", "offset": 0.0},
        {"audio_filepath": "/x/c.wav", "duration": 2.5, "text": "two", "offset": 2.5},
        {"audio_filepath": "/y/c.wav", "duration": 2.5, "text": ""},
        {"audio_filepath": "d.wav", "offset": 0.125},
    )
    read = read_manifest(path)
    assert [u.id for u in read] == ["a_b", "c", "c-0002500", "c-2", "d-0000125"]
    assert [u.speaker for u in read] == [u.id for u in read]
    assert [u.text for u in read] == ["hello", "one", "two", "", None]
    assert read[0].audio == tmp_path / "clips" / "a b.wav"
    assert read[1].audio == Path("/x/c.wav")
    assert [u.offset_s for u in read] == [0, 0, 2.5, 0, 0.125]
    assert [u.duration_s for u in read] == [2, 2.5, 2.5, 2.5, 0.375]
    assert read[0].words is None
    assert read[0].phones is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, found list"),
        ({"duration": 1.0, "text": "a"}, "field 'audio_filepath' is missing"),
        (GOOD | {"id": "u 2"}, "must not hold white space"),
        (GOOD | {"id": "nul\0"}, "field 'id' has NUL or half a character"),
        (GOOD | {"id": "half\ud800"}, "field 'id' has NUL or half a character"),
        (GOOD | {"id": "u2", "audio_filepath": "\0"}, "field 'audio_filepath' has NUL"),
        (GOOD | {"id": "u2", "speaker": "\ud800"}, "field 'speaker' has NUL or half"),
        (GOOD | {"id": 7}, "field 'id' must be a string, found 7"),
        (GOOD, "id 'u1' was already used on line 1"),
        (GOOD | {"id": "u2", "text": ["a"]}, "field 'text' must be a string"),
        (GOOD | {"id": "u2", "text": "a \ud800"}, "field 'text' has half a character"),
        (GOOD | {"id": "u2", "phones": ["a", "\udfff"]}, "item 2 has half a character"),
        (GOOD | {"id": "u2", "words": [["\udfff", 0, 1]]}, "item 1 has half a character"),
        (GOOD | {"id": "u2", "duration": "1.0"}, "field 'duration' must be a number"),
        (GOOD | {"id": "u2", "duration": True}, "field 'duration' must be a number"),
        (GOOD | {"id": "u2", "duration": -1.0}, "field 'duration' must be a time"),
        (GOOD | {"id": "u2", "duration": 0}, "field 'duration' must be positive"),
        (GOOD | {"id": "u2", "duration": float("nan")}, "field 'duration' must be a time"),
        (GOOD | {"id": "u2", "duration": 10**400}, "field 'duration' must be a time"),
        (GOOD | {"id": "u2", "offset": -0.5}, "field 'offset' must be a time"),
        (GOOD | {"id": "u2", "phones": "ah b"}, "field 'phones' must be a list"),
        (GOOD | {"id": "u2", "phones": ["ah", 3]}, "field 'phones', item 2 must be a label or"),
        (GOOD | {"id": "u2", "words": [["a", 0.0]]}, "field 'words', item 1 must be a label or"),
        (GOOD | {"id": "u2", "words": [["a", 2.0, 1.0]]}, "item 1 ends before it starts"),
        ({"audio_filepath": "absent.wav"}, "absent.wav: no such file"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    bad = line if isinstance(line, str) else json.dumps(line)
    path.write_text(f"{json.dumps(GOOD)}\n\n{bad}\n")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    if "item 1" not in message and ("half a character" in message or "NUL" in message):
        with pytest.raises(InputError, match=r":3: .* half a character"):
            index_manifest(path)
    bad = []
    assert len(read_manifest(path, lambda where, error: bad.append(f"{where}: {error}"))) == 1
    assert bad == [str(caught.value)]
    assert "\n" not in str(caught.value)


def test_no_manifest(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    for name, message in [
        ("absent.jsonl", "No such file"),
        ("empty.jsonl", "no line with an utterance"),
        ("binary.jsonl", "not UTF-8"),
    ]:
        with pytest.raises(InputError, match=message):
            read_manifest(tmp_path / name)


def test_a_path_that_is_not_utf8(tmp_path):
    strange = Utterance("a", Path("/x/\udcff.wav"), "s", 1.0)
    with pytest.raises(InputError, match="not UTF-8"):
        write_manifest(tmp_path / "a.jsonl", [strange])
    assert not list(tmp_path.iterdir())


def test_timed_words_are_made_plain_and_keep_their_time():
    words = (Segment("–", 0.0, 0.5), Segment("Check-in!", 0.5, 1.5), Segment("McKay", 1.5, 2.0))
    said = Utterance("a", Path("a.wav"), "a", 2.0, text="– Check-in! McKay", words=words)
    found = plain(said, {"McKay"})
    assert found.text == "check in McKay"
    assert found.words == (
        Segment("check", 0.5, 1.0),
        Segment("in", 1.0, 1.5),
        Segment("McKay", 1.5, 2.0),
    )
