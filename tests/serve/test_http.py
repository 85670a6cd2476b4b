"""HTTP as clients of all sorts speak it, and not the well-kept libraries alone."""

import io
import json
import socket
from http.client import HTTPConnection, HTTPResponse

import httpx
import openai
import pytest
import soundfile
from running import serving
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asr.audio.read import load_audio
from asr.errors import InputError
from asr.recognize.recognizer import Recognizer
from asr.serve.app import Server, names_of
from asr.serve.contract import MOST_KEYWORD, MOST_KEYWORDS, ApiError, asked, keywords_in
from asr.serve.live_contract import Wanted, updated

PATH = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def server(model):
    with serving("--model", f"tones={model}") as found:
        yield found[1]


@pytest.fixture(scope="module")
def good(model, said):
    """A form with a file, and what is heard in it."""
    content = io.BytesIO()
    soundfile.write(content, load_audio(said[0].audio), 16_000, format="WAV")
    recognizer = Recognizer.load(model)
    return form(content.getvalue()), recognizer.transcribe(said[0].audio).text


def form(content, name=b'filename="a.wav"', **fields):
    fields = {"model": "tones", **fields}
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{value}\r\n'.encode()
        for n, value in fields.items()
    ]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; ' + name
    return b"".join([*parts, head, b"\r\n\r\n", content, b"\r\n--x--\r\n"])


class Line:
    """A connection, on which one says what one likes."""

    def __init__(self, server):
        host, _, port = server.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)

    def ask(self, body, *headers, length=None, version="1.1", path=PATH):
        lines = [
            f"POST {path} HTTP/{version}",
            "Host: a",
            "Content-Type: multipart/form-data; boundary=x",
            f"Content-Length: {len(body) if length is None else length}",
            *headers,
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self):
        found = HTTPResponse(self.socket)
        found.begin()
        return found.status, json.loads(found.read())


@pytest.fixture
def line(server):
    found = Line(server)
    yield found
    found.socket.close()


def test_who_asks_before_sending_is_told_to_go_on_or_not_to(line, server, good):
    body, text = good
    line.ask(b"", "Expect: 100-continue", length=len(body))
    assert line.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.socket.sendall(body)
    assert line.answer()[1]["text"] == text
    other = Line(server)
    other.ask(b"", "Expect: 100-continue", length=1 << 40)
    assert other.answer()[0] == 413


def test_a_body_may_come_in_chunks_without_a_length(server, good):
    body, text = good
    connection = HTTPConnection(server.removeprefix("http://"), timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for size in (1000, 100_000):
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        connection.request("POST", PATH, chunks, headers, encode_chunked=True)
        assert json.loads(connection.getresponse().read())["text"] == text


def test_a_connection_goes_on_after_errors(line, good):
    body, text = good
    for wrong, status in (
        (form(b"", model="other"), 404),
        (form(b"", colour="red"), 400),
        (form(b"no audio"), 400),
        (b"--x\r\nnonsense", 400),
    ):
        line.ask(wrong)
        assert line.answer()[0] == status
        line.ask(body)
        assert line.answer()[1]["text"] == text
    line.ask(body, path="/nowhere")
    assert line.answer()[0] == 404
    line.ask(body)
    assert line.answer()[1]["text"] == text


def test_requests_that_come_at_once_are_answered_in_turn(line, good):
    body, text = good
    for content in (body, form(b"no audio"), body):
        line.ask(content)
    assert [line.answer()[1].get("text") for _ in range(3)] == [text, None, text]


def test_clients_of_the_first_version(line, good):
    body, text = good
    line.ask(body, version="1.0")
    head, _, found = b"".join(iter(lambda: line.socket.recv(4096), b"")).partition(b"\r\n\r\n")
    assert (json.loads(found)["text"], b"connection: close" in head) == (text, True)


@pytest.mark.parametrize("name", ["Grüße 世界 🎤.wav", "a b%20c.wav", "ناقل.wav"])
def test_names_in_all_letters(line, good, name):
    content = good[0].split(b"\r\n\r\n")[-1].removesuffix(b"\r\n--x--\r\n")
    line.ask(form(content, f'filename="{name}"'.encode(), response_format="transcript"))
    assert line.answer()[1]["audio_filepath"] == name


def test_the_type_of_a_body_is_read_in_any_case(server, good):
    headers = {"content-type": "Multipart/Form-Data; Boundary=x"}
    answer = httpx.post(f"{server}{PATH}", content=good[0], headers=headers, timeout=60)
    assert answer.json()["text"] == good[1]


def test_where_there_is_no_websocket(server):
    answer = httpx.get(f"{server}/v1/realtime?intent=transcription")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "WebSocket" in answer.json()["error"]["message"]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws{server.removeprefix('http')}/v1/models")
    found = refused.value.response
    assert (found.status_code, "x-request-id" in found.headers) == (404, True)
    assert "/v1/models" in json.loads(found.body)["error"]["message"]


def test_segments_come_as_events_where_they_are_asked_for(server, said):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    path = said[0].audio
    whole = client.audio.transcriptions.create(
        file=path, model="tones", response_format="verbose_json"
    )
    events = client.audio.transcriptions.create(
        file=path, model="tones", response_format="verbose_json", stream=True
    )
    (found,) = [event for event in events if event.type == "transcript.text.segment"]
    (segment,) = whole.segments
    assert (found.id, found.start, found.end) == ("seg_0", segment.start, segment.end)
    assert (found.text, found.speaker) == (segment.text, "")


def test_so_many_words_are_listened_for():
    assert keywords_in(["new  york", "b", "new york", " "], "keywords") == ("new york", "b")
    many = [f"{i:04d}" for i in range(MOST_KEYWORDS // 4)]
    assert len(keywords_in(many, "keywords")) == len(many)
    for wrong in ([*many, "a"], ["a" * (MOST_KEYWORD + 1)]):
        with pytest.raises(ApiError, match=r"keywords: expected up to \d+ characters in"):
            asked([("model", "m"), *(("keywords[]", word) for word in wrong)])
        heard = {"input": {"transcription": {"keywords": wrong}}}
        with pytest.raises(ApiError, match="characters in") as error:
            updated(Wanted(), {"type": "transcription", "audio": heard})
        assert error.value.param == "session.audio.input.transcription.keywords"


def test_who_asks_for_no_words_waits_for_nobody_who_does(model, good):
    server = Server({"tones": Recognizer.load(model)})
    with TestClient(server.app) as client:
        # As if somebody's words took for ever.
        client.portal.call(server.boosting.acquire)
        headers = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post(PATH, content=good[0], headers=headers).json()["text"] == good[1]


def test_a_fault_is_told_in_the_shape_of_the_api(model, good, monkeypatch):
    server = Server({"tones": Recognizer.load(model)})
    monkeypatch.setattr(server.engine, "submit", lambda work: 1 / 0)
    with TestClient(server.app, raise_server_exceptions=False) as client:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = client.post(PATH, content=good[0], headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert answer.headers["x-request-id"]


def test_names_of_models(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    for given, name in (
        (str(tmp_path / "run"), "run"),
        (str(tmp_path / "run" / "model"), "run"),
        ("/model", "model"),
        ("a=/model", "a"),
        ("/a=b/c.onnx", "c"),
    ):
        assert list(names_of([given])) == [name]
    with pytest.raises(InputError, match="another model is called 'run'"):
        names_of([str(tmp_path / "run"), str(tmp_path / "run" / "model")])
