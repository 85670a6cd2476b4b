"""What a stranger may send: it costs its own request, and the next one gets its answer."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import soundfile
from running import serving

from asr.audio.read import load_audio
from asr.recognize.recognizer import Recognizer

ASK = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def good(model, said):
    """A file's content, and what is heard in it."""
    content = io.BytesIO()
    soundfile.write(content, load_audio(said[0].audio), 16_000, format="WAV")
    return content.getvalue(), Recognizer.load(model).transcribe(said[0].audio).text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the server keeps what must be kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def server(model, folder, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("right\n")
    # The log is read by nobody, and a pipe would fill up.
    words = ["--model", f"tones={model}", "--max-upload-mb", 8, "--key-file", keys]
    with serving(*words, env={"TMPDIR": str(folder)}, log=subprocess.DEVNULL) as found:
        yield found


@pytest.fixture
def client(server):
    headers = {"authorization": "Bearer right"}
    with httpx.Client(base_url=server[1], headers=headers, timeout=60) as found:
        yield found


@pytest.fixture(autouse=True)
def held(client, good):
    """After each attack: the answer is right, places are free, nothing is left on the disk."""
    yield
    answer = ask(client, good[0])
    assert (answer.status_code, answer.json().get("text")) == (200, good[1])
    for _ in range(200):
        if "asr_requests_in_progress 0.0" in client.get("/metrics").text:
            break
        time.sleep(0.05)
    else:
        pytest.fail("places are lost")


def ask(client, content, name="a.wav", **fields):
    return client.post(ASK, data={"model": "tones", **fields}, files={"file": (name, content)})


@contextmanager
def connected(client):
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=30) as found:
        yield found


def head(length, boundary="x"):
    return (
        f"POST {ASK} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer right\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def one_part(disposition, content=b"", more=b""):
    return b"--x\r\nContent-Disposition: form-data; " + disposition + more + b"\r\n\r\n" + content


def error_of(answer):
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


@pytest.mark.parametrize(
    "body",
    [
        one_part(b'name="model"', more=b"\r\nX-Long: " + b"a" * (4 << 20)),
        one_part(b'name="model"', more=b"\r\nX-More: a" * 200_000),
        one_part(b'name="model"', b"a" * (4 << 20)),
        one_part(b'name="' + b"a" * (4 << 20) + b'"', b"a"),
        b"\r\n" * (2 << 20),
        b"--" * (2 << 20),
        b"--x\r\n" * 200_000,
        one_part(b'name="file"; filename="a"', b"\r\n--x" * 1_000_000),
        one_part(b'name="file"; filename="a"') + one_part(b'name="file"; filename="b"'),
        one_part(b'name="model"', b"tones\r\n") * 100_000,
        b"",
    ],
    ids="header headers field name lines dashes parts boundaries files fields nothing".split(),
)
def test_forms_that_are_bombs(client, body):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post(ASK, content=body, headers=kind)
    assert answer.status_code == 400
    assert error_of(answer)


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "x" * 1000,
        "multipart/mixed; boundary=x",
    ],
)
def test_bodies_that_are_no_form(client, kind):
    answer = client.post(ASK, content=b"a=" + b"b" * (4 << 20), headers={"content-type": kind})
    assert answer.status_code == 400
    assert error_of(answer)


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "..\\..\\a", "a\r\nX-Evil: 1", "\x00a", "a" * 5000],
)
def test_names_lead_nowhere(client, name):
    answer = ask(client, b"no audio", name)
    assert answer.status_code == 400
    assert "x-evil" not in answer.headers
    told = error_of(answer).split(":")[0]
    assert not set(told) & set("/\\\r\n\x00")
    assert len(told) <= 128


def test_ids_inject_no_headers(client):
    for given in (b"a\x0bb", "ä".encode(), b"a: b", b"a" * 4000, b'"><script>', b"a,b"):
        with connected(client) as found:
            found.sendall(b"GET /health/live HTTP/1.0\r\nX-Request-Id: " + given + b"\r\n\r\n")
            answer = b"".join(iter(lambda found=found: found.recv(4096), b""))
        assert given not in answer
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    with connected(client) as found:
        found.sendall(b"GET /health/live HTTP/1.0\r\nX-Request-Id: a\r\n X-Evil: 1\r\n\r\n")
        assert b"x-evil" not in found.recv(4096).lower()


def test_a_head_without_end(client):
    with connected(client) as found:
        found.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for _ in range(10_000):
                found.sendall(b"X-More: " + b"a" * 1000 + b"\r\n")
            pytest.fail("ten megabytes of head are read")
        except OSError:
            pass


def test_a_wrong_key_a_thousand_times(client):
    for number in range(1000):
        key = {"authorization": f"Bearer righ{number}"}
        assert client.get("/v1/models", headers=key).status_code == 401
    for key in (b"Bearer \xff\xfe", b"Basic cmlnaHQ=", b"Bearer"):
        assert client.get("/v1/models", headers={b"authorization": key}).status_code == 401


