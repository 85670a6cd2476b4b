"""`asr demo` as `make demo` runs it, then every command of the README and the guides on that."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fake_timit
import pytest

README = Path(__file__).parents[1] / "README.md"
GUIDES = ("start", "transcribe", "align", "score", "train", "language-models")
PAGES = [README, *(README.parent / f"docs/{name}.md" for name in GUIDES)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder where the demo has run, with the recipes of the checkout beside it."""
    folder = tmp_path_factory.mktemp("readme")
    subprocess.run([*asr(), "demo", "--out", "demo"], cwd=folder, check=True, timeout=900)
    return folder


def asr():
    return [sys.executable, "-c", "from asr.cli import main; main()"]


def blocks(language):
    return [
        block
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]


def commands():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    # What the README shows of a guide need not be run twice.
    return list(dict.fromkeys(line for line in lines if not line.startswith("make ")))


def test_demo_hears_unseen_voices(place):
    results = json.loads((place / "demo/run/results.json").read_text())
    test = results["sets"]["test"]
    assert test["greedy"]["PER"]["error_rate"] <= 0.1
    assert test["beam"]["PER"]["error_rate"] <= 0.1
    assert test["beam+lexicon"]["WER"]["error_rate"] <= 0.1


def test_demo_again_shows_the_same(place):
    again = subprocess.run(
        [*asr(), "demo", "--out", "demo"], cwd=place, capture_output=True, text=True, check=True
    )
    assert "Trained before" in again.stdout
    assert "heard:" in again.stdout


def test_every_command(place, tmp_path):
    timit = fake_timit.build(tmp_path / "fake")
    lines = commands()
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line.replace("/data/TIMIT", str(timit)))
        assert words[0] == "asr", line
        done = subprocess.run([*asr(), *words[1:]], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        written = words[words.index("--out") + 1 :][:1] if "--out" in words else []
        assert done.stdout.strip() or any((place / name).exists() for name in written), line


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples(place, code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if not target.startswith("generated/"):
            assert (page.parent / target).exists(), target
