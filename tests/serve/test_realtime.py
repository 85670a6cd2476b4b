"""Live transcription over a WebSocket, as the official client asks for it."""

import asyncio
import base64
import io
import json
import signal
from contextlib import suppress

import httpx
import numpy as np
import openai
import pytest
import soundfile
import websockets
from hypothesis import given
from hypothesis import strategies as st
from running import asr, serving
from websockets.sync.client import connect

from asr.audio.read import load_audio
from asr.recognize.recognizer import Recognizer
from asr.serve.contract import ApiError
from asr.serve.live_contract import LOGPROBS, Format, Turns, Wanted, shown, updated

RATE = 24_000
INTENT = {"intent": "transcription"}
DELTA, COMPLETED = (
    f"conversation.item.input_audio_transcription.{name}" for name in ("delta", "completed")
)


@pytest.fixture(scope="module")
def server(live_run, model):
    with serving("--model", f"whole={model}", "--model", f"tones={live_run}") as found:
        yield found[1]


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def recognizer(live_run):
    return Recognizer.load(live_run, device="cpu")


@pytest.fixture(scope="module")
def talk(said):
    """Three utterances with pauses between, as PCM at 24 kHz."""
    pause = np.zeros(RATE, np.float32)
    parts = [part for u in said[:3] for part in (load_audio(u.audio, RATE), pause)]
    return pcm(np.concatenate(parts))


def pcm(samples):
    return np.round(samples * 32767).astype("<i2").tobytes()


def finals_of(recognizer, data, rate=RATE, **how):
    """What the same audio brings in Python."""
    stream = recognizer.stream(**how)
    stream.accept(np.frombuffer(data, "<i2").astype(np.float32) / 32768, rate)
    stream.finish()
    return [final.text for final in stream.finals()]


def session(**fields):
    return {"type": "transcription", "audio": {"input": fields}}


def append(connection, data, step=4800):
    for at in range(0, len(data), step):
        connection.input_audio_buffer.append(audio=base64.b64encode(data[at : at + step]).decode())


def until(connection, kind, n=1):
    """Events up to the n-th of a kind."""
    events = []
    for event in connection:
        events.append(event)
        n -= event.type == kind
        if not n:
            return events
    raise AssertionError([e.type for e in events])


def by_item(events):
    found = {}
    for event in events:
        if hasattr(event, "item_id"):
            found.setdefault(event.item_id, []).append(event)
    return list(found.values())


def test_speech_is_cut_where_one_pauses(client, recognizer, talk):
    expected = finals_of(recognizer, talk)
    with client.realtime.connect(extra_query=INTENT) as connection:
        created = connection.recv()
        assert created.type == "session.created"
        heard = created.session.audio.input
        assert heard.transcription.model == "tones"
        assert (heard.format.type, heard.format.rate) == ("audio/pcm", RATE)
        assert heard.turn_detection.silence_duration_ms == 500
        assert heard.turn_detection.threshold == 0.5
        append(connection, talk)
        items = by_item(until(connection, COMPLETED, len(expected)))
    assert [item[-1].transcript for item in items] == expected
    before = None
    for started, *deltas, stopped, committed, done in sorted_by_kind(items):
        assert (started.type, stopped.type, committed.type) == tuple(
            f"input_audio_buffer.{kind}"
            for kind in ("speech_started", "speech_stopped", "committed")
        )
        assert "".join(d.delta for d in deltas) == done.transcript
        assert started.audio_start_ms < stopped.audio_end_ms
        assert committed.previous_item_id == before
        assert done.usage.type == "duration"
        before = done.item_id


def sorted_by_kind(items):
    """Each item's events with what is left of its text before the end of speech."""
    for item in items:
        deltas = [event for event in item if event.type == DELTA]
        started, stopped, committed, done = (event for event in item if event.type != DELTA)
        yield started, *deltas, stopped, committed, done


def test_words_come_before_the_pause(client, said):
    with client.realtime.connect(extra_query=INTENT) as connection:
        append(connection, pcm(load_audio(said[0].audio, RATE)))
        kinds = [event.type for event in until(connection, DELTA)]
    assert kinds == ["session.created", "input_audio_buffer.speech_started", DELTA]


