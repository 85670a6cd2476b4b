"""Reading audio: what is read is what was written, and every bad file is one clear line."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.read import audio_duration_s, load_audio, write_sphere
from asr.errors import InputError

RATE = 16000


def tone(n, rate=RATE, hz=440.0):
    return (8000 * np.sin(2 * np.pi * hz * np.arange(n) / rate)).astype(np.int16)


@pytest.mark.parametrize(("name", "tolerance"), [("a.wav", 0), ("a.flac", 0), ("a.ogg", 0.05)])
def test_formats_agree(tmp_path, name, tolerance):
    samples = tone(RATE)
    soundfile.write(tmp_path / name, samples, RATE)
    waveform = load_audio(tmp_path / name)
    assert waveform.dtype == np.float32
    assert np.abs(waveform - samples / 32768).max() <= tolerance
    assert audio_duration_s(tmp_path / name) == 1.0


def test_sphere_is_timits(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 54375).astype(np.int16)
    path = tmp_path / "sa1.WAV"
    write_sphere(path, samples, RATE)
    content = path.read_bytes()
    header = content[:1024].decode("ascii")
    assert header.startswith("NIST_1A\n   1024\n")
    for line in ("sample_count -i 54375", "sample_rate -i 16000", "channel_count -i 1"):
        assert f"\n{line}\n" in header
    for line in ("sample_n_bytes -i 2", "sample_byte_format -s2 01", "end_head"):
        assert f"\n{line}\n" in header
    assert content[1024:] == samples.astype("<i2").tobytes()
    assert (load_audio(path) * 32768 == samples).all()
    assert audio_duration_s(path) == 54375 / RATE
    assert [p.name for p in tmp_path.iterdir()] == ["sa1.WAV"]


def test_sphere_takes_int16_only(tmp_path):
    with pytest.raises(ValueError):
        write_sphere(tmp_path / "a.wav", np.zeros(10, np.float32), RATE)


def test_channels_are_averaged(tmp_path):
    left, right = tone(800), tone(800, hz=1000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE)
    mean = (left / 32768 + right / 32768) / 2
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), mean, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_another_rate_is_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate, rate), rate)
    waveform = load_audio(tmp_path / "a.wav")
    assert waveform.shape == (RATE,)
    inside = slice(500, -500)
    assert np.abs(waveform - tone(RATE) / 32768)[inside].max() < 2e-3


def test_a_rate_that_is_none_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(RATE, RATE), RATE)
    with pytest.raises(InputError, match="sample_rate 0: expected a rate in Hz"):
        load_audio(tmp_path / "a.wav", sample_rate=0)


def test_a_stretch_is_what_lies_there(tmp_path):
    samples = tone(RATE)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, samples, RATE)
        stretch = load_audio(tmp_path / name, offset_s=0.25, duration_s=0.5)
        assert (stretch * 32768 == samples[4000:12000]).all()
        assert len(load_audio(tmp_path / name, offset_s=0.25)) == 12000
        # Rounded durations of other tools' manifests end a little late.
        assert len(load_audio(tmp_path / name, duration_s=1.1)) == RATE
        for offset_s, duration_s in [(1.0, 0.1), (0.5, 2.0), (-0.1, 0.5), (0.5, 0.0)]:
            with pytest.raises(InputError, match="is not in this audio"):
                load_audio(tmp_path / name, offset_s=offset_s, duration_s=duration_s)


def test_loud_float_audio_is_clipped(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([1.5, -1.5, 0.5], np.float32), RATE, "FLOAT")
    assert load_audio(tmp_path / "a.wav").tolist() == [1.0, -1.0, 0.5]


def test_torch_is_imported_only_to_resample(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(800), RATE)
    program = (
        "import sys; from asr.audio.read import load_audio; from pathlib import Path; "
        "load_audio(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.wav"], check=True)


def test_wav_of_a_pipe_has_no_length_in_its_header(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(800), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(load_audio(path)) == 800


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def bad_files(folder):
    """Yield (path, a part of the message) for everything that can be wrong with an audio file."""
    yield folder / "absent.wav", "no such file"
    (folder / "folder.wav").mkdir()
    yield folder / "folder.wav", "a folder"
    (folder / "empty.wav").touch()
    yield folder / "empty.wav", "is empty"
    (folder / "text.wav").write_text("This is not audio at all.")
    yield folder / "text.wav", "not audio"
    (folder / "raw.raw").write_bytes(tone(800).tobytes())
    yield folder / "raw.raw", "without a header"
    soundfile.write(folder / "none.wav", tone(0), RATE)
    yield folder / "none.wav", "no samples"
    for suffix in ("wav", "aiff", "flac", "mp3"):
        path = folder / f"cut.{suffix}"
        soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE), RATE)
        cut(path, path.stat().st_size // 2)
        yield path, "truncated"
    write_sphere(folder / "cut.sph", tone(800), RATE)
    cut(folder / "cut.sph", 1500)
    yield folder / "cut.sph", "truncated audio (2624 bytes promised by its header, 1500 there)"
    (folder / "head.sph").write_bytes(b"NIST_1A\n   1024\nsample_rate -i 16000\nend_head\n")
    yield folder / "head.sph", "lacks sample_count"
    shorten = "NIST_1A\n   1024\nsample_count -i 9\nsample_n_bytes -i 2\n"
    shorten += "sample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    (folder / "shorten.sph").write_bytes(shorten.encode().ljust(1024) + b"ajkg" * 20)
    yield folder / "shorten.sph", "compressed with Shorten"
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        samples = np.array([0.1, value, 0.2], np.float32)
        soundfile.write(folder / f"{name}.wav", samples, RATE, "FLOAT")
        yield folder / f"{name}.wav", "NaN or infinite"
    soundfile.write(folder / "large.wav", np.array([3000.0, 0.0], np.float32), RATE, "FLOAT")
    yield folder / "large.wav", "samples reach 3000"
    for rate in (4000, 384000):
        soundfile.write(folder / f"{rate}.wav", tone(800), rate)
        yield folder / f"{rate}.wav", f"sample rate {rate} Hz is outside"
    for rate in (44101, 26628):
        # The second would take some 800 MB.
        soundfile.write(folder / f"odd{rate}.wav", tone(800), rate)
        yield folder / f"odd{rate}.wav", "no short ratio"
    soundfile.write(folder / "many.wav", np.zeros((80, 40), np.int16), RATE)
    yield folder / "many.wav", "40 channels"


def test_each_bad_file_is_one_line_that_names_it(tmp_path):
    for path, message in bad_files(tmp_path):
        with pytest.raises(InputError) as caught:
            load_audio(path)
        line = str(caught.value)
        assert line.startswith(f"{path}: "), line
        assert message in line
        assert "\n" not in line


@pytest.mark.parametrize("name", ["cut.wav", "cut.flac", "cut.sph", "empty.wav", "text.wav"])
def test_the_header_alone_shows_it(tmp_path, name):
    paths = [path for path, _ in bad_files(tmp_path)]
    with pytest.raises(InputError):
        audio_duration_s(next(path for path in paths if path.name == name))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_an_ogg_file_without_its_end_is_refused(tmp_path, coding, share):
    path = tmp_path / "a.ogg"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 10 * RATE)
    soundfile.write(path, noise, RATE, format="OGG", subtype=coding)
    data = path.read_bytes()
    # What some programs put behind the end says nothing about it.
    path.write_bytes(data + b"TAG".ljust(128))
    assert len(load_audio(path)) >= len(noise)
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="truncated"):
        load_audio(path)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_sphere(folder / "a.sph", tone(400), RATE)
    for suffix in ("wav", "flac", "aiff"):
        soundfile.write(folder / f"a.{suffix}", tone(400), RATE)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(deadline=None)
@given(
    name=st.sampled_from(["a.wav", "a.flac", "a.aiff", "a.sph"]),
    damage=st.dictionaries(st.integers(0, 1100), st.integers(0, 255), min_size=1, max_size=4),
)
def test_damaged_files_are_read_or_refused_in_one_line(whole_files, name, damage):
    content = bytearray(whole_files[name])
    for at, byte in damage.items():
        content[at % len(content)] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        line = f"{path}: "
        try:
            assert np.abs(load_audio(path)).max() <= 1
        except InputError as error:
            line = str(error)
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
