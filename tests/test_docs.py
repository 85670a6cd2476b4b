"""The documentation builds without a warning, and its JSON schemas hold for what commands write."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import asr

import asr as package

DOCS = Path(__file__).parents[1] / "docs"


def test_pages_build(tmp_path):
    pytest.importorskip("sphinx")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    commands = (tmp_path / "generated/commands.html").read_text("utf-8")
    assert 'id="asr-lm-mix"' in commands
    assert "--lookahead-ms" in commands
    settings = (tmp_path / "generated/configuration.html").read_text("utf-8")
    assert "framewise_weight" in settings
    pages = "".join(page.read_text("utf-8") for page in tmp_path.rglob("*.html"))
    assert 'src="http' not in pages
    assert 'rel="stylesheet" href="http' not in pages


def test_api_page_is_whole():
    page = (DOCS / "api.md").read_text("utf-8")
    missing = [
        name for name in package.__all__ if name != "__version__" and f":: asr.{name}\n" not in page
    ]
    assert missing == []


def validator(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((DOCS / "schema" / f"{name}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def files(said, tmp_path):
    text = tmp_path / "said.txt"
    text.write_text(said[0].text)
    return said[0].audio, text


def test_transcripts(tone_run, files, monkeypatch, capsys):
    audio, text = files
    schema = validator("transcript")
    for words in (
        ("transcribe", "--decoder", "beam", "--nbest", "3", "--channels", "each", audio),
        ("transcribe", "--lexicon", "model", audio),
        ("align", audio, text),
    ):
        command = (*words, "--model", tone_run, "--format", "json")
        status, out, _ = asr(monkeypatch, capsys, *command)
        assert status == 0
        schema.validate(json.loads(out))


def test_events(live_run, files, monkeypatch, capsys):
    command = ("listen", "--model", live_run, files[0], "--format", "jsonl")
    status, out, _ = asr(monkeypatch, capsys, *command)
    assert status == 0
    events = lines(out)
    for event in events:
        validator("listen-event").validate(event)
    assert events[-1]["event"] == "final"


def test_scores(tone_run, monkeypatch, capsys):
    test, greedy, beam = (
        tone_run / path
        for path in ("manifests/test.jsonl", "decoded/test.greedy.jsonl", "decoded/test.beam.jsonl")
    )
    unit = ("--unit", "phone", "--json")
    _, out, _ = asr(monkeypatch, capsys, "score", test, greedy, *unit)
    validator("score").validate(json.loads(out))
    _, out, _ = asr(monkeypatch, capsys, "score", test, greedy, beam, *unit, "--compare")
    validator("comparison").validate(json.loads(out))


def test_check(tone_run, tmp_path, monkeypatch, capsys):
    lexicon = tmp_path / "few.txt"
    lexicon.write_text("nothing\tn ah\n")
    command = ("check", tone_run / "manifests/test.jsonl", "--lexicon", lexicon, "--json")
    _, out, _ = asr(monkeypatch, capsys, *command)
    found = json.loads(out)
    validator("check").validate(found)
    assert found["findings"]


def test_runs(tone_run):
    validator("results").validate(json.loads((tone_run / "results.json").read_text()))
    for name, schema in (("metrics", "metrics-line"), ("manifests/train", "manifest-line")):
        entries = lines((tone_run / f"{name}.jsonl").read_text())
        assert entries
        for entry in entries:
            validator(schema).validate(entry)
