"""The report of a run: what it says, that it says all, and nothing but what the data say."""

import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, DRIVER, browser
from hypothesis import given
from hypothesis import strategies as st
from running import asr
from tones import TONES
from training_runs import train_tones

from asr.data.manifest import read_manifest
from asr.errors import InputError
from asr.report.charts import Bar, columns_chart, rows_chart, ticks
from asr.report.evidence import gather, kept_phones, worst_and_typical
from asr.report.html import el
from asr.report.page import report
from asr.report.run import chosen, read_run
from asr.score.alignment import align
from asr.score.error_rate import phone_policy

SECTIONS = {"training", "rates", "groups", "tokens", "utterances", "data", "setup"}
NASTY = "<b>&\"'</b><script>alert(1)</script>"


class Page(HTMLParser):
    """All elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._skips = [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._skips = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skips = False

    def handle_data(self, data):
        if not self._skips:
            self.text += data

    def all(self, tag, class_=None):
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and (class_ is None or class_ in (attrs.get("class") or "").split())
        ]


@pytest.fixture(scope="module")
def pages(tones, tone_run, tmp_path_factory):
    """Runs of all kinds and their reports: {kind: (folder, html)}."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {
        "char": ("recipes/demo/ctc.yaml", "labels=char", "lm=none", "corpus.lexicon=''",
                 "decoder.lexicon=false", "trainer.max_epochs=5"),
        "word": ("recipes/demo/ctc.yaml", "labels=word", "lm=none", "corpus.lexicon=''",
                 "decoder.lexicon=false", "trainer.max_epochs=2"),
        "framewise": ("recipes/demo/ctc.yaml", "loss=framewise", "decoder=viterbi", "lm=none",
                      "corpus.lexicon=''", "trainer.max_epochs=2"),
    }  # fmt: skip
    runs = {"phone": tone_run}
    for kind, (recipe, *overrides) in kinds.items():
        runs[kind] = folder / kind
        train_tones(recipe, tones, runs[kind], *overrides)
    return {kind: (run, report(run)) for kind, run in runs.items()}


@pytest.fixture
def copied(tone_run, tmp_path):
    """A run that a test may change."""
    return shutil.copytree(tone_run, tmp_path / "run")


