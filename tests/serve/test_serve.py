"""A real server, and the clients that people have."""

import asyncio
import io
import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import openai
import pytest
import soundfile
import srt
import torch
import webvtt
from running import serving

from asr.audio.read import load_audio
from asr.recognize.files import Loading, load_for_files
from asr.recognize.recognizer import Recognizer
from asr.recognize.transcripts import to_srt, to_vtt
from asr.serve.app import FOLDER, INDEX, PAGE, Server


@pytest.fixture(scope="module")
def server(model):
    with serving("--model", f"tones={model}", "--max-upload-mb", 8, "--max-audio-s", 120) as found:
        yield found[1]


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def heard(model, said):
    """What the same model finds in Python, by path."""
    recognizer = Recognizer.load(model)
    return {u.audio: recognizer.transcribe(u.audio) for u in said[:4]}


def test_each_format_is_what_the_model_finds(client, heard):
    for path, expected in heard.items():
        with path.open("rb") as file:
            assert (
                client.audio.transcriptions.create(file=file, model="tones").text == expected.text
            )
        for name, write in (("srt", to_srt), ("vtt", to_vtt)):
            found = client.audio.transcriptions.create(
                file=path, model="tones", response_format=name
            )
            assert found == write(expected)
        assert [c.content for c in srt.parse(to_srt(expected))]
        assert len(webvtt.from_buffer(io.StringIO(to_vtt(expected))))
        text = client.audio.transcriptions.create(file=path, model="tones", response_format="text")
        assert text == expected.text + "\n"


def test_times_and_confidences(client, heard):
    path, expected = next(iter(heard.items()))
    found = client.audio.transcriptions.create(
        file=path,
        model="tones",
        response_format="verbose_json",
        language="en",
        timestamp_granularities=["word", "segment"],
    )
    assert (found.text, found.language, found.duration) == (
        expected.text,
        "en",
        found.usage.seconds,
    )
    assert found.duration == pytest.approx(expected.duration_s, abs=1e-4)
    assert [(w.word, w.start, w.end) for w in found.words] == [
        (w.label, w.start_s, w.end_s) for w in expected.words
    ]
    (segment,) = found.segments
    assert (segment.start, segment.end) == (expected.words[0].start_s, expected.words[-1].end_s)
    assert segment.avg_logprob <= 0
    plain = client.audio.transcriptions.create(file=path, model="tones", include=["logprobs"])
    assert "".join(p.token for p in plain.logprobs) == expected.text
    assert np.exp([p.logprob for p in plain.logprobs]) == pytest.approx(
        [w.confidence for w in expected.words], abs=1e-3
    )


def test_events_are_appended_and_never_taken_back(client, heard):
    for path, expected in heard.items():
        *deltas, done = client.audio.transcriptions.create(file=path, model="tones", stream=True)
        assert "".join(d.delta for d in deltas) == done.text == expected.text
        assert {d.type for d in deltas} == {"transcript.text.delta"}


def test_many_at_once_get_each_their_own(server, heard):
    client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)

    async def all_at_once():
        paths = list(heard) * 8
        asked = [client.audio.transcriptions.create(file=p, model="tones") for p in paths]
        return paths, await asyncio.gather(*asked)

    paths, found = asyncio.run(all_at_once())
    assert [f.text for f in found] == [heard[p].text for p in paths]


def test_each_format_and_events_without_blocking(server, heard):
    path, expected = next(iter(heard.items()))

    async def asked():
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as client:
            create = partial(client.audio.transcriptions.create, file=path, model="tones")
            formats = ("json", "text", "srt", "vtt", "verbose_json")
            found = [await create(response_format=name) for name in formats]
            events = [event async for event in await create(stream=True)]
            names = [model.id async for model in client.models.list()]
            with pytest.raises(openai.NotFoundError):
                await client.audio.transcriptions.create(file=path, model="other")
        return found, events, names

    (json_, text, as_srt, as_vtt, verbose), (*deltas, done), names = asyncio.run(asked())
    assert (json_.text, text, verbose.text) == (expected.text, f"{expected.text}\n", expected.text)
    assert (as_srt, as_vtt) == (to_srt(expected), to_vtt(expected))
    assert "".join(d.delta for d in deltas) == done.text == expected.text
    assert names == ["tones"]


