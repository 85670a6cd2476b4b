"""The page of `asr serve` in Debian's Chromium, as people use it: `make browser`."""

import json
import os
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from running import serving

from asr.audio.read import load_audio
from asr.recognize.recognizer import Recognizer
from asr.recognize.transcripts import formats_named

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip(
        "the page is not tried: there is no chromium (make browser)", allow_module_level=True
    )
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page is not tried: there is no Playwright (make browser)"
)
#: Where `make browser` puts it; MPL-2.0, and no part of what is shipped.
AXE = Path(sys.prefix, "node_modules/axe-core/axe.min.js")
#: Pictures are kept where this says, to be looked at.
SCREENSHOTS = os.environ.get("SCREENSHOTS")
WIDTHS = {"wide": 1440, "narrow": 390}


@pytest.fixture(scope="module")
def heard(model, said, tmp_path_factory):
    """Transcripts of three files that a browser plays, too, by path."""
    recognizer = Recognizer.load(model)
    paths = []
    for number, utterance in enumerate(said[:3]):
        paths.append(tmp_path_factory.getbasetemp() / f"said {number}.wav")
        soundfile.write(paths[-1], load_audio(utterance.audio), 16_000)
    return {path: recognizer.transcribe(path) for path in paths}


@pytest.fixture(scope="module")
def address(model, live_run):
    with serving("--model", f"tones={model}", "--model", f"live={live_run}") as (_, found):
        yield found


@pytest.fixture(scope="module")
def chromium(heard, tmp_path_factory):
    """A browser whose microphone hears the third file once, after half a second."""
    sound = tmp_path_factory.mktemp("microphone") / "said.wav"
    soundfile.write(sound, load_audio(list(heard)[2], 48_000), 48_000)
    flags = (
        "--headless=new --no-sandbox --use-fake-device-for-media-stream "
        f"--use-fake-ui-for-media-stream --use-file-for-fake-audio-capture={sound}"
    )
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, address):
    """Open the page; at the end nothing was amiss, and nobody else was asked."""
    contexts, amiss, asked, addresses = [], [], set(), set()

    def told(message):
        # That a file or a key is refused is the server's answer, which the browser notes, too.
        if not re.search("status of 40[01]", message):
            amiss.append(message)

    def open_page(width=1440, scheme="light", address=address, models=True, script=""):
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            permissions=["microphone", "clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.add_init_script(script)
        page.on("console", lambda m: m.type in ("error", "warning") and told(m.text))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("request", lambda request: asked.add(urlsplit(request.url)[:2]))
        addresses.add(urlsplit(address).netloc)
        page.goto(address)
        if models:
            page.locator("#model option").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert amiss == []
    assert {place for scheme, place in asked if scheme != "blob"} == addresses


def drop(page, *paths):
    """Let files or folders fall onto the page, as from a file manager."""
    box = page.locator("#main").bounding_box()
    at = {"x": box["x"] + 40, "y": box["y"] + 40}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})


def finished(page, n):
    """The list's entries, the last batch of files first, when ``n`` of them are recognised."""
    page.locator(".item[data-state=done]").nth(n - 1).wait_for()
    return page.locator(".item")


def words_of(transcript):
    return [word.label for word in transcript.words]


def the_only(page, path):
    """The transcript of a file, when it is there."""
    page.set_input_files("#files", path)
    finished(page, 1)
    article = page.locator("article")
    article.locator("[data-lane=words] button").first.wait_for()
    return article


def playing(page, action):
    """Where the sound that an action starts begins and ends, in seconds."""
    audio = page.locator("audio")
    audio.evaluate(
        """audio => {
            audio.dataset.heard = '';
            for (const name of ['playing', 'pause']) {
                audio.addEventListener(name, () => {
                    audio.dataset.heard += ` ${audio.currentTime}`;
                });
            }
        }"""
    )
    action()
    playwright.expect(audio).to_have_attribute("data-heard", re.compile(r"^ \S+ \S+$"))
    return map(float, audio.get_attribute("data-heard").split())


def picture(page, name):
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS, f"{name}.png"), full_page=True)