def test_tentative_words_on_request(client, recognizer, talk):
    stream, n_bytes = recognizer.stream(), 0
    while not (likely := stream.result.tentative.text):
        packet = np.frombuffer(talk[n_bytes : n_bytes + 4800], "<i2")
        stream.accept(packet.astype(np.float32) / 32768, RATE)
        n_bytes += 4800
    with client.realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session={**session(), "include": ["carousel.tentative"]})
        # What comes after it is not there yet, so that this is what is told last.
        append(connection, talk[:n_bytes])
        told = until(connection, "carousel.input_audio_transcription.tentative")[-1]
        while told.text != likely:
            told = until(connection, "carousel.input_audio_transcription.tentative")[-1]
        assert told.audio_ms == n_bytes // 48


def test_without_turn_detection_the_client_commits(client, recognizer, talk):
    expected = " ".join(finals_of(recognizer, talk))
    with client.realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session=session(turn_detection=None))
        assert until(connection, "session.updated")[-1].session.audio.input.turn_detection is None
        for _ in range(2):
            append(connection, talk)
            connection.input_audio_buffer.commit()
            events = until(connection, COMPLETED)
            assert events[-1].transcript == expected
            assert "".join(e.delta for e in events if e.type == DELTA) == expected
            assert {e.type for e in events} == {DELTA, COMPLETED, "input_audio_buffer.committed"}
        append(connection, talk)
        connection.input_audio_buffer.clear()
        until(connection, "input_audio_buffer.cleared")
        connection.input_audio_buffer.commit()
        assert connection.recv().error.code == "input_audio_buffer_commit_empty"


def test_a_commit_ends_what_is_being_said(client, recognizer, said):
    data = pcm(load_audio(said[0].audio, RATE))
    with client.realtime.connect(extra_query=INTENT) as connection:
        append(connection, data)
        connection.input_audio_buffer.commit()
        done = until(connection, COMPLETED)[-1]
    assert done.transcript == " ".join(finals_of(recognizer, data))
    assert done.usage.seconds == pytest.approx(len(data) / 2 / RATE, abs=1e-3)


@pytest.mark.parametrize(("kind", "subtype"), [("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")])
def test_telephones(client, recognizer, said, kind, subtype):
    written = io.BytesIO()
    soundfile.write(written, load_audio(said[0].audio, 8000), 8000, subtype, format="RAW")
    data = written.getvalue()
    levels = soundfile.read(
        io.BytesIO(data), format="RAW", subtype=subtype, samplerate=8000, channels=1
    )[0]
    expected = " ".join(finals_of(recognizer, (levels * 32768).astype("<i2").tobytes(), 8000))
    with client.realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session=session(format={"type": kind}, turn_detection=None))
        append(connection, data, 800)
        connection.input_audio_buffer.commit()
        assert until(connection, COMPLETED)[-1].transcript == expected


def test_levels_of_g711():
    # The largest and the smallest of each table of ITU-T G.711, of 16 bits.
    for kind, largest, smallest in (("audio/pcmu", 32124, 0), ("audio/pcma", 32256, 8)):
        levels, rate = Format(kind, 8000).samples(bytes(range(256)))
        assert rate == 8000
        assert sorted(set(np.abs(levels * 32768)))[::127] == [smallest, largest]


def test_logprobs_and_keywords(client, said, talk):
    word = said[0].words[0].label
    with client.realtime.connect(extra_query=INTENT) as connection:
        wanted = session(transcription={"model": "tones", "keywords": [word], "prompt": "Tones"})
        wanted["include"] = ["item.input_audio_transcription.logprobs"]
        connection.session.update(session=wanted)
        found = until(connection, "session.updated")[-1].session
        assert found.audio.input.transcription.keywords == [word]
        assert "prompt" in found.ignored
        append(connection, talk)
        events = until(connection, COMPLETED)
    deltas = [e for e in events if e.type == DELTA]
    assert "".join(p.token for d in deltas for p in d.logprobs) == events[-1].transcript
    assert "".join(p.token for p in events[-1].logprobs) == events[-1].transcript


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"intent": "transcription", "model": "whole"}, "'whole' does not stream"),
        ({"intent": "transcription", "model": "other"}, "'other' does not exist"),
        ({"model": "tones"}, "intent=transcription"),
    ],
)
def test_what_cannot_be_served_is_told_once(client, query, told):
    with client.realtime.connect(extra_query=query) as connection:
        event = connection.recv()
        assert event.type == "error"
        assert told in event.error.message
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            connection.recv()
        assert closed.value.rcvd.code == 1008


