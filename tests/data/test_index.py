"""The index of a manifest says what its lines say, read one by one."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.data.index import index_manifest
from asr.data.manifest import plain, read_manifest
from asr.errors import InputError

LINE = {"id": "u1", "audio_filepath": "a/t.tar:512:99", "duration": 1.5, "speaker": "s"}

letters = st.characters(codec="utf-8") | st.sampled_from('  aab\u3000\x85é\t"\\')
times = (
    st.floats(0, 1e6)
    | st.floats(0, 1e6).map(lambda x: round(x, 3))
    | st.integers(0, 10**20)
    | st.sampled_from([0.0, 1e-5, 1e16, 0.1 + 0.2, 123456789012345.0])
)
names = st.text(letters, min_size=1, max_size=9)
numbers = st.integers(0, 10**11).map(str)
paths = names | st.sampled_from(["./a", "a//b", "a/./b", ".tar:1:2", "a.tar:1:2:3", "../b"])
paths |= st.builds("{}.tar:{}:{}".format, st.sampled_from("abü"), numbers, numbers)
records = st.builds(
    lambda fields, others: fields | {k: v for k, v in others.items() if v is not None},
    st.fixed_dictionaries({"id": names, "audio_filepath": paths}),
    st.fixed_dictionaries(
        {
            "offset": st.none() | times,
            "duration": times,
            "speaker": st.text(letters, max_size=4),
            "text": st.none() | st.text(letters, max_size=30),
            "phones": st.none() | st.none() | st.none() | st.just(["a", ["b", 0, 1.5]]),
        }
    ),
)


def read(how, path):
    """The utterances, or the line of what is wrong."""
    try:
        return list(how(path))
    except InputError as error:
        return str(error)


def assert_same(folder, data):
    path = folder / "train.jsonl"
    path.write_bytes(data)
    expected, indexed = read(read_manifest, path), read(index_manifest, path)
    if isinstance(expected, str):
        assert isinstance(indexed, str)
        return
    assert indexed == [plain(u) for u in expected]
    manifest = index_manifest(path)
    said = {word for u in expected for word in (u.text or "").split()}
    assert manifest.columns.words == said
    assert manifest.columns.durations.tolist() == pytest.approx([u.duration_s for u in expected])


@given(st.lists(records, min_size=1, max_size=4, unique_by=lambda r: r["id"]), st.booleans())
@example([LINE | {"text": "a b\u3000a"}, LINE | {"id": "u2", "offset": 0.25}], False)
@settings(deadline=None, max_examples=200)
def test_what_the_lines_say(tmp_path_factory, found, ascii_only):
    lines = [json.dumps(r, ensure_ascii=ascii_only).encode() + b"\n" for r in found]
    assert_same(tmp_path_factory.mktemp("lines"), b"".join(lines))


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_spoilt_lines(tmp_path_factory, data):
    records = [LINE | {"text": "a b"}, LINE | {"id": "u2", "offset": 1.5}]
    whole = "".join(json.dumps(r) + "\n" for r in records).encode()
    at = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, 2))
    spoilt = [b"", b"0", b".", b'"', b"\n", b" ", b"}", b"\xff", b"\\", b"e", b"\\ud800", b"NaN"]
    put = data.draw(st.sampled_from(spoilt))
    assert_same(tmp_path_factory.mktemp("lines"), whole[:at] + put + whole[at + cut :])