KINDS = ("phone", "char", "word", "framewise")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_has_all_sections(pages, kind):
    page = Page(pages[kind][1])
    assert {attrs["id"] for attrs in page.all("section")} == SECTIONS
    for title in ("Training loss", "Learning rate", "by length", "by speaker", "Substitutions"):
        assert title in page.text
    assert ("Blank rate" in page.text) == (kind != "framewise")
    assert "Confusion matrix" in page.text
    n_shown = len(page.all("article"))
    assert n_shown >= 4
    assert len(page.all("audio")) == n_shown
    assert len(page.all("img")) == 2 * n_shown
    assert page.all("button", "seg")


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_needs_nothing_else(pages, kind):
    html = pages[kind][1]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r'"data:[^"]*"', "", html))
    page = Page(html)
    assert not page.all("link")
    assert not page.all("iframe")
    for _, attrs in page.elements:
        assert attrs.get("src", "data:").startswith("data:")
        assert attrs.get("href", "#").startswith("#")
    (policy,) = (a for a in page.all("meta") if "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")
    assert len(html) < 2_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_have_texts_and_ids_are_unique(pages, kind):
    page = Page(pages[kind][1])
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs.get("aria-label") or "aria-hidden" in attrs for attrs in page.all("svg"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    anchors = {attrs["href"].removeprefix("#") for attrs in page.all("a")}
    assert anchors == SECTIONS


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_those_of_the_training(pages, kind):
    folder, html = pages[kind]
    run = read_run(folder)
    results = json.loads((folder / "results.json").read_text())
    assert not run.notes
    text = Page(html).text
    for name, decoders in results["sets"].items():
        for decoder, rates in decoders.items():
            (of,) = (s for s in run.scored if (s.set, s.decoder) == (name, decoder))
            recorded = {k: v for k, v in rates.items() if k != "decoding_s"}
            assert set(of.rates) == set(recorded)
            for rate_name, figures in recorded.items():
                rate = of.rates[rate_name]
                assert rate.value == figures["error_rate"]
                assert rate.scores.policy == figures["policy"]
                assert rate.over_utterances.low <= rate.value <= rate.over_utterances.high
                assert f"{100 * rate.value:.2f} %" in text


def test_segments_of_an_utterance_are_those_of_the_corpus(tone_run):
    run = read_run(tone_run)
    of = chosen(run, "test", "beam+lexicon")
    (found,) = gather(of, run.bundle, [2]).values()
    utterance = read_manifest(tone_run / "manifests/test.jsonl")[2]
    lanes = {lane.name: lane for lane in found.lanes}
    assert tuple(lanes["said: phones"].segments) == utterance.phones
    assert tuple(lanes["said: words"].segments) == utterance.words
    assert lanes.keys() >= {"heard: phones", "heard: words"}
    # The tones are all but learnt: what is heard stands about where it was said.
    for said, heard in zip(
        lanes["said: words"].segments, lanes["heard: words"].segments, strict=True
    ):
        assert said.label == heard.label
        assert abs(said.start_s - heard.start_s) < 0.12
        assert abs(said.end_s - heard.end_s) < 0.12
    assert lanes["heard: words"].errors == [""] * len(utterance.words)
    waveform, rate = soundfile.read(io.BytesIO(found.wav))
    assert len(waveform) / rate == pytest.approx(utterance.duration_s, abs=1e-4)
    for picture in (found.log_mel, found.posteriors):
        assert picture.png.startswith(b"\x89PNG")
        assert picture.start_s <= 0
        assert picture.end_s == pytest.approx(utterance.duration_s, abs=0.05)


def test_worst_and_typical(tone_run):
    of = chosen(read_run(tone_run), "test", "greedy")
    worst, typical = worst_and_typical(of)
    errors = of.main.alignments.errors
    assert all(errors[i] for i in worst)
    assert not set(worst) & set(typical)
    assert len(worst) + len(typical) <= len(of.utterances)


def test_the_set_and_the_decoder_are_chosen(tone_run):
    run = read_run(tone_run)
    dev = {j.decoder: j.main.value for j in run.scored if j.set == "dev"}
    of = chosen(run, None, None)
    assert of.set == "test"
    assert dev[of.decoder] == min(dev.values())
    assert chosen(run, "dev", "greedy").set == "dev"
    with pytest.raises(InputError, match=r"--set nope: .* dev, test"):
        chosen(run, "nope", None)
    with pytest.raises(InputError, match=r"--decoder nope: .* greedy"):
        chosen(run, None, "nope")


def test_whatever_the_data_hold_is_text(copied):
    ids = {}
    for path in sorted(copied.glob("manifests/*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for i, row in enumerate(rows):
            ids[row["id"]] = row["id"] = f"{NASTY}{path.stem}{i}"
            row["speaker"] = f"{NASTY}{i % 2}"
            row["text"] = f"{row['text']} {NASTY} \x07"
            row["words"] = [*row["words"], [NASTY, 0.1, 0.2]]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in copied.glob("decoded/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            name = next(new for old, new in ids.items() if old == row["id"])
            row |= {"id": name, "text": f"{row['text']} {NASTY}"}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (copied / "config.yaml").write_text(f"# </pre>{NASTY}\n")
    environment = json.loads((copied / "results.json").read_text())
    environment["environment"]["processor"] = NASTY
    environment["decoders"] = {NASTY: {NASTY: NASTY}}
    (copied / "results.json").write_text(json.dumps(environment))
    renamed = copied.with_name(f"a{NASTY.replace('/', '')}")
    copied.rename(renamed)
    html = report(renamed)
    page = Page(html)
    html.encode()
    assert len(page.all("script")) == 1
    assert page.text.count(NASTY) > 20
    plain = Page(html.replace(NASTY, "")).elements
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain]


def test_an_unfinished_run_is_reported_as_far_as_it_is(copied):
    shutil.rmtree(copied / "decoded")
    (copied / "results.json").unlink()
    (copied / "skipped.json").unlink()
    lines = (copied / "metrics.jsonl").read_text().splitlines()
    first = json.dumps({"epoch": 1, "loss": float("nan"), "surprise": [1]})
    (copied / "metrics.jsonl").write_text("\n".join([first, *lines[1:3], lines[3][:40]]))
    page = Page(report(copied))
    assert "has not been judged yet" in page.text
    assert {attrs["id"] for attrs in page.all("section")} == {"training", "data", "setup"}
    assert "epochs" in next(a for a in page.all("svg"))["aria-label"]
    shutil.rmtree(copied / "model")
    shutil.rmtree(copied / "manifests")
    assert "Training loss" in Page(report(copied)).text


def test_a_run_without_its_audio_or_model_is_reported(copied):
    for path in copied.glob("manifests/*.jsonl"):
        path.write_text(path.read_text().replace("/TEST/", "/GONE/"))
    page = Page(report(copied))
    assert page.text.count("Its audio cannot be shown") == len(page.all("article"))
    assert not page.all("audio")
    assert page.all("span", "pair")
    (copied / "model/weights.safetensors").write_bytes(b"")
    page = Page(report(copied))
    assert "The model cannot be loaded" in page.text
    assert "cannot be scored" in page.text


def test_utterances_that_were_not_decoded_are_told(copied):
    path = copied / "decoded/test.greedy.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert "Set test: 2 utterances of the manifest were not decoded." in report(copied)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "config.yaml").unlink(), "not a run directory: expected a config.yaml"),
        (lambda run: (run / "results.json").write_text("{"), "results.json: is not JSON"),
        (lambda run: (run / "results.json").write_text("[]"), "expected a JSON object, found list"),
        (
            lambda run: (shutil.rmtree(run / "decoded"), (run / "metrics.jsonl").unlink()),
            "nothing to report yet: the training has not ended its first epoch",
        ),
        (
            lambda run: (run / "decoded/test.greedy.jsonl").write_text('{"id": 3}\n'),
            "test.greedy.jsonl:1: expected 'id'",
        ),
    ],
)
def test_what_is_no_run_is_one_clear_line(copied, monkeypatch, capsys, spoil, said):
    spoil(copied)
    status, out, err = asr(monkeypatch, capsys, "report", copied, "--out", copied / "r.html")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (copied / "r.html").exists()


def test_the_command_writes_the_report(tone_run, tmp_path, monkeypatch, capsys):
    out_path = tmp_path / "report.html"
    words = ("report", tone_run, "--out", out_path, "--set", "dev", "--decoder", "greedy")
    assert asr(monkeypatch, capsys, *words) == (0, f"{out_path}\n", "")
    assert "dev, greedy" in Page(out_path.read_text()).text
    status, _, err = asr(monkeypatch, capsys, "report", tone_run, "--out", tmp_path / "a.pdf")
    assert status == 2
    assert "expected a name ending in .html" in err
    status, _, err = asr(monkeypatch, capsys, "report", tone_run.parent, "--out", out_path)
    assert status == 2
    assert "not a run directory" in err


def test_markup_is_escaped_unless_it_is_markup():
    inner = el("b", 'a<&"', title='"<')
    assert inner == '<b title="&quot;&lt;">a&lt;&amp;&quot;</b>'
    assert el("p", inner, None, ["x", ["<"]], hidden=True, id=None) == (
        f"<p hidden>{inner}x&lt;</p>"
    )
    assert el("p", "a\x00\ud812b") == "<p>a\ufffd\ufffdb</p>"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 9))
