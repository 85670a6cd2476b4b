"""Pictures of audio: what is in them, where it stands, and that it can be read."""

import json
import re
import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from running import asr

from asr.audio.features import FeatureConfig, FrameClock
from asr.audio.windows import Stretch
from asr.data.manifest import write_manifest
from asr.errors import InputError
from asr.labels import Labels
from asr.model.weights import load_bundle
from asr.plot.colours import cielab, distinct_colours
from asr.plot.epoch import mark_hertz
from asr.plot.utterance import ROW_S, Scene, checked, draw_log_mel, drawn, plot_audio, rows_of
from asr.recognize.recognizer import Recognizer
from asr.types import Segment

RATE = 16_000


@pytest.fixture
def svg_text(monkeypatch):
    """A function from an SVG to the texts in it."""
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")
    return lambda path: re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


@pytest.fixture
def plot(monkeypatch, capsys):
    return lambda *words: asr(monkeypatch, capsys, "plot", *words)


def test_a_live_model_is_drawn_as_it_hears_a_file(live_run, said):
    recognizer = Recognizer.load(live_run)
    waveform = np.concatenate([recognizer.read(u.audio) for u in said[:5]])
    transcript, (stretch,) = recognizer.traced(waveform)
    (heard,) = recognizer.emissions([waveform])
    np.testing.assert_allclose(stretch.log_probs, heard, atol=1e-4)
    assert transcript.duration_s == len(waveform) / RATE > 5


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_of_an_utterance(tones, tone_run, tmp_path, plot, suffix):
    audio = next(tones.glob("TEST/*/*/*.WAV"))
    out = tmp_path / f"picture.{suffix}"
    assert plot(audio, "--model", tone_run, "--out", out)[:2] == (0, f"{out}\n")
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert out.read_bytes().startswith(magic[suffix])


def test_the_picture_names_phones_and_words(tones, tone_run, tmp_path, svg_text):
    audio = next(tones.glob("TEST/*/*/*.WAV"))
    out = tmp_path / "picture.svg"
    recognizer = Recognizer.load(tone_run, decoder="beam", lexicon="model")
    transcript = recognizer.transcribe(audio)
    plot_audio(recognizer.read(audio), out, "$a_b <c>.wav", recognizer)
    names = svg_text(out)
    assert transcript.words
    for segment in (*transcript.words, *transcript.labels):
        assert segment.label in names
    assert {"words", "phones", "waveform", "hertz", "1000", "(grey: blank)", "seconds"} <= set(
        names
    )
    assert not any(name.startswith("said") for name in names)
    assert any(name.startswith("$a_b") for name in names)


def test_a_model_without_words_is_drawn_without(tones, tone_run, tmp_path, plot, svg_text):
    model = shutil.copytree(tone_run / "model", tmp_path / "model")
    (model / "lexicon.txt").unlink()
    config = json.loads((model / "config.json").read_text())
    config["decoder"]["lexicon"] = False
    (model / "config.json").write_text(json.dumps(config))
    out = tmp_path / "a.svg"
    code, _, err = plot(next(tones.glob("TEST/*/*/*.WAV")), "--model", model, "--out", out)
    assert (code, err) == (0, "")
    names = svg_text(out)
    assert {"phones", "said: words", "said: phones"} <= set(names)
    assert "words" not in names


def test_a_part_is_what_the_whole_has_there(said, tone_run, tmp_path, plot, svg_text):
    """Its model hears what is around it, and the axis counts the seconds of the whole file."""
    utterance = said[0]
    first, second = utterance.words[:2]
    out = tmp_path / "a.svg"
    code, _, err = plot(
        *(utterance.audio, "--model", tone_run, "--out", out),
        *("--start", f"{first.end_s - 0.05:.3f}", "--end", f"{second.end_s:.3f}"),
    )
    assert (code, err) == (0, "")
    heading, *names = svg_text(out)[::-1]
    assert names.count(second.label) == 2 * (1 + (first.label == second.label))
    numbers = [float(n) for n in names if re.fullmatch(r"\d\.\d+", n)]
    assert any(first.end_s - 0.1 <= n <= second.end_s + 0.1 for n in numbers)
    text = next(n for n in [heading, *names] if n.startswith(utterance.audio.name))
    assert text.endswith(f" s: {first.label} {second.label}")


