"""`asr transcribe` with the model of a server in the place of one of its own."""

import json
import re
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
from running import asr, serving

from asr.audio.read import load_audio
from asr.recognize.transcripts import FORMATS

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("one\n")
    return path


@pytest.fixture(scope="module")
def server(model, keys):
    with serving("--model", f"tones={model}", "--key-file", keys) as (_, address):
        yield address


@pytest.fixture
def transcribe(monkeypatch, capsys):
    return lambda *words: asr(monkeypatch, capsys, "transcribe", *words)


@pytest.fixture
def client(transcribe, server, keys):
    return lambda *words: transcribe("--server", server, "--key-file", keys, *words)


@contextmanager
def answering(status, body, then=b"", headers=()):
    """The address of a server that gives these answers: to GET, and to POST."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.answer(then)

        def answer(self, content):
            self.send_response(status)
            for header in headers:
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{found.server_port}"
        finally:
            found.shutdown()


def test_every_format_is_that_of_the_model_here(client, transcribe, model, said, tmp_path):
    recording = np.concatenate([load_audio(u.audio, 16_000) for u in said * 8])
    soundfile.write(tmp_path / "recording.flac", recording, 16_000)
    paths = [tmp_path / "recording.flac", *(u.audio for u in said[:2])]
    formats = ",".join(FORMATS)
    for name, run in (("own", transcribe), ("remote", client)):
        where = ["--model", model] if run is transcribe else []
        code, out, err = run(*where, *paths, "--format", formats, "--out", tmp_path / name)
        assert (code, out) == (0, ""), err
    written = {
        name: {
            # ELAN's files say when they were written.
            path.name: re.sub(' DATE="[^"]*"', "", path.read_text())
            for path in (tmp_path / name).rglob("*.*")
        }
        for name in ("own", "remote")
    }
    assert written["own"] == written["remote"]
    assert len(written["own"]) == len(paths) * len(FORMATS)
    assert len(json.loads(written["own"]["recording.json"])["segments"]) > 1


@pytest.mark.parametrize("format", ["text", "json", "jsonl", "ctm", "trn", "txt"])
def test_standard_output_is_that_of_the_model_here(client, transcribe, model, said, format):
    paths = [u.audio for u in said]
    words = [*paths, "--format", format]
    own = transcribe("--model", model, *words)
    remote = client(*words)
    assert own[0] == remote[0] == 0
    assert own[1] == remote[1] != ""


def test_what_is_broken_is_listed_and_the_rest_goes_on(client, said, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "a.wav").write_bytes(said[0].audio.read_bytes())
    (folder / "b.wav").write_bytes(b"no audio")
    (folder / "c.wav").write_bytes(b"")
    (folder / "d.wav").write_bytes(said[1].audio.read_bytes())
    gone = tmp_path / "gone.wav"
    code, out, err = client(folder, gone)
    assert code == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        str(folder / "a.wav"),
        str(folder / "d.wav"),
    ]
    lines = err.splitlines()
    assert lines[-1] == "asr: 3 of 5 inputs failed"
    for path, told in (
        (folder / "b.wav", "not audio that can be read"),
        (folder / "c.wav", "the file is empty"),
        (gone, "cannot be read"),
    ):
        (line,) = (line for line in lines if str(path) in line)
        assert line.startswith(f"asr: {path}: {told}")


def test_what_cannot_be_asked_is_one_line(client, transcribe, server, said, tmp_path):
    path = said[0].audio
    (tmp_path / "keys").write_text("wrong")
    wrong = f"asr: --server {server}: the server wants a key that it knows; see --key-file\n"
    for words, told in (
        (["--server", server], wrong),
        (["--server", server, "--key-file", tmp_path / "keys"], wrong),
        (["--server", NOBODY], "no answer from a server (Connection refused)\n"),
        (["--server", "http://localhost:abc"], "cast to integer value as 'abc')\n"),
        (["--server", "http://localhost:1/\u00fc"], "ordinal not in range(128))\n"),
        (["--server", "localhost:8765"], "expected an address such as http://localhost:8765\n"),
        ([], "name a model with --model, or what serves one with --server\n"),
    ):
        code, out, err = transcribe(*words, path)
        assert (code, out) == (2, "")
        assert err.endswith(told)
        assert len(err.splitlines()) == 1
    for words, told in (
        (["--model", "other"], "has no model 'other'; name --model tones\n"),
        (["--beam", "5"], "--beam is the server's to choose\n"),
    ):
        code, _, err = client(*words, path)
        assert code == 2
        assert err.endswith(told)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"data": [1]}'),
        (404, b'{"detail": "Not Found"}'),
        (500, b""),
    ],
)
def test_another_server_is_told_from_ours(transcribe, said, status, body):
    with answering(status, body) as address:
        code, _, err = transcribe("--server", address, said[0].audio)
    assert code == 2
    assert err.startswith(f"asr: --server {address}: what answers there is no asr serve")


def test_a_server_that_is_busy_until_a_date_is_not_waited_for(transcribe, said):
    until = [("Retry-After", "Fri, 27 Nov 2026 12:00:00 GMT")]
    with answering(503, b"", headers=until) as address:
        code, _, err = transcribe("--server", address, said[0].audio)
    assert code == 2
    assert err.startswith(f"asr: --server {address}: no answer from a server")
    assert err.count("\n") == 1


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"text": "m aa"}'])
def test_a_transcript_that_is_none_costs_one_file(transcribe, said, answer):
    models = json.dumps({"data": [{"id": "tones"}]}).encode()
    with answering(200, models, answer) as address:
        code, _, err = transcribe("--server", address, said[0].audio, said[1].audio)
    assert code == 1
    assert err.splitlines()[-1] == "asr: 2 of 2 inputs failed"
    assert all(str(u.audio) in line for u, line in zip(said, err.splitlines()[:2], strict=False))


def test_a_server_that_ends_meanwhile_costs_the_files_that_are_left(
    transcribe, model, said, monkeypatch
):
    with serving("--model", f"tones={model}") as (process, address):
        monkeypatch.setattr("asr.recognize.remote.AT_ONCE", 1)
        write = sys.stdout.write

        def written(text):
            process.kill()
            process.wait()
            return write(text)

        paths = [u.audio for u in said]
        with monkeypatch.context() as patched:
            patched.setattr("asr.recognize.transcribing._print", lambda *found: written("one\n"))
            code, _, err = transcribe("--server", address, *paths)
    assert code == 1
    lines = err.splitlines()
    assert all(f"{path}: no answer from a server" in err for path in paths[4:])
    assert lines[-1].endswith(f"of {len(paths)} inputs failed")
