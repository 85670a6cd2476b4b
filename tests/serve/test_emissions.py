"""What the net says about a stretch, from a server."""

import base64
import io
import math

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from running import serving

from asr.audio.read import load_audio
from asr.errors import InputError
from asr.recognize.recognizer import Recognizer
from asr.serve.emissions import samples_between

KEY = {"authorization": "Bearer one"}


@pytest.fixture(scope="module")
def server(model, live_run, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("one\n")
    limits = ["--max-upload-mb", 4, "--max-audio-s", 90]
    models = ["--model", f"tones={model}", "--model", f"live={live_run}"]
    with serving(*models, "--key-file", keys, *limits) as (_, found):
        yield found


def asked(server, content, headers=KEY, **fields):
    return httpx.post(
        f"{server}/v1/audio/emissions",
        data={"model": "tones"} | fields,
        files={"file": ("a.wav", content)},
        headers=headers,
        timeout=60,
    )


def log_probs(found):
    values = np.frombuffer(base64.b64decode(found["log_probs"]), "<f4")
    return values.reshape(found["frames"], len(found["labels"]))


def as_wav(waveform):
    file = io.BytesIO()
    soundfile.write(file, waveform, 16_000, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("name", ["tones", "live"])
def test_they_are_those_in_which_the_transcript_was_found(server, model, live_run, said, name):
    recognizer = Recognizer.load({"tones": model, "live": live_run}[name])
    content = said[0].audio.read_bytes()
    waveform = load_audio(said[0].audio, 16_000)
    (whole,) = recognizer.emissions([waveform])
    found = asked(server, content, model=name).json()
    assert found["labels"] == list(recognizer.bundle.labels.symbols)
    np.testing.assert_allclose(log_probs(found), whole, atol=1e-4)
    part = asked(server, content, model=name, start=0.31, end=0.9).json()
    clock = recognizer.bundle.clock
    first, end = math.floor(0.31 / clock.shift_s), math.ceil(0.9 / clock.shift_s)
    np.testing.assert_allclose(log_probs(part), whole[first:end], atol=1e-4)
    assert part["first_s"] == pytest.approx(clock.centre_s(first), abs=1e-4)
    assert part["shift_s"] == clock.shift_s
    labels = recognizer.transcribe(said[0].audio).labels
    expected = [s.label for s in labels if s.start_s < 0.9 and s.end_s > 0.31]
    assert [s["label"] for s in part["found"]] == expected
    assert len(expected) < len(labels)


def test_a_part_of_a_recording_is_heard_as_in_it(server, model, said):
    waveforms = [np.pad(load_audio(u.audio, 16_000), (4000, 12_000)) for u in said]
    recording = np.concatenate(waveforms * 8)[: 80 * 16_000]
    recognizer = Recognizer.load(model)
    _, stretches = recognizer.traced(recording)
    best = {s.first + n: b for s in stretches for n, b in enumerate(s.log_probs.argmax(axis=1))}
    found = asked(server, as_wav(recording), start=50, end=60).json()
    clock = recognizer.bundle.clock
    begin = round(found["first_s"] / clock.shift_s)
    assert abs(begin * clock.shift_s - 50) < clock.shift_s
    part = log_probs(found).argmax(axis=1)
    assert len(part) * clock.shift_s == pytest.approx(10, abs=2 * clock.shift_s)
    right = [label == best.get(begin + n, label) for n, label in enumerate(part)]
    assert np.mean(right) > 0.97
    assert len(set(part)) > 4
    assert all(49 < s["start_s"] < s["end_s"] < 61 for s in found["found"])


def test_what_cannot_be_answered_is_told(server, said):
    content = said[0].audio.read_bytes()
    for fields, status, param, told in (
        ({"start": "soon"}, 400, "start", "start: expected seconds, found 'soon'"),
        ({"start": "-1"}, 400, "start", "expected seconds"),
        ({"end": "inf"}, 400, "end", "expected seconds"),
        ({"end": "61"}, 400, "end", "expected up to 60 s after start (0), found 61"),
        ({"start": "2", "end": "1"}, 400, "end", "after start (2)"),
        ({"start": "20", "end": "21"}, 400, "file", "start: the file ends before it"),
        ({"start": "50"}, 400, "file", "start: the file ends before it"),
        ({"colour": "red"}, 400, "colour", "Unknown parameter"),
        ({"start": ["1", "2"]}, 400, "start", "more than once"),
        ({"model": ""}, 400, "model", "must provide a model"),
        ({"model": "other"}, 404, "model", "does not exist"),
    ):
        answer = asked(server, content, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param)
        assert told in error["message"]
    answer = asked(server, b"no audio")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_file")


def test_limits_and_keys_are_those_of_files(server):
    assert asked(server, as_wav(np.zeros(1600)), headers={}).status_code == 401
    assert asked(server, bytes(6 << 20)).status_code == 413
    # Nothing is read beyond the part and what is heard around it.
    long = as_wav(np.zeros(100 * 16_000))
    assert asked(server, long, start=0, end=1).status_code == 200
    assert "longer than 90 s" in asked(server, long, start=85, end=95).json()["error"]["message"]


@given(
    st.lists(st.integers(0, 5), max_size=6), st.integers(0, 12), st.integers(1, 12), st.booleans()
)
def test_samples_between_are_those(sizes, first, n, leaves):
    samples = np.arange(sum(sizes))
    closed = []

    def blocks():
        try:
            yield from np.split(samples, np.cumsum(sizes)[:-1]) if sizes else []
        finally:
            closed.append(True)

    found = samples_between(blocks(), first, first + n)
    if first >= len(samples):
        with pytest.raises(InputError, match="ends before it"):
            list(found)
    elif leaves:
        next(found)
        found.close()
        assert closed
    else:
        taken = np.concatenate([np.zeros(0, int), *found])
        assert taken.tolist() == samples[first : first + n].tolist()
        assert closed