def test_a_model_that_does_not_stream_ends_the_session(client):
    with client.realtime.connect(extra_query=INTENT) as connection:
        connection.session.update(session=session(transcription={"model": "whole"}))
        *_, event = until(connection, "error")
        assert event.error.code == "model_does_not_stream"
        with pytest.raises(websockets.ConnectionClosedError):
            connection.recv()


def test_mistakes_are_told_and_the_session_goes_on(server, client, recognizer, talk):
    address = server.replace("http", "ws") + "/v1/realtime?intent=transcription"
    with connect(address) as socket:
        socket.recv()
        for sent, told in (
            ("no JSON", "expected an event as JSON"),
            ("[]", "expected an event as a JSON object"),
            (b"\0\0", "found a binary message"),
            ('{"type": "response.create"}', "found 'response.create'"),
            ('{"type": "input_audio_buffer.append"}', "expected base64 text"),
            ('{"type": "input_audio_buffer.append", "audio": "?"}', "is not base64"),
            ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "middle of a sample"),
            ('{"type": "input_audio_buffer.append", "sound": ""}', "Unknown parameter: 'sound'"),
            ('{"type": "input_audio_buffer.commit", "event_id": "e7"}', "the buffer is empty"),
            ('{"type": "session.update", "session": {}}', "expected 'transcription'"),
        ):
            socket.send(sent)
            event = json.loads(socket.recv())
            assert event["type"] == "error"
            assert told in event["error"]["message"]
        socket.send('{"type": "input_audio_buffer.clear"}')
        assert json.loads(socket.recv())["type"] == "input_audio_buffer.cleared"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"turn_detection": {"type": "semantic_vad"}}, "turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "silence_duration_ms": 0}}, "silence_duration"),
        ({"turn_detection": {"type": "server_vad", "prefix_padding_ms": "a"}}, "prefix_padding"),
        ({"turn_detection": {"type": "server_vad", "threshold": 1.5}}, "threshold"),
        ({"turn_detection": {"type": "server_vad", "threshold": True}}, "threshold"),
        ({"format": {"type": "audio/mp3"}}, "format.type"),
        ({"format": {"type": ["audio/pcmu"]}}, "format.type"),
        ({"format": {"type": "audio/pcm", "rate": 10}}, "format.rate"),
        ({"transcription": {"model": 7}}, "transcription.model"),
        ({"transcription": {"keywords": "word"}}, "transcription.keywords"),
        ({"colour": "red"}, "input.colour"),
    ],
)
def test_updates_that_say_something_else(fields, param):
    with pytest.raises(ApiError) as error:
        updated(Wanted(), session(**fields))
    assert param in error.value.param


FIELDS = (
    "type",
    "audio",
    "input",
    "format",
    "rate",
    "transcription",
    "model",
    "language",
    "keywords",
    "turn_detection",
    "threshold",
    "silence_duration_ms",
    "include",
)
VALUES = ("transcription", "audio/pcm", "audio/pcmu", "server_vad", LOGPROBS)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES)
SESSIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
)


@given(SESSIONS, SESSIONS, SESSIONS, SESSIONS)
def test_whatever_an_update_says_is_taken_or_refused(form, words, turns, include):
    heard = {"format": form, "transcription": words, "turn_detection": turns}
    session = {"type": "transcription", "audio": {"input": heard}, "include": include}
    with suppress(ApiError):
        wanted = updated(Wanted(), session)
        assert shown(wanted, "sess_1")["type"] == "transcription"
        assert wanted.format.samples(bytes(4))[1] >= 8000


def test_an_update_keeps_what_it_does_not_name():
    vad = {"type": "server_vad", "silence_duration_ms": 250, "threshold": 0.7}
    vad["idle_timeout_ms"] = 5000
    wanted = updated(Wanted(), session(turn_detection=vad, format={"type": "audio/pcma"}))
    assert (wanted.turns, wanted.format) == (Turns(300, 250, 0.7), Format("audio/pcma", 8000))
    assert (wanted.endpoint.rule2_s, wanted.endpoint.rule4_s) == (0.25, 1.0)
    assert wanted.endpoint.threshold == 0.7
    wanted = updated(wanted, session(transcription={"language": "en"}))
    assert (wanted.turns, wanted.language) == (Turns(300, 250, 0.7), "en")
    assert wanted.ignored == {"idle_timeout_ms"}
    assert updated(wanted, session(turn_detection=None)).turns is None