def test_a_recording_comes_in_segments_and_others_go_first(server, heard, tmp_path):
    waveforms = [np.pad(load_audio(p, 16_000), (4000, 24_000)) for p in heard]
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate(waveforms * 12)[: 110 * 16_000], 16_000)
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    path, expected = next(iter(heard.items()))
    events = client.audio.transcriptions.create(file=long, model="tones", stream=True)
    first = next(iter(events))
    # The recording is not through, and yet a file that comes later is.
    assert client.audio.transcriptions.create(file=path, model="tones").text == expected.text
    deltas, done = [first], None
    for event in events:
        if event.type == "transcript.text.done":
            done = event
        else:
            deltas.append(event)
    assert len(deltas) > 1
    assert "".join(d.delta for d in deltas) == done.text


def test_what_means_nothing_here_is_accepted_and_named(client, heard):
    answer = client.audio.transcriptions.with_raw_response.create(
        file=next(iter(heard)), model="tones", prompt="Carousel", temperature=0.4
    )
    assert answer.headers["x-ignored-fields"] == "prompt, temperature"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.parse().text


def test_keywords_are_hotwords(client, heard):
    path, expected = next(iter(heard.items()))
    word = expected.words[0].label
    found = client.audio.transcriptions.create(file=path, model="tones", keywords=[word])
    assert word in found.text.split()
    # Words that the lexicon lacks are pronounced by their letters, but for those of other scripts.
    client.audio.transcriptions.create(file=path, model="tones", keywords=["qqq"])
    with pytest.raises(openai.BadRequestError, match="漢字"):
        client.audio.transcriptions.create(file=path, model="tones", keywords=["漢字"])


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"model": "../../etc"}, 404, "model"),
        ({}, 400, "model"),
        ({"model": "tones", "response_format": "pdf"}, 400, "response_format"),
        ({"model": "tones", "temperature": "hot"}, 400, "temperature"),
        (
            {"model": "tones", "timestamp_granularities[]": "syllable"},
            400,
            "timestamp_granularities",
        ),
        ({"model": "tones", "colour": "red"}, 400, "colour"),
    ],
)
def test_errors_have_the_shape_of_the_api(server, heard, fields, status, param):
    with next(iter(heard)).open("rb") as file:
        answer = httpx.post(f"{server}/v1/audio/transcriptions", data=fields, files={"file": file})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert answer.headers["x-request-id"]


def test_audio_that_cannot_be_read_costs_its_request_alone(client, heard, tmp_path):
    path, expected = next(iter(heard.items()))
    wrong = tmp_path / "a.wav"
    for content in (
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        b"OggS" + bytes(99),
        b"",
        b"no audio",
        bytes(9),
    ):
        wrong.write_bytes(content)
        with pytest.raises(openai.BadRequestError, match=r"a\.wav: ") as error:
            client.audio.transcriptions.create(file=wrong, model="tones")
        assert "/dev/fd" not in str(error.value)
    header = path.read_bytes()
    wav = tmp_path / "b.wav"
    soundfile.write(wav, load_audio(path, 16_000), 16_000)
    header = bytearray(wav.read_bytes())
    header[40:44] = b"\xff\xff\xff\xfe"
    wrong.write_bytes(header)
    with pytest.raises(openai.BadRequestError, match="truncated"):
        client.audio.transcriptions.create(file=wrong, model="tones")
    assert client.audio.transcriptions.create(file=path, model="tones").text == expected.text


def test_other_formats_are_decoded_in_a_process_of_their_own(client, heard, tmp_path):
    path, expected = next(iter(heard.items()))
    for suffix in ("ogg", "mp3", "flac"):
        copy = tmp_path / f"a.{suffix}"
        soundfile.write(copy, load_audio(path, 16_000), 16_000)
        found = client.audio.transcriptions.create(file=copy, model="tones")
        if suffix == "flac":
            assert found.text == expected.text