@pytest.mark.parametrize("codec", ["wav", "ogg"])
def test_sound_that_is_none(client, good, codec):
    wav = good[0]
    ogg = io.BytesIO()
    soundfile.write(ogg, *soundfile.read(io.BytesIO(wav)), format="OGG")
    ogg = ogg.getvalue()
    spoilt = {
        "wav": [
            wav[:4] + b"\xff\xff\xff\xff" + wav[8:40] + b"\xff\xff\xff\xfe" + wav[44:],
            wav[:22] + b"\xff\xff" + wav[24:],
            wav[:24] + b"\xff\xff\xff\xff" + wav[28:],
            b"fLaC" + bytes(1000),
            b"RIFF" + bytes(1000),
        ],
        "ogg": [
            ogg[:200] + bytes(range(256)) * 8 + ogg[200 + 256 * 8 :],
            ogg[:100],
            b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
            b"\xff\xfb" * 1000,
        ],
    }
    for content in spoilt[codec]:
        answer = ask(client, content)
        assert answer.status_code == 400
        assert "/dev/fd" not in error_of(answer)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * (1 << 20), 400),
        (b'{"a":' * (1 << 20), 400),
        (b"[" + b"1," * 1000 + b"1]", 400),
        (b'{"labels": 1, "words": {}}', 400),
        (b"\xff\xfe\x00", 400),
        (b"1" * 100_000, 400),
        (b" " * (33 << 20), 413),
    ],
    ids="lists objects list other bytes number large".split(),
)
def test_transcripts_that_are_none(client, body, status):
    for name in ("txt", "textgrid"):
        answer = client.post(f"/format/{name}", content=body)
        assert answer.status_code == status
        assert error_of(answer)


def test_names_of_formats_do_not_fill_the_figures(client):
    before = len(client.get("/metrics").text)
    for number in range(50):
        assert client.post(f"/format/{number}", content=b"{}").status_code == 400
    assert len(client.get("/metrics").text) < before + 4000


def children(process):
    """The processes that a process began."""
    return [child.pid for child in psutil.Process(process).children()]


def until(found, what):
    for _ in range(600):
        if value := found():
            return value
        time.sleep(0.02)
    return pytest.fail(f"there is no {what}")


def ogg_of(seconds):
    content = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    with soundfile.SoundFile(content, "w", 16_000, 1, format="OGG") as file:
        for _ in range(seconds):
            file.write(noise)
    return content.getvalue()


def test_a_decoder_that_is_killed_costs_its_request(server, client):
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, client, ogg_of(120), "killed.ogg")
        (decoder,) = until(lambda: children(server[0].pid), "decoder")
        os.kill(decoder, signal.SIGKILL)
        answer = asked.result()
    assert answer.status_code == 400
    assert error_of(answer) == "killed.ogg: cannot be decoded (its decoder ended with status -9)"


@pytest.mark.skipif(sys.platform != "linux", reason="who ends with its parent is Linux's affair")
def test_nothing_outlives_a_kill_of_the_server(model, good, tmp_path):
    words = ["--model", f"tones={model}"]
    with serving(*words, env={"TMPDIR": str(tmp_path)}) as (process, address):
        with ThreadPoolExecutor() as pool, httpx.Client(base_url=address, timeout=60) as client:
            asked = pool.submit(ask, client, ogg_of(120), "a.ogg")
            (decoder,) = until(lambda: children(process.pid), "decoder")
            # What is kept has no name, from the first byte on.
            assert list(tmp_path.iterdir()) == []
            until(lambda: psutil.Process(decoder).rlimit(psutil.RLIMIT_FSIZE) == (0, 0), "limit")
            # It could not find out by itself.
            os.kill(decoder, signal.SIGSTOP)
            process.kill()
            with pytest.raises(httpx.HTTPError):
                asked.result()
        until(lambda: not Path(f"/proc/{decoder}/fd/0").exists(), "end of the decoder")
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_refuses_what_it_cannot_hold(model, good):
    """No file may grow beyond 2 MB, as on a disk that is full."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20));"
    limited += "sys.argv[0] = 'asr'; from asr.cli import main; main()"
    with (
        serving("--model", f"tones={model}", python=["-c", limited]) as (_, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for _ in range(3):
            answer = ask(client, bytes(6 << 20))
            assert answer.status_code == 507
            assert error_of(answer) == "the file cannot be kept while it is read (File too large)"
            assert ask(client, good[0]).json()["text"] == good[1]


def test_a_model_that_is_removed_goes_on(model, good, said, tmp_path):
    shutil.copytree(model, tmp_path / "run")
    words = ["--model", f"tones={tmp_path / 'run'}"]
    with (
        serving(*words) as (_, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        shutil.rmtree(tmp_path / "run")
        assert ask(client, good[0]).json()["text"] == good[1]
        word = good[1].split()[0]
        answer = ask(client, good[0], **{"keywords[]": word})
        assert (answer.status_code, word in answer.text) == (200, True)
        assert client.get("/health/ready").status_code == 200


def test_a_signal_in_the_middle_of_everything(model, good):
    """Bodies on their way, events, a decoder at work: all end, and so does the server."""
    with serving("--model", f"tones={model}") as (process, address):
        client = httpx.Client(base_url=address, timeout=60)
        with ThreadPoolExecutor() as pool, connected(client) as half:
            half.sendall(head(1 << 20) + one_part(b'name="file"; filename="a"', bytes(1000)))
            asked = [pool.submit(ask, client, ogg_of(60), "a.ogg", stream="true") for _ in range(3)]
            asked += [pool.submit(ask, client, good[0]) for _ in range(3)]
            until(lambda: children(process.pid), "decoder")
            process.send_signal(signal.SIGTERM)
            half.close()
            for future in asked:
                with suppress(httpx.HTTPError):
                    assert future.result().status_code == 200
        _, err = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in err) == (0, False), err
