"""What computes, over stored log-probabilities: who fails alone, and what is left by who leaves."""

import base64
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from live_parts import RATE, STEP, Stored, live_bundle, spoken
from starlette.testclient import TestClient

from asr.audio.live import Packet
from asr.labels import Labels
from asr.recognize.live import Stream
from asr.serve.app import Server
from asr.serve.engine import BusyError, Engine, Live, Places

LETTERS = Labels("char", ("<blank>", "<space>", *"abcdefgh"))
WRITTEN = Labels("char", ("<blank>", "~", *"abcdefgh"))
TALK = "__a_b~c__d_~_ef_~__"


class Broken(Stored):
    """A net that fails as soon as it has heard something."""

    def computed(self):
        if self.n_samples:
            raise RuntimeError("the net has failed")
        return super().computed()


def stream_of(emissions):
    bundle = live_bundle(LETTERS)
    log_probs = spoken(WRITTEN, TALK, np.random.default_rng(0))
    return Stream(bundle, bundle.make_decoder(bundle.decoder), emissions(log_probs))


def gathered(live_heard):
    """A function that takes what is heard, and the event that all of it has come."""
    ended = threading.Event()

    def told(heard):
        live_heard.append(heard)
        if heard.ended:
            ended.set()

    return told, ended


def test_a_stream_that_fails_costs_no_other():
    engine = Engine(lambda n, seconds: None)
    found, ends = [], []
    # They come before anything is computed, so that all are one batch.
    with engine.changed:
        for emissions in (Stored, Broken, Stored):
            heard = []
            told, ended = gathered(heard)
            live = Live(stream_of(emissions), told)
            engine.hear(live, Packet(np.zeros(len(TALK) * STEP, np.float32), RATE))
            engine.hear(live, None)
            found.append(heard)
            ends.append(ended)
    assert all(ended.wait(10) for ended in ends)
    texts = [" ".join(f.text for h in heard for f in h.finals) for heard in found]
    assert texts == ["ab cd ef", "", "ab cd ef"]
    assert "the net has failed" in str(found[1][-1].error)
    assert [h.error for heard in (found[0], found[2]) for h in heard].count(None) == 2


def test_much_at_once_is_taken_bit_by_bit_and_what_is_left_can_be_dropped():
    live = Live(stream_of(Stored), lambda heard: None)
    for _ in range(100):
        live.waiting.append((Packet(np.zeros(RATE // 8, np.float32), RATE), 0.0))
    assert len(live.take()) == 8
    assert not live.ended
    engine = Engine(lambda n, seconds: None)
    engine.forget(live)
    assert not live.waiting


def test_places():
    places = Places(2)
    leave, _ = places.claim(), places.claim()
    with pytest.raises(BusyError):
        places.claim()
    leave()
    places.claim()


def test_an_item_that_fails_is_told_and_the_session_goes_on():
    kinds = iter([Broken, Stored])
    bundle = SimpleNamespace(streams=True, features=live_bundle(LETTERS).features)
    model = SimpleNamespace(
        bundle=bundle,
        decoder=SimpleNamespace(searches_words=False),
        stream=lambda endpoint: stream_of(next(kinds)),
    )
    audio = base64.b64encode(bytes(2 * len(TALK) * STEP)).decode()
    update = {
        "type": "transcription",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": None}},
    }
    with TestClient(Server({"tones": model}).app) as client:
        url = "/v1/realtime?intent=transcription"
        with client.websocket_connect(url, headers={"origin": "http://testserver"}) as socket:

            def send(kind, **fields):
                socket.send_text(json.dumps({"type": kind, **fields}))

            def until(kind):
                while (event := socket.receive_json())["type"] != kind:
                    assert event["type"] != "error", event
                return event

            send("session.update", session=update)
            send("input_audio_buffer.append", audio=audio)
            failed = until("conversation.item.input_audio_transcription.failed")
            assert failed["error"]["code"] == "transcription_failed"
            assert failed["error"]["type"] == "server_error"
            send("input_audio_buffer.append", audio=audio)
            send("input_audio_buffer.commit")
            done = until("conversation.item.input_audio_transcription.completed")
            assert done["transcript"] == "ab cd ef"
            assert done["item_id"] != failed["item_id"]