def faults_of(page):
    """What axe finds that hinders people seriously."""
    if not AXE.exists():
        pytest.skip("there is no axe-core (make browser)")
    page.route("**/axe.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
    page.add_script_tag(url="/axe.js")
    found = page.evaluate("axe.run()")
    assert found["passes"]
    return [
        (fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]][:3])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]


def test_two_files_that_are_dropped_become_text(opened, heard):
    page = opened()
    paths = list(heard)[:2]
    drop(page, *paths)
    items = finished(page, 2)
    for number, path in enumerate(paths):
        items.nth(number).click()
        assert page.get_by_role("heading", level=2).inner_text() == path.name
        words = page.locator(".words .word").all_inner_texts()
        assert words == words_of(heard[path])
        assert heard[path].text in items.nth(number).inner_text()
    playwright.expect(page.get_by_role("status")).to_have_text("all done")


def test_a_folder_that_is_dropped_is_looked_through(opened, heard, tmp_path):
    folder = tmp_path / "said" / "deep"
    folder.mkdir(parents=True)
    for number, path in enumerate(heard):
        shutil.copy(path, folder / f"{number}.wav")
    (folder / "notes.txt").write_text("none of it")
    page = opened()
    drop(page, tmp_path / "said")
    assert finished(page, 3).count() == 3
    status = page.get_by_role("status")
    playwright.expect(status).to_have_text("all done, 1 left out: no audio")


def test_many_files_at_once_show_how_far_they_are(opened, heard, tmp_path):
    for number in range(12):
        shutil.copy(list(heard)[number % 3], tmp_path / f"{number:02}.wav")
    (tmp_path / "12.wav").write_bytes(b"no audio")
    page = opened()
    page.evaluate(
        """() => {
            window.told = [];
            const [status, bar] = ['status', 'overall'].map((id) => document.getElementById(id));
            const tell = () => told.push([status.textContent, bar.value, bar.max, bar.hidden]);
            new MutationObserver(tell).observe(status, { childList: true });
        }"""
    )
    page.set_input_files("#files", sorted(tmp_path.iterdir()))
    items = finished(page, 12)
    playwright.expect(page.get_by_role("status")).to_have_text("all done, 1 failed")
    told = page.evaluate("told")
    assert {(f"{n} of 13 done", n, 13, False) for n in range(1, 12)} <= set(map(tuple, told))
    assert told[-1][3]
    names = [f"{number:02}.wav" for number in range(13)]
    assert items.locator(".name").all_inner_texts() == names
    assert "not audio" in items.last.inner_text()


def test_the_list_is_a_history(opened, heard):
    page = opened()
    first, second, _ = heard
    the_only(page, first)
    page.set_input_files("#files", second)
    items = finished(page, 2)
    assert page.get_by_role("heading", level=2).inner_text() == second.name
    items.nth(1).click()
    assert page.locator(".item[aria-current]").inner_text().startswith(first.name)
    assert page.locator(".words .word").all_inner_texts() == words_of(heard[first])
    page.get_by_role("button", name=f"Remove {first.name}").click()
    assert page.get_by_role("heading", level=2).inner_text() == second.name
    page.get_by_role("button", name=f"Remove {second.name}").click()
    assert page.locator("#welcome").is_visible()


@pytest.mark.parametrize("place", [".words .word", "[data-lane=words] button"])
def test_a_word_that_is_clicked_is_heard(opened, heard, place):
    page = opened()
    path, transcript = next(iter(heard.items()))
    article = the_only(page, path)
    word = transcript.words[0]
    began, ended = playing(page, article.locator(place).first.click)
    assert word.start_s - 0.01 <= began < word.end_s
    assert word.end_s <= ended < transcript.duration_s


