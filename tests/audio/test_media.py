"""Sound in containers that ffmpeg reads: the samples that went in come out, or a line says why."""

import io
import re
import sys

import numpy as np
import pytest
import soundfile
from fuzzing import mutated, survives

from asr.audio.read import audio_channels, audio_duration_s, audio_rate, load_audio
from asr.errors import InputError

av = pytest.importorskip("av")

RATE = 16_000
SAMPLES = (3000 * np.sin(np.arange(3 * RATE) * np.arange(3 * RATE) / 200_000)).astype(np.int16)


def written(suffix, codec, samples=SAMPLES, rate=RATE, layout="mono"):
    """The bytes of a file of samples (N,), the same in each channel."""
    out = io.BytesIO()
    with av.open(out, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        both = np.repeat(samples, stream.codec_context.layout.nb_channels)[None]
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout=layout)
        frame.sample_rate = RATE
        size = stream.codec_context.frame_size or 1024
        fitting = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=size)
        for part in [*fitting.resample(frame), *fitting.resample(None), None]:
            container.mux(stream.encode(part))
    return out.getvalue()


@pytest.fixture
def saved(tmp_path):
    def save(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ("suffix", "codec", "layout"),
    [("mp4", "alac", "mono"), ("mov", "pcm_s16le", "stereo"), ("matroska", "pcm_s16le", "mono")],
)
def test_what_loses_nothing_is_read_to_the_sample(saved, suffix, codec, layout):
    path = saved("a.bin", written(suffix, codec, layout=layout))
    samples = SAMPLES / np.float32(32768)
    assert np.array_equal(load_audio(path), samples)
    assert audio_duration_s(path) == len(SAMPLES) / RATE
    assert (audio_rate(path), audio_channels(path)) == (RATE, 1 + (layout == "stereo"))
    begin, end = 17_001, 40_003
    stretch = load_audio(path, RATE, begin / RATE, (end - begin) / RATE)
    assert np.array_equal(stretch, samples[begin:end])
    assert np.array_equal(load_audio(path, data=path.read_bytes()), samples)
    with pytest.raises(InputError, match=r"stretch from 2 s to 9 s is not in this audio of 3 s"):
        load_audio(path, RATE, 2, 7)


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [
        ("mp4", "aac", 44_100),
        ("webm", "libopus", 48_000),
        ("adts", "aac", RATE),
        ("avi", "mp3", RATE),
    ],
)
def test_what_loses_something_is_close(saved, suffix, codec, rate):
    found = load_audio(saved("a.bin", written(suffix, codec, rate=rate)))
    assert abs(len(found) / RATE - 3) < 0.15
    n = 1 << 17
    told, heard = np.fft.rfft(SAMPLES, n), np.fft.rfft(found, n)
    lag = np.argmax(np.fft.irfft(heard * told.conj()))
    found = found[lag:][: len(SAMPLES)]
    assert np.corrcoef(found, SAMPLES[: len(found)])[0, 1] > 0.95


@pytest.mark.parametrize("suffix", ["mp4", "matroska", "webm"])
def test_a_part_of_a_file_is_no_file(saved, suffix):
    content = written(suffix, "aac" if suffix != "webm" else "libopus", rate=48_000)
    path = saved("a.m4a", content[: len(content) * 6 // 10])
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: (truncated|not audio)"):
        load_audio(path)


def test_a_file_that_names_others_is_not_opened(saved):
    path = saved("a.wav", b"")
    soundfile.write(path, SAMPLES, RATE)
    for name, content in (
        ("a.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{path}\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", f"ffconcat version 1.0\nfile '{path}'\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"),
    ):
        with pytest.raises(InputError, match="not audio that can be read"):
            load_audio(saved(name, content.encode()))


def test_pictures_alone_hold_no_sound(saved):
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 64
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for part in [picture, None]:
            container.mux(stream.encode(part))
    with pytest.raises(InputError, match=r"film\.mp4: holds no sound"):
        load_audio(saved("film.mp4", out.getvalue()))


def test_without_the_extra_a_line_names_it(saved, monkeypatch):
    path = saved("a.m4a", written("mp4", "aac"))
    monkeypatch.delitem(sys.modules, "asr.audio.media", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"a\.m4a: .*install carousel-asr with the extra media"):
        load_audio(path)


def test_plain_files_are_never_left_to_ffmpeg(saved, monkeypatch):
    monkeypatch.setattr("asr.audio.media.Medium", pytest.fail)
    for content in (b"fLaC" + bytes(99), b"RIFF\x99\0\0\0WAVEfmt \x10\0\0\0\x01\0" + bytes(99)):
        with pytest.raises(InputError):
            load_audio(saved("a.wav", content))


def test_spoilt_files_end_in_a_line(saved):
    seeds = [
        written("mp4", "aac", SAMPLES[:RATE]),
        written("webm", "libopus", SAMPLES[:RATE], 48_000),
    ]
    n_read = sum(
        survives(lambda data=data: load_audio(saved("a.m4a", data)))
        for data in mutated(seeds, 60, 0)
    )
    assert n_read < 60