def test_media_are_decoded_there_too_and_films_of_nothing_cost_their_request(
    client, heard, tmp_path
):
    av = pytest.importorskip("av")
    path, expected = next(iter(heard.items()))
    film = tmp_path / "talk.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("alac", rate=16_000, layout="mono")
        samples = (load_audio(path, 16_000) * 32768).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        fitting = av.AudioResampler("s16p", "mono", 16_000, frame_size=4096)
        for part in [*fitting.resample(frame), *fitting.resample(None), None]:
            container.mux(stream.encode(part))
    found = client.audio.transcriptions.create(file=film, model="tones")
    assert found.text == expected.text
    film.write_bytes(film.read_bytes()[:-2000])
    with pytest.raises(openai.BadRequestError, match=r"talk\.mp4: "):
        client.audio.transcriptions.create(file=film, model="tones")


def test_silence_that_unpacks_to_hours_ends_at_the_limit(client, tmp_path):
    path = tmp_path / "hours.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(40):
            file.write(np.zeros(16_000 * 10, np.float32))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(openai.BadRequestError, match=r"longer than 120 s"):
        client.audio.transcriptions.create(file=path, model="tones")


def test_a_body_beyond_the_limit_is_not_read(server, tmp_path):
    big = io.BytesIO(bytes(30 << 20))
    answer = httpx.post(
        f"{server}/v1/audio/transcriptions", data={"model": "tones"}, files={"file": big}
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"

    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(64):
            yield bytes(1 << 20)

    answer = httpx.post(
        f"{server}/v1/audio/transcriptions",
        content=chunks(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413


def test_a_million_tiny_parts_are_refused(server):
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    answer = httpx.post(
        f"{server}/v1/audio/transcriptions",
        content=part * 100_000 + b"--x--\r\n",
        headers={"content-type": "multipart/form-data; boundary=x"},
        timeout=60,
    )
    assert answer.status_code == 400
    assert "Too many fields" in answer.json()["error"]["message"]


def test_models_and_health_and_figures(server, client, heard):
    assert [m.id for m in client.models.list()] == ["tones"]
    assert client.models.retrieve("tones").owned_by == "carousel"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    assert httpx.get(f"{server}/health/live").json() == {"status": "ok"}
    assert httpx.get(f"{server}/health/ready").json() == {"status": "ok"}
    described = set(httpx.get(f"{server}/openapi.json").json()["paths"])
    routes = {route.path.replace(":path", "") for route in Server({}).app.routes}
    assert described == {path for path in routes if path.count(".") == 0} - {"/", "/{path}"}
    client.audio.transcriptions.create(file=next(iter(heard)), model="tones")
    figures = httpx.get(f"{server}/metrics").text
    assert 'asr_requests_total{model="tones",path="/v1/audio/transcriptions"' in figures
    assert httpx.get(f"{server}/elsewhere").json()["error"]["message"] == (
        "Invalid URL (GET /elsewhere)"
    )


def test_a_request_id_is_kept_if_it_is_harmless(server):
    def answered(given):
        return httpx.get(f"{server}/health/live", headers={"x-request-id": given}).headers

    assert answered("call-17")["x-request-id"] == "call-17"
    assert answered("a b")["x-request-id"].startswith("req_")
    assert answered("x" * 999)["x-request-id"].startswith("req_")


def test_keys_and_places(model, heard, tmp_path):
    (tmp_path / "keys").write_text("one\ntwo\n")
    words = ["--model", f"tones={model}", "--model", f"broken={tmp_path}"]
    words += ["--key-file", tmp_path / "keys", "--max-requests", 1, "--threads", 1]
    path, expected = next(iter(heard.items()))
    with serving(*words) as (_, address):
        for key, right in (("one", True), ("two", True), ("three", False), ("", False)):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = httpx.get(f"{address}/v1/models", headers=headers)
            assert answer.status_code == (200 if right else 401)
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{address}/health/live").status_code == 200

        # One request takes the only place, as it never comes to its end.
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\n"
                b"Authorization: Bearer one\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x"
            )
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="one", max_retries=0)
            for _ in range(100):
                figures = httpx.get(f"{address}/metrics", headers={"authorization": "Bearer one"})
                if "in_progress 1.0" in figures.text:
                    break
            with pytest.raises(openai.InternalServerError) as busy:
                client.audio.transcriptions.create(file=path, model="tones")
            assert busy.value.status_code == 503
            assert int(busy.value.response.headers["retry-after"]) >= 1
        # It has left, and gives its place back.
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="one", max_retries=5)
        assert client.audio.transcriptions.create(file=path, model="tones").text == expected.text