def test_ticks_are_few_and_inside(low, width, most):
    high = low + width
    found = ticks(low, high, most)
    assert len(found) <= most + 1
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert all(low - slack <= t <= high + slack for t in found)
    assert found == sorted(found)


BARS = [Bar(f"speaker{i:03d}", i / 60, i / 80, i / 40, "") for i in range(60)]


def boxes(svg):
    """Corners (left, top, right, bottom) of an SVG's bars and texts, and the texts by name."""
    numbers = [
        {k: float(v) for k, v in e.attrib.items() if k in ("x", "y", "width", "height")}
        for e in svg.iter("rect")
        if e.get("class") == "column"
    ]
    bars = [(n["x"], n["y"], n["x"] + n["width"], n["y"] + n["height"]) for n in numbers]
    texts = {}
    for e in svg.iter("text"):
        width = 7 * len(e.text)
        left = float(e.get("x")) - width * {"end": 1, "middle": 0.5}.get(e.get("text-anchor"), 0)
        texts[e.text] = (left, float(e.get("y")) - 9, left + width, float(e.get("y")) + 2)
    return bars, texts


@pytest.mark.parametrize("n", [1, 4, 60])
@pytest.mark.parametrize("overall", [0.001, 0.3, 0.9])
def test_no_name_lies_over_a_bar(n, overall):
    some = [*BARS[: n - 1], Bar("none", math.nan, math.nan, math.nan, "")]
    for chart in (rows_chart("a", BARS[-n:], overall), columns_chart("a", some[:8], overall, "s")):
        bars, texts = boxes(ElementTree.fromstring(chart))
        assert f"all: {100 * overall:.1f} %" in texts
        for text, (left, top, right, bottom) in texts.items():
            for bar in bars:
                apart = right <= bar[0] or bar[2] <= left or bottom <= bar[1] or bar[3] <= top
                assert apart, text