def test_words_lie_under_their_sound_in_the_colour_of_their_confidence(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    article = the_only(page, path)
    lane = article.locator("[data-lane=words]").bounding_box()
    buttons = article.locator("[data-lane=words] button")
    assert buttons.all_inner_texts() == words_of(transcript)
    for number, word in enumerate(transcript.words):
        button = buttons.nth(number)
        box = button.bounding_box()
        second = lane["width"] / transcript.duration_s
        assert box["x"] - lane["x"] == pytest.approx(word.start_s * second, abs=1)
        assert box["width"] == pytest.approx((word.end_s - word.start_s) * second, abs=1)
        sureness = min(4, int(5 * word.confidence))
        assert re.search(rf"\bc{sureness}\b", button.get_attribute("class"))


def test_the_waveform_and_the_slider_seek(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    article = the_only(page, path)
    now = "document.querySelector('audio').currentTime"
    slider = article.get_by_role("slider", name="Position")
    slider.focus()
    page.keyboard.press("End")
    assert page.evaluate(now) == pytest.approx(transcript.duration_s, abs=0.05)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert 0 < page.evaluate(now) < 0.1
    lane = article.locator("[data-lane=words]").bounding_box()
    wave = article.locator(".wave").bounding_box()
    page.mouse.click(lane["x"] + lane["width"] / 2, wave["y"] + 60)
    assert transcript.duration_s / 2 - 0.02 <= page.evaluate(now) <= transcript.duration_s
    play = article.locator(".play")
    playwright.expect(play).to_have_attribute("aria-label", "Play")


def test_keys_go_from_word_to_word(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    words = the_only(page, path).locator(".words .word")
    words.first.focus()
    focused = page.locator(".word:focus")
    page.keyboard.press("End")
    assert focused.inner_text() == transcript.words[-1].label
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert focused.inner_text() == transcript.words[1].label
    page.keyboard.press("Enter")
    assert page.evaluate("!document.querySelector('audio').paused")


def test_phones_are_shown_and_heard_on_demand(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    article = the_only(page, path)
    article.get_by_role("button", name=f"{len(transcript.labels)} phones").click()
    phones = article.get_by_role("group", name="phones under the waveform").get_by_role("button")
    assert phones.all_inner_texts() == [label.label for label in transcript.labels]
    phone = transcript.labels[2]
    assert f"{phone.start_s:.2f} to {phone.end_s:.2f} s" in phones.nth(2).get_attribute("title")
    began, ended = playing(page, phones.nth(2).click)
    assert phone.start_s - 0.01 <= began < phone.end_s
    assert phone.end_s <= ended


def test_the_posteriorgram_is_what_the_net_says(opened, heard, model):
    page = opened()
    path = next(iter(heard))
    recognizer = Recognizer.load(model)
    (log_probs,) = recognizer.emissions([recognizer.read(path)])
    symbols, clock = recognizer.bundle.labels.symbols, recognizer.bundle.clock
    article = the_only(page, path)
    article.get_by_role("button", name="Posteriorgram").click()
    image = article.get_by_role("img", name=re.compile("Posteriorgram from 0:00.0"))
    playwright.expect(image).to_have_attribute("data-rows", re.compile("blank$"))
    rows = image.get_attribute("data-rows").split()
    assert set(rows[:-1]) == {symbols[i] for i in np.flatnonzero(log_probs.max(axis=0) > -2.3)} - {
        symbols[0]
    }
    box, lane = image.bounding_box(), article.locator("[data-lane=words]").bounding_box()
    second = lane["width"] / heard[path].duration_s
    # The accent is much greener than red; the ground is neither.
    pixels = image.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
            return { width, height, data: [...data] };
        }"""
    )
    data = np.reshape(pixels["data"], (pixels["height"], pixels["width"], 4))
    n_seen = 0
    for frame, row in enumerate(log_probs):
        best = int(row.argmax())
        if best == 0 or row[best] < np.log(0.9):
            continue
        x = lane["x"] - box["x"] + clock.centre_s(frame) * second
        for number, name in enumerate(rows[:-1]):
            red, green, *_ = data[16 * number + 8, round(x)]
            assert (green - red > 70) == (name == symbols[best])
        page.mouse.move(box["x"] + x, box["y"] + 8)
        told = f": {symbols[best]} {round(100 * np.exp(row[best]))} %"
        playwright.expect(article.locator(".readout")).to_contain_text(told)
        n_seen += 1
    assert n_seen > 5


def test_a_long_recording_is_seen_through_a_window(opened, heard, tmp_path):
    recording = np.concatenate([load_audio(path, 16_000) for path in heard] * 16)[: 45 * 16_000]
    soundfile.write(tmp_path / "long.wav", recording, 16_000)
    page = opened()
    article = the_only(page, tmp_path / "long.wav")
    said = article.locator(".words .word").count()
    lane = article.locator("[data-lane=words] button")
    first = lane.all_inner_texts()
    assert 0 < len(first) < said / 2
    with page.expect_request("**/v1/audio/emissions") as asked:
        article.get_by_role("button", name="Posteriorgram").click()
    # Only the stretch and what is around it is sent.
    n_bytes = int(asked.value.all_headers()["content-length"])
    assert n_bytes < 2 * 16_000 * 30 < (tmp_path / "long.wav").stat().st_size
    image = article.locator(".posteriors")
    playwright.expect(image).to_have_attribute("aria-label", re.compile("from 0:00.0 to"))
    starts = [float(b.get_attribute("title").split()[1]) for b in lane.all()]
    with page.expect_request("**/v1/audio/emissions"):
        article.get_by_role("button", name="Later").click()
    playwright.expect(image).to_have_attribute("aria-label", re.compile("from 0:0[5-9]"))
    later = [float(b.get_attribute("title").split()[1]) for b in lane.all()]
    assert max(starts) < max(later)
    assert min(later) > min(starts)
    parts = article.get_by_role("button", name=re.compile("hear from"))
    assert parts.count() > 1
    parts.nth(1).click()
    playwright.expect(article.locator("[data-lane=words] .playing")).not_to_have_count(0)


def test_each_format_is_what_the_command_writes(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    article = the_only(page, path)
    for name, suffix in (
        ("txt", "txt"),
        ("srt", "srt"),
        ("vtt", "vtt"),
        ("json", "json"),
        ("textgrid", "TextGrid"),
    ):
        with page.expect_download() as download:
            article.locator(f"[data-format={name}]").click()
        assert download.value.suggested_filename == f"{path.stem}.{suffix}"
        (chosen,) = formats_named(name).values()
        found = Path(download.value.path()).read_text(encoding="utf-8")
        if name == "json":
            # The server knows no folders.
            expected = json.loads(chosen.write(transcript)) | dict.fromkeys(
                ("id", "audio_filepath"), path.name
            )
            assert json.loads(found) == expected
        else:
            assert found == chosen.write(transcript)
    article.locator("[data-format=copy]").click()
    playwright.expect(page.get_by_role("status")).to_have_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == transcript.text


def test_words_to_listen_for_are_heard(opened, heard, model):
    page = opened()
    path = next(iter(heard))
    article = the_only(page, path)
    recognizer = Recognizer.load(model).with_hotwords(["aim:5", "see:5"])
    expected = words_of(recognizer.transcribe(path))
    page.get_by_text("Words to listen for").click()
    page.get_by_label("Names and terms").fill("aim, see")
    page.evaluate(
        """() => {
            window.sent = [];
            const append = FormData.prototype.append;
            FormData.prototype.append = function (...field) {
                sent.push(field.slice(0, 2).map(String));
                append.apply(this, field);
            };
        }"""
    )
    article.get_by_role("button", name="Recognise again").click()
    article.locator(".words .word").first.wait_for()
    sent = [value for name, value in page.evaluate("sent") if name == "keywords[]"]
    assert sent == ["aim", "see"]
    playwright.expect(article.locator(".words .word")).to_have_text(expected)


def test_a_server_that_asks_for_a_key_gets_it(opened, heard, live_run, tmp_path):
    (tmp_path / "keys").write_text("secret\n")
    path = next(iter(heard))
    with serving("--model", live_run, "--key-file", tmp_path / "keys") as (_, address):
        page = opened(address=address, models=False)
        key = page.get_by_label("This server asks for a key")
        key.fill("wrong")
        page.get_by_role("button", name="Use it").click()
        status = page.get_by_role("status")
        playwright.expect(status).to_contain_text("Incorrect API key")
        page.set_input_files("#files", path)
        playwright.expect(page.get_by_role("alert")).to_contain_text("Incorrect API key")
        key.fill("secret")
        page.get_by_role("button", name="Use it").click()
        playwright.expect(key).to_be_hidden()
        page.get_by_role("button", name="Recognise again").click()
        finished(page, 1)
        page.locator("#record").click()
        playwright.expect(page.locator(".committed")).not_to_be_empty()
        page.locator("#record").click()
        finished(page, 2)


def test_what_is_spoken_becomes_text(opened):
    page = opened()
    page.locator("#record").click()
    playwright.expect(page.locator("#record-text")).to_have_text(re.compile(r"Stop \(0:0[2-9]"))
    loud = """canvas => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 === 3 && value > 0).length / data.length;
    }"""
    assert page.get_by_role("img", name="Loudness of the microphone").evaluate(loud) > 0.01
    page.locator("#record").click()
    finished(page, 1)
    article = page.locator("article")
    assert article.get_by_role("heading").inner_text().startswith("recording")
    assert article.locator(".words .word").count() > 0


def test_words_appear_while_one_speaks(opened):
    page = opened()
    page.select_option("#model", "live")
    page.evaluate(
        """() => {
            window.seen = { committed: [''], tentative: [''] };
            new MutationObserver((changes) => {
                for (const { target } of changes) {
                    const values = seen[target.className];
                    if (values && values.at(-1) !== target.textContent) {
                        values.push(target.textContent);
                    }
                }
            }).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    page.locator("#record").click()
    article = page.locator("article")
    committed, tentative = article.locator(".committed"), article.locator(".tentative")
    playwright.expect(committed).to_have_text(re.compile(r"^\w+ \w+"))
    assert page.locator("#record").get_attribute("aria-pressed") == "true"
    said, likely = (page.evaluate("seen")[name] for name in ("committed", "tentative"))
    assert len(said) > 2
    for before, after in pairwise(said):
        assert after.startswith(before)
    assert any(likely)
    assert float(tentative.evaluate("part => getComputedStyle(part).opacity")) < 1
    picture(page, "live")
    page.locator("#record").click()
    finished(page, 1)
    assert article.get_by_role("heading").inner_text().startswith("recording")
    words = " ".join(article.locator(".words .word").all_inner_texts())
    assert words.startswith(said[-1])


def test_where_there_is_no_microphone_it_is_told(opened):
    page = opened(script="Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.locator("#record").click()
    status = page.get_by_role("status")
    playwright.expect(status).to_have_text(re.compile("^no microphone: .* https$"))
    assert page.locator(".item").count() == 0


def test_a_recording_that_is_removed_ends(opened):
    page = opened()
    page.select_option("#model", "live")
    page.locator("#record").click()
    page.get_by_role("button", name="Remove").click()
    playwright.expect(page.locator("#record")).to_have_attribute("aria-pressed", "false")
    assert page.locator(".item").count() == 0


def test_what_cannot_be_read_is_told_and_removed(opened, heard, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    page = opened()
    page.set_input_files("#files", [tmp_path / "broken.wav"])
    alert = page.get_by_role("alert")
    playwright.expect(alert).to_contain_text("broken.wav: not audio that can be read")
    picture(page, "error")
    page.get_by_role("button", name="Remove").click()
    assert page.locator(".item").count() == 0
    assert page.locator("#welcome").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_looks_right_and_hinders_nobody(opened, heard, tmp_path, width, scheme):
    page = opened(WIDTHS[width], scheme)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    picture(page, f"empty_{width}_{scheme}")
    assert faults_of(page) == []
    assert page.evaluate(fits)
    (tmp_path / "unreadable.wav").write_bytes(b"no audio")
    page.set_input_files("#files", [*heard, tmp_path / "unreadable.wav"])
    finished(page, 3)
    page.locator(".show-labels").click()
    page.locator(".show-posteriors").click()
    page.locator(".posteriors[data-rows]").wait_for()
    assert page.evaluate(fits)
    picture(page, f"{width}_{scheme}")
    assert faults_of(page) == []
    page.locator(".item[data-state=failed]").click()
    assert faults_of(page) == []
    assert page.evaluate(fits)
    page.select_option("#model", "live")
    page.locator("#record").click()
    playwright.expect(page.locator(".committed")).not_to_be_empty()
    assert faults_of(page) == []
    assert page.evaluate(fits)
    page.locator("#record").click()