def test_the_reference_stands_below(said, tone_run, tmp_path, plot, svg_text):
    utterance = said[0]
    audio = shutil.copy(utterance.audio, tmp_path / "alone.wav")
    out = tmp_path / "a.svg"

    def lanes(*more):
        code, _, err = plot(*more, "--out", out)
        assert (code, err) == (0, "")
        return [n for n in svg_text(out) if n.endswith(("words", "phones"))]

    # Ticks count upwards.
    four = ["said: phones", "said: words", "phones", "words"]
    assert lanes(utterance.audio, "--model", tone_run) == four
    assert lanes(utterance.audio) == four[:2]
    assert lanes(audio, "--model", tone_run) == four[2:]
    # A manifest of parts of a recording, without times of words: they are aligned.
    u = replace(utterance, audio=audio, phones=None, words=None)
    write_manifest(tmp_path / "m.jsonl", [u])
    with_model = (audio, "--model", tone_run, "--reference", tmp_path / "m.jsonl")
    assert lanes(*with_model) == four[1:]
    timed = replace(u, id="b", offset_s=0.2, duration_s=0.5, words=(Segment("later", 0.1, 0.3),))
    write_manifest(tmp_path / "m.jsonl", [timed])
    assert lanes(audio, "--reference", tmp_path / "m.jsonl") == ["said: words"]
    assert "later" in svg_text(out)


def test_mistakes_are_told_in_one_line(said, tone_run, tmp_path, plot):
    utterance = said[0]
    audio = shutil.copy(utterance.audio, tmp_path / "alone.wav")
    write_manifest(tmp_path / "other.jsonl", said)
    bare = replace(utterance, audio=audio, words=None, phones=None, text=None)
    write_manifest(tmp_path / "bare.jsonl", [bare])
    write_manifest(tmp_path / "text.jsonl", [replace(bare, text="ma")])
    shutil.copy(utterance.audio, tmp_path / "odd.wav")
    (tmp_path / "odd.PHN").write_text("0 10\n")
    lasts = f"lasts {utterance.duration_s:.3f} s"
    for words, expected in [
        ((audio, "--start", "-1"), f"--start -1: {audio} {lasts}"),
        ((audio, "--start", "99"), lasts),
        ((audio, "--start", "nan"), lasts),
        ((audio, "--end", "99"), f"--end 99: {audio} {lasts}"),
        ((audio, "--start", "0.5", "--end", "0.5"), "after --start 0.5"),
        ((tmp_path / "none.wav",), "no such file; expected audio"),
        ((tmp_path / "bare.jsonl",), "not audio that can be read"),
        ((audio, "--reference", tmp_path / "other.jsonl"), "holds no utterance of"),
        ((audio, "--reference", tmp_path / "bare.jsonl"), "has neither words, phones nor text"),
        ((audio, "--reference", tmp_path / "text.jsonl"), "the times of what was said are not"),
        ((tmp_path / "odd.wav",), "odd.PHN: line 1: expected 'start end label'"),
    ]:
        out = tmp_path / "a.png"
        code, printed, err = plot(*words, "--out", out)
        assert (code, printed, err.count("\n")) == (2, "", 1)
        assert expected in err
        assert not out.exists()
    # The end as it is shown is the end, though it is rounded.
    assert plot(audio, "--end", f"{utterance.duration_s + 0.0009:.6f}", "--out", out)[0] == 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_of_a_file_of_any_name(tmp_path, suffix):
    out = tmp_path / f"picture.{suffix}"
    plot_audio(np.zeros(800, np.float32), out, "$\\frac$ \x01\n\udcff.wav")
    if suffix == "svg":
        ElementTree.parse(out)


@pytest.mark.parametrize("n_samples", [1, 400, 16_000])
def test_pictures_of_hardly_any_audio(tone_run, tmp_path, n_samples):
    recognizer = Recognizer(load_bundle(tone_run))
    plot_audio(np.zeros(n_samples, np.float32), tmp_path / "a.png", "a", recognizer)
    plot_audio(np.zeros(n_samples, np.float32), tmp_path / "b.png", "b")


def test_what_is_no_picture_is_told(tmp_path):
    with pytest.raises(InputError, match=r"expected a name ending in \.png, \.svg"):
        checked(tmp_path / "c.gif", 1.0)
    with pytest.raises(InputError, match=r"700 s of audio are too many .* --start and --end"):
        checked(tmp_path / "c.png", 700.0)


@given(st.floats(0, 1000), st.floats(1e-4, 600))
def test_rows_cover_the_stretch(start_s, duration_s):
    rows = rows_of(start_s, start_s + duration_s)
    assert rows[0][0] == start_s
    assert rows[-1][1] == start_s + duration_s
    assert all(a[1] == b[0] for a, b in pairwise(rows))
    assert all(0 < b - a <= ROW_S + 1e-6 for a, b in rows)
    assert len(rows) <= np.ceil(duration_s / ROW_S) + 1


PHONES = [f"p{i}" for i in range(39)] + ["sil"]


def bundle_of(labels, clock):
    return SimpleNamespace(labels=labels, clock=clock, criterion="ctc", features=FeatureConfig())


