"""WebSockets whose clients do not do their part: all is bounded, and others are served."""

import asyncio
import base64
import json
import socket
import struct
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import uvicorn
from live_parts import Stored, live_bundle
from running import serving
from starlette.testclient import TestClient
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asr.labels import Labels
from asr.recognize.live import Stream
from asr.recognize.recognizer import Recognizer
from asr.serve import realtime, run
from asr.serve.app import Server
from asr.serve.engine import Heard
from asr.serve.metrics import Metrics

TEXT, PING, MORE = 1, 9, 0
MIB = 1 << 20
LETTERS = Labels("char", ("<blank>", "<space>", *"abcdefgh"))
PATH = "/v1/realtime?intent=transcription"
SECOND = json.dumps(
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(48_000)).decode()}
)


@pytest.fixture(scope="module")
def server(live_run):
    with serving("--model", f"tones={live_run}", "--max-streams", 40) as found:
        yield found[1]


def url(server):
    return server.replace("http", "ws") + PATH


@pytest.fixture(autouse=True)
def places_are_given_back(request):
    """Others are heard afterwards, and nobody who has left takes a place."""
    yield
    if "server" not in request.fixturenames:
        return
    server = request.getfixturevalue("server")
    with connect(url(server)) as client:
        client.recv()
        client.send(SECOND)
        client.send('{"type": "input_audio_buffer.commit"}')
        while "completed" not in client.recv(10):
            pass
    for _ in range(200):
        if "asr_live_streams 0.0" in httpx.get(f"{server}/metrics").text:
            return
    pytest.fail("places are lost")


def opened(server):
    """A bare connection after the handshake, with little room for what comes."""
    host, port = server.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.settimeout(3)
    client.sendall(
        f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b" 101 " in client.recv(100)
    return client


def frame(kind, payload=b"", last=True, n_bytes=None):
    """A frame whose mask changes nothing; ``n_bytes`` is the length that it says it has."""
    n = len(payload) if n_bytes is None else n_bytes
    return struct.pack("!BBQ", kind | 128 * last, 128 | 127, n) + bytes(4) + payload


def sent(client, data, most):
    """How many bytes a connection takes, up to ``most``."""
    n = 0
    while n < most:
        try:
            n += client.send(data[n % len(data) :])
        except (TimeoutError, ConnectionError):
            break
    return n


def memory_mib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_who_never_reads_is_read_no_further(server):
    event = frame(TEXT, b'{"type": "nonsense"}'.ljust(900))
    with opened(server) as client:
        assert sent(client, event, 64 * MIB) < 32 * MIB


def test_who_pings_and_never_reads_is_dropped(server):
    with opened(server) as client:
        client.settimeout(10)
        # The system holds some of what is sent, and of what is answered.
        assert sent(client, frame(PING, bytes(125)) * 100, 256 * MIB) < 64 * MIB


def test_sound_faster_than_it_is_heard_is_read_no_further():
    bundle = live_bundle(LETTERS)
    stream = Stream(bundle, bundle.make_decoder(bundle.decoder), Stored(np.zeros((9, 10))))
    model = SimpleNamespace(stream=lambda endpoint: stream)
    engine = SimpleNamespace(hear=lambda live, packet: None, forget=lambda live: None)

    async def hear():
        one = realtime.Session(None, engine, Metrics(), None, False)
        one.recognizer = model
        for n in range(1, 20):
            one._append(base64.b64encode(bytes(48_000)).decode())
            one._regulate()
            assert one.room.is_set() == (n < realtime.MOST_WAITING_S)
        one._heard(one.turn, Heard([], None, 18.0, 0.0))
        assert one.room.is_set()

    asyncio.run(hear())


def test_messages_that_are_too_large(server):
    with opened(server) as client:
        client.sendall(frame(TEXT, b"{", n_bytes=realtime.MOST_MESSAGE + 1))
        answer = b""
        while part := client.recv(4096):
            answer += part
        assert struct.pack("!H", 1009) in answer
    with opened(server) as client:
        client.sendall(frame(TEXT, b"[", last=False))
        assert sent(client, frame(MORE, last=False), 16 * MIB) < 16 * MIB
    with connect(url(server), max_size=None) as client:
        client.recv()
        client.send("x" * (16 * MIB))
        assert "expected an event as JSON" in client.recv(10)
        audio = base64.b64encode(bytes(realtime.MOST_AUDIO)).decode()
        client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio + "AAAA"}))
        assert "has more than" in client.recv(10)


def test_frames_of_16_mib_from_many_leave_no_memory_behind(live_run):
    with serving("--model", live_run) as (process, server):
        with connect(url(server)) as client:
            client.recv()
            client.send(SECOND)
        before = memory_mib(process)
        clients = [opened(server) for _ in range(8)]
        for _ in range(3):
            for client in clients:
                client.sendall(frame(TEXT, b"x" * (16 * MIB)))
        for client in clients:
            client.close()
        assert httpx.get(f"{server}/health/live").status_code == 200
        assert memory_mib(process) < before + 8 * 4 * 16


def test_more_sessions_than_places(server):
    clients = [connect(url(server)) for _ in range(40)]
    with pytest.raises(InvalidStatus) as refused:
        connect(url(server))
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1
    for client in clients:
        client.close()


def test_who_leaves_takes_nothing_along(server):
    for how in (socket.SHUT_RDWR, socket.SHUT_WR):
        for _ in range(20):
            client = opened(server)
            client.sendall(frame(TEXT, SECOND.encode()) * 5 + frame(TEXT, b"x", n_bytes=99))
            client.shutdown(how)
            client.close()


def test_who_does_not_read_in_time_is_dropped(monkeypatch):
    monkeypatch.setattr(run, "READ_S", 0.01)
    dropped = []

    async def send():
        config = uvicorn.Config(Server({}).app, log_config=None)
        protocol = run.LiveProtocol(config, ServerState(), {})
        protocol.transport = SimpleNamespace(abort=lambda: dropped.append(True))
        protocol.pause_writing()
        with pytest.raises(ClientDisconnected):
            await protocol.send({"type": "websocket.send", "text": "word"})

    asyncio.run(send())
    assert dropped


def test_who_says_nothing_is_told_and_left(live_run, monkeypatch):
    monkeypatch.setattr(realtime, "SILENT_S", 0.05)
    model = Recognizer.load(live_run, device="cpu")
    with TestClient(Server({"tones": model}).app) as client, client.websocket_connect(PATH) as one:
        assert one.receive_json()["type"] == "session.created"
        assert one.receive_json()["error"]["code"] == "session_expired"
        assert one.receive()["type"] == "websocket.close"