def test_many_at_once_get_each_their_own(server, recognizer, said):
    data = [pcm(load_audio(u.audio, RATE)) for u in said[:8]]
    client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)

    async def one(audio):
        async with client.realtime.connect(extra_query=INTENT) as connection:
            await connection.session.update(session=session(turn_detection=None))
            for at in range(0, len(audio), 4800):
                part = base64.b64encode(audio[at : at + 4800]).decode()
                await connection.input_audio_buffer.append(audio=part)
            await connection.input_audio_buffer.commit()
            async for event in connection:
                if event.type == COMPLETED:
                    return event.transcript

    async def all_at_once():
        return await asyncio.gather(*(one(audio) for audio in data * 3))

    expected = [" ".join(finals_of(recognizer, audio)) for audio in data]
    assert asyncio.run(all_at_once()) == expected * 3
    figures = httpx.get(f"{server}/metrics").text
    assert 'asr_live_lag_seconds_count{model="tones"}' in figures
    for _ in range(100):
        if "asr_live_streams 0.0" in httpx.get(f"{server}/metrics").text:
            break
    else:
        pytest.fail("places are lost")


def test_keys_and_pages_of_others(live_run, tmp_path):
    (tmp_path / "keys").write_text("one\n")
    with serving("--model", live_run, "--key-file", tmp_path / "keys") as (_, address):
        right = openai.OpenAI(base_url=f"{address}/v1", api_key="one")
        with right.realtime.connect(extra_query=INTENT) as connection:
            assert connection.recv().type == "session.created"
        wrong = openai.OpenAI(base_url=f"{address}/v1", api_key="two")
        with pytest.raises(websockets.InvalidStatus) as refused:
            wrong.realtime.connect(extra_query=INTENT).enter()
        assert refused.value.response.status_code == 401
        assert b"invalid_api_key" in refused.value.response.body
        url = address.replace("http", "ws") + "/v1/realtime?intent=transcription"
        # As OpenAI's pages name a key, who can give no headers.
        with connect(url, subprotocols=["realtime", "openai-insecure-api-key.one"]) as socket:
            assert socket.subprotocol == "realtime"
        key = {"Authorization": "Bearer one"}
        with connect(url, additional_headers=key, origin=address) as socket:
            assert "session.created" in socket.recv()
        with pytest.raises(websockets.InvalidStatus) as refused:
            connect(url, additional_headers=key, origin="https://elsewhere.org")
        assert refused.value.response.status_code == 403


def test_a_signal_lets_sessions_end(live_run, recognizer, said):
    data = pcm(load_audio(said[0].audio, RATE))
    with serving("--model", live_run) as (process, address):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        with client.realtime.connect(extra_query=INTENT) as connection:
            append(connection, data)
            until(connection, DELTA)
            process.send_signal(signal.SIGTERM)
            done = until(connection, COMPLETED)[-1]
            assert done.transcript == " ".join(finals_of(recognizer, data))
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                connection.recv()
            assert closed.value.rcvd.code == 1012
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err


def test_a_file_is_heard_like_speech(server, client, live_run, talk, tmp_path, monkeypatch, capsys):
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.frombuffer(talk * 5, "<i2"), RATE)
    expected = Recognizer.load(live_run, device="cpu").transcribe(path)
    assert len(expected.segments) > 5
    for where, out in ((["--model", live_run], "own"), (["--server", server], "remote")):
        chosen = ["--model", "tones"] * (out == "remote")
        words = ["transcribe", *where, *chosen, path, "--format", "json", "--out", tmp_path / out]
        code, _, err = asr(monkeypatch, capsys, *words)
        assert code == 0, err
    (own,), (remote,) = (list((tmp_path / out).rglob("*.json")) for out in ("own", "remote"))
    assert json.loads(remote.read_text()) == json.loads(own.read_text())
    *deltas, done = client.audio.transcriptions.create(file=path, model="tones", stream=True)
    assert "".join(d.delta for d in deltas) == done.text == expected.text
    assert len(deltas) == len(expected.segments)