def scene_of(duration_s, seed=0):
    """A scene of labels that are 30 to 150 ms long, each with a peak, and some words."""
    rng = np.random.default_rng(seed)
    clock = FrameClock(0.01, 3)
    symbols = ("<blank>", *PHONES)
    bundle = bundle_of(Labels("phone", symbols), clock)
    log_probs = np.full((int(duration_s / 0.03), len(symbols)), 1e-4)
    labels, at = [], 0.0
    while at < duration_s:
        end, label = at + rng.uniform(0.03, 0.15), int(rng.integers(1, len(symbols)))
        labels.append(Segment(symbols[label], at, min(end, duration_s)))
        log_probs[min(int((at + end) / 2 / 0.03), len(log_probs) - 1), label] = rng.uniform(0.3, 1)
        at = end
    words = [Segment(f"word{i}", i * 0.21, i * 0.21 + 0.2) for i in range(int(duration_s / 0.21))]
    lanes = [("words", words), ("phones", labels), ("said: phones", labels)]
    waveform = rng.normal(size=round(duration_s * RATE)).astype(np.float32)
    stretches = [Stretch(0, np.log(log_probs).astype(np.float32))]
    return Scene(waveform, 0.0, bundle.features, lanes, bundle, stretches)


@pytest.mark.parametrize("duration_s", [3.0, 17.0])
def test_no_text_lies_over_another(duration_s):
    scene = scene_of(duration_s)
    figure = drawn(scene, (0.0, duration_s), "a " * 400)
    figure.draw_without_rendering()
    boxes = []
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]
        for text in [*axes.texts, *ticks, axes.yaxis.label]:
            if text.get_text() and text.get_visible():
                boxes.append((text.get_text(), text.get_window_extent()))
    boxes += [(t.get_text(), t.get_window_extent()) for t in figure.texts]
    assert len(boxes) > 30 * duration_s
    page = figure.bbox

    def over(a, b):
        """Pixels across and along that two boxes share; letters rarely fill theirs."""
        shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        return min(shared) > 2.5

    assert [(m, n) for (m, a), (n, b) in combinations(boxes, 2) if over(a, b)] == []
    for text, box in boxes:
        assert page.x0 <= box.x0, text
        assert box.x1 <= page.x1 + 2, text
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text


def test_posteriors_stand_where_the_model_heard_them():
    """A model from elsewhere has frames of its own, that begin later."""
    bundle = bundle_of(Labels("char", ("<blank>", "a")), FrameClock(0.02, 1, 0.0125))
    log_probs = np.log([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]).astype(np.float32)
    waveform = np.zeros(960, np.float32)
    scene = Scene(waveform, 7.0, bundle.features, (), bundle, [Stretch(0, log_probs)])
    *_, axes = drawn(scene, (7.0, 7.06), "a").axes
    times = [7.0125, 7.0325, 7.0525]
    assert axes.lines[0].get_xdata().tolist() == pytest.approx(times)
    assert [t.get_text() for t in axes.texts] == ["a"]
    assert axes.texts[0].xy == pytest.approx((7.0325, 0.9))


@pytest.mark.parametrize("hertz", [500, 1000, 4000])
@pytest.mark.parametrize("n_mels", [40, 80])
def test_a_tone_lies_at_its_hertz(hertz, n_mels):
    config = FeatureConfig(n_mels=n_mels)
    time = np.arange(RATE) / RATE
    scene = Scene(np.sin(2 * np.pi * hertz * time).astype(np.float32), 0.0, config)
    axes = Figure(figsize=(5, 5)).subplots()
    axes.set_xlim(0, 1)
    draw_log_mel(axes, scene)
    marks = {
        t.get_text(): y for y, t in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    loudest = int(scene.image[:, 50].argmax())
    assert abs(marks[str(hertz)] - (loudest + 0.5)) <= 0.6


def test_frequencies_are_marked_as_far_as_there_is_place():
    def marks(height, **settings):
        axes = Figure(figsize=(5, height)).subplots()
        mark_hertz(axes, FeatureConfig(**settings))
        return [t.get_text() for t in axes.get_yticklabels()]

    assert marks(5) == ["250", "500", "1000", "2000", "4000", "8000"]
    assert marks(1.2) == ["250", "1000", "2000", "4000", "8000"]
    assert marks(5, sample_rate=8000, max_hz=3800.0)[-1] == "2000"


def test_forty_colours_can_be_told_apart():
    colours = cielab(np.array(distinct_colours()[:40]))
    apart = min(np.linalg.norm(a - b) for a, b in combinations(colours, 2))
    # 2.3 can just be noticed; matplotlib's own tab20 and tab20b together come down to 6.
    assert apart > 18
    assert len(set(distinct_colours())) == 64
    # White, red and blue by CIE.
    known = cielab(np.array([[1.0, 1, 1], [1, 0, 0], [0, 0, 1]]))
    assert known == pytest.approx(
        np.array([[100, 0, 0], [53.24, 80.09, 67.2], [32.3, 79.19, -107.86]]), abs=0.05
    )