def test_threads_are_as_many_as_are_named(model):
    n_own = torch.get_num_threads()
    try:
        assert load_for_files(Loading(str(model), threads=3), print).n_threads == 3
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(n_own)


def test_a_signal_lets_requests_end_and_the_log_has_a_line_for_each(model, heard):
    path, expected = next(iter(heard.items()))
    with serving("--model", f"tones={model}") as (process, address):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with ThreadPoolExecutor() as pool:
            asked = [
                pool.submit(client.audio.transcriptions.create, file=path, model="tones")
                for _ in range(8)
            ]
            asked[0].result()
            process.send_signal(signal.SIGTERM)
            assert {a.result().text for a in asked if not a.exception()} == {expected.text}
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        lines = [json.loads(line) for line in out.splitlines()]
        assert lines[0]["path"] == "/v1/audio/transcriptions"
        assert lines[0]["status"] == 200
        assert "text" not in lines[0]


def test_clients_that_leave_take_nothing_with_them(server, heard):
    path, expected = next(iter(heard.items()))

    def leave():
        with pytest.raises(httpx.TimeoutException):
            httpx.post(
                f"{server}/v1/audio/transcriptions",
                data={"model": "tones"},
                files={"file": path.read_bytes()},
                timeout=httpx.Timeout(5, read=0.001),
            )

    threads = [threading.Thread(target=leave) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    assert client.audio.transcriptions.create(file=path, model="tones").text == expected.text
    for _ in range(100):
        if "asr_requests_in_progress 0.0" in httpx.get(f"{server}/metrics").text:
            break
        time.sleep(0.05)
    else:
        pytest.fail("places are lost")


def test_the_page_asks_nothing_of_others(server):
    answer = httpx.get(server)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert {"page.css", "page.js", "icon.svg"} <= set(re.findall(r'="(\w+\.\w+)"', answer.text))
    names = set(PAGE)
    assert names == {path.name for path in FOLDER.iterdir()}
    for name in names - {INDEX}:
        content = httpx.get(f"{server}/{name}").text
        assert "://" not in content.replace("http://www.w3.org/2000/svg", "")
        assert set(re.findall(r"from '\./(.*)'", content)) <= names
    assert httpx.get(f"{server}/../app.py").status_code == 404


def test_pages_of_sites_that_are_named_may_ask(model, heard, tmp_path):
    path, expected = next(iter(heard.items()))
    (tmp_path / "keys").write_text("one\n")
    words = ["--model", f"tones={model}", "--key-file", tmp_path / "keys"]
    with serving(*words, "--origin", "https://a.example") as (_, address):
        for origin, right in (("https://a.example", True), ("https://b.example", False)):
            headers = {"origin": origin, "access-control-request-method": "POST"}
            headers["access-control-request-headers"] = "authorization"
            asked = httpx.options(f"{address}/v1/audio/transcriptions", headers=headers)
            assert asked.status_code == (200 if right else 400)
            answer = httpx.post(
                f"{address}/v1/audio/transcriptions",
                data={"model": "tones"},
                files={"file": path.read_bytes()},
                headers={"origin": origin, "authorization": "Bearer one"},
            )
            assert answer.json()["text"] == expected.text
            admitted = answer.headers.get("access-control-allow-origin")
            assert admitted == (origin if right else None)
            if right:
                exposed = answer.headers["access-control-expose-headers"]
                assert {"x-request-id", "retry-after"} <= set(exposed.split(", "))