def test_every_speaker_is_named():
    _, texts = boxes(ElementTree.fromstring(rows_chart("a", BARS, 0.3)))
    assert {bar.name for bar in BARS} <= set(texts)
    long = rows_chart("a", [Bar("a" * 60, 0.1, 0.1, 0.2, "")], 0.1)
    _, texts = boxes(ElementTree.fromstring(long))
    assert min(left for left, *_ in texts.values()) >= -16


@given(
    st.lists(st.sampled_from("aa ao h# pau pcl q t".split())),
    st.sampled_from(["timit39", "none"]),
    st.sampled_from(["count", "merge", "ignore"]),
)
def test_scored_phones_are_those_of_the_policy(phones, folding, silence):
    kept = kept_phones(phones, folding, silence)
    assert [symbol for _, symbol in kept] == phone_policy(phones, folding, silence)
    assert all(phone_policy([phones[i]], folding, "count") == [symbol] for i, symbol in kept)


@given(st.data())
def test_a_subset_of_alignments_is_that_of_its_pairs(data):
    tokens = st.lists(st.sampled_from("abc"), max_size=4)
    pairs = data.draw(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=5))
    places = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=5))
    some, again = align(pairs).subset(places), align([pairs[i] for i in places])
    assert list(some) == list(again)
    assert some.counts.tolist() == again.counts.tolist()


# While an utterance plays, its place and the loudest frequency; at last, where it stopped.
LISTEN = """
const audio = document.querySelector("article audio");
if (!window.analyser) {
  const context = new AudioContext();
  window.analyser = new AnalyserNode(context, {fftSize: 1024, smoothingTimeConstant: 0});
  context.createMediaElementSource(audio).connect(analyser).connect(context.destination);
  document.addEventListener("pointerdown", () => context.resume());
}
const heard = [];
const levels = new Float32Array(analyser.frequencyBinCount);
let goes_on = true;
const note = () => {
  analyser.getFloatFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  if (!audio.paused) heard.push([audio.currentTime, loudest * analyser.context.sampleRate / 1024]);
  if (goes_on) setTimeout(note, 5);
};
audio.addEventListener("playing", note, {once: true});
window.stopped = new Promise((done) => audio.addEventListener("pause", () => {
  goes_on = false;
  done([...heard, [audio.currentTime, 0]]);
}, {once: true}));
"""


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its driver")
@pytest.mark.parametrize("kind", ["phone", "char", "framewise"])
def test_in_a_browser(pages, tmp_path, kind):
    path = tmp_path / "report.html"
    path.write_text(pages[kind][1], encoding="utf-8")
    with browser() as window:
        window.open(path)
        pictures = window.run("return [...document.images].map((i) => i.naturalWidth)")
        assert len(pictures) >= 8
        assert all(pictures)
        assert window.run("return getComputedStyle(document.body).fontSize") == "15px"
        audible = "return [...document.querySelectorAll('audio')].map((a) => a.readyState)"
        assert all(state >= 1 for state in window.run(audible))
        # Nothing is wider than the window but what scrolls by itself.
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")

        window.run(
            "document.querySelector('.hit')"
            ".dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
        )
        assert window.run("return tip.textContent").startswith("epoch 1: ")
        # The same epoch is shown in all the curves.
        assert window.run("return document.querySelectorAll('.hit.here').length") >= 5

        for lane in ("said: words", "said: phones", "heard"):
            if kind == "char" and lane == "said: phones":
                continue
            selector = f"article:nth-of-type(1) [aria-label^='{lane}'] .seg:nth-child(2)"
            window.run(LISTEN)
            window.click(selector)
            times, frequencies = zip(*window.run("return stopped"), strict=True)
            data = window.run("return {...document.querySelector(arguments[0]).dataset}", selector)
            start, end = float(data["start"]), float(data["end"])
            assert start - 0.001 <= times[0] < start + 0.2
            assert list(times) == sorted(times)
            # A busy machine looks at the clock late.
            assert end - 0.001 <= times[-1] < end + 0.2
            if lane == "said: phones":
                tone = TONES[data["tip"].partition(",")[0]]
                assert np.median(frequencies) == pytest.approx(tone, rel=0.12)
            assert not window.run("return document.querySelectorAll('.playing').length")
        assert not window.run("return document.querySelector('article .playhead').hidden")
        assert window.pdf().count(b"/Type /Page\n") >= 3
        width = "return [document.documentElement.scrollWidth, innerWidth]"
        window.call("POST", "/window/rect", width=500, height=900)
        wide, screen = window.run(width)
        assert wide <= screen <= 500
        assert window.console() == []
