"""The page of `asr serve` in Debian's Chromium, as people use it: `make browser`."""

import os
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

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
    contexts, amiss, asked = [], [], set()

    def told(message):
        # That a file is refused is the server's answer, which the browser notes, too.
        if "status of 400" not in message:
            amiss.append(message)

    def open_page(width=1440, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            permissions=["microphone", "clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda m: m.type in ("error", "warning") and told(m.text))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("request", lambda request: asked.add(urlsplit(request.url)[:2]))
        page.goto(address)
        page.locator("#model option").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert amiss == []
    assert {place for scheme, place in asked if scheme != "blob"} == {urlsplit(address).netloc}


def drop(page, *paths):
    """Let files or folders fall onto the page, as from a file manager."""
    box = page.locator("#drop").bounding_box()
    at = {"x": box["x"] + 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})


def results(page, n):
    """The ``n`` transcripts that the page shows, when all are there: the last first."""
    page.locator("article:has(.downloads:visible)").nth(n - 1).wait_for()
    return page.locator("article")


def test_two_files_that_are_dropped_become_text(opened, heard):
    page = opened()
    paths = list(heard)[:2]
    drop(page, *paths)
    results(page, 2)
    for path in paths:
        article = page.locator("article", has=page.get_by_role("heading", name=path.name))
        words = article.locator(".words .word").all_inner_texts()
        assert words == [word.label for word in heard[path].words]
    playwright.expect(page.get_by_role("status")).to_have_text("all done")


def test_a_folder_that_is_dropped_is_looked_through(opened, heard, tmp_path):
    folder = tmp_path / "said" / "deep"
    folder.mkdir(parents=True)
    for number, path in enumerate(heard):
        shutil.copy(path, folder / f"{number}.wav")
    (folder / "notes.txt").write_text("none of it")
    page = opened()
    drop(page, tmp_path / "said")
    assert results(page, 3).count() == 3


def test_a_word_that_is_clicked_is_heard(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    page.set_input_files("#files", path)
    article = results(page, 1).first
    word = transcript.words[0]
    audio = article.locator("audio")
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
    article.locator(".words .word").first.click()
    playwright.expect(audio).to_have_attribute("data-heard", re.compile(r"^ \S+ \S+$"))
    began, ended = map(float, audio.get_attribute("data-heard").split())
    assert word.start_s - 0.01 <= began < word.end_s
    assert word.end_s <= ended < transcript.duration_s


def test_keys_go_from_word_to_word(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    page.set_input_files("#files", path)
    words = results(page, 1).first.locator(".words .word")
    words.first.focus()
    focused = page.locator(".word:focus")
    page.keyboard.press("End")
    assert focused.inner_text() == transcript.words[-1].label
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert focused.inner_text() == transcript.words[1].label
    page.keyboard.press("Enter")
    playing = "!document.querySelector('audio').paused"
    assert page.evaluate(playing)


def test_each_format_is_what_the_command_writes(opened, heard):
    page = opened()
    path, transcript = next(iter(heard.items()))
    page.set_input_files("#files", path)
    article = results(page, 1).first
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
            assert f'"text":"{transcript.text}"' in found.replace('": "', '":"')
        else:
            assert found == chosen.write(transcript)
    article.locator("[data-format=copy]").click()
    playwright.expect(page.get_by_role("status")).to_have_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == transcript.text


def test_what_is_spoken_becomes_text(opened):
    page = opened()
    page.locator("#record").click()
    playwright.expect(page.locator("#record-text")).to_have_text(re.compile(r"Stop \(0:0[2-9]"))
    page.locator("#record").click()
    article = results(page, 1).first
    assert article.get_by_role("heading").inner_text().startswith("recording")
    assert article.locator(".words .word").count() > 0


def test_words_appear_while_one_speaks(opened):
    page = opened()
    page.select_option("#model", "live")
    page.locator("#record").click()
    article = page.locator("article")
    committed, tentative = article.locator(".committed"), article.locator(".tentative")
    seen = [""]
    tentative.wait_for(state="attached")
    page.evaluate(
        """() => {
            window.likely = new Set();
            const tentative = document.querySelector('.tentative');
            new MutationObserver(() => window.likely.add(tentative.textContent))
                .observe(tentative, { childList: true });
        }"""
    )
    while len(seen) < 4:
        playwright.expect(committed).not_to_have_text(seen[-1])
        seen.append(committed.inner_text())
    for before, after in pairwise(seen):
        assert after.startswith(before)
    assert page.locator("#record").get_attribute("aria-pressed") == "true"
    assert any(page.evaluate("[...likely]"))
    assert float(tentative.evaluate("part => getComputedStyle(part).opacity")) < 1
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS, "live.png"))
    page.locator("#record").click()
    found = results(page, 1).first
    assert found.get_by_role("heading").inner_text().startswith("recording")
    words = " ".join(found.locator(".words .word").all_inner_texts())
    assert words.startswith(seen[-1])


def test_a_recording_that_is_removed_ends(opened):
    page = opened()
    page.select_option("#model", "live")
    page.locator("#record").click()
    page.get_by_role("button", name="Remove").click()
    playwright.expect(page.locator("#record")).to_have_attribute("aria-pressed", "false")
    assert page.locator("article").count() == 0


def test_what_cannot_be_read_is_told_and_removed(opened, heard, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    page = opened()
    page.set_input_files("#files", [tmp_path / "broken.wav"])
    alert = page.get_by_role("alert")
    playwright.expect(alert).to_contain_text("broken.wav: not audio that can be read")
    page.get_by_role("button", name="Remove").click()
    assert page.locator("article").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_looks_right_and_hinders_nobody(opened, heard, width, scheme):
    page = opened(WIDTHS[width], scheme)
    page.set_input_files("#files", list(heard))
    results(page, 3)
    page.locator(".labels summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS, f"{width}_{scheme}.png"), full_page=True)
    if not AXE.exists():
        pytest.skip("there is no axe-core (make browser)")
    page.route("**/axe.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
    page.add_script_tag(url="/axe.js")
    found = page.evaluate("axe.run()")
    faults = [
        (fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]][:3])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert faults == []
    assert found["passes"]
