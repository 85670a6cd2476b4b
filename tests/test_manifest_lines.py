"""Compiled code reads a manifest's plain lines as JSON's reader does, and leaves it the others."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr import manifest_index
from asr.manifest_index import BadLineError
from asr.manifest_lines import MOST_WORDS, read_plain_lines

LINE = {"id": "u1", "audio_filepath": "a/t.tar:512:99", "duration": 1.5, "speaker": "s"}


def read(folder, data, is_large):
    path = folder / "train.jsonl"
    path.write_bytes(data)
    try:
        columns = manifest_index._scan_block(path, folder, 1 << 20, is_large, 0)
    except BadLineError as error:
        return None, error.args
    arrays = {name: getattr(columns, name) for name in manifest_index._TYPES}
    return columns, {name: (array.dtype, array.tolist()) for name, array in arrays.items()}


def assert_same(folder, data):
    found, expected = read(folder, data, True), read(folder, data, False)
    assert found[1] == expected[1]
    for name in ("tars", "words", "phones", "speakers", "digest"):
        assert getattr(found[0], name, None) == getattr(expected[0], name, None), name


def is_plain(*records):
    return read_plain_lines("\n".join(map(json.dumps, records)), len(records)) is not None


def lines_of(records, **kwargs):
    return b"".join(
        json.dumps(r, **kwargs).encode("utf-8", "surrogatepass") + b"\n" for r in records
    )


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


@given(st.lists(records, min_size=1, max_size=4), st.booleans())
@example([LINE | {"text": "a b\u3000a"}, LINE | {"offset": 0.25}], False)
@settings(deadline=None, max_examples=300)
def test_what_json_says(tmp_path_factory, found, ascii_only):
    folder = tmp_path_factory.mktemp("lines")
    assert_same(folder, lines_of(found, ensure_ascii=ascii_only))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_spoilt_lines(tmp_path_factory, data):
    whole = lines_of([LINE | {"text": "a b"}, LINE | {"id": "u2", "offset": 1.5}])
    at = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, 2))
    put = data.draw(
        st.sampled_from([b"", b"0", b".", b'"', b"\n", b" ", b"}", b"\xff", b"\\", b"e"])
    )
    assert_same(tmp_path_factory.mktemp("lines"), whole[:at] + put + whole[at + cut :])


def test_which_lines_are_plain():
    assert is_plain(LINE, LINE | {"text": "a b"})
    with_offset = {"id": "u", "audio_filepath": "a", "offset": 0.0} | LINE
    assert is_plain(with_offset, LINE)
    assert is_plain(LINE | {"duration": 0.1 + 0.2})
    assert not is_plain(LINE | {"text": 'say "a"'})
    assert not is_plain(LINE | {"phones": ["a"]})
    assert not is_plain(LINE | {"duration": 0})


def test_more_different_words_than_there_are_places():
    words = [f"w{i}" for i in range(MOST_WORDS + 1)]
    assert not is_plain(LINE | {"text": " ".join(words)})
    found = read_plain_lines(json.dumps(LINE | {"text": " ".join(words[1:])}), 1)
    assert found.words == set(words[1:])


def test_tars_and_speakers_in_turns():
    lines = [
        LINE | {"id": f"u{i}", "speaker": "st"[i % 2], "audio_filepath": f"{'ab'[i % 2]}.tar:0:{i}"}
        for i in range(1, 7)
    ]
    found = read_plain_lines("\n".join(map(json.dumps, lines)), 6)
    assert found.tars == ["b.tar", "a.tar"]
    assert found.shards.tolist() == [0, 1] * 3
    assert found.member_sizes.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.speakers == {"s", "t"}
